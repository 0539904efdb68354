"""`jsync keepalived`."""

import argparse
import shutil
import sys
from pathlib import Path

from jsync.cli.client import DEFAULT_CONTROL
from jsync.config import load
from jsync.errors import Failure
from jsync.keepalived import generate

EXAMPLES = """\
example:
  jsync keepalived conf > /etc/keepalived/keepalived.conf
"""


def run(arguments: list[str]) -> int:
    """Print keepalived.conf."""
    parser = argparse.ArgumentParser(
        prog="jsync keepalived",
        description="Write a configuration for keepalived.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    conf = verbs.add_parser("conf", help="print keepalived.conf for the section [keepalived]")
    conf.add_argument(
        "-c", "--config", metavar="FILE", default="/etc/jsync/jsync.toml", help="(%(default)s)"
    )
    options = parser.parse_args(arguments)
    settings = load(options.config)
    if settings.keepalived is None:
        raise Failure(f"{options.config}: add a section [keepalived]: who moves which addresses")
    control = settings.node.control
    text = generate(
        settings.keepalived,
        node=settings.node.id,
        router_id=settings.node.name,
        device=settings.dataplane.device if settings.jool is None else None,
        command=jsync_command(),
        control=control if control != DEFAULT_CONTROL else None,
    )
    print(text, end="")
    return 0


def jsync_command() -> str:
    """Give the path of the `jsync` that runs this, as keepalived has to call it."""
    beside = Path(sys.executable).with_name("jsync")
    found = str(beside) if beside.exists() else shutil.which("jsync")
    if found is None:
        raise Failure("the command jsync isn't installed where keepalived could run it")
    return str(Path(found).absolute())
