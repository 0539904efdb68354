"""A running machine: QEMU emulates it, so it needs no virtualisation of the host's."""

import itertools
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

BOOT_SECONDS = 120.0
NICE = ("nice", "-n", "10")
"""Building and emulating take all the CPU there is: what is timed beside them comes first."""


@dataclass(frozen=True)
class Link:
    """A network interface of the machine's: the TAP it is on, and its addresses inside."""

    tap: str
    addresses: Sequence[str]


class MachineError(AssertionError):
    """The machine, or a command in it, has failed."""


class Machine:
    """Boots when entered, and is gone without a trace when left."""

    def __init__(
        self, name: str, image: tuple[Path, Path], namespace: str, links: Sequence[Link]
    ) -> None:
        self.name = name
        self._kernel, self._initrd = image
        self._namespace = namespace
        self._links = links
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory(prefix=f"jsync-{self.name}-")
        self._console = Path(self._directory.name) / "console"
        port = Path(self._directory.name) / "agent"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(port))
            listener.listen(1)
            self._process = subprocess.Popen(
                self._argv(port), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            try:
                listener.settimeout(10.0)
                self._agent, _ = listener.accept()
                self._agent.settimeout(BOOT_SECONDS)
                self._answers = self._agent.makefile("rb")
                self.run("true", seconds=BOOT_SECONDS)
                for number, link in enumerate(self._links):
                    commands = [f"ip link set eth{number} up"]
                    for address in link.addresses:
                        nodad = " nodad" if ":" in address else ""
                        commands.append(f"ip address add {address} dev eth{number}{nodad}")
                    self.run(" && ".join(commands))
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._answers.close()
        self._agent.close()
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()

    def _argv(self, port: Path) -> list[str]:
        argv = [*NICE, "ip", "netns", "exec", self._namespace, "qemu-system-x86_64"]
        argv += ["-accel", "tcg", "-cpu", "max", "-m", "640", "-no-reboot", "-nodefaults"]
        argv += ["-display", "none", "-serial", f"file:{self._console}"]
        argv += ["-kernel", str(self._kernel), "-initrd", str(self._initrd)]
        argv += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
        argv += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        argv += ["-chardev", f"socket,id=agent,path={port}"]
        argv += ["-device", "virtserialport,chardev=agent,name=agent"]
        for number, link in enumerate(self._links):
            argv += ["-netdev", f"tap,id=n{number},ifname={link.tap},script=no,downscript=no"]
            # A machine's addresses depend on its name, so that two of them are never the same.
            mac = f"52:54:{os.getpid() >> 8 & 255:02x}:{os.getpid() & 255:02x}"
            mac += f":{sum(self.name.encode()) & 255:02x}:{number:02x}"
            argv += ["-device", f"virtio-net-pci,netdev=n{number},mac={mac},romfile="]
        return argv

    def run(self, command: str, *, seconds: float = 60.0, check: bool = True) -> str:
        """What a shell command prints; with `check` its failure is one of the test."""
        number = next(self._numbers)
        request = {"id": number, "command": command, "seconds": seconds}
        self._agent.settimeout(seconds + 10.0)
        self._agent.sendall(json.dumps(request).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise MachineError(f"the machine {self.name} has died: {self.console()}")
        answer = json.loads(line)
        assert answer["id"] == number
        if check and answer["status"] != 0:
            raise MachineError(
                f"{self.name}: {command}: exit status {answer['status']}\n{answer['output']}"
            )
        return str(answer["output"])

    def write(self, path: str, text: str) -> None:
        """Write a file in the machine."""
        self.run(f"cat > {path} <<'END OF FILE'\n{text}\nEND OF FILE")

    def start(self, command: str, log: str) -> int:
        """Run a command in the background; its process number."""
        return int(
            self.run(f"exec 3>&1; {{ {command}; }} >{log} 2>&1 3>&- & echo $! >&3; exec 3>&-")
        )

    def stop(self, pid: int, *, seconds: float = 10.0) -> None:
        """End a background command, and wait until it has ended."""
        self.run(
            f"kill {pid} 2>/dev/null; n=0; while kill -0 {pid} 2>/dev/null; do"
            f" n=$((n+1)); [ $n -lt {int(seconds * 10)} ] || exit 1; sleep 0.1; done"
        )

    def wait(self, command: str, *, seconds: float = 30.0) -> str:
        """Wait until a command succeeds; what it prints then."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.run(command)
            except MachineError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def console(self) -> str:
        """The end of what the kernel has printed."""
        return self._console.read_text(errors="replace")[-2000:]
