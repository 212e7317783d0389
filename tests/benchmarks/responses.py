"""Chunks as the body of an httpx response, for all contenders alike: what a network would cost is left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx

__all__ = ["async_response", "response"]


class _Body(httpx.SyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)


class _AsyncBody(httpx.AsyncByteStream):
    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def response(chunks: list[bytes]) -> httpx.Response:
    """A response with these *chunks* for its body, to be read once."""
    return _answer(_Body(chunks))


def async_response(chunks: list[bytes]) -> httpx.Response:
    """`response`, for async readers."""
    return _answer(_AsyncBody(chunks))


def _answer(body: httpx.SyncByteStream | httpx.AsyncByteStream) -> httpx.Response:
    request = httpx.Request("POST", "http://localhost/v1/responses")
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body, request=request)
