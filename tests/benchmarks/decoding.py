"""Bytes to frames: `eventflow.sse.Decoder` and other decoders of server-sent events."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator

from measure import Lap, Prepare, Race, race
from responses import response
from streams import CHUNKINGS, Recorded, text_stream

from eventflow import sse

__all__ = ["DECODERS", "decode", "decode_recorded"]

Decode = Callable[[list[bytes]], Iterable[object]]
"""Gives the events of one body."""


def decode(events: int, rounds: int) -> list[Race]:
    """Bytes to frames and no further, each decoder fed as its own package feeds it."""
    body = b"".join(text_stream(events))
    return [_decode(f"decode only, {form}", [cut(body)], rounds) for form, cut in CHUNKINGS.items()]


def decode_recorded(streams: Recorded, rounds: int) -> list[Race]:
    """The same over recorded streams, which are short: making a decoder counts too."""
    return [
        _decode(f"decode only, recorded streams, {form}", [cut(body) for body in streams.bodies], rounds)
        for form, cut in CHUNKINGS.items()
    ]


def _decode(title: str, bodies: list[list[bytes]], rounds: int) -> Race:
    contenders = {name: _lap(make, bodies) for name, make in DECODERS.items()}
    return race(title, contenders, events=sum(1 for body in bodies for _ in sse.decode(body)), rounds=rounds)


def _lap(make: Callable[[], Decode], bodies: list[list[bytes]]) -> Prepare:
    def prepare() -> Lap:
        decode_body = make()

        def lap() -> int:
            count = 0
            for body in bodies:
                for _ in decode_body(body):
                    count += 1
            return count

        return lap

    return prepare


def _ours() -> Decode:
    def frames(chunks: list[bytes]) -> Iterator[sse.Frame]:
        feed = sse.Decoder().feed
        for chunk in chunks:
            yield from feed(chunk)

    return frames


def _openai() -> Decode:
    from openai._streaming import SSEDecoder

    return lambda chunks: SSEDecoder().iter_bytes(iter(chunks))


def _httpx_sse() -> Decode:
    from httpx_sse import EventSource

    return lambda chunks: EventSource(response(chunks)).iter_sse()


def _httpx_sse_alone() -> Decode:
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    def frames(chunks: list[bytes]) -> Iterator[object]:
        lines, decoder, text = SSELineDecoder(), SSEDecoder(), codecs.getincrementaldecoder("utf-8")()
        for chunk in chunks:
            for line in lines.decode(text.decode(chunk)):
                event = decoder.decode(line)
                if event is not None:
                    yield event

    return frames


def _launchdarkly() -> Decode:
    from ld_eventsource.actions import Event  # type: ignore[import-untyped]
    from ld_eventsource.reader import _BufferedLineReader, _SSEReader  # type: ignore[import-untyped]

    def events(chunks: list[bytes]) -> Iterator[object]:
        for item in _SSEReader(_BufferedLineReader.lines_from(chunks)).events_and_comments():
            if isinstance(item, Event):  # as its client does it
                yield item

    return events


DECODERS: dict[str, Callable[[], Decode]] = {
    "eventflow.sse.Decoder": _ours,
    "openai SSEDecoder": _openai,
    "httpx-sse EventSource": _httpx_sse,
    "httpx-sse, its decoder alone": _httpx_sse_alone,
    "launchdarkly-eventsource": _launchdarkly,
}
