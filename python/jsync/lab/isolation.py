"""A private world for the lab: own processes, mounts and network, as root or without.

`enter` splits the running program in two. The child becomes process 1 of a new process namespace
and goes on; the parent only waits. When either dies, even by SIGKILL, the kernel kills every
process of the namespace, and with the last of them vanish network namespaces, devices and mounts.
"""

import ctypes
import errno
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import NoReturn

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000

PR_SET_PDEATHSIG = 1

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

TUN = Path("/dev/net/tun")
PROGRAMS = {
    "ip": "iproute2",
    "keepalived": "keepalived",
    "nft": "nftables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
}
"""What the lab runs, and the Debian package it is in."""

_libc = ctypes.CDLL(None, use_errno=True)


class LabUnavailable(Exception):
    """The lab can't be built here; the message says what is missing and how to get it."""


def require_programs() -> None:
    """Raise LabUnavailable unless the programs and the device that the lab needs are here."""
    # Without root, Debian leaves out the directories of the administration programs.
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        packages = " ".join(sorted(missing))
        raise LabUnavailable(f"Debian packages are missing: apt-get install {packages}")
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise LabUnavailable(f"{TUN} can't be opened by this user, and the NAT64s need it")


def enter() -> int:
    """Go on as process 1 of a private world; the number this process has outside of it.

    Must be called before any thread is started. The calling process stays outside, waits for the
    new one, passes on signals and ends with its exit status, so this function returns only inside.

    Raises LabUnavailable.
    """
    _unshare_processes()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        _wait(child)
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Process 1 gets no signal that it doesn't handle.
    for signal_number in ENDING:
        signal.signal(signal_number, _end)
    # /proc still belongs to the outside.
    number = int(os.readlink("/proc/self"))
    try:
        _unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS)
        _mount("none", "/", None, MS_REC | MS_PRIVATE)
        _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
        _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV)
    except OSError as error:
        raise LabUnavailable(f"this kernel or container forbids own mounts: {error}") from None
    return number


def _unshare_processes() -> None:
    """Move to a new process namespace, by a new user namespace if need be."""
    if os.geteuid() == 0:
        try:
            _unshare(CLONE_NEWPID)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise LabUnavailable(f"this kernel has no process namespaces: {error}") from None
        else:
            return
    uid, gid = os.geteuid(), os.getegid()
    try:
        _unshare(CLONE_NEWUSER | CLONE_NEWPID)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise LabUnavailable(
            f"user namespaces are closed to this user ({error.strerror}); run it as root"
        ) from None


def _end(number: int, _frame: object) -> NoReturn:
    """End because of a signal; a second one, the terminal's beside the outer process's, is late."""
    for late in ENDING:
        signal.signal(late, signal.SIG_IGN)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


def _wait(child: int) -> NoReturn:
    """Be the outer process: nothing but a channel for signals and the exit status."""

    def forward(number: int, _frame: object) -> None:
        os.kill(child, number)

    for number in ENDING:
        signal.signal(number, forward)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        _raise("unshare")


def _mount(source: str, target: str, filesystem: str | None, flags: int) -> None:
    kind = filesystem.encode() if filesystem else None
    if _libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), None) != 0:
        _raise(f"mount {target}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        _raise("prctl")


def _raise(what: str) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
