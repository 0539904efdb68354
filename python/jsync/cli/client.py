"""The other end of the daemon's control socket. Imports little: keepalived waits for it."""

import argparse
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from jsync.errors import FAILED, NO_DAEMON, Failure

DEFAULT_CONTROL = "/run/jsync/control.sock"
TIMEOUT = 10.0


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """A parser with what every verb that speaks to the daemon understands."""
    result = argparse.ArgumentParser(prog=f"jsync {command}", description=description)
    add_control(result)
    return result


def add_control(to: argparse.ArgumentParser) -> None:
    """Add the options that say which daemon is meant."""
    to.add_argument(
        "--control",
        metavar="PATH",
        default=os.environ.get("JSYNC_CONTROL", DEFAULT_CONTROL),
        help="the daemon's control socket (or $JSYNC_CONTROL; %(default)s)",
    )
    to.add_argument(
        "-i", dest="instance", metavar="NAME", help="refuse unless the node has this name"
    )


def ask(options: argparse.Namespace, *verb: str, **arguments: object) -> Iterator[dict[str, Any]]:
    """Put a request to the daemon; its answers, the last one included, as they come.

    Raises Failure: there is no daemon, or it refuses.
    """
    arguments = {key: value for key, value in arguments.items() if value is not None}
    if options.instance is not None:
        arguments["instance"] = options.instance
    line = json.dumps({"verb": verb, "args": arguments}).encode() + b"\n"
    path = options.control
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


def ask_one(options: argparse.Namespace, *verb: str, **arguments: object) -> dict[str, Any]:
    """Put a request whose answer is an object."""
    value: dict[str, Any] = _last(options, verb, arguments)
    return value


def ask_list(options: argparse.Namespace, *verb: str) -> list[dict[str, Any]]:
    """Put a request whose answer is a list of objects."""
    value: list[dict[str, Any]] = _last(options, verb, {})
    return value


def _last(options: argparse.Namespace, verb: tuple[str, ...], arguments: dict[str, object]) -> Any:
    *_, answer = ask(options, *verb, **arguments)
    return answer["value"]
