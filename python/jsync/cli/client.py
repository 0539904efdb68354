"""The other end of the daemon's control socket.

keepalived waits for `jsync check` and `jsync notify`, so this imports little: no argparse, no
typing. The other commands take `jsync.cli.options`.
"""

import json
import os
import socket

from jsync.errors import FAILED, NO_DAEMON, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from typing import Any

DEFAULT_CONTROL = "/run/jsync/control.sock"
TIMEOUT = 10.0


class Target:
    """Which daemon is meant."""

    def __init__(self, control: "str | None" = None, instance: "str | None" = None) -> None:
        self.control = control
        self.instance = instance


def split_target(arguments: "list[str]", usage: str) -> "tuple[Target, list[str]]":
    """Take `--control PATH` and `-i NAME` out of the arguments; the rest.

    Raises Failure with the usage on any other option.
    """
    target, rest = Target(), []
    words = iter(arguments)
    for word in words:
        name, is_joined, value = word.partition("=")
        if name in {"--control", "-i", "--instance"}:
            value = value if is_joined else next(words, "")
            setattr(target, "control" if name == "--control" else "instance", value)
            if not value:
                raise Failure(f"{name}: a value is missing\n{usage}", USAGE)
        elif word.startswith("-"):
            raise Failure(f"there is no option {word}\n{usage}", USAGE)
        else:
            rest.append(word)
    return target, rest


def ask(
    target: "Target | Namespace", *verb: str, **arguments: object
) -> "Iterator[dict[str, Any]]":
    """Put a request to the daemon; its answers, the last one included, as they come.

    Raises Failure: there is no daemon, or it refuses.
    """
    arguments = {key: value for key, value in arguments.items() if value is not None}
    if instance := getattr(target, "instance", None):
        arguments["instance"] = instance
    line = json.dumps({"verb": verb, "args": arguments}).encode() + b"\n"
    path = getattr(target, "control", None) or os.environ.get("JSYNC_CONTROL", DEFAULT_CONTROL)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path)
            connection.sendall(line)
            with connection.makefile("rb") as answers:
                for text in answers:
                    answer: dict[str, Any] = json.loads(text)
                    if "ok" in answer and not answer["ok"]:
                        raise Failure(answer["error"], answer.get("code", FAILED))
                    yield answer
                    if "ok" in answer:
                        return
    except (FileNotFoundError, ConnectionRefusedError):
        message = f"no daemon listens on {path} (start `jsync daemon`, or give --control PATH)"
        raise Failure(message, NO_DAEMON) from None
    except PermissionError:
        raise Failure(f"{path}: permission denied; be the daemon's user, or root") from None
    except TimeoutError:
        raise Failure(f"the daemon on {path} doesn't answer", NO_DAEMON) from None
    except OSError as error:
        raise Failure(f"{path}: {error.strerror or error}", NO_DAEMON) from None
    raise Failure(f"the daemon on {path} went away in the middle of its answer", NO_DAEMON)


def ask_one(target: "Target | Namespace", *verb: str, **arguments: object) -> "dict[str, Any]":
    """Put a request whose answer is an object."""
    value: dict[str, Any] = _last(target, verb, arguments)
    return value


def ask_list(target: "Target | Namespace", *verb: str) -> "list[dict[str, Any]]":
    """Put a request whose answer is a list of objects."""
    value: list[dict[str, Any]] = _last(target, verb, {})
    return value


def _last(
    target: "Target | Namespace", verb: tuple[str, ...], arguments: dict[str, object]
) -> "Any":
    *_, answer = ask(target, *verb, **arguments)
    return answer["value"]
