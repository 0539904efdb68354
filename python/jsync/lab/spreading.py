"""Active/active: how n6 and n4 spread what they send over the NAT64s.

Next hops are the virtual addresses of the slices, so what was sent to a node that has died goes to
whoever has taken its slice over.
"""

from jsync.lab.network import POOL6, ROUTED_POOL4, SLICES, Network, NetworkError


def by_flow(network: Network) -> None:
    """Let n6 spread its flows over all slices (ECMP); answers go where their address is.

    So all packets of a flow pass through one node, as long as none dies or returns. Raises
    NetworkError.
    """
    hops = " ".join(f"nexthop via {of.ipv6}" for of in SLICES.values())
    _run(
        network,
        "n6",
        f"echo 1 >/proc/sys/net/ipv6/fib_multipath_hash_policy; ip route replace {POOL6} {hops}",
    )


def by_packet(network: Network) -> None:
    """Let n6 and n4 send each packet to one of the slices by chance, whatever it belongs to.

    Of pool4's addresses it takes those that are routed: packets for an address that a host owns
    end there, whichever way they took. Raises NetworkError.
    """
    for name, family, destination in (("n6", "ip6", POOL6), ("n4", "ip", ROUTED_POOL4)):
        version = "-6" if family == "ip6" else "-4"
        steps = []
        for mark, of in enumerate(SLICES.values(), 1):
            hop = of.ipv6 if family == "ip6" else of.ipv4
            steps += [
                f"ip route replace {destination} via {hop}",
                f"ip route add {destination} via {hop} table {100 + mark}",
                f"ip {version} rule add fwmark {mark} lookup {100 + mark}",
            ]
        choice = f"numgen random mod {len(SLICES)} offset 1"
        steps.append(
            f"nft 'add table {family} spread;"
            f" add chain {family} spread out {{ type route hook output priority mangle; }};"
            f" add rule {family} spread out {family} daddr {destination} meta mark set {choice}'"
        )
        _run(network, name, "; ".join(steps))


def _run(network: Network, name: str, script: str) -> None:
    done = network.run(name, "sh", "-ec", script)
    if done.returncode != 0:
        raise NetworkError(f"{name}: {done.stderr.strip()}")
