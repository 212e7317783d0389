"""What is asked of a provider, in the words of the Responses API: parameters, items and parts, as plain JSON.

Facts: the types of the public package openai 3.54.0 (read November 2026).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import attrs
import msgspec

from eventflow.errors import UsageError
from eventflow.plain import as_list, as_mapping, as_sent

__all__ = [
    "HOSTED_ITEMS",
    "HOSTED_TOOLS",
    "TEXT_PARTS",
    "Asked",
    "Cannot",
    "Choice",
    "Item",
    "Media",
    "choice_of",
    "image_type",
    "kind_of",
    "media_of",
    "object_of",
    "on_host",
    "parts_of",
    "text_of",
]

Cannot: TypeAlias = Callable[[str], None]
"""Is told what cannot be sent, beginning with the parameter's name; raises, or warns and lets the rest be sent."""

TEXT_PARTS = frozenset(("input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"))
"""The types of the parts that are text."""

HOSTED_TOOLS = frozenset(
    (
        "apply_patch",
        "code_interpreter",
        "computer",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "local_shell",
        "mcp",
        "namespace",
        "programmatic_tool_calling",
        "shell",
        "tool_search",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    )
)
"""The types of the tools that servers of the Responses API run themselves, or know how to be used."""

HOSTED_ITEMS = frozenset(
    (
        "apply_patch_call",
        "apply_patch_call_output",
        "code_interpreter_call",
        "compaction",
        "compaction_trigger",
        "computer_call",
        "computer_call_output",
        "file_search_call",
        "image_generation_call",
        "item_reference",
        "local_shell_call",
        "local_shell_call_output",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_list_tools",
        "program",
        "program_output",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    )
)
"""The types of the items that come of these, or refer to what a server of the Responses API keeps."""

_NOWHERE = {  # what no other API has, and what to do about it
    "previous_response_id": "send the items of the earlier turns in input",
    "conversation": "send the items of the earlier turns in input",
    "prompt": "send its text as instructions and input",
    "background": "wait for the answer in a thread or task of your own",
    "max_tool_calls": "count the calls where you run them",
    "truncation": "shorten the input yourself",
}
_ROLES = ("user", "assistant", "system", "developer")
_MEDIA_TYPES = {  # by the end of a file's name
    "csv": "text/csv",
    "gif": "image/gif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webp": "image/webp",
}
_IMAGE_TYPES = {"/9j/": "image/jpeg", "R0lG": "image/gif", "UklG": "image/webp"}  # by the first bytes, in base64


# --- parameters ------------------------------------------------------------------------------------------------------


