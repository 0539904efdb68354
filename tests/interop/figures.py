"""Figures: what jsync and joold do with the sessions of a real Jool, in one machine and one run.

Two instances of Jool 4.1.13, in two network namespaces with a link between them. The first has
sessions and advertises them; they go by joold and joold, or by jsync and jsync, to the second. The
machine is emulated, so rates say how the two compare, not what hardware does.
"""

import json
import sys
import textwrap
import time

from world import KEY, JoolNode, World, seed_source

SESSIONS = 10_000
LOSS_PERCENT = 20
SETTLED_SECONDS = 8.0

SETUP = """
ip netns del b 2>/dev/null
jool instance remove default 2>/dev/null
ip netns add b
ip link add ab type veth peer name ba netns b
ip address add 192.168.77.1/24 dev ab; ip link set ab up
ip -n b address add 192.168.77.2/24 dev ba; ip -n b link set ba up; ip -n b link set lo up
for in in '' 'ip netns exec b'; do
    $in jool instance add default --netfilter --pool6 64:ff9b::/96 &&
    for p in tcp udp icmp; do $in jool pool4 add 198.51.100.1 61001-65535 --$p || exit; done &&
    $in jool pool4 add 198.51.100.2 1024-65535 --udp &&
    $in jool global update ss-enabled true || exit
done
"""
# Runs in the machine, whose Python has os.setns.
CARRY = """
import json, os, socket, sys, time
from jsync.jool.module import Module
limit = float(sys.argv[1])
# The module looks at the namespace of who asks, not of the socket.
there, here = open("/run/netns/b"), open("/proc/self/ns/net")
first = Module("default")
wanted = first.stats()[5]
os.setns(there.fileno(), os.CLONE_NEWNET)
other = Module("default")
have = other.stats()[5]
os.setns(here.fileno(), os.CLONE_NEWNET)
start = last = time.monotonic()
first.advertise()
os.setns(there.fileno(), os.CLONE_NEWNET)
while time.monotonic() - start < limit and have < wanted:
    time.sleep(0.02)
    now = other.stats()[5]
    if now != have:
        have, last = now, time.monotonic()
print(json.dumps({"wanted": wanted, "have": have, "seconds": last - start}))
"""


def jsync_config(number: int, device: str, protection: str) -> str:
    """A node's configuration."""
    return textwrap.dedent(f"""\
        [node]
        name = "{number}"
        id = {number}
        backend = "jool"
        control = "/run/jsync{number}.sock"
        [sync]
        cluster = "figures"
        {protection}
        interface = "{device}"
        join-timeout = "1s"
        """)


def start(node: JoolNode, who: str) -> list[int]:
    """Run a daemon on each side; their processes."""
    box = node.box
    pids = []
    for number, device, prefix in ((1, "ab", ""), (2, "ba", "ip netns exec b ")):
        if who == "joold":
            address = f"192.168.77.{number}"
            network = {"multicast address": "239.64.64.64", "multicast port": "6400", "ttl": 1}
            network |= {"in interface": address, "out interface": address, "reuseaddr": 1}
            box.write(f"/tmp/net{number}.json", json.dumps(network))
            box.write("/tmp/mod.json", '{"instance": "default"}')
            command = f"joold /tmp/net{number}.json /tmp/mod.json"
        else:
            box.write("/tmp/key", KEY)
            box.run("chmod 600 /tmp/key")
            protection = 'key-files = ["/tmp/key"]' if who == "jsync" else "plaintext = true"
            box.write(f"/tmp/f{number}.toml", jsync_config(number, device, protection))
            command = f"jsync daemon -c /tmp/f{number}.toml"
        pids.append(box.start(f"exec {prefix}{command}", f"/tmp/{who[:5]}{number}.log"))
    if who != "joold":
        for number in (1, 2):
            box.wait(f"JSYNC_CONTROL=/run/jsync{number}.sock jsync check", seconds=60)
            box.wait(f"JSYNC_CONTROL=/run/jsync{number}.sock jsync peers | grep -qw up")
    time.sleep(1.0)
    return pids


def sent(node: JoolNode) -> tuple[int, int]:
    """Frames and bytes that the first side has sent."""
    (link,) = json.loads(node.box.run("ip -json -stats link show dev ab"))
    counted = link["stats64"]["tx"]
    return counted["packets"], counted["bytes"]


def carry(node: JoolNode, who: str, *, loss: int = 0) -> dict[str, float]:
    """Advertise the sessions of one side; how many reach the other, in what time and bytes."""
    box = node.box
    box.run(SETUP)
    if loss:
        box.run(
            "ip netns exec b nft 'add table inet loss; add chain inet loss in { type filter hook"
            " input priority 0; }; add rule inet loss in udp dport { 6400, 6464 }"
            f" numgen random mod 100 < {loss} drop'"
        )
    pids = start(node, who)
    box.write("/tmp/seed.py", seed_source("198.51.100.2", 1024))
    # The module doesn't tell of what it is given: the daemons see none of it yet.
    box.run(f"python3 /tmp/seed.py 0 {SESSIONS}")
    before = sent(node)
    box.write("/tmp/carry.py", CARRY)
    limit = SETTLED_SECONDS if loss else 60.0
    found: dict[str, float] = json.loads(box.run(f"python3 /tmp/carry.py {limit}", seconds=90))
    after = sent(node)
    for pid in pids:
        box.stop(pid)
    return found | {"packets": after[0] - before[0], "bytes": after[1] - before[1]}


def main() -> None:
    """Print the figures."""
    with World() as world:
        node = world.new
        node.stop_jsync()
        rates: dict[str, float] = {}
        for who in ("joold", "jsync", "jsync in plaintext") * 2:
            found = carry(node, who)
            rates[who] = max(rates.get(who, 0.0), found["have"] / found["seconds"])
            print(
                f"{who}: {found['have']:.0f} of {found['wanted']:.0f} sessions in"
                f" {found['seconds']:.2f} s, {found['have'] / found['seconds']:.0f} a second;"
                f" {found['packets']:.0f} datagrams, {found['bytes']:.0f} bytes",
                flush=True,
            )
        for who in ("jsync", "jsync in plaintext"):
            print(f"{who} / joold: {rates[who] / rates['joold']:.2f}")
        for who in ("joold", "jsync"):
            found = carry(node, who, loss=LOSS_PERCENT)
            print(
                f"{who}, {LOSS_PERCENT} % of datagrams dropped:"
                f" {found['wanted'] - found['have']:.0f} of {found['wanted']:.0f} sessions lost",
                flush=True,
            )
        if "--logs" in sys.argv:
            print(node.box.run("tail -20 /tmp/jsync1.log /tmp/jsync2.log /tmp/syslog"))


if __name__ == "__main__":
    main()
