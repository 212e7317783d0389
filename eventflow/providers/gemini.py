"""Requests to Google's Gemini API.

Facts: Google's reference of the API, and the types of the public package google-genai 3.4.0 (read November 2026).

Decisions. An effort is a budget of tokens for Gemini 2, with the numbers of Google's own OpenAI-compatible address, and
a level for newer models. A tool's output is the text ``output`` of its response, whatever it says: numbers would lose
digits otherwise. A function's ``strict`` is not sent: there is no word for it. Reasoning that is nothing but sealed is
the signature of the part behind it; a call of which none is known has the one that Google gives for calls of other
models' (its page on thought signatures), for models newer than Gemini 2 refuse a call without.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from eventflow.errors import UsageError
from eventflow.events import encode_json
from eventflow.plain import as_list, as_mapping
from eventflow.providers.parameters import (
    TEXT_PARTS,
    Asked,
    Cannot,
    Item,
    choice_of,
    image_type,
    kind_of,
    media_of,
    object_of,
    text_of,
)
from eventflow.sse import Frame

__all__ = ["body", "frames", "headers", "path", "query"]

_API = "Gemini"
_COLLECTION = re.compile(r"^(?:(models|tunedModels)/)?(.+)$", re.DOTALL)
_GEMINI_2 = re.compile(r"gemini-[12]\b")
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
_LEVELS = {name: name.upper() for name in ("minimal", "low", "medium", "high", "xhigh")} | {"max": "XHIGH"}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_SERVICE_TIERS = {"auto": None, "default": "standard", "standard": "standard", "flex": "flex", "priority": "priority"}
_CONFIG = {  # what is no parameter of the Responses API is taken by its common name
    "max_output_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "stop": "stopSequences",
    "seed": "seed",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_MADE_UP = re.compile(r"call_\d+")  # ids that the wire made up, and Gemini does not know
_UNSIGNED = "skip_thought_signature_validator"


def path(model: str, stream: bool) -> str:
    """Where requests go, behind the base address.

    Raises:
        UsageError: There is no model.
    """
    found = _COLLECTION.match(model)
    if found is None:
        raise UsageError("model: Gemini's address has the model in it; give one")
    action = "streamGenerateContent" if stream else "generateContent"
    return f"/{found[1] or 'models'}/{quote(found[2], safe='')}:{action}"


def query(stream: bool) -> dict[str, str]:
    """What the address ends with: without it a stream is one array of JSON."""
    return {"alt": "sse"} if stream else {}


def headers(key: str | None) -> dict[str, str]:
    """The key's header."""
    return {} if key is None else {"x-goog-api-key": key}


def body(parameters: Mapping[str, object], stream: bool, cannot: Cannot, base_url: str) -> dict[str, object]:
    """The body of a request.

    Raises:
        UsageError: The parameters are malformed, or *cannot* raises.
    """
    asked = Asked(parameters, _API, cannot)
    model = asked.text("model")
    contents = _Contents(cannot, signed=not _GEMINI_2.search(model))
    made: dict[str, Any] = {"contents": contents.of(asked)}
    if contents.system:
        made["systemInstruction"] = {"parts": [{"text": text} for text in contents.system]}
    made.update(_tools(asked))
    _choose(asked, made)
    config: dict[str, Any] = {}
    asked.move(_CONFIG, config)
    if isinstance(config.get("stopSequences"), str):
        config["stopSequences"] = [config["stopSequences"]]
    _format(asked.part("text"), config)
    _think(asked.part("reasoning"), config, old=_GEMINI_2.search(model) is not None)
    if asked.included("message.output_text.logprobs"):
        config["responseLogprobs"] = True
    top = asked.take("top_logprobs")
    config.update({"responseLogprobs": True, "logprobs": top} if top is not None else {})
    made.update({"generationConfig": config} if config else {})
    tier = asked.text("service_tier")
    if tier and tier not in _SERVICE_TIERS:
        cannot(f"service_tier: {_API} has {', '.join(_SERVICE_TIERS)}, no {tier}; leave it out")
    elif tier not in ("", "auto"):
        made["serviceTier"] = _SERVICE_TIERS[tier]
    asked.take("prompt_cache_key")  # a hint for OpenAI's servers
    for name in ("prompt_cache_options", "prompt_cache_retention"):
        asked.refuse(name, "give cachedContent, which is its own")
    for name in ("context_management", "moderation", "safety_identifier", "store", "user"):
        asked.refuse(name)
    asked.refuse("metadata", "give labels, which are its own, or keep them yourself")
    asked.refuse_what_is_kept()
    asked.take("stream_options")  # its usage comes by itself
    return asked.rest(made)


