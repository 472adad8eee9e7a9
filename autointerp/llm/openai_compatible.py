"""Any server that speaks OpenAI's chat completions: vLLM, Ollama, llama.cpp, OpenAI, OpenRouter and their like."""

import json
import math
from typing import Any, final
from urllib.parse import urlsplit

from autointerp.characters import whole
from autointerp.llm import Reply, Request, TokenLogprob
from autointerp.llm.errors import Lost, Refused
from autointerp.llm.failures import Failure, no_model
from autointerp.llm.fields import Fields
from autointerp.llm.keys import address, checked_url
from autointerp.llm.wire import Wire
from store.errors import UsageError

OPTIONAL = {
    "response_format": None,
    "max_tokens": "max_completion_tokens",
    "top_logprobs": None,
    "logprobs": None,
    "seed": None,
    "temperature": None,
}
"""What some servers and models refuse, and what they take instead."""

WORDS = {"response_format": ("json_schema", "json schema", "structured output", "grammar")}

CHARACTERS_PER_TOKEN = 4
"""For servers that do not count tokens: English text has about four characters in one."""


@final
class OpenAICompatible:
    """Chat completions of `model` at `base_url`, the address that ends in `/v1` or the like.

    The key comes from MONOSEM_LLM_KEY or the service's own variable at every request; see `keys`.

    Raises:
        UsageError: the model or the address cannot be one.
    """

    def __init__(
        self, model: str = "", base_url: str = "http://localhost:8000/v1", *, timeout_s: float = 120.0
    ) -> None:
        if not model:
            raise UsageError("the backend openai_compatible needs a model: name one that the server has with --model")
        self.model, self.base_url = model, checked_url(base_url)
        self.name = f"openai_compatible:{model}@{address(self.base_url)}"
        self.wire = Wire(self.base_url, timeout_s)
        self._fields = Fields(OPTIONAL, WORDS)

    def __repr__(self) -> str:
        return f"OpenAICompatible({self.model!r}, {self.base_url!r})"

    async def complete(self, request: Request) -> Reply:
        """The model's answer.

        Raises:
            Refused: the server is busy, broken, slow or cut its answer off.
            BadRequest: it will not take this request; `TooLong` where the context window is too small.
            UsageError: the key, the model or the address is not right.
        """
        # Each round that does not end leaves out one more field.
        while True:
            body = self.body(request)
            found = await self.wire.json("POST", "/chat/completions", json=body)
            if isinstance(found, dict):
                found = self.parsed(found, request)
            if isinstance(found, Reply):
                return found
            if not self.learn(found, body):
                raise await self.error(found)

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON to send, without what this server has refused."""
        return self._fields.apply(self.full_body(request))

    def full_body(self, request: Request) -> dict[str, Any]:
        """All of `request` in the service's words."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": message.role, "content": whole(message.text)} for message in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.schema is not None:
            schema = {"name": "reply", "schema": json.loads(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        if request.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        return body

    def learn(self, failure: Failure, body: dict[str, Any]) -> bool:
        """Whether `failure` is about a field that can be left out, as it now will be."""
        return self._fields.learn(failure, body)

    async def error(self, failure: Failure) -> Exception:
        """The exception for `failure`; of an unknown model it lists those that the server has."""
        host = urlsplit(self.base_url).netloc
        if failure.says_no_model:
            return no_model(self.model, host, await self._models())
        if failure.status == 404:
            return UsageError(f"no chat completions at {self.base_url}: give the address that ends in /v1 or the like")
        return failure.error(self.base_url)

    def parsed(self, body: dict[str, Any], request: Request) -> Reply | Failure:
        """The reply in the JSON of a response; the failure that some services put into one of status 200.

        Raises:
            Refused: it is neither.
        """
        if body.get("error"):
            code = body["error"].get("code") if isinstance(body["error"], dict) else None
            return Failure.of(code if isinstance(code, int) else 500, body, url=self.base_url)
        try:
            return _reply(body, request)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise Lost(f"{self.base_url} answered with JSON that holds no reply ({error!r})") from error

    async def _models(self) -> list[str] | None:
        try:
            found = await self.wire.json("GET", "/models")
        except Refused:
            return None
        listed = found.get("data") if isinstance(found, dict) else None
        if not isinstance(listed, list):
            return None
        return sorted(str(entry["id"]) for entry in listed if isinstance(entry, dict) and "id" in entry)


def _reply(body: dict[str, Any], request: Request) -> Reply:
    choice = body["choices"][0]
    if choice.get("error") or choice.get("finish_reason") == "error":
        raise ValueError(str(choice.get("error"))[:200])
    message, usage = choice["message"], body.get("usage") or {}
    refusal = message.get("refusal")
    text = _text(refusal or message.get("content"))
    asked = "".join(turn.text for turn in request.messages)
    cost = usage.get("cost")
    return Reply(
        text=text,
        n_tokens_in=_counted(usage.get("prompt_tokens"), asked),
        n_tokens_out=_counted(usage.get("completion_tokens"), text),
        n_tokens_cached=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        finish="refusal" if refusal else choice.get("finish_reason") or "stop",
        logprobs=_logprobs(choice.get("logprobs")),
        usd=None if cost is None else float(cost),
    )


def _text(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a message, which some services send in parts."""
    if isinstance(content, list):
        strange = [part.get("type") for part in content if part.get("type") != "text"]
        if strange:
            raise ValueError(f"content of type {strange[0]}")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str | None):
        raise TypeError(f"content is a {type(content).__name__}")
    return content or ""


def _counted(told: int | None, text: str) -> int:
    """What the server counted, or a rough count where it did not: a budget that sees 0 is no budget."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN) if told is None else int(told)


def _logprobs(found: dict[str, Any] | None) -> tuple[TokenLogprob, ...] | None:
    if not found or found.get("content") is None:
        return None
    return tuple(
        TokenLogprob(
            token["token"],
            float(token["logprob"]),
            {other["token"]: float(other["logprob"]) for other in token.get("top_logprobs") or ()},
        )
        for token in found["content"]
    )