class Asked:
    """The parameters of one request: each is taken once, and what is left is the provider's own.

    Attributes:
        api: What the provider's API is called in messages.
        cannot: Is told what cannot be sent.
    """

    def __init__(self, parameters: Mapping[str, object], api: str, cannot: Cannot, within: str = "") -> None:
        self.api = api
        self.cannot = cannot
        self._within = within
        self._left = _plain({name: value for name, value in parameters.items() if value is not None})

    def take(self, name: str) -> Any:
        """The value of a parameter, or None; it is not left any more."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str:
        """A parameter that is text, ``""`` where it is not given; raises `UsageError` where it is something else."""
        return str(self._of_kind(name, str, "text") or "")

    def fields(self, name: str) -> dict[str, Any]:
        """A parameter that is an object, empty where it is not given; raises `UsageError` likewise."""
        return as_mapping(self._of_kind(name, dict, "a mapping"))

    def elements(self, name: str) -> Sequence[Any]:
        """A parameter that is a list, empty where it is not given; raises `UsageError` likewise."""
        return as_list(self._of_kind(name, (list, tuple), "a list"))

    def _of_kind(self, name: str, kind: type | tuple[type, ...], what: str) -> object:
        value: object = self.take(name)
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"{self._within}{name} takes {what}, not {type(value).__name__}")
        return value

    def move(self, names: Mapping[str, str] | Sequence[str], body: dict[str, Any]) -> None:
        """Put parameters into *body* as they are, under names of the provider's own where *names* is a mapping."""
        named = names if isinstance(names, Mapping) else {name: name for name in names}
        for name, other in named.items():
            value = self.take(name)
            if value is not None:
                body[other] = value

    def part(self, name: str) -> Asked:
        """The fields of a parameter that is an object."""
        return Asked(self.fields(name), self.api, self.cannot, f"{name}.")

    def refuse(self, name: str, advice: str = "leave it out") -> None:
        """Say that there is no such parameter; nothing where its value says nothing."""
        value = self.take(name)
        if value and value != "disabled":
            self.cannot(f"{self._within}{name}: {self.api} has no such thing; {advice}")

    def refuse_rest(self) -> None:
        """Say so of all that is left."""
        for name in list(self._left):
            self.refuse(name)

    def refuse_what_is_kept(self) -> None:
        """Say so of what only a server of the Responses API has: responses that it keeps, and works at by itself."""
        for name, advice in _NOWHERE.items():
            self.refuse(name, advice)

    def included(self, *known: str) -> set[str]:
        """Which of *known* are asked for by ``include``; of encrypted reasoning nobody needs to be asked."""
        asked = self.elements("include")
        for name in asked:
            if name not in known and name != "reasoning.encrypted_content":
                self.cannot(f"include: {self.api} has no {name}; leave it out")
        return {name for name in known if name in asked}

    def rest(self, body: dict[str, Any]) -> dict[str, object]:
        """*body* with what is left, the provider's own parameters: of an object that both have, they win by field."""
        for name, value in self._left.items():
            both = isinstance(value, dict) and isinstance(body.get(name), dict)
            body[name] = {**body[name], **value} if both else value
        return body

    def items(self) -> Iterator[Item]:
        """The items of the input.

        Raises:
            UsageError: It is neither text nor a list of items.
        """
        value: Any = self.take("input")
        if isinstance(value, str):
            value = [{"role": "user", "content": value}]
        elif value is not None and not isinstance(value, list | tuple):
            raise UsageError(f"input takes text or a list of items, not {type(value).__name__}")
        for number, item in enumerate(as_list(value)):
            yield Item(f"input[{number}]", item)

    def tools(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The tools, and where each is.

        Raises:
            UsageError: One is no object, or a function without a name.
        """
        for number, tool in enumerate(self.elements("tools")):
            where = f"tools[{number}]"
            if not isinstance(tool, dict):
                raise UsageError(f"{where}: a tool is a mapping, not {type(tool).__name__}")
            plain = cast("dict[str, Any]", tool)
            kind = plain.get("type")
            if kind is not None and not isinstance(kind, str):
                raise UsageError(f"{where}.type takes text, not {type(kind).__name__}")
            if kind in ("function", "custom") and isinstance(plain.get(kind), dict):  # as Chat Completions nests it
                plain = {"type": kind, **plain[kind]}
            if kind == "function" and not plain.get("name"):
                raise UsageError(f"{where}: a function has no name; the model calls it by that")
            yield where, plain


class Item:
    """An item of the input.

    Attributes:
        where: Its place, for messages.
        data: Its fields.
        type: Its type; ``"message"`` where it only has a role.
    """

    def __init__(self, where: str, data: object) -> None:
        if not isinstance(data, dict):
            raise UsageError(f"{where}: an item is a mapping or a record, not {type(data).__name__}")
        self.where = where
        self.data = cast("dict[str, Any]", data)
        self.type = str(self.data.get("type") or ("message" if "role" in self.data else ""))
        if not self.type:
            raise UsageError(f"{where}: an item has a type, or a role if it is a message; it has {sorted(self.data)}")

    @property
    def role(self) -> str:
        """Whose message it is."""
        role = self.data.get("role")
        if role not in _ROLES:
            raise UsageError(f"{self.where}.role: it is one of {', '.join(_ROLES)}, not {role!r}")
        return str(role)

    @property
    def call_id(self) -> str:
        """What a call and its output are told by."""
        call_id = self.data.get("call_id") or self.data.get("id")
        if not isinstance(call_id, str):
            raise UsageError(f"{self.where}: a {self.type} needs the call_id by which call and output find each other")
        return call_id

    def text(self, name: str) -> str:
        """A field that is text."""
        value = self.data.get(name)
        return value if isinstance(value, str) else ""

    def parts(self, name: str = "content") -> Iterator[tuple[str, dict[str, Any]]]:
        """The parts of a field, and where each is."""
        for number, part in enumerate(parts_of(self.data.get(name))):
            yield f"{self.where}.{name}[{number}]", part

    def thoughts(self, name: str = "content") -> str:
        """The text of a piece of reasoning."""
        return "".join(text_of(part) for _, part in self.parts(name))


def _plain(parameters: dict[str, object]) -> dict[str, Any]:
    """JSON values of *parameters*, our own records and pydantic's objects included."""
    try:
        return cast("dict[str, Any]", msgspec.to_builtins(parameters, enc_hook=as_sent, str_keys=True))
    except (TypeError, ValueError, RecursionError) as error:
        # without the frames below: their variables are what was asked
        raise UsageError(f"the parameters of the request are no JSON: {error}") from error.with_traceback(None)


# --- parts -----------------------------------------------------------------------------------------------------------


def parts_of(content: object) -> list[dict[str, Any]]:
    """The parts of a message, or of a tool's output: text is one part, and what is no part its JSON."""
    if content is None:
        return []
    parts: list[Any] = as_list(content) if isinstance(content, list | tuple) else [content]
    return [
        cast("dict[str, Any]", part)
        if isinstance(part, dict) and isinstance(cast("dict[str, Any]", part).get("type"), str)
        else {"type": "input_text", "text": part if isinstance(part, str) else json.dumps(part)}
        for part in parts
    ]


def text_of(part: Mapping[str, Any]) -> str:
    """The text of a part, a refusal included; ``""`` where it is none."""
    value = part.get("text") or part.get("refusal")
    return value if isinstance(value, str) and part.get("type") in TEXT_PARTS else ""


@attrs.frozen
class Media:
    """An image or a file: its data, or where it is.

    Attributes:
        media_type: What it is, ``""`` where nobody knows.
        data: It itself, in base64.
        url: Its address.
        file_id: By which the provider knows it.
        name: What the file is called.
    """

    media_type: str = ""
    data: str = ""
    url: str = ""
    file_id: str = ""
    name: str = ""


def media_of(part: Mapping[str, Any]) -> Media:
    """What a part of type ``input_image`` or ``input_file`` shows."""
    file_id, name = str(part.get("file_id") or ""), str(part.get("filename") or "")
    if part.get("type") == "input_image":
        given: object = part.get("image_url")
        source = given if isinstance(given, str) else str(as_mapping(given).get("url") or "")
    else:
        source = str(part.get("file_data") or "")
        if source and not source.startswith("data:"):
            return Media(_by_name(name), data=source, file_id=file_id, name=name)
        source = source or str(part.get("file_url") or "")
    head, comma, data = source.partition(",")
    if head.startswith("data:") and comma and head.endswith(";base64"):
        return Media(head[5:-7].partition(";")[0] or _by_name(name), data=data, file_id=file_id, name=name)
    return Media(_by_name(urlsplit(source).path) or _by_name(name), url=source, file_id=file_id, name=name)


def _by_name(name: str) -> str:
    return _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "")


