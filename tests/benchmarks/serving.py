"""A server of Responses API streams on loopback: prints its port, and ends when its stdin is closed.

Every event is a chunk of HTTP, and every chunk a write of its own. What a slow client finds together in its socket, and
what a transport then gives on together, is their own doing.
"""

from __future__ import annotations

import asyncio
import functools
import json
import random
import resource
import sys
from asyncio import StreamReader, StreamWriter

from streams import text_stream

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-store\r\n"
    b"x-request-id: req_live\r\ntransfer-encoding: chunked\r\n\r\n"
)


class _Server:
    """Answers every request with a stream of text; the request's metadata say which.

    ``deltas`` are its pieces of text. ``pace`` is how many events are sent in a second; 0 is as fast as it goes.
    ``together`` is how many requests must have come before any of them is answered.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    async def connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection until either side ends."""
        writer.transport.set_write_buffer_limits(0)  # nothing is joined here: a chunk waits until the last one is sent
        try:
            while True:
                await self._answer(writer, **await _metadata(reader))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    async def _answer(self, writer: StreamWriter, deltas: int, pace: int, together: int) -> None:
        await self._all_here(together)
        writer.write(_HEAD)
        now = asyncio.get_running_loop().time
        due = now() + random.random() / (pace or 1)  # streams that begin together do not beat together
        for chunk in _chunks(deltas):
            if pace:
                due += 1 / pace
                await asyncio.sleep(due - now())
            writer.write(chunk)
            await writer.drain()

    async def _all_here(self, together: int) -> None:
        self._waiting.append(asyncio.get_running_loop().create_future())
        if len(self._waiting) < together:
            await self._waiting[-1]
            return
        for waiting in self._waiting:
            waiting.set_result(None)
        self._waiting = []


async def _metadata(reader: StreamReader) -> dict[str, int]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length:"))
    request = json.loads(await reader.readexactly(int(length.partition(b":")[2])))
    return {name: int(value) for name, value in request["metadata"].items()}


@functools.cache
def _chunks(deltas: int) -> list[bytes]:
    return [b"%x\r\n%s\r\n" % (len(event), event) for event in text_stream(deltas)] + [b"0\r\n\r\n"]


async def _serve() -> None:
    server = await asyncio.start_server(_Server().connected, "127.0.0.1", backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(_serve())
