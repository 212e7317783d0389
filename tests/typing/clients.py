"""What type checkers know of clients. Each ignored error must be one: an unneeded ignore fails the check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

import httpx

from eventflow import AsyncClient, AsyncStream, Client, Dispatcher, Event, Response, Stream, Timeouts
from eventflow.schema import ParsedResponse


@dataclass
class Weather:
    city: str


client = Client(api_key="sk-made-up", timeout=Timeouts(idle=30), http_client=httpx.Client())
flow = Dispatcher()

# what is asked for decides what comes
assert_type(client.responses.create(model="m", input="x"), Response)
assert_type(client.responses.create(model="m", input="x", stream=True), Stream[Response])
assert_type(client.responses.create(model="m", text_format=Weather).parsed, Weather | None)
stream = client.responses.create(model="m", text_format=Weather, stream=True)
assert_type(stream, Stream[ParsedResponse[Weather]])
assert_type(stream.collect().parsed, Weather | None)
assert_type(next(stream), Event)
assert_type(list(stream.text), list[str])
flow.run(stream)

with client.responses.retrieve("resp_1", stream=True, starting_after=3) as events:
    for event in events:
        assert_type(event, Event)
assert_type(client.responses.retrieve("resp_1"), Response)
assert_type(client.responses.cancel("resp_1"), Response)

# a parameter of a wrong type, or a misspelt one, is an error
client.responses.create(model=5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
client.responses.create(modle="m")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
Client(http_client=httpx.AsyncClient())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Timeouts(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def main() -> None:
    async with AsyncClient(http_client=httpx.AsyncClient()) as aclient:
        assert_type(await aclient.responses.create(model="m"), Response)
        assert_type(await aclient.responses.create(model="m", stream=True), AsyncStream[Response])
        parsed = await aclient.responses.create(model="m", stream=True, text_format=Weather)
        assert_type((await parsed.collect()).parsed, Weather | None)
        async for event in parsed:
            assert_type(event, Event)
        async for text in parsed.text:
            assert_type(text, str)