def image_type(data: str) -> str:
    """What kind of image this is, in base64; PNG unless it says something else."""
    return _IMAGE_TYPES.get(data[:4], "image/png")


# --- calls and choices -----------------------------------------------------------------------------------------------


def object_of(arguments: str) -> dict[str, Any]:
    """The arguments of a call as the object that most APIs want.

    What a model wrote that is none is given under the name that Anthropic proposes for that (its guide to fine-grained
    tool streaming, read November 2026).
    """
    value: object = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(arguments) if arguments.strip() else {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {"INVALID_JSON": arguments}


@attrs.frozen
class Choice:
    """Which tools the model may use.

    Attributes:
        mode: ``auto``, ``none`` or ``required``.
        names: Those it may use, empty for all.
    """

    mode: str
    names: tuple[str, ...] = ()


def choice_of(value: object) -> Choice | None:
    """What a ``tool_choice`` of the Responses API means; None where it is in other words."""
    if value in ("auto", "none", "required"):
        return Choice(str(value))
    choice, kind = as_mapping(value), kind_of(value)
    if kind in ("function", "custom"):
        name = choice.get("name") or as_mapping(choice.get(kind)).get("name")
        return Choice("required", (str(name),)) if name else None
    if kind == "allowed_tools":
        names = (as_mapping(tool).get("name") for tool in as_list(choice.get("tools")))
        return Choice(str(choice.get("mode") or "auto"), tuple(str(name) for name in names if name))
    return None


# --- kinds and hosts -------------------------------------------------------------------------------------------------


def kind_of(value: object) -> str:
    """The type that an object says it is of, ``""`` where it says none."""
    return str(as_mapping(value).get("type") or "")


def on_host(base_url: str, hosts: Sequence[str]) -> bool:
    """Whether an address is at one of *hosts*, or below."""
    host = urlsplit(base_url).hostname or ""
    return any(host == known or host.endswith(f".{known}") for known in hosts)
