import tomllib

from hypothesis import given
from hypothesis import strategies as st

from jsync.toml_lines import Path, key_lines, nearest_line

DOCUMENT = '''# a comment [with] = brackets
[node]
name = "a # b" # c
"quoted key" = 1
x.y = """
multi " = [x]
"""
[nat64]
pool6 = '64::'
list = [ # c
  "a", "]",
  { k = 1, l = [1,2] },
]
[[nat64.pool4]]
prefix = "1"
[[nat64.pool4]]
prefix = "2"
[nat64.pool4.sub]
when = 2024-01-01
[ nat64 . global ]
last = 1'''


def test_finds_every_kind_of_key() -> None:
    lines = key_lines(DOCUMENT)
    assert lines["node",] == 2
    assert lines["node", "name"] == 3
    assert lines["node", "quoted key"] == 4
    assert lines["node", "x", "y"] == 5
    assert lines["nat64", "pool6"] == 9
    assert lines["nat64", "list", 1] == 11
    assert lines["nat64", "list", 2, "l"] == 12
    assert lines["nat64", "pool4", 0, "prefix"] == 15
    assert lines["nat64", "pool4", 1, "prefix"] == 17
    assert lines["nat64", "pool4", 1, "sub", "when"] == 19
    assert lines["nat64", "global", "last"] == 21


def test_nearest_line_is_that_of_what_encloses_a_missing_key() -> None:
    lines = key_lines(DOCUMENT)
    assert nearest_line(lines, ("nat64", "pool4", 1, "ports")) == 16
    assert nearest_line(lines, ("absent",)) is None


KEYS = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
SCALARS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.booleans().map(lambda b: "true" if b else "false"),
    TEXTS.map(lambda t: '"' + t.replace("\\", "\\\\").replace('"', '\\"') + '"'),
    TEXTS.filter(lambda t: "'" not in t).map(lambda t: f"'{t}'"),
    TEXTS.map(lambda t: '"""\n' + t.replace("\\", "\\\\").replace('"', '\\"') + '"""'),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: "[ # ]\n" + ",\n".join(v) + "\n]"),
        st.dictionaries(KEYS, SCALARS.filter(lambda t: "\n" not in t), max_size=2).map(
            lambda d: "{" + ", ".join(f"{k} = {v}" for k, v in d.items()) + "}"
        ),
    ),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_knows_the_line_of_every_key_of_any_document(
    tables: dict[str, dict[str, str]],
) -> None:
    text = ""
    expected: dict[Path, int] = {}
    for table, pairs in tables.items():
        expected[(table,)] = text.count("\n") + 1
        text += f"[{table}] # [x]\n"
        for key, value in pairs.items():
            expected[table, key] = text.count("\n") + 1
            text += f'{key} = {value} # = "\n\n'
    assert tomllib.loads(text).keys() == tables.keys()
    lines = key_lines(text)
    assert {path: lines[path] for path in expected} == expected
