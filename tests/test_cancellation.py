"""A task of asyncio that is cancelled at any of its awaits leaves no connection open that nobody can use."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
from scenarios import answer, body

from eventflow import AsyncClient, Dispatcher
from eventflow.errors import HTTPStatusError
from eventflow.waiting import wholly

STREAM = body(answer("a", "b"))
HEAD = b"HTTP/1.1 %s\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n"
MOST = 60  # awaits of a request and its answer, and many more


class Cancelled:
    """A coroutine whose task is cancelled at its n-th await."""

    def __init__(self, coroutine: Any, number: int) -> None:
        self.coroutine = coroutine
        self.left = number

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self.coroutine.__await__()
        send: Callable[[Any], Any] = steps.send
        value: Any = None
        while True:
            try:
                waited = send(value)
            except StopIteration as done:
                return done.value
            self.left -= 1
            if self.left == 0:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                send, value = steps.send, (yield waited)
            except BaseException as error:
                send, value = steps.throw, error


class Host:
    """Answers requests, and knows how many connections its clients keep open."""

    def __init__(self, status: bytes) -> None:
        self.answer = HEAD % (status, len(STREAM)) + STREAM
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.open -= 1
        finally:
            writer.close()

    async def settled(self, connections: int) -> bool:
        """Whether so many are open, as soon as what is under way has come."""
        for _ in range(100):
            if self.open == connections:
                return True
            await asyncio.sleep(0.002)
        return False


async def read(client: AsyncClient) -> None:
    """A stream, to its end."""
    await Dispatcher().arun(await client.responses.create(model="m", input="hello", stream=True))


async def leave(client: AsyncClient) -> None:
    """A stream, left at its first event."""
    async with await client.responses.create(model="m", input="hello", stream=True) as stream:
        async for _ in stream:
            break


async def refused(client: AsyncClient) -> None:
    """An error."""
    with pytest.raises(HTTPStatusError):
        await client.responses.create(model="m", input="hello")


@pytest.mark.parametrize(("scenario", "status"), [(read, b"200 X"), (leave, b"200 X"), (refused, b"404 X")])
def test_connection_when_its_task_is_cancelled_anywhere_is_closed_or_idle(
    scenario: Callable[[AsyncClient], Awaitable[None]], status: bytes
) -> None:
    """Connecting, sending, reading, and in the middle of closing: what is open can be used again."""

    async def cancelled_at(number: int) -> bool:
        host = Host(status)
        async with await asyncio.start_server(host.serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
                coroutine = Cancelled(scenario(client), number)

                async def run() -> None:
                    await coroutine

                task = asyncio.create_task(run())
                await asyncio.wait([task])
                pool: Any = client._http
                idle = [one for one in pool._transport._pool.connections if one.is_idle()]
                assert await host.settled(len(idle)), f"await {number}: {host.open} open, {len(idle)} idle"
                if not task.cancelled():
                    task.result()
            assert await host.settled(0)
        return coroutine.left <= 0

    async def main() -> None:
        for number in range(1, MOST):
            if not await cancelled_at(number):
                return
        pytest.fail("there is no end of awaits")

    asyncio.run(main())


def test_wholly_when_nothing_is_cancelled_gives_what_was_raised() -> None:
    """An error of the close is the caller's."""

    async def close() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(wholly(close))
