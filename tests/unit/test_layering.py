"""Dependencies between the modules of rust/core point one way."""

import re
from pathlib import Path

CORE = Path(__file__).parents[2] / "rust" / "core" / "src"

SHARED = {"addr", "config", "mutant", "packet", "queue", "stats", "time", "tuple"}
MAY_USE: dict[str, set[str]] = {
    "addr": {"stats"},
    "time": set(),
    "tuple": set(),
    "stats": set(),
    "config": {"addr", "tuple"},
    "mutant": set(),
    "packet": {"stats"},
    "queue": set(),
    "wire": SHARED,
    "table": SHARED,
    "xlat": SHARED | {"wire"},
    "nat64": SHARED | {"wire", "table", "xlat"},
    "sync": SHARED | {"table"},
    "node": SHARED | {"wire", "table", "xlat", "nat64", "sync"},
}


def uses() -> dict[str, dict[str, set[str]]]:
    """Which file of which module names which other module."""
    found: dict[str, dict[str, set[str]]] = {}
    for path in CORE.rglob("*.rs"):
        relative = path.relative_to(CORE)
        module = relative.parts[0].removesuffix(".rs")
        if module == "lib":
            continue
        # Tests may look wherever they like.
        code = path.read_text().split("#[cfg(test)]")[0]
        code = "\n".join(line for line in code.splitlines() if not line.strip().startswith("//"))
        named = set(re.findall(r"\bcrate::(\w+)", code)) - {module}
        found.setdefault(module, {})[str(relative)] = named
    return found


def test_every_module_has_its_place() -> None:
    assert set(uses()) <= set(MAY_USE)


def test_dependencies_point_one_way() -> None:
    wrong = [
        f"{file} uses {other}"
        for module, files in uses().items()
        for file, named in files.items()
        for other in sorted(named - MAY_USE[module])
    ]
    assert wrong == []
