"""`jsync instance`."""

import json
from typing import Any

from jsync.cli.client import ask_one
from jsync.cli.options import parser


def run(arguments: list[str]) -> int:
    """Show what the node is doing."""
    commands = parser("instance", "The node itself.")
    verbs = commands.add_subparsers(dest="verb", required=True)
    status = verbs.add_parser("status", help="role, readiness, sizes")
    status.add_argument("--json", action="store_true", help="one JSON object")
    options = commands.parse_args(arguments)
    values = ask_one(options, "instance", "status")
    if options.json:
        print(json.dumps(values))
        return 0
    network = values["network"] or {}
    told = [f"{i['type']} {i['name']} {i['state']} {i['priority']}" for i in values["keepalived"]]
    cluster = f"node {values['node']} of cluster {values['cluster']}, by {values['transport']}"
    durability = values.get("durability")
    megabytes = values["table_bytes"] / 1_000_000
    for name, text in (
        ("name", values["name"]),
        ("synchronisation", cluster if values["cluster"] else "none"),
        ("role", values["role"]),
        ("slices", _slices(values)),
        (
            "durability",
            f"{durability}, {values['held_packets']} packets wait for peers" if durability else "",
        ),
        ("ready", f"{'yes' if values['ready'] else 'no'}: {values['reason']}"),
        ("keepalived", "; ".join(told) or "has not told of a state"),
        ("translator", _translator(values)),
        ("sessions", f"{values['sessions']} of {values['max_sessions']}"),
        ("bib entries", values["bib_entries"]),
        ("table", f"{megabytes:.1f} MB"),
        ("longest pause", f"{values['longest_pause_us']} µs"),
        (
            "joolds",
            "; ".join(f"{j['address']} ({j['format']})" for j in values.get("joolds") or ()),
        ),
        ("network", ", ".join(f"{key.replace('_', ' ')} {n}" for key, n in network.items())),
    ):
        if text != "":
            print(f"{name + ':':<17}{text}")
    return 0


def _slices(values: dict[str, Any]) -> str:
    """Each slice of pool4: whose it is, and what keepalived has said of it here."""
    return ", ".join(
        f"{'own' if entry['node'] == values['node'] else 'of node ' + str(entry['node'])}"
        f" {entry['state'] or 'not told of'}"
        for entry in values.get("slices") or ()
    )


def _translator(values: dict[str, Any]) -> str:
    if values.get("backend") != "jool":
        return f"{values['worker']}, {values['pool6']} on {values['device']}"
    version = values["jool_version"] or "not there"
    return f"Jool's instance {values['instance']} ({version}), {values['pool6'] or 'pool6 unknown'}"