def frames(value: Mapping[str, object]) -> list[Frame]:
    """An answer that came whole: it is the one chunk of a stream."""
    return [Frame(data=encode_json(value).decode())]


# --- tools, thinking, formats ----------------------------------------------------------------------------------------


def _tools(asked: Asked) -> dict[str, Any]:
    functions: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    for where, tool in asked.tools():
        kind = tool.get("type")
        if kind == "function":
            names = {"name": "name", "description": "description", "parameters": "parametersJsonSchema"}
            functions.append({other: tool[name] for name, other in names.items() if tool.get(name) is not None})
        elif kind is None:
            own.append(tool)
        else:
            asked.cannot(
                f'{where}: {_API} has no {kind}; give a function or a tool of its own, such as {{"googleSearch": {{}}}}'
            )
    tools = [*([{"functionDeclarations": functions}] if functions else []), *own]
    return {"tools": tools} if tools else {}


def _choose(asked: Asked, made: dict[str, Any]) -> None:
    """Which tools may be used; without tools no word is taken about them."""
    value, parallel = asked.take("tool_choice"), asked.take("parallel_tool_calls")
    if "tools" not in made:
        return
    if parallel is False:
        asked.cannot(f"parallel_tool_calls: {_API} makes as many calls as it likes; leave it out")
    choice = choice_of(value)
    if choice is None and value is not None:
        asked.cannot(f"tool_choice: {_API} cannot choose {value!r}; choose auto, none, required or a function")
    elif choice is not None:
        names = {"allowedFunctionNames": list(choice.names)} if choice.names else {}
        mode = "VALIDATED" if choice.mode == "auto" and names else _MODES.get(choice.mode, "AUTO")
        made["toolConfig"] = {"functionCallingConfig": {"mode": mode, **names}}


def _think(asked: Asked, config: dict[str, Any], *, old: bool) -> None:
    thinking: dict[str, Any] = {}
    effort = asked.text("effort")
    if old and effort in _BUDGETS:
        thinking["thinkingBudget"] = _BUDGETS[effort]
    elif effort in _LEVELS:
        thinking["thinkingLevel"] = _LEVELS[effort]
    elif effort:
        asked.cannot(f"reasoning.effort: this model has {', '.join(_LEVELS)}, no {effort}; give one of them")
    if asked.take("summary") or asked.take("generate_summary"):
        thinking["includeThoughts"] = True
    asked.refuse_rest()
    config.update({"thinkingConfig": thinking} if thinking else {})


def _format(asked: Asked, config: dict[str, Any]) -> None:
    form = asked.fields("format")
    kind = kind_of(form)
    if kind in ("json_schema", "json_object"):
        config["responseMimeType"] = "application/json"
        config.update({"responseJsonSchema": as_mapping(form.get("schema"))} if kind == "json_schema" else {})
    elif form and kind != "text":
        asked.cannot(f"text.format: {_API} has no {kind}; give a json_schema")
    asked.refuse_rest()


# --- contents --------------------------------------------------------------------------------------------------------


