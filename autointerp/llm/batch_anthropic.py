"""Anthropic's message batches, through its SDK."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, final

from autointerp.llm import Reply, Request
from autointerp.llm.anthropic_api import BASE_URL, AnthropicAPI
from autointerp.llm.batch import Batched, Unread, told_id, unknown_batch
from autointerp.llm.errors import Refused
from autointerp.llm.failures import Failure

STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The status that an error of that type has outside batches."""
CLOCK_SLACK = timedelta(minutes=5)
"""How far the service's clock may be behind ours."""


def open_batched(
    model: str = "",
    base_url: str = BASE_URL,
    *,
    folder: Path,
    timeout_s: float = 600.0,
    gather_s: float = 5.0,
    poll_s: float = 30.0,
) -> Batched:
    """The backend `anthropic_batch`: batches of `model`, written down in `folder`; `timeout_s` is that of one call."""
    api = AnthropicAPI(model, base_url, timeout_s=timeout_s)
    return Batched(AnthropicBatches(api), folder, gather_s=gather_s, poll_s=poll_s)


@final
class AnthropicBatches:
    """Message batches of the service that `api` speaks to."""

    def __init__(self, api: AnthropicAPI) -> None:
        self.api, self.name = api, api.name

    async def submit(self, label: str, requests: Mapping[str, Request]) -> str:
        """Sends `requests`, by custom id, as one batch; its id. The service keeps no label."""
        rows = [{"custom_id": name, "params": self.api.body(request)} for name, request in requests.items()]
        return told_id(await self._json(self._raw.create, requests=rows), self.api.base_url)

    async def find(self, label: str, custom_ids: frozenset[str], since: datetime, poll_s: float) -> str | None:
        """The id of the batch made after `since` that answers some of `custom_ids`; None if there is none.

        Batches carry no label here: one of the same size is known by its results, so it is waited for.
        """
        after = {}
        while True:
            page = await self._json(self._raw.list, limit=100, **after)
            listed = page.get("data") or []
            for batch in listed:
                if datetime.fromisoformat(batch["created_at"]) < since - CLOCK_SLACK:
                    return None
                if sum(batch["request_counts"].values()) == len(custom_ids):
                    while (rows := await self.results(batch["id"])) is None:
                        await asyncio.sleep(poll_s)
                    if custom_ids & rows.keys():
                        return str(batch["id"])
            if not listed or not page.get("has_more"):
                return None
            after = {"after_id": listed[-1]["id"]}

    async def results(self, batch_id: str) -> dict[str, Any] | None:
        """The result of each request that has one, by custom id; None while the batch is under way.

        Raises:
            Unread: it has ended, and its results cannot be read.
            UsageError: the service knows no such batch, or its results are gone.
        """
        found = self._known(batch_id, await self.api.called(self._raw.retrieve, batch_id))
        if found.get("processing_status") != "ended":
            return None
        try:
            return self._known(batch_id, await self.api.guarded(self._rows(batch_id)))
        except Refused as error:
            raise Unread(str(error), error.retry_after_s) from error

    def _known(self, batch_id: str, found: dict[str, Any] | Failure) -> dict[str, Any]:
        """What the service has of a batch."""
        if not isinstance(found, Failure):
            return found
        if found.status == 404:
            raise unknown_batch(batch_id, self.api.base_url)
        raise found.error(self.api.base_url)

    def reply(self, result: Any | None, request: Request) -> Reply:
        """The reply in one result.

        Raises:
            Refused: it was not answered, or is when a field is left out.
            BadRequest: it will never be.
        """
        kind = (result or {}).get("type", "missing")
        if result is None or kind not in ("succeeded", "errored"):
            raise Refused(f"the batch ended without an answer: {kind}")
        if kind == "succeeded":
            return self.api.parsed(result["message"])
        error = result["error"].get("error") or {}
        failure = Failure.of(STATUS.get(str(error.get("type")), 500), {"error": error}, url=self.api.base_url)
        if self.api.learn(failure, self.api.full_body(request)):
            raise Refused(f"the batch's model does not take a field: {failure.text[:200]}")
        raise failure.error(self.api.base_url)

    async def _rows(self, batch_id: str) -> dict[str, Any]:
        stream = await self.api.client().messages.batches.results(batch_id)
        return {row.custom_id: row.result.to_dict(mode="json") async for row in stream}

    @property
    def _raw(self) -> Any:
        return self.api.client().messages.batches.with_raw_response

    async def _json(self, method: Any, *args: Any, **settings: Any) -> dict[str, Any]:
        found = await self.api.called(method, *args, **settings)
        if isinstance(found, Failure):
            raise await self.api.error(found)
        return found
