"""keepalived's notify FIFO: the same as `jsync notify`, without a process for each change."""

import os
import stat

import trio

from jsync.errors import Failure
from jsync.failover import Failover, parse_fifo_line
from jsync.log import Log


async def read_fifo(path: str, failover: Failover, log: Log) -> None:
    """Take the states that come through the FIFO at `path` until cancelled.

    Makes the FIFO if it isn't there. keepalived may come and go. Raises Failure.
    """
    try:
        try:
            os.mkfifo(path, 0o600)
        except FileExistsError:
            if not stat.S_ISFIFO(os.stat(path).st_mode):
                raise Failure(f"{path}: exists and is no FIFO") from None
        # Open for writing too, so that it doesn't end when keepalived closes it.
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    buffer = b""
    async with trio.lowlevel.FdStream(descriptor) as stream:
        async for data in stream:
            *lines, buffer = (buffer + data).split(b"\n")
            buffer = buffer[-4096:]
            for line in lines:
                told = parse_fifo_line(line.decode(errors="replace"))
                try:
                    if told is not None:
                        failover.notify(*told)
                except ValueError as error:
                    log.warning("keepalived's FIFO", error=error)
