"""The `jsync` command.

keepalived waits for `jsync check` and `jsync notify`, so nothing is imported before it is known
which verb is meant. A verb's module has `run(arguments) -> exit status`.
"""

import sys

from jsync.errors import FAILED, USAGE, Failure

COMMANDS = {
    "daemon": ("jsync.cli.daemon", "run a node: the NAT64 and the exchange of its sessions"),
    "check": ("jsync.cli.check", "exit with 0 if the node may become MASTER (keepalived's script)"),
    "notify": ("jsync.cli.notify", "tell the daemon a state of keepalived's"),
    "session": ("jsync.cli.session", "display or advertise the sessions, or be a proxy of Jool's"),
    "bib": ("jsync.cli.bib", "display, add or remove mappings of the BIB"),
    "pool4": ("jsync.cli.pool4", "display, add, remove or flush the pool of IPv4 addresses"),
    "global": ("jsync.cli.globals", "display or update the options of the translator"),
    "stats": ("jsync.cli.stats", "display the counters"),
    "instance": ("jsync.cli.instance", "show what the node is doing"),
    "peers": ("jsync.cli.peers", "show the other nodes of the cluster"),
    "config": ("jsync.cli.config", "check, show, or import a configuration file"),
    "joold": ("jsync.cli.joold", "synchronise an instance of Jool's in the place of joold"),
    "decode": ("jsync.cli.decode", "print the sessions in captured datagrams of joold's"),
    "key": ("jsync.cli.key", "generate the key that the nodes of a cluster share"),
    "keepalived": ("jsync.cli.keepalived", "write a configuration for keepalived"),
    "lab": ("jsync.cli.lab", "a network of namespaces to try things on"),
    "demo": ("jsync.cli.demo", "watch connections survive the death of their NAT64"),
}


def usage() -> str:
    """The list of commands."""
    lines = [
        "usage: jsync COMMAND ...",
        "",
        "A stateful NAT64 whose sessions survive the death of its machine.",
        "",
    ]
    lines += [f"  {name:<12}{summary}" for name, (_, summary) in COMMANDS.items()]
    lines += [
        "",
        "jsync COMMAND --help says more. Exit status: 0 ok, 1 failed, 2 usage, 3 no daemon,",
        "4 not ready.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the command of `sys.argv`; its exit status."""
    arguments = sys.argv[1:]
    if len(arguments) > 2 and arguments[0] in {"-i", "--instance"}:  # where Jool's client has it
        arguments = [arguments[2], "--instance", arguments[1], *arguments[3:]]
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"jsync {version('jsync')}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"jsync: there is no command {name!r}{hint} (jsync --help)", file=sys.stderr)
        return USAGE
    try:
        module = __import__(COMMANDS[name][0], fromlist=["run"])
        status: int = module.run(arguments[1:])
        sys.stdout.flush()
    except Failure as failure:
        print(f"jsync: {failure}", file=sys.stderr)
        return failure.code
    except BrokenPipeError:
        # The reader, `head` say, has enough. Python flushes once more at exit: let it do so to
        # where nobody minds.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130
    return status
