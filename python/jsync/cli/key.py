"""`jsync key`."""

import argparse

from jsync.keys import generate_key

EXAMPLES = """\
example:
  jsync key generate /etc/jsync/key
"""


def run(arguments: list[str]) -> int:
    """Make a key."""
    parser = argparse.ArgumentParser(
        prog="jsync key",
        description="The key that the nodes of a cluster share: 32 random bytes in base64. Make"
        " it on one node, copy the file to the others (mode 0600), and name it in [sync]"
        " key-files. To change it, first add the new one behind the old one on every node, then"
        " put it in front everywhere, then remove the old one; send the daemons SIGHUP each time.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    generate = verbs.add_parser("generate", help="write a new key to a new file, mode 0600")
    generate.add_argument("file", metavar="FILE")
    generate_key(parser.parse_args(arguments).file)
    return 0
