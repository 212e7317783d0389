"""Providers: how a request in the words of the Responses API is sent to one that speaks another API. Pure.

The wires bring the answers back; a provider's wire has its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import attrs

from eventflow.errors import UsageError
from eventflow.providers import anthropic, chat, gemini, responses
from eventflow.providers.parameters import Cannot
from eventflow.sse import Frame

__all__ = ["PROVIDERS", "Cannot", "Provider", "provider_named"]


@attrs.frozen(kw_only=True)
class Provider:
    """How one API is asked.

    Attributes:
        name: Of the provider, and of its wire.
        base_url: Where the API begins, unless told otherwise; without a slash at its end.
        key_name: The environment variable with the key.
        url_name: The environment variable with the address.
        version: What the address in that variable lacks, because the provider's own package adds it.
        path: Where requests go, of model and whether the answer is to be a stream; raises `UsageError` without a model
            that the address must have.
        query: What the address ends with, of whether it is to be a stream.
        headers: The headers that the key makes, or None; only these ever hold it.
        body: The body, of the parameters of ``responses.create``, whether it is to be a stream, what is told of what
            cannot be sent, and the base address. None leaves a parameter out; one that is none of the Responses API is
            the provider's own and is sent as it is. Raises `UsageError` for what is malformed.
        frames: The frames that, fed to the wire before it is closed, give the response that a whole answer is.
    """

    name: str
    base_url: str
    key_name: str
    url_name: str
    version: str
    path: Callable[[str, bool], str] = attrs.field(repr=False)
    query: Callable[[bool], dict[str, str]] = attrs.field(repr=False)
    headers: Callable[[str | None], dict[str, str]] = attrs.field(repr=False)
    body: Callable[[Mapping[str, object], bool, Cannot, str], dict[str, object]] = attrs.field(repr=False)
    frames: Callable[[Mapping[str, object]], list[Frame]] = attrs.field(repr=False)

    def base_of(self, url: str) -> str:
        """The base address that the environment's means: with the version, where it has none."""
        parts = urlsplit(url)
        path = parts.path.rstrip("/")
        return parts._replace(path=path if path.endswith(self.version) else path + self.version).geturl()


_PROVIDERS = (
    Provider(
        name="responses",
        base_url="https://api.openai.com/v1",
        key_name="OPENAI_API_KEY",
        url_name="OPENAI_BASE_URL",
        version="",
        path=responses.path,
        query=responses.query,
        headers=responses.headers,
        body=responses.body,
        frames=responses.frames,
    ),
    Provider(
        name="chat",
        base_url="https://api.openai.com/v1",
        key_name="OPENAI_API_KEY",
        url_name="OPENAI_BASE_URL",
        version="",
        path=chat.path,
        query=chat.query,
        headers=chat.headers,
        body=chat.body,
        frames=chat.frames,
    ),
    Provider(
        name="anthropic",
        base_url="https://api.anthropic.com/v1",
        key_name="ANTHROPIC_API_KEY",
        url_name="ANTHROPIC_BASE_URL",
        version="/v1",
        path=anthropic.path,
        query=anthropic.query,
        headers=anthropic.headers,
        body=anthropic.body,
        frames=anthropic.frames,
    ),
    Provider(
        name="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_name="GEMINI_API_KEY",
        url_name="GOOGLE_GEMINI_BASE_URL",
        version="/v1beta",
        path=gemini.path,
        query=gemini.query,
        headers=gemini.headers,
        body=gemini.body,
        frames=gemini.frames,
    ),
)


PROVIDERS = tuple(provider.name for provider in _PROVIDERS)
"""Their names."""


def provider_named(name: str) -> Provider:
    """A provider by its name; raises `UsageError` for an unknown one."""
    for provider in _PROVIDERS:
        if provider.name == name:
            return provider
    raise UsageError(f"no provider is called {name!r}; there is {', '.join(PROVIDERS)}")
