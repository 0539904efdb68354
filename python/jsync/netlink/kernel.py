"""What the data plane asks of the kernel, one call each. Adding what is there, and removing what
is not, is no error; everything else is a Failure that says what to do."""

import errno
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal, Self

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from jsync.errors import Failure

Family = Literal[4, 6]

ROUTE_PROTOCOL = 146
"""Marks our routes, so that only they are removed (rtm_protocol; free in rt_protos)."""
# networkd removes rules of others unless the kernel made them; without the `local` rule a host
# is deaf.
_RULE_PROTOCOL_KERNEL = 2
_RULE_INVERT = 2
_TABLE_LOCAL = 255
_NEIGHBOUR_PROXY = 8
_SCOPE_HOST = 254
# Packets that may wait for the worker: it shares its processor. Of 200,000 new sessions in a burst
# on a busy machine, the default of 500 lost a third, 4096 a sixth.
_QUEUE = 4096
_RTF_LEARNED = 0x0001_0000 | 0x0004_0000  # RTF_DEFAULT, RTF_ADDRCONF


class Kernel:
    """The kernel's network configuration, in the namespace of the thread that made it."""

    def __enter__(self) -> Self:
        self._ip: Any = IPRoute()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ip.close()

    @contextmanager
    def _tolerating(self, what: str, *codes: int) -> Iterator[None]:
        try:
            yield
        except NetlinkError as error:
            if error.code in codes:
                return
            if error.code == errno.EPERM:
                raise _privilege(what) from None
            raise Failure(f"{what}: {os.strerror(error.code)}") from None

    def index(self, device: str) -> int | None:
        """A device's index, or None if there is no such device."""
        try:
            return socket.if_nametoindex(device)
        except OSError:
            return None

    def _index(self, device: str) -> int:
        index = self.index(device)
        if index is None:
            raise Failure(f"there is no network interface {device!r}")
        return index

    def change_route(
        self,
        action: Literal["add", "del"],
        destination: str,
        table: int,
        metric: int,
        device: str | None,
    ) -> None:
        """A route to a device, or with None into a black hole. `destination` is a prefix."""
        is_v6 = ":" in destination
        arguments: dict[str, Any] = {
            "family": socket.AF_INET6 if is_v6 else socket.AF_INET,
            "dst": "default" if destination == "0.0.0.0/0" else destination,
            "table": table,
            "priority": metric,
            "proto": ROUTE_PROTOCOL,
        }
        if device is None:
            arguments["type"] = "blackhole"
        else:
            index = self.index(device)
            if index is None and action == "del":
                return  # the route went with its device
            arguments["oif"] = self._index(device)
        with self._tolerating(f"route to {destination}", errno.EEXIST, errno.ESRCH):
            self._ip.route(action, **arguments)

    def change_mark_rule(
        self, action: Literal["add", "del"], family: Family, priority: int, mark: int, table: int
    ) -> None:
        """Packets of that family with `mark` are looked up in `table`."""
        with self._tolerating("ip rule", errno.EEXIST, errno.ENOENT):
            self._ip.rule(
                action, priority=priority, fwmark=mark,
                family=socket.AF_INET6 if family == 6 else socket.AF_INET,
                fwmask=0xFFFFFFFF, table=table, protocol=_RULE_PROTOCOL_KERNEL,
            )  # fmt: skip

    def change_local_rule(
        self, action: Literal["add", "del"], excepting: tuple[int, int] | None
    ) -> None:
        """The IPv4 rule 0, which finds the host's own addresses, for all packets or for all but
        those with the (mark, mask)."""
        arguments: dict[str, Any] = {}
        if excepting is not None:
            mark, mask = excepting
            arguments = {"fwmark": mark, "fwmask": mask, "flags": _RULE_INVERT}
        with self._tolerating("ip rule", errno.EEXIST, errno.ENOENT):
            self._ip.rule(
                action, family=socket.AF_INET, priority=0, table=_TABLE_LOCAL,
                protocol=_RULE_PROTOCOL_KERNEL, **arguments,
            )  # fmt: skip

    def local_rules(self) -> list[tuple[int, int] | None]:
        """The IPv4 rules 0 that find the host's own addresses, each with what it excepts."""
        found: list[tuple[int, int] | None] = []
        for rule in self._ip.get_rules(family=socket.AF_INET):
            mark = rule.get("fwmark")
            if (rule.get("priority") or 0) == 0 and rule.get("table") == _TABLE_LOCAL:
                if mark is None:
                    found.append(None)
                elif rule["flags"] & _RULE_INVERT:
                    found.append((mark, rule.get("fwmask")))
        return found

    def change_proxy_neighbour(
        self, action: Literal["add", "del"], address: str, device: str
    ) -> None:
        """Whether the host answers ARP for an address that it doesn't have."""
        index = self.index(device)
        if index is None and action == "del":
            return
        with self._tolerating(f"ARP for {address} on {device}", errno.EEXIST, errno.ENOENT):
            self._ip.neigh(action, dst=address, ifindex=self._index(device), flags=_NEIGHBOUR_PROXY)

    def change_address(self, action: Literal["add", "del"], address: str, device: str) -> None:
        """An IPv4 address of the device that no packet takes as its source by itself."""
        index = self.index(device)
        if index is None and action == "del":
            return
        codes = (errno.EEXIST, errno.EADDRNOTAVAIL)
        with self._tolerating(f"address {address}", *codes):
            self._ip.addr(
                action, index=self._index(device), address=address, prefixlen=32,
                scope=_SCOPE_HOST,
            )  # fmt: skip

    def bring_up(self, device: str) -> None:
        """Set the device up, with the largest MTU of the host's other interfaces.

        The egress interface then is what limits packets, not the translator's own device.
        """
        mtus = [
            link.get("mtu")
            for link in self._ip.get_links()
            if link.get("ifname") not in {device, "lo"}
        ]
        mtu = min(max([1500, *mtus]), 65_535)
        with self._tolerating(f"link {device}"):
            self._ip.link("set", index=self._index(device), mtu=mtu, txqlen=_QUEUE, state="up")

    def take_down(self, device: str) -> None:
        """Set the device down, if there is one."""
        index = self.index(device)
        if index is not None:
            with self._tolerating(f"link {device}", errno.ENODEV):
                self._ip.link("set", index=index, state="down")

    def delete_device(self, device: str) -> None:
        """Remove a device."""
        index = self.index(device)
        if index is not None:
            with self._tolerating(f"link {device}", errno.ENODEV):
                self._ip.link("del", index=index)

    def read_sysctl(self, path: str) -> str | None:
        """A value below /proc/sys, or None if it isn't there."""
        try:
            with open(f"/proc/sys/{path}", encoding="ascii") as file:
                return " ".join(file.read().split())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Failure(f"/proc/sys/{path}: {error.strerror}") from None

    def write_sysctl(self, path: str, value: str) -> None:
        """Set a value below /proc/sys."""
        try:
            with open(f"/proc/sys/{path}", "w", encoding="ascii") as file:
                file.write(value + "\n")
        except OSError as error:
            if error.errno in {errno.EPERM, errno.EACCES}:
                raise _privilege(f"sysctl {path}") from None
            raise Failure(
                f"sysctl {path.replace('/', '.')} = {value}: {error.strerror};"
                " set it from outside if this is a container"
            ) from None

    def forwarding_sysctls(self, family: Family) -> list[str]:
        """All that the kernel changes when forwarding is switched on for a family."""
        base = f"net/ipv{family}/conf"
        try:
            names = sorted(os.listdir(f"/proc/sys/{base}"))
        except FileNotFoundError:
            raise Failure(f"this kernel has no IPv{family}") from None
        return [f"{base}/{name}/forwarding" for name in names]

    def learned_default_routes(self) -> list[str]:
        """Interfaces on which a router has announced itself as IPv6 default (RFC 4861)."""
        # Columns as the kernel's net/ipv6/route.c prints them: destination, its length, source,
        # its length, next hop, metric, two counters, flags, interface.
        learned = set()
        with open("/proc/net/ipv6_route", encoding="ascii") as file:
            for line in file:
                columns = line.split()
                if columns[1] == "00" and int(columns[8], 16) & _RTF_LEARNED == _RTF_LEARNED:
                    learned.add(columns[9])
        return sorted(learned)

    def run_nft(self, commands: list[dict[str, Any]]) -> None:
        """Carry out nftables commands (libnftables-json(5)), all or none."""
        program = shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program is None:
            raise Failure("there is no `nft`; install the package nftables")
        done = subprocess.run(
            [program, "-j", "-f", "-"],
            input=json.dumps({"nftables": commands}).encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            text = done.stderr.decode(errors="replace").strip()
            if "Operation not permitted" in text:
                raise _privilege("nftables")
            raise Failure(f"nft refused the rules: {text}")

    def other_daemons(self, device: str) -> bool:
        """Whether daemons with other devices run in this network namespace."""
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
            names = {line.split()[-1] for line in file}
        return any(name.startswith(LOCK_PREFIX) for name in names - {LOCK_PREFIX + device})


LOCK_PREFIX = "@jsync/"


def lock_device(device: str) -> socket.socket:
    """Claim a device's name in this network namespace for as long as the socket is open.

    The name is one of an abstract Unix socket: the kernel knows it per namespace, and forgets it
    when the process dies, however it dies. Raises Failure if another daemon has it.
    """
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind("\0" + LOCK_PREFIX[1:] + device)
    except OSError:
        lock.close()
        raise Failure(
            f"another daemon uses the device {device}; stop it, or give [dataplane] device"
            " another name"
        ) from None
    return lock


def _privilege(what: str) -> Failure:
    return Failure(
        f"{what}: permission denied; the daemon needs CAP_NET_ADMIN: run it as root, or let"
        " systemd give it AmbientCapabilities=CAP_NET_ADMIN"
    )
