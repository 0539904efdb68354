"""`jsync session proxy`: the options of Jool's command of that name."""

import argparse
import ipaddress
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from jsync.cli.client import DEFAULT_CONTROL
from jsync.errors import USAGE, Failure
from jsync.log import Log

if TYPE_CHECKING:
    from jsync.jool.files import Group

EXAMPLES = """\
examples:
  jsync session proxy ff08::db8:64:64 --net.mcast.port=6464 --net.dev.in=eth1 --net.dev.out=eth1
  jsync -i potato session proxy 239.64.64.64 --net.dev.in=198.18.64.1 --stats.port=6401
  echo | nc -u 127.0.0.1 6401           the statistics

The instance must have ss-enabled: jool -i INAME global update ss-enabled true. The other commands
work beside it: `jsync peers`, `jsync instance status`, `jsync session advertise`.
"""


def add_output(to: argparse.ArgumentParser) -> None:
    """Add the options about what the daemon is to others."""
    to.add_argument("--log-format", choices=["text", "json"], default="text")
    to.add_argument(
        "--control",
        metavar="PATH",
        default=argparse.SUPPRESS,
        help=f"the control socket ({DEFAULT_CONTROL})",
    )


def proxy_parser() -> argparse.ArgumentParser:
    """The parser of what stands behind `proxy`."""
    parser = argparse.ArgumentParser(
        prog="jsync session proxy",
        description="Exchange the sessions of an instance of Jool's kernel module with other"
        " proxies, until SIGTERM, in the place of `jool session proxy`.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("group", metavar="NET_MCAST_ADDR", help="the group's address, IPv4 or IPv6")
    parser.add_argument(
        "-i",
        dest="short",
        metavar="INAME",
        help="the instance (default); --net.dev.in, as in Jool, if -i INAME stands before `proxy`",
    )
    parser.add_argument("--instance", metavar="INAME", default=argparse.SUPPRESS)
    parser.add_argument(
        "-p",
        "--net.mcast.port",
        dest="port",
        metavar="STR",
        default="6400",
        help="the group's UDP port, or its service's name (%(default)s)",
    )
    parser.add_argument(
        "--net.dev.in",
        dest="dev_in",
        metavar="STR",
        help="where the group is heard: an interface, or an address of it (what the route to the"
        " group says)",
    )
    parser.add_argument(
        "-o",
        "--net.dev.out",
        dest="dev_out",
        metavar="STR",
        help="where datagrams leave: the same (what the route to the group says)",
    )
    parser.add_argument(
        "-t", "--net.ttl", dest="ttl", metavar="INT", type=int, default=1, help="(%(default)s)"
    )
    parser.add_argument(
        "--stats.address",
        dest="stats_address",
        metavar="STR",
        help="serve statistics there (::, if --stats.port is given)",
    )
    parser.add_argument(
        "--stats.port",
        dest="stats_port",
        metavar="STR",
        help="the UDP port for that (6401, if --stats.address is given)",
    )
    add_output(parser)
    return parser


def run(before: list[str], after: list[str]) -> int:
    """Be a proxy; the options that stood before the verb, and behind it."""
    from jsync.cli.options import parser as options_parser
    from jsync.jool.files import DEFAULT_INSTANCE, Group, port_number
    from jsync.jool.joold_stats import DEFAULT_ADDRESS, DEFAULT_PORT

    shared = options_parser("session", "").parse_args(before)
    options = proxy_parser().parse_args(after, shared)
    instance: str | None = getattr(options, "instance", None)
    dev_in: str | None = options.dev_in
    if options.short is not None:
        if instance is not None:
            if dev_in is not None:
                raise Failure("-i and --net.dev.in are the same here; give one of them", USAGE)
            dev_in = options.short
        elif _is_interface(options.short):
            raise Failure(
                f"-i {options.short}: that is an interface; write --net.dev.in={options.short},"
                f" or --instance={options.short} if it is the instance's name too",
                USAGE,
            )
        else:
            instance = options.short
    try:
        port = port_number(options.port)
    except ValueError as error:
        raise Failure(f"--net.mcast.port: {error}", USAGE) from None
    stats = None
    if options.stats_address is not None or options.stats_port is not None:
        stats = (options.stats_address or DEFAULT_ADDRESS, options.stats_port or DEFAULT_PORT)
    group = Group(options.group, port, dev_in, options.dev_out, options.ttl)
    return start(instance or DEFAULT_INSTANCE, group, stats, options)


def _is_interface(text: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(text)
        return True
    with suppress(OSError):
        return socket.if_nametoindex(text) > 0
    return False


def start(
    instance: str, group: "Group", stats: tuple[str, str] | None, options: argparse.Namespace
) -> int:
    """Run the daemon between the instance and the group."""
    from jsync import daemon
    from jsync.jool.proxy import proxy_settings

    control = getattr(options, "control", None)
    settings = proxy_settings(instance, group, stats=stats, control=control)
    daemon.run_settings(settings, Log(options.log_format))
    return 0
