"""`jsync decode`."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from jsync.capture import Datagram, datagrams, is_capture
from jsync.errors import FAILED, USAGE, Failure

EXAMPLES = """\
examples:
  tcpdump -i eth1 -w joold.pcap udp port 6464     capture the private network for a while,
  jsync decode joold.pcap                         and see what sessions the joolds told
  tcpdump -i eth1 -U -w - udp | jsync decode -    the same at the end of the capture
  jsync decode 2800010020010db8...                the payload of one datagram
"""


def run(arguments: list[str]) -> int:
    """Print the sessions of datagrams."""
    parser = argparse.ArgumentParser(
        prog="jsync decode",
        description="Print the sessions in joold's datagrams, one JSON object a line. What is no"
        " datagram of joold's is named on standard error, with its packet's number, and makes the"
        " exit status 1.",
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
        choices=("auto", "4.1.9", "4.1.12", "4.1.13"),
        default="auto",
        help="the first version of Jool that writes it; auto recognises it (%(default)s)",
    )
    parser.add_argument(
        "--pool6",
        metavar="PREFIX",
        default="64:ff9b::/96",
        help="where dst6 lies; formats but 4.1.9 leave one of dst6 and dst4 out (%(default)s)",
    )
    parser.add_argument("--port", type=int, help="only datagrams to this UDP port")
    options = parser.parse_args(arguments)

    from jsync._core import DatagramError, decode_joold

    status = 0
    for datagram in _datagrams(options.source):
        if options.port not in {None, datagram.port}:
            continue
        where = f"packet {datagram.packet}, {datagram.source}" if datagram.packet else "datagram"
        try:
            format = None if options.format == "auto" else options.format
            format, sessions, errors = decode_joold(datagram.payload, format, options.pool6)
        except DatagramError as error:
            print(f"{where}: {error}", file=sys.stderr)
            status = FAILED
            continue
        except ValueError as error:
            raise Failure(str(error), USAGE) from None
        for session in sessions:
            print(json.dumps({**session, "format": format}))
        for wrong in errors:
            print(f"{where}: a session is none: {wrong}", file=sys.stderr)
            status = FAILED
    return status


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
