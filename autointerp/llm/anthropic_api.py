"""Anthropic's Messages API through its own SDK, which the extra `anthropic` brings."""

import asyncio
import importlib
import json
from collections.abc import Awaitable
from typing import Any, final
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import httpx2

from autointerp.characters import whole
from autointerp.llm import Reply, Request
from autointerp.llm.errors import Lost, Refused
from autointerp.llm.failures import Failure, no_model
from autointerp.llm.fields import Fields
from autointerp.llm.keys import address, checked_url, find_key, is_local
from store.errors import UsageError

OPTIONAL = {"output_config": None, "temperature": None}
"""What some models refuse."""

BASE_URL = "https://api.anthropic.com"
WORDS = {"output_config": ("output_format", "structured output", "json_schema", "schema")}

FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}
"""Anthropic's word for why a reply ended, in ours; others stay as they are."""


@final
class AnthropicAPI:
    """Messages of `model`; the key comes from MONOSEM_LLM_KEY or ANTHROPIC_API_KEY at every request.

    The service has neither seeds nor log-probabilities: `Reply.logprobs` is None. The system message is marked for its
    cache of prefixes, which the prompts of many latents share.

    Raises:
        UsageError: no model is named, the address cannot be one, or the SDK is not installed.
    """

    def __init__(self, model: str = "", base_url: str = BASE_URL, *, timeout_s: float = 120.0) -> None:
        if not model:
            raise UsageError("the backend anthropic_api needs a model: name one of Anthropic's with --model")
        self.model, self.base_url, self.timeout_s = model, checked_url(base_url), timeout_s
        elsewhere = "" if address(self.base_url) == address(BASE_URL) else f"@{address(self.base_url)}"
        self.name = f"anthropic_api:{model}{elsewhere}"
        self.sdk = _sdk()
        self._fields = Fields(OPTIONAL, WORDS)
        # A pool of connections belongs to the event loop that opened it, and every `asyncio.run` has its own.
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"AnthropicAPI({self.model!r}, {self.base_url!r})"

    def client(self) -> Any:
        """The SDK's client with the key of the moment.

        Raises:
            UsageError: there is no key.
        """
        # A server on this machine needs no key; the SDK would look for one of its own in files if given none.
        key, loop = find_key(self.base_url) or "none", asyncio.get_running_loop()
        if loop not in self._clients:
            settings = {"max_retries": 0, "timeout": None, "base_url": self.base_url}
            if is_local(self.base_url):
                settings["http_client"] = self.sdk.DefaultAsyncHttpxClient(trust_env=False)
            self._clients[loop] = self.sdk.AsyncAnthropic(api_key=key, **settings)
        self._clients[loop].api_key = key
        return self._clients[loop]

    async def complete(self, request: Request) -> Reply:
        """The model's answer.

        Raises:
            Refused: the service is busy, broken, slow or cut its answer off.
            BadRequest: it will not take this request; `TooLong` where the context window is too small.
            UsageError: the key or the model is not right.
        """
        # Each round that does not end leaves out one more field.
        while True:
            body = self.body(request)
            found = await self.called(self.client().messages.with_raw_response.create, **_for_sdk(body))
            if not isinstance(found, Failure):
                return self.parsed(found)
            if not self.learn(found, body):
                raise await self.error(found)

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON to send, without what this model has refused."""
        return self._fields.apply(self.full_body(request))

    def full_body(self, request: Request) -> dict[str, Any]:
        """All of `request` in the service's words."""
        system = "\n\n".join(whole(message.text) for message in request.messages if message.role == "system")
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": request.max_tokens,
            "messages": [
                {"role": message.role, "content": whole(message.text)}
                for message in request.messages
                if message.role != "system"
            ],
            "temperature": request.temperature,
        }
        if system:
            body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        if request.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": json.loads(request.schema)}}
        return body

    def learn(self, failure: Failure, body: dict[str, Any]) -> bool:
        """Whether `failure` is about a field that can be left out, as it now will be."""
        return self._fields.learn(failure, body)

    async def called(self, method: Any, *args: Any, **settings: Any) -> dict[str, Any] | Failure:
        """The JSON that a raw-response `method` of the SDK brings, or the service's error.

        Raises:
            Lost: no answer, half an answer, or one that is no JSON object.
        """
        found = await self.guarded(_json(method, *args, **settings))
        if not isinstance(found, dict | Failure):
            raise Lost(f"{urlsplit(self.base_url).netloc} answered with JSON that is no object")
        return found

    async def guarded(self, call: Awaitable[Any]) -> Any:
        """What `call` of the SDK brings; a `Failure` where the service answers with an error.

        Raises:
            Lost: no answer, half an answer, or one that is no JSON.
        """
        host = urlsplit(self.base_url).netloc
        try:
            async with asyncio.timeout(self.timeout_s):
                return await call
        except TimeoutError as error:
            raise Lost(f"{host} did not answer within {self.timeout_s:g} s") from error
        except self.sdk.APIStatusError as error:
            return Failure.of(error.status_code, error.body or error.message, error.response.headers, self.base_url)
        except (self.sdk.APIConnectionError, httpx2.RequestError) as error:
            raise Lost(f"the connection to {host} broke: {error.__cause__ or error}") from error
        except ValueError as error:
            raise Lost(f"{host} answered with something that is no JSON") from error

    async def error(self, failure: Failure) -> Exception:
        """The exception for `failure`; of an unknown model it lists those that the service has."""
        if failure.status == 404 and "model" in failure.text:
            return no_model(self.model, urlsplit(self.base_url).netloc, await self._models())
        return failure.error(self.base_url)

    def parsed(self, body: dict[str, Any]) -> Reply:
        """The reply in the JSON of a message.

        Raises:
            Refused: it holds none.
        """
        try:
            return _reply(body)
        except (KeyError, TypeError, AttributeError) as error:
            raise Lost(f"{self.base_url} answered with JSON that holds no reply ({error!r})") from error

    async def _models(self) -> list[str] | None:
        try:
            found = await self.called(self.client().models.with_raw_response.list)
        except Refused:
            return None
        listed = found.get("data") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            return None
        return sorted(str(entry["id"]) for entry in listed if isinstance(entry, dict) and "id" in entry)


def _sdk() -> Any:
    try:
        return importlib.import_module("anthropic")
    except ModuleNotFoundError as error:
        raise UsageError("the backend anthropic_api needs Anthropic's SDK: pip install 'monosem[anthropic]'") from error


async def _json(method: Any, *args: Any, **settings: Any) -> Any:
    return json.loads((await method(*args, **settings)).http_response.content)


def _for_sdk(body: dict[str, Any]) -> dict[str, Any]:
    """`body` as arguments: versions of the SDK differ in whether they have one for the temperature."""
    named = {name: value for name, value in body.items() if name != "temperature"}
    return named | {"extra_body": {"temperature": body["temperature"]}} if "temperature" in body else named


def _reply(body: dict[str, Any]) -> Reply:
    usage = body["usage"]
    cached = usage.get("cache_read_input_tokens") or 0
    reason = body.get("stop_reason") or "stop"
    return Reply(
        text="".join(block["text"] for block in body["content"] if block["type"] == "text"),
        n_tokens_in=usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0),
        n_tokens_out=usage["output_tokens"],
        n_tokens_cached=cached,
        finish=FINISH.get(reason, reason),
    )
