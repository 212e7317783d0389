"""Foreign text, safe to show: what a model writes must never drive a terminal, split a log line or turn text around.

The escapes are JSON's own, so that escaped JSON is still the same JSON: one function serves terminals, logs and JSON
Lines.
"""

from __future__ import annotations

import re

__all__ = ["printable"]

# C0, DEL and C1 drive terminals (ESC and its one-byte forms: cursor, clipboard, links). The marks that set the
# direction of text make it read otherwise than it is (CVE-2021-42574). U+2028 and U+2029 end a line for some readers.
# A lone surrogate cannot be encoded.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_LINE = re.compile(f"[{_UNSAFE}]")
_LINES = re.compile(f"(?![\n\t])[{_UNSAFE}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, *, newlines: bool = False) -> str:
    r"""*text* with every character that could do harm as a visible escape; the rest stays as it is.

    Control characters, direction marks, line separators and lone surrogates become ``\n``, ``\r``, ``\t`` or
    ``\u001b``. The result is one line and can be encoded. Backslashes stay, so it cannot be read back; of JSON text it
    is JSON with the same value.

    >>> print(printable("a\x1b]52;c;aGk=\a"))
    a\u001b]52;c;aGk=\u0007

    Args:
        text: Any text.
        newlines: Keep newlines and tabs, for text that may take several lines.
    """
    if text.isprintable():  # nearly always, and the fastest to find out
        return text
    return (_LINES if newlines else _LINE).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    return _SHORT.get(character) or f"\\u{ord(character):04x}"
