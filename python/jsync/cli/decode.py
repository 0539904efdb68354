"""`jsync decode`."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from jsync.capture import Datagram, datagrams, is_capture
from jsync.errors import FAILED, USAGE, Failure
from jsync.keys import read_key
from jsync.transport import FRAMES_BEGIN

JSYNC = "jsync"

EXAMPLES = """\
examples:
  tcpdump -i eth1 -w joold.pcap udp port 6464     capture the private network for a while,
  jsync decode joold.pcap                         and see what sessions the joolds told
  tcpdump -i eth1 -U -w - udp | jsync decode -    the same at the end of the capture
  jsync decode 2800010020010db8...                the payload of one datagram
  tcpdump -i eth2 -w ss.pcap udp port 6464        capture what nodes of jsync's tell each other,
  jsync decode --format jsync --key /etc/jsync/cluster.key ss.pcap
"""


def run(arguments: list[str]) -> int:
    """Print the sessions of datagrams."""
    parser = argparse.ArgumentParser(
        prog="jsync decode",
        description="Print the sessions in joold's datagrams, or in the frames of jsync's nodes,"
        " one JSON object a line. What is none is named on standard error, with its packet's"
        " number, and makes the exit status 1.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source",
        metavar="FILE|HEX|-",
        help="a capture (pcap or pcapng), a payload in hexadecimal, or - for standard input",
    )
    parser.add_argument(
        "--format",
        choices=("auto", "4.1.9", "4.1.12", "4.1.13", JSYNC),
        default="auto",
        help="the first version of Jool that writes it; auto recognises it and jsync's"
        " (%(default)s)",
    )
    parser.add_argument(
        "--key",
        metavar="FILE",
        action="append",
        default=[],
        help="a key of the cluster, for jsync's frames on UDP unless they are in clear; may be"
        " given several times",
    )
    parser.add_argument(
        "--pool6",
        metavar="PREFIX",
        default="64:ff9b::/96",
        help="where dst6 lies; formats but 4.1.9 leave one of dst6 and dst4 out (%(default)s)",
    )
    parser.add_argument("--port", type=int, help="only datagrams to this UDP port")
    options = parser.parse_args(arguments)

    from jsync._core import DatagramError

    keys = [read_key(path) for path in options.key]
    status = 0
    for datagram in _datagrams(options.source):
        if options.port not in {None, datagram.port}:
            continue
        where = f"packet {datagram.packet}, {datagram.source}" if datagram.packet else "datagram"
        try:
            if options.format == JSYNC or (
                options.format == "auto" and datagram.payload.startswith(FRAMES_BEGIN)
            ):
                rows, errors = _frame(datagram.payload, keys, options.pool6)
            else:
                rows, errors = _joold(datagram.payload, options.format, options.pool6)
        except DatagramError as error:
            print(f"{where}: {error}", file=sys.stderr)
            status = FAILED
            continue
        except ValueError as error:
            raise Failure(str(error), USAGE) from None
        for row in rows:
            print(json.dumps(row))
        for wrong in errors:
            print(f"{where}: a session is none: {wrong}", file=sys.stderr)
            status = FAILED
    return status


def _joold(payload: bytes, wanted: str, pool6: str) -> tuple[list[dict[str, object]], list[str]]:
    """Sessions, and what is wrong with others."""
    from jsync._core import decode_joold

    format, sessions, errors = decode_joold(payload, None if wanted == "auto" else wanted, pool6)
    return [{**session, "format": format} for session in sessions], errors


def _frame(
    payload: bytes, keys: list[bytes], pool6: str
) -> tuple[list[dict[str, object]], list[str]]:
    """The same of a frame of jsync's, which is whole or none."""
    from jsync._core import decode_frame

    node, told = decode_frame(payload, keys, pool6)
    rows = [{**row, "format": JSYNC, "node": node, "version": version} for row, version in told]
    return rows, []


def _datagrams(source: str) -> Iterator[Datagram]:
    if source == "-":
        data = sys.stdin.buffer.read()
    elif Path(source).exists():
        data = Path(source).read_bytes()
    else:
        data = source.encode()
    if is_capture(data):
        return datagrams(data)
    try:
        payload = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        raise Failure(
            f"{source[:60]}: neither a file, nor a capture (pcap, pcapng), nor hexadecimal", USAGE
        ) from None
    return iter([Datagram(0, "", 0, payload)])
