"""Runs commands for the machine's owner: a JSON object a line, in and out, over a virtio port.

In: {"id": n, "command": shell text, "seconds": limit}. Out: {"id": n, "status": exit status,
"output": what it printed}. Each runs in a thread of its own, so slow ones hold up no others.
"""

import json
import os
import subprocess
import threading
import time
from typing import Any

PORT = "/dev/virtio-ports/agent"
writing = threading.Lock()


def find_port() -> str:
    """The device of the port named `agent`: there is no udev that would link it."""
    while True:
        for name in os.listdir("/sys/class/virtio-ports"):
            with open(f"/sys/class/virtio-ports/{name}/name") as file:
                if file.read().strip() == "agent":
                    return f"/dev/{name}"
        time.sleep(0.05)


def run(port: int, request: dict[str, Any]) -> None:
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", request["command"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=request["seconds"],
            check=False,
        )
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        status, output = 124, (error.stdout or b"") + b"\n(it took too long)"
    answer = {"id": request["id"], "status": status, "output": output.decode(errors="replace")}
    data = json.dumps(answer).encode() + b"\n"
    with writing:
        while data:
            data = data[os.write(port, data) :]


def main() -> None:
    port = os.open(find_port(), os.O_RDWR)
    data = b""
    while True:
        try:
            more = os.read(port, 65536)
        except OSError:
            more = b""
        if not more:  # nobody is at the other end yet
            time.sleep(0.05)
            continue
        *lines, data = (data + more).split(b"\n")
        for line in lines:
            threading.Thread(target=run, args=(port, json.loads(line)), daemon=True).start()


main()
