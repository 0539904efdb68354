import json
from io import StringIO

import pytest

from jsync.log import Format, Log


def line(format: Format, **values: object) -> str:
    stream = StringIO()
    Log(format, stream).info("a message", **values)
    assert stream.getvalue().count("\n") == 1
    return stream.getvalue()


def test_text_is_keys_and_values() -> None:
    text = line("text", node="J", count=3)
    assert text.startswith("time=20")
    assert text.endswith('Z level=info message="a message" node=J count=3\n')


@pytest.mark.parametrize("value", ["two words", 'a "quote"', "a=b", "", "line\nbreak", "\x1b[31m"])
def test_values_cannot_forge_keys_or_lines(value: str) -> None:
    text = line("text", value=value)
    assert json.loads(text.split(" value=")[1]) == value
    assert text.isascii()
    assert "\x1b" not in text


def test_json_is_one_object_a_line() -> None:
    values = json.loads(line("json", node="J", count=3, error=ValueError("x\ny")))
    assert values["level"] == "info"
    assert values["message"] == "a message"
    assert values["count"] == 3
    assert values["error"] == "x\ny"
