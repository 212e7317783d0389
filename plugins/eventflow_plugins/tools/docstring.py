"""What a docstring tells of a function and of its parameters."""

from __future__ import annotations

import inspect
import re

__all__ = ["read_docstring"]

_END = re.compile(r"(?m)^(?:(?:Args|Arguments|Returns|Raises|Yields|Examples?|Notes?|Attributes):\s*$|:\w)")
_ARGS = re.compile(r"(?m)^(?:Args|Arguments):[ \t]*\n((?:[ \t]+.*\n?|[ \t]*\n)*)")
_GOOGLE = re.compile(r"(?m)^\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*(?:\n[ \t]+.*)*)")
_SPHINX = re.compile(r"(?m)^:param (?:.*? )?(\w+): *(.*(?:\n[ \t]+.*)*)")


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of each parameter, in the style of Google or of Sphinx."""
    end = _END.search(text)
    block = _ARGS.search(text)
    entries = _SPHINX.findall(text) + ([] if block is None else _GOOGLE.findall(inspect.cleandoc("\n" + block[1])))
    explained = {name: " ".join(said.split()) for name, said in entries if said.strip()}
    return text[: end.start() if end else None].strip(), explained
