"""`Redact`: what must not be seen is taken out of a stream, wherever it says it and however it is cut."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias, cast

import attrs

from eventflow import Event, HandlerFailed, Part, Plugin, Run, rewrite, state, transform
from eventflow.errors import UsageError
from eventflow.events import (
    AudioDelta,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    CodeInterpreterCallCodeDelta,
    CustomToolCallInputDelta,
    FunctionCallArgumentsDelta,
    LocalShellCall,
    McpCallArgumentsDelta,
    ReasoningSummaryTextDelta,
    ReasoningTextDelta,
    Record,
    RefusalDelta,
    Response,
    ResponseFault,
    ShellCall,
    ShellCallCommandDelta,
    ShellCallOutputContentDelta,
    StreamError,
    TextDelta,
    UnknownEvent,
    Untyped,
)
from eventflow_plugins.matching import Pattern, Patterns, Scan

__all__ = ["Ready", "Redact"]

Ready: TypeAlias = Literal["api-keys", "cards", "email"]
"""The patterns that come ready."""


def _luhn(text: str) -> bool:
    """Whether the digits of *text* end in their check digit (ISO/IEC 7812-1)."""
    digits = [int(char) for char in reversed(text) if char.isdecimal()]
    return sum(digit if index % 2 == 0 else sum(divmod(2 * digit, 10)) for index, digit in enumerate(digits)) % 10 == 0


_KEYS: Final = (  # shapes seen in vendors' documentation, November 2026
    r"sk-[\w-]{16,}",  # OpenAI, Anthropic (sk-ant-), and those that follow them
    r"gh[a-z]_\w{20,}|github_pat_\w{20,}",
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",  # AWS
    r"AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}",  # Google
    r"xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}",  # Slack
    r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*",  # a JSON web token
    r"(?i:bearer)\s{1,8}[\w.~+/-]{20,}=*",
)
_CARDS: Final = (  # in one, or in the groups that are printed on them
    r"(?<!\d)\d{13,19}(?!\d)",
    r"(?<!\d)\d{4}([ .\u00a0-]\d{4}){3}([ .\u00a0-]\d{3})?(?!\d)",
    r"(?<!\d)\d{4}([ .\u00a0-]\d{4}){3}(?!\d)",  # a code of three digits may follow: then this is the card
    r"(?<!\d)\d{4}[ .\u00a0-]\d{6}[ .\u00a0-]\d{4,5}(?!\d)",
)
_READY: Final[dict[Ready, tuple[Pattern, ...]]] = {
    "api-keys": tuple(map(Pattern, _KEYS)),
    "cards": tuple(Pattern(source, re.ASCII, _luhn) for source in _CARDS),
    "email": (Pattern(r"[a-zA-Z0-9._%+'-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z][A-Za-z0-9-]{1,62}"),),
}
_LEAST: Final = 100  # characters that must be held for the ready patterns to be found at all

_PIECES: Final = frozenset(
    {
        TextDelta,
        RefusalDelta,
        ReasoningTextDelta,
        ReasoningSummaryTextDelta,
        FunctionCallArgumentsDelta,
        CustomToolCallInputDelta,
        McpCallArgumentsDelta,
        CodeInterpreterCallCodeDelta,
        ShellCallCommandDelta,
        AudioDelta,
    }
)
# Fields of the vocabulary that stay: what was rewritten, what others refer to, and what is no text.
_REWRITTEN: Final = frozenset({"text", "refusal", "delta", "arguments", "input", "code", "command"})
_NAMES: Final = frozenset({"type", "id", "name", "model", "object", "role", "status", "kind", "phase", "outcome"})
_OPAQUE: Final = frozenset({"encrypted_content", "partial_image_b64", "result"})
_STAYING: Final = _REWRITTEN | _NAMES | _OPAQUE
_NAMED_ALIKE: Final = frozenset({(Response, "text"), (StreamError, "code"), (ResponseFault, "code")})  # not rewritten
_ACTIONS: Final[dict[type[Record], str]] = {ShellCall: "commands", LocalShellCall: "command"}  # these were rewritten
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LARGEST: Final = 1e22  # beyond the number of any account or card


class Redact(Plugin):
    r"""Takes API keys, e-mail addresses, payment cards, words and patterns out of what goes on behind it.

    ::

        Dispatcher(Redact(), Log("run.jsonl"))  # what comes ready: API keys, cards, e-mail
        Redact(r"ACME-\d{6}", words=["Project Aurora"])  # that, and two of your own
        Redact(r"ACME-\d{6}", ready=())  # your own alone

    Text, refusals, reasoning, arguments, inputs, code and commands are redacted alike in their deltas and wherever
    the stream repeats them; however a text is cut into deltas, joined they are `redact` of the whole. Only what could
    begin a match is held back. Arguments that are JSON are held back until they are whole; every string, key and
    number in them is redacted, and they stay JSON. Of all else that events carry, strings are redacted one by one.

    ``run.response``, ``run.text``, errors and recordings are what was received. docs/redact.md says what else is not
    covered.

    Attributes:
        patterns: Regular expressions, as text or compiled, one by one or as a list. Those that cannot be found in
            pieces are refused.
        words: Plain texts to take out, whatever their case, within longer words too.
        ready: Which of the ready patterns: ``api-keys``, ``cards`` (checked by their check digit), ``email``.
        replacement: What stands in the place of a match.
        limit: Characters of a text held back at most. A match that gets longer is replaced as far as it has come,
            and what follows too if it comes true.

    Raises:
        UsageError: A pattern does not compile, matches the empty text, or has a backreference, a possessive repeat, an
            atomic group, a repeat of what may be empty, ``$`` without MULTILINE, or looks at more than one character
            ahead or behind; the configuration is none.
    """

    patterns: tuple[str | re.Pattern[str], ...]
    words: tuple[str, ...]
    ready: tuple[Ready, ...]
    replacement: str
    limit: int
    _compiled: Patterns = attrs.field(repr=False)
    _transcript: Scan | None = state(default=None)

    def __init__(
        self,
        *given: str | re.Pattern[str] | Sequence[str | re.Pattern[str]],
        patterns: str | re.Pattern[str] | Iterable[str | re.Pattern[str]] = (),
        words: str | Iterable[str] = (),
        ready: Ready | Iterable[Ready] = ("api-keys", "cards", "email"),
        replacement: str = "[redacted]",
        limit: int = 4096,
    ) -> None:
        more = (patterns,) if isinstance(patterns, str | re.Pattern) else patterns
        if len(given) == 1 and isinstance(given[0], list | tuple):
            given = tuple(given[0])
        self.patterns = (*cast("tuple[str | re.Pattern[str], ...]", given), *more)
        self.words = (words,) if isinstance(words, str) else tuple(words)
        self.ready = cast("tuple[Ready, ...]", (ready,) if isinstance(ready, str) else tuple(ready))
        self.replacement = replacement
        self.limit = limit
        if not isinstance(replacement, str):
            raise UsageError(f"Redact(replacement=...) takes text, not {replacement!r}")
        if type(limit) is not int or limit < _LEAST:
            raise UsageError(f"Redact(limit=...) must be an integer of at least {_LEAST}, not {limit!r}")
        wanted = [*map(_pattern, self.patterns), *map(_word, self.words)]
        for name in self.ready:
            if name not in _READY:
                raise UsageError(f"Redact(ready=...): {name!r} does not come ready; there is {', '.join(_READY)}")
            wanted += _READY[name]
        if not wanted:
            raise UsageError("Redact() has nothing to take out; give it a pattern, words, or ready ones")
        self._compiled = Patterns(wanted)

    def __repr__(self) -> str:  # words and patterns may be secrets themselves
        return f"Redact({len(self.patterns)} patterns, {len(self.words)} words, ready={self.ready!r})"

    def redact(self, text: str) -> str:
        """*text* without its matches."""
        scan = Scan(self._compiled, self.replacement, self.limit)
        return scan.feed(text) + scan.finish()

    # --- texts that come in pieces -----------------------------------------------------------------------------------

    @rewrite("text", "refusal", "reasoning", "tool")
    def _rewritten(self, text: str, part: Part) -> str:
        if part.is_json:
            return self._arguments_so_far(text, part)
        scan = part.memory
        if not isinstance(scan, Scan):
            scan = part.memory = Scan(self._compiled, self.replacement, self.limit)
        return scan.finish() if part.final else scan.feed(text)

    def _arguments_so_far(self, text: str, part: Part) -> str:
        pieces = cast("list[str] | None", part.memory)
        if pieces is None:
            pieces = part.memory = list[str]()
        pieces.append(text)
        return self._arguments("".join(pieces)) if part.final else ""

    @transform(AudioTranscriptDelta, AudioTranscriptDone)
    def _transcribed(self, event: AudioTranscriptDelta | AudioTranscriptDone) -> list[Event]:
        if isinstance(event, AudioTranscriptDone):
            return [*self._rest(), event]
        if self._transcript is None:
            self._transcript = Scan(self._compiled, self.replacement, self.limit)
        given = self._transcript.feed(event.delta)
        return [event.replace(delta=given)] if given else []

    def finish(self, run: Run) -> list[Event]:
        """What is held of a transcript goes on."""
        return self._rest()

    def _rest(self) -> list[Event]:
        rest, self._transcript = "" if self._transcript is None else self._transcript.finish(), None
        return [AudioTranscriptDelta(rest)] if rest else []

    # --- arguments ---------------------------------------------------------------------------------------------------

    def _arguments(self, text: str) -> str:
        """JSON with every string, key and number redacted; what is no JSON as a text."""
        try:
            json.loads(text, strict=False, parse_int=str, parse_float=str, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return self._guarded(text)
        return _TOKEN.sub(self._token, text)

    def _token(self, match: re.Match[str]) -> str:
        token = match[0]
        before: str = json.loads(token, strict=False) if token[0] == '"' else token
        after = self._guarded(before) if token[0] == '"' else self._number(token)
        return token if after == before else json.dumps(after)

    def _guarded(self, text: str) -> str:
        """*text* redacted; as a whole, where a match would come out of the escapes in it."""
        given = self.redact(text)
        plain = _unescaped(given)
        return given if plain == given or self.redact(plain) == plain else self.replacement

    def _number(self, token: str) -> str:
        plain = token
        if not token.lstrip("-").isdigit() and 1 <= abs(float(token)) < _LARGEST:
            plain = f"{Decimal(token):f}"  # 4.2e2 is 420, and so is 420.00
            plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
        unchanged = self.redact(token) == token and self.redact(plain) == plain
        return token if unchanged else self.replacement

    # --- everything else ---------------------------------------------------------------------------------------------

    @transform("text", "refusal", "reasoning", "tool", "item", "lifecycle", "error", "audio", "unknown")
    def _others(self, event: Event) -> Event | None:
        cls = type(event)
        if cls in _PIECES:
            if isinstance(event, TextDelta) and event.logprobs is not None:
                event = event.replace(logprobs=None)
            extra = getattr(event, "extra")  # noqa: B009  # a field of every event that providers send
            return event if extra is None else event.replace(extra=None)  # it may be a piece, too
        if isinstance(event, ShellCallOutputContentDelta):
            return None  # pieces of free form; its done event has the whole
        if isinstance(event, HandlerFailed):
            return event.replace(event=None)  # its handler may stand before this plugin
        if isinstance(event, UnknownEvent):
            return event.replace(data=self._free(event.data), extra=self._free(event.extra))
        return cast("Event", self._record(event))

    def _record(self, record: Record) -> Record:
        changes: dict[str, object] = {}
        for name in record.__struct_fields__:
            stays = name in _STAYING or name.endswith("_id")
            if stays and (type(record), name) not in _NAMED_ALIKE:
                continue
            value = getattr(record, name)
            if value is None:
                continue
            if name == "logprobs":  # they spell the text once more, and what might have come instead
                changes[name] = None
                continue
            done = _ACTIONS.get(type(record)) if name == "action" else None
            if done is not None and isinstance(value, dict) and done in value:
                action = cast("dict[str, object]", value)
                changed = self._free({key: inner for key, inner in action.items() if key != done})
                changed[done] = action[done]
            else:
                changed = self._field(value)
            if changed is not value and changed != value:
                changes[name] = changed
        return record.replace(**changes) if changes else record

    def _field(self, value: Any) -> Any:
        if isinstance(value, Record):
            return self._record(value)
        if isinstance(value, tuple):
            return tuple(map(self._field, cast("tuple[object, ...]", value)))
        return value if isinstance(value, int | float) else self._free(value)  # numbers of ours are counts and times

    def _free(self, value: Any, key: str = "") -> Any:
        """JSON with every string, key and number redacted, but for its type and what is encrypted."""
        if isinstance(value, str):
            return value if key in ("type", "encrypted_content") else self._guarded(value)
        if isinstance(value, Untyped):
            return Untyped(self._free(value.data))
        if isinstance(value, dict):
            changed: dict[str, Any] = {}
            counts: dict[str, int] = {}  # of keys that became the same: not counted anew for each of many
            for name, inner in cast("dict[str, Any]", value).items():
                key = given = self._guarded(name)
                while key in changed:
                    counts[given] = counts.get(given, 1) + 1
                    key = f"{given}_{counts[given]}"
                changed[key] = self._free(inner, name)
            return changed
        if isinstance(value, list):
            return [self._free(inner) for inner in cast("list[object]", value)]
        if isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, float) and not math.isfinite(value):  # an integer may be too large for a float
                return value
            token = json.dumps(value)
            given = self._number(token)
            return value if given == token else given
        return value


def _pattern(given: object) -> Pattern:
    if isinstance(given, re.Pattern):
        source = cast("object", given.pattern)  # pyright: ignore[reportUnknownMemberType]
        if isinstance(source, str):
            return Pattern(source, given.flags)
    if not isinstance(given, str):
        raise UsageError(f"Redact() takes patterns as text or compiled from text, not {given!r}")
    return Pattern(given)


def _word(given: object) -> Pattern:
    if not isinstance(given, str) or not given:
        raise UsageError(f"Redact(words=...) takes texts that are not empty, not {given!r}")
    return Pattern(re.escape(given), re.IGNORECASE)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _unescaped(text: str) -> str:
    """*text* with the escapes of JSON read, those within escapes too."""
    while "\\" in text:
        plain = _ESCAPE.sub(_character, text)
        if plain == text:
            break
        text = plain
    return text


def _character(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2], match[2])
