"""Tables as Jool's client prints them: for people, as CSV, or as JSON."""

import argparse
import csv
import json
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

Row = Mapping[str, Any]


def add_options(to: argparse.ArgumentParser) -> None:
    """Add the options of every table."""
    form = to.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="comma-separated values")
    form.add_argument("--json", action="store_true", help="one JSON object a line")
    to.add_argument("--no-headers", action="store_true", help="without the line of names")


def add_protocols(to: argparse.ArgumentParser) -> None:
    """Add the options that choose protocols."""
    for protocol in ("tcp", "udp", "icmp"):
        to.add_argument(
            f"--{protocol}",
            dest="protocols",
            action="append_const",
            const=protocol,
            help=f"{protocol.upper()} (all three if none is named)",
        )


def add_numeric(to: argparse.ArgumentParser) -> None:
    """Add the option that leaves addresses as they are."""
    to.add_argument("--numeric", action="store_true", help="addresses only; don't look for names")


def add_protocol(to: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add the options that choose one protocol; without `default` all three are meant."""
    choice = to.add_mutually_exclusive_group()
    for protocol in ("tcp", "udp", "icmp"):
        help = protocol.upper() if default else f"for {protocol.upper()} only"
        choice.add_argument(
            f"--{protocol}",
            dest="protocol",
            action="store_const",
            const=protocol,
            default=default,
            help=f"{help} (the default)" if protocol == default else help,
        )


@cache
def host_name(address: str) -> str:
    """The name of an address, or the address."""
    try:
        return socket.getnameinfo((address, 0), 0)[0]
    except OSError:
        return address


def endpoint(address: str, port: int, numeric: bool) -> str:
    """A transport address as Jool writes it: address#port."""
    return f"{address if numeric else host_name(address)}#{port}"


def show(
    rows: Iterable[Row],
    columns: Sequence[str],
    options: argparse.Namespace,
    text: Callable[[Row], str] | None = None,
) -> int:
    """Print the rows as they come; their number. `text` gives a row for people."""
    count = 0
    if options.json:
        for row in rows:
            print(json.dumps(row))
            count += 1
        return count
    if options.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if not options.no_headers:
            writer.writerow(columns)
        for row in rows:
            writer.writerow([_field(row[column]) for column in columns])
            count += 1
        return count
    if text is not None:
        for row in rows:
            print(text(row))
            count += 1
        return count
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    if not options.no_headers:
        cells.insert(0, [column.replace("_", "-").upper() for column in columns])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())
    return len(cells) - (not options.no_headers)


def _field(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