class _Contents:
    """The contents that items are: turns of the user, of the model, and of the functions it called.

    Attributes:
        system: What is said before all of them.
    """

    def __init__(self, cannot: Cannot, *, signed: bool) -> None:
        self.system: list[str] = []
        self._cannot = cannot
        self._signed = signed  # whether calls without a signature are refused
        self._made: list[dict[str, Any]] = []
        self._kind = ""  # of the last turn
        self._signature = ""  # for the next part of the model's
        self._names: dict[str, str] = {}  # of functions, by the ids of their calls

    def of(self, asked: Asked) -> list[dict[str, Any]]:
        """All of them."""
        instructions = asked.text("instructions")
        self.system += [instructions] if instructions else []
        for item in asked.items():
            self._add(item)
        self._sign()
        return self._made

    def _put(self, kind: str, part: dict[str, Any]) -> None:
        """Another part; what a user says is a turn of its own behind the outputs of functions."""
        if kind == "model" and self._signature and "thoughtSignature" not in part:
            part, self._signature = {**part, "thoughtSignature": self._signature}, ""
        if kind != "model":
            self._sign()
        if kind != self._kind:
            self._made.append({"role": "model" if kind == "model" else "user", "parts": []})
            self._kind = kind
        self._made[-1]["parts"].append(part)

    def _sign(self) -> None:
        """A signature with nothing behind it is a part of its own."""
        if self._signature:
            self._put("model", {"text": ""})

    def _add(self, item: Item) -> None:
        match item.type:
            case "message":
                self._message(item)
            case "reasoning":
                self._reason(item)
            case "function_call" | "custom_tool_call":
                self._call(item)
            case "function_call_output" | "custom_tool_call_output":
                self._output(item)
            case "code_interpreter_call":
                self._code(item)
            case "image_generation_call" if item.text("result"):
                data = item.text("result")
                self._put("model", {"inlineData": {"mimeType": image_type(data), "data": data}})
            case kind if kind in item.data:  # a part that was passed on as it is
                self._put("model", {name: value for name, value in item.data.items() if name != "type"})
            case kind:
                self._cannot(f"{item.where}: {_API} has no such items ({kind}); leave it out of input")

    def _message(self, item: Item) -> None:
        role = item.role
        if role not in ("user", "assistant"):
            if self._made:
                self._cannot(f"{item.where}: {_API} takes instructions at the beginning alone; put them there")
            self.system += [text for _, part in item.parts() if (text := text_of(part))]
            return
        for where, part in item.parts():
            made = self._part(where, part)
            if made:
                self._put("model" if role == "assistant" else "user", made)

    def _reason(self, item: Item) -> None:
        text, sealed = item.thoughts() or item.thoughts("summary"), item.text("encrypted_content")
        if text:
            self._put("model", {"text": text, "thought": True, **({"thoughtSignature": sealed} if sealed else {})})
        elif sealed:
            self._sign()
            self._signature = sealed

    def _call(self, item: Item) -> None:
        function = item.type == "function_call"
        call_id, name = item.call_id, item.text("name")
        self._names[call_id] = name
        arguments = object_of(item.text("arguments")) if function else {"input": item.text("input")}
        part: dict[str, Any] = {"functionCall": {**_id(call_id), "name": name, "args": arguments}}
        first = self._kind != "model" or not any("functionCall" in other for other in self._made[-1]["parts"])
        if self._signed and first and not self._signature:  # of parallel calls the first one has it
            part["thoughtSignature"] = _UNSIGNED
        self._put("model", part)

    def _output(self, item: Item) -> None:
        name = self._names.get(item.call_id) or item.text("name")
        if not name:
            self._cannot(
                f"{item.where}: {_API} needs the name of the function, and no call in input has the call_id "
                f"{item.call_id!r}; send the call before its output"
            )
            return
        texts: list[str] = []
        media: list[dict[str, Any]] = []
        for where, part in item.parts("output"):
            if part["type"] in TEXT_PARTS:
                texts.append(text_of(part))
            else:
                made = self._part(where, part)
                media += [made] if made else []
        response: dict[str, Any] = {**_id(item.call_id), "name": name, "response": {"output": "".join(texts)}}
        self._put("function", {"functionResponse": {**response, "parts": media} if media else response})

    def _code(self, item: Item) -> None:
        """Code that Gemini ran, and what came of it."""
        if item.text("code"):
            self._put("model", {"executableCode": {"language": "PYTHON", "code": item.text("code")}})
        outcome = "OUTCOME_FAILED" if item.text("status") == "failed" else "OUTCOME_OK"
        for output in as_list(item.data.get("outputs")):
            logs = as_mapping(output).get("logs") or ""
            self._put("model", {"codeExecutionResult": {"outcome": outcome, "output": logs}})

    def _part(self, where: str, part: dict[str, Any]) -> dict[str, Any] | None:
        """A part of a message; an empty one is not sent."""
        kind = part["type"]
        if kind in TEXT_PARTS:
            return {"text": text_of(part)} if text_of(part) else None
        if kind == "input_audio":
            audio = as_mapping(part.get("input_audio"))
            return {"inlineData": {"mimeType": f"audio/{audio.get('format')}", "data": audio.get("data")}}
        if kind not in ("input_image", "input_file"):
            self._cannot(f"{where}: {_API} has no parts of type {kind}; send input_text, input_image or input_file")
            return None
        if part.get("detail") not in (None, "auto"):
            self._cannot(f"{where}.detail: {_API} has no {part['detail']}; give mediaResolution in generationConfig")
        media = media_of(part)
        known = {"mimeType": media.media_type} if media.media_type else {}
        if media.data:
            return {"inlineData": {**known, "data": media.data}}
        return {"fileData": {**known, "fileUri": media.url or media.file_id}}


def _id(call_id: str) -> dict[str, str]:
    return {} if _MADE_UP.fullmatch(call_id) else {"id": call_id}
