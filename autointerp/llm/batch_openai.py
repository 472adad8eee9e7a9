"""OpenAI's batches: a file of requests goes up, a batch is made of it, a file of results comes down."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, final

from autointerp.llm import Reply, Request
from autointerp.llm.batch import Batched, NotTaken, Unread, told_id, unknown_batch
from autointerp.llm.errors import Lost, Refused
from autointerp.llm.failures import Failure
from autointerp.llm.openai_compatible import OpenAICompatible

ENDED = frozenset({"completed", "expired", "cancelled"})
LABEL = "monosem"
"""Key of a batch's metadata under which it carries our label."""
CLOCK_SLACK = timedelta(minutes=5)
"""How far the service's clock may be behind ours."""


def open_batched(
    model: str = "",
    base_url: str = "https://api.openai.com/v1",
    *,
    folder: Path,
    timeout_s: float = 600.0,
    gather_s: float = 5.0,
    poll_s: float = 30.0,
) -> Batched:
    """The backend `openai_batch`: batches of `model`, written down in `folder`; `timeout_s` is that of one call."""
    api = OpenAICompatible(model, base_url, timeout_s=timeout_s)
    return Batched(OpenAIBatches(api), folder, gather_s=gather_s, poll_s=poll_s)


@final
class OpenAIBatches:
    """`/files` and `/batches` of the server that `api` speaks to."""

    def __init__(self, api: OpenAICompatible) -> None:
        self.api, self.name = api, api.name

    async def submit(self, label: str, requests: Mapping[str, Request]) -> str:
        """Sends `requests`, by custom id, as one batch with `label` in its metadata; its id."""
        rows = (
            {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": self.api.body(request)}
            for name, request in requests.items()
        )
        lines = "\n".join(map(json.dumps, rows)).encode()
        file = {"file": (f"{label}.jsonl", lines, "application/jsonl")}
        uploaded = await self._json("POST", "/files", files=file, data={"purpose": "batch"})
        asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {LABEL: label}}
        made = await self._json(
            "POST", "/batches", json={"input_file_id": told_id(uploaded, self.api.base_url), **asked}
        )
        return told_id(made, self.api.base_url)

    async def find(self, label: str, custom_ids: frozenset[str], since: datetime, poll_s: float) -> str | None:
        """The id of the batch with `label` in its metadata; None if there is none."""
        oldest, after = (since - CLOCK_SLACK).timestamp(), {}
        while True:
            page = await self._json("GET", "/batches", params={"limit": 100, **after})
            listed = page.get("data") or []
            for batch in listed:
                if (batch.get("metadata") or {}).get(LABEL) == label:
                    return str(batch["id"])
            if not listed or not page.get("has_more") or listed[-1].get("created_at", oldest) < oldest:
                return None
            after = {"after": listed[-1]["id"]}

    async def results(self, batch_id: str) -> dict[str, Any] | None:
        """The row of each request that has one, by custom id; None while the batch is under way.

        Raises:
            NotTaken: the service turned it down as a whole.
            Unread: it has ended, and its results cannot be read.
            UsageError: the service knows no such batch, or its results are gone.
        """
        found = await self.api.wire.json("GET", f"/batches/{batch_id}")
        if isinstance(found, Failure):
            if found.status == 404:
                raise unknown_batch(batch_id, self.api.base_url)
            raise await self.api.error(found)
        status = found.get("status")
        if not isinstance(status, str):
            raise Lost(f"{self.api.base_url} does not tell the status of batch {batch_id}")
        if status == "failed":
            raise NotTaken.saying(f"{batch_id}: {json.dumps(found.get('errors'))[:300]}")
        if status not in ENDED:
            return None
        files = [found[kind] for kind in ("output_file_id", "error_file_id") if found.get(kind)]
        try:
            return {name: row for file in files for name, row in (await self._rows(file, batch_id)).items()}
        except Refused as error:
            raise Unread(str(error), error.retry_after_s) from error

    def reply(self, result: Any | None, request: Request) -> Reply:
        """The reply in one row.

        Raises:
            Refused: it was not answered, or is when a field is left out.
            BadRequest: it will never be.
        """
        response = (result or {}).get("response")
        if not response:
            raise Refused(f"the batch ended without an answer: {(result or {}).get('error') or 'no row'}")
        body, status = response.get("body"), response.get("status_code")
        found = Failure.of(status, body, url=self.api.base_url) if status != 200 else self.api.parsed(body, request)
        if isinstance(found, Reply):
            return found
        if self.api.learn(found, self.api.full_body(request)):
            raise Refused(f"the batch's server does not take a field: {found.text[:200]}")
        raise found.error(self.api.base_url)

    async def _rows(self, file_id: str, batch_id: str) -> dict[str, Any]:
        response = await self.api.wire.send("GET", f"/files/{file_id}/content")
        if response.status_code == 404:
            raise unknown_batch(batch_id, self.api.base_url)
        if not response.is_success:
            raise await self.api.error(Failure.of(response.status_code, response.text, url=self.api.base_url))
        try:
            # Bytes, for a text may hold what a str takes for the end of a line: U+2028 and others.
            lines = response.content.split(b"\n")
            rows = await asyncio.to_thread(lambda: [json.loads(line) for line in lines if line.strip()])
            return {row["custom_id"]: row for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"the results in {file_id} cannot be read: {error}") from error

    async def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        found = await self.api.wire.json(method, path, **content)
        if isinstance(found, Failure):
            raise await self.api.error(found)
        return found
