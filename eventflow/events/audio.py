"""Audio: what the model speaks."""

from __future__ import annotations

from eventflow.events._base import WireEvent

__all__ = ["AudioDelta", "AudioDone", "AudioEvent", "AudioTranscriptDelta", "AudioTranscriptDone"]


class AudioEvent(WireEvent, family="audio"):
    """Speech; as a selector, the family ``audio``."""


class AudioDelta(AudioEvent, tag="response.audio.delta"):
    """The next piece of audio, base64."""

    delta: str


class AudioDone(AudioEvent, tag="response.audio.done"):
    """The audio is complete."""


class AudioTranscriptDelta(AudioEvent, tag="response.audio.transcript.delta"):
    """The next piece of the transcript."""

    delta: str


class AudioTranscriptDone(AudioEvent, tag="response.audio.transcript.done"):
    """The transcript is complete."""
