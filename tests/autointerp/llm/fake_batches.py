"""The batch endpoints of the fake service: OpenAI's files and batches, Anthropic's message batches."""

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

Found = tuple[int, Any] | None


class Batches:
    """What both have in common: batches by id, and how they end."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.made: dict[str, dict[str, Any]] = {}
        """By id: what it was made of; the order is that of making."""
        self.polls = 1
        """How often a batch is looked at before it has ended."""
        self.fates: dict[str, str] = {}
        """`expired`, `missing`, `busy` or `bad` by text of the last message, in place of an answer."""
        self.lose_answer = False
        """Make the batch, but answer 500, as when the connection breaks after the request arrived."""
        self.without_id = ""
        """`files` or `batches`: what is answered without its id."""
        self.garbled = self.gone = False
        """Whether results are sent in halves, or are not there any more."""

    def ended(self, batch: dict[str, Any]) -> bool:
        """Counts one look."""
        batch["looks"] += 1
        return batch["looks"] > self.polls

    def fate(self, body: dict[str, Any]) -> str:
        """The fate of one request of a batch."""
        return self.fates.get(body["messages"][-1]["content"], "answered")

    def made_now(self, shown: dict[str, Any]) -> Found:
        """The response to the request that made a batch."""
        if self.lose_answer:
            return 500, {"error": {"message": "lost"}}
        return 200, {} if self.without_id == "batches" else shown

    def results(self, rows: list[dict[str, Any]]) -> str:
        """As they are sent: services escape no more than JSON must."""
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        return text[: len(text) // 2] if self.garbled else text


class OpenAIBatches(Batches):
    """`/v1/files` and `/v1/batches`."""

    def __init__(self, fake: Any) -> None:
        super().__init__(fake)
        self.files: dict[str, str] = {}
        self.turned_down = False
        """Whether batches end as `failed`."""

    def serve(self, path: str, body: Any) -> Found:
        """Status and body of the response; None if the path is not one of these."""
        if path == "/v1/files":
            name = f"file-{len(self.files)}"
            self.files[name] = re.search(rb"\r\n\r\n(\{.*\})\s*\r\n--", body, re.DOTALL)[1].decode()  # pyright: ignore
            return 200, {} if self.without_id == "files" else {"id": name}
        if path == "/v1/batches" and isinstance(body, dict):
            return self._make(body)
        if path == "/v1/batches":
            return 200, {"data": [self._shown(name) for name in reversed(self.made)], "has_more": False}
        if path.startswith("/v1/batches/"):
            name = path.rsplit("/", 1)[1]
            return (200, self._shown(name)) if name in self.made else (404, {"error": {"message": "No such batch"}})
        if path.endswith("/content") and path.startswith("/v1/files/") and not self.gone:
            return 200, self.files[path.split("/")[3]]
        return None

    def _make(self, body: dict[str, Any]) -> Found:
        name = f"batch_{len(self.made)}"
        self.made[name] = {"looks": 0, **body}
        return self.made_now({"id": name, "status": "validating"})

    def _shown(self, name: str) -> dict[str, Any]:
        batch = self.made[name]
        shown = {"id": name, "metadata": batch["metadata"], "status": "in_progress"}
        if self.turned_down:
            return shown | {"status": "failed", "errors": {"data": [{"message": "no such endpoint"}]}}
        if not self.ended(batch):
            return shown
        rows = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        good, bad = self._results(rows)
        self.files |= {f"{name}-out": self.results(good), f"{name}-err": self.results(bad)}
        files = {"output_file_id": f"{name}-out", "error_file_id": f"{name}-err" if bad else None}
        return shown | {"status": "completed", **files}

    def _results(self, rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
        good, bad = [], []
        for row in reversed(rows):
            fate = self.fate(row["body"])
            named = {"id": "x", "custom_id": row["custom_id"], "error": None}
            if fate == "expired":
                bad.append(named | {"response": None, "error": {"code": "batch_expired", "message": "out of time"}})
            elif fate in ("busy", "bad"):
                code = {"busy": 429, "bad": 400}[fate]
                bad.append(named | {"response": {"status_code": code, "body": {"error": {"message": fate}}}})
            elif fate == "answered":
                code, body = self.fake.chat(row["body"])
                (good if code == 200 else bad).append(named | {"response": {"status_code": code, "body": body}})
        return good, bad


class AnthropicBatches(Batches):
    """`/v1/messages/batches`."""

    def serve(self, path: str, body: Any) -> Found:
        """Status and body of the response; None if the path is not one of these."""
        if path == "/v1/messages/batches" and isinstance(body, dict):
            name = f"msgbatch_{len(self.made)}"
            self.made[name] = {"looks": 0, "at": time.time(), **body}
            return self.made_now(self._shown(name))
        if path == "/v1/messages/batches":
            return 200, {"data": [self._shown(name) for name in reversed(self.made)], "has_more": False}
        found = re.fullmatch(r"/v1/messages/batches/(\w+)(/results)?", path)
        if not found or found[1] not in self.made or (found[2] and self.gone):
            return None
        return (200, self._results(self.made[found[1]])) if found[2] else (200, self._shown(found[1]))

    def _shown(self, name: str) -> dict[str, Any]:
        batch = self.made[name]
        when = datetime.fromtimestamp(batch["at"], UTC).isoformat()
        ended, n = self.ended(batch), len(batch["requests"])
        counts = {"processing": 0 if ended else n, "succeeded": n if ended else 0}
        return {
            "id": name,
            "type": "message_batch",
            "created_at": when,
            "expires_at": when,
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts | {"errored": 0, "canceled": 0, "expired": 0},
            "results_url": f"{self.fake.url}/v1/messages/batches/{name}/results" if ended else None,
        }

    def _results(self, batch: dict[str, Any]) -> str:
        lines = []
        for row in reversed(batch["requests"]):
            fate = self.fate(row["params"])
            if fate != "missing":
                lines.append({"custom_id": row["custom_id"], "result": self._result(fate, row["params"])})
        return self.results(lines)

    def _result(self, fate: str, params: dict[str, Any]) -> dict[str, Any]:
        if fate == "expired":
            return {"type": "expired"}
        if fate in ("busy", "bad"):
            kind = {"busy": "overloaded_error", "bad": "invalid_request_error"}[fate]
            return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": fate}}}
        code, body = self.fake.message(params)
        return {"type": "succeeded", "message": body} if code == 200 else {"type": "errored", "error": body}
