"""`jsync daemon`."""

import argparse

from jsync import daemon
from jsync.log import Log

EXAMPLES = """\
examples:
  jsync config check /etc/jsync/jsync.toml        first, then
  jsync daemon
  jsync daemon -c ./jsync.toml --log-format json
"""


def run(arguments: list[str]) -> int:
    """Run a node until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="jsync daemon",
        description="Run a node: the NAT64 and the exchange of its sessions. SIGTERM ends it and"
        " undoes what it did to the host; SIGHUP has it read its file again: it makes the changes"
        " of [nat64] that can be made while packets flow, and names those that need a restart.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", default="/etc/jsync/jsync.toml", help="(%(default)s)"
    )
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    options = parser.parse_args(arguments)
    daemon.run(options.config, Log(options.log_format))
    return 0
