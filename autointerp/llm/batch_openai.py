"""OpenAI's batches: a file of requests goes up, a batch is made of it, a file of results comes down."""

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, final

from autointerp.llm import Reply, Request
from autointerp.llm.batch import Batched, NotTaken, unknown_batch
from autointerp.llm.errors import Refused
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
        made = await self._json("POST", "/batches", json={"input_file_id": uploaded["id"], **asked})
        return str(made["id"])

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
            UsageError: it knows no such batch.
        """
        found = await self.api.wire.json("GET", f"/batches/{batch_id}")
        if isinstance(found, Failure):
            if found.status == 404:
                raise unknown_batch(batch_id, self.api.base_url)
            raise await self.api.error(found)
        if found["status"] == "failed":
            raise NotTaken(f"batch {batch_id} was not taken: {json.dumps(found.get('errors'))[:300]}")
        if found["status"] not in ENDED:
            return None
        rows: dict[str, Any] = {}
        for kind in ("output_file_id", "error_file_id"):
            if found.get(kind):
                rows |= await self._rows(found[kind])
        return rows

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

    async def _rows(self, file_id: str) -> dict[str, Any]:
        response = await self.api.wire.send("GET", f"/files/{file_id}/content")
        if not response.is_success:
            raise await self.api.error(Failure.of(response.status_code, response.text, url=self.api.base_url))
        try:
            rows = await asyncio.to_thread(lambda: [json.loads(line) for line in response.text.splitlines() if line])
            return {row["custom_id"]: row for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"the results in {file_id} cannot be read: {error}") from error

    async def _json(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        found = await self.api.wire.json(method, path, **content)
        if isinstance(found, Failure):
            raise await self.api.error(found)
        return found
