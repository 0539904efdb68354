"""`jsync joold`: the arguments of joold's."""

import argparse

from jsync.cli import proxy
from jsync.jool.files import instance_name, net_group, read
from jsync.jool.joold_stats import DEFAULT_ADDRESS

EXAMPLES = """\
example:
  jsync joold /etc/jool/netsocket.json /etc/jool/modsocket.json 6401

`jsync config import` makes a configuration of these files, for `jsync daemon`.
"""


def run(arguments: list[str]) -> int:
    """Be a joold."""
    parser = argparse.ArgumentParser(
        prog="jsync joold",
        description="Exchange the sessions of an instance of Jool's kernel module with joolds,"
        " until SIGTERM, in the place of joold and with its files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "net", metavar="NETSOCKET", nargs="?", default="netsocket.json", help="(%(default)s)"
    )
    parser.add_argument(
        "module", metavar="MODSOCKET", nargs="?", default="modsocket.json", help="(%(default)s)"
    )
    parser.add_argument(
        "stats_port", metavar="STATSPORT", nargs="?", help="serve statistics on this UDP port"
    )
    proxy.add_output(parser)
    options = parser.parse_args(arguments)
    instance = instance_name(read(options.module, "module"))
    group = net_group(read(options.net, "net"))
    stats = None if options.stats_port is None else (DEFAULT_ADDRESS, options.stats_port)
    return proxy.start(instance, group, stats, options)
