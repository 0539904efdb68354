"""Every command's help has examples, and they are right."""

import argparse
import re
import shlex
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from jsync import cli

NESTED = ("session proxy", "config import", "config check", "config show")


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str) -> str:
    monkeypatch.setattr("sys.argv", ["jsync", *command.split(), "--help"])
    try:
        status = cli.main()
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    assert status == 0
    return capsys.readouterr().out


def examples(text: str) -> Iterator[list[str]]:
    """The words of each example's `jsync`, short of pipes and what a remark says of it."""
    _, _, after = text.partition("\nexample")
    for line in after.splitlines():
        command = re.split(r"\s{2,}", line.strip())[0]
        for part in re.split(r"[|>]", command):
            if part.strip().startswith("jsync "):
                yield shlex.split(part)[1:]


class Parsed(Exception):
    """The arguments are good."""


@pytest.fixture
def only_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command ends where it would begin to do something."""
    parse_args: Any = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *arguments: Any) -> argparse.Namespace:
        options: argparse.Namespace = parse_args(self, *arguments)
        if arguments == ([],) and self.prog == "jsync session":
            return options  # what stood before `proxy`
        raise Parsed

    def ask_one(*_: object, **__: object) -> NoReturn:
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    # These two do without argparse.
    monkeypatch.setattr("jsync.cli.check.ask_one", ask_one)
    monkeypatch.setattr("jsync.cli.notify.ask_one", ask_one)


@pytest.mark.parametrize("command", [*cli.COMMANDS, *NESTED])
def test_the_help_has_examples_that_parse(
    command: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    text = shown(capsys, monkeypatch, command)
    found = list(examples(text))
    assert any(words[: len(command.split())] == command.split() for words in found), text
    request.getfixturevalue("only_parsing")
    for words in found:
        monkeypatch.setattr("sys.argv", ["jsync", *words])
        with pytest.raises(Parsed):
            cli.main()
