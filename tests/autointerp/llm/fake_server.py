"""A language-model service on 127.0.0.1 that misbehaves as told: chat completions, Anthropic messages, and batches."""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fake_batches import AnthropicBatches, OpenAIBatches


@dataclass(frozen=True, kw_only=True)
class Step:
    """What happens to one request for a completion; the default is a proper answer."""

    status: int = 200
    body: dict[str, Any] | str | None = None
    """In place of the answer; a string is sent as it stands."""
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    """Before anything is sent."""
    drop: bool = False
    """Close the connection without an answer."""
    cut: bool = False
    """Promise the whole body, send half, close."""


def status(code: int, message: str = "no", headers: dict[str, str] | None = None, /, **error: Any) -> Step:
    """A refusal of that status, worded as OpenAI does."""
    return Step(status=code, body={"error": {"message": message, **error}}, headers=headers or {})


BUSY = status(429, "slow down", {"Retry-After": "0"})
BROKEN = status(500, "something broke")
DROPPED = Step(drop=True)
CUT = Step(cut=True)
NOT_JSON = Step(body="<html>bad gateway</html>")


def _said(body: dict[str, Any]) -> str:
    return "answer to " + body["messages"][-1]["content"]


class FakeServer:
    """Use as a context manager; `url` is its address, `seen` what it was sent.

    Requests for completions take the steps of `script` in order of arrival and are answered properly once it is empty.
    """

    def __init__(self, script: Iterable[Step] = (), answer: Callable[[dict[str, Any]], str] = _said) -> None:
        self.script, self.answer = deque(script), answer
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        """Path, lower-case headers and JSON body of every request."""
        self.key: str | None = None
        """The only key let in; None lets everybody in."""
        self.models = ["tiny", "other"]
        self.refuses: set[str] = set()
        """Fields of a request that it answers with 400."""
        self.window: int | None = None
        """Words of prompt and reply that fit."""
        self.latency_s = 0.0
        self.fail_looks = 0
        """How many looks at a batch under way are answered with 500 from now on."""
        self.usage: dict[str, Any] = {}
        """Goes into the usage of every chat completion."""
        self.n_busy = self.most_busy = 0
        self.busy_s = 0.0
        """Seconds spent on completions, summed over the requests."""
        self.openai_batches, self.anthropic_batches = OpenAIBatches(self), AnthropicBatches(self)
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.fake = self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests for completions, refused ones too; not what a killed process sent half of."""
        return [body for path, _, body in self.seen if path in COMPLETIONS and isinstance(body, dict)]

    def __enter__(self) -> "FakeServer":
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def step(self) -> Step:
        """The next of the script."""
        with self._lock:
            return self.script.popleft() if self.script else Step()

    def busy(self, change: int) -> None:
        """Counts a request for a completion in (1) or out (-1)."""
        with self._lock:
            self.n_busy += change
            self.most_busy = max(self.most_busy, self.n_busy)

    def refusal(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """Status and body of what it will not do, as OpenAI words it."""
        if body["model"] not in self.models:
            error = {"message": f"The model `{body['model']}` does not exist", "code": "model_not_found"}
            return 404, {"error": error}
        bad = next((name for name in body if name in self.refuses), None)
        if bad:
            return 400, {"error": {"message": f"Unsupported parameter: '{bad}'", "param": bad}}
        n_words = sum(len(str(message["content"]).split()) for message in body["messages"])
        if self.window is not None and n_words > self.window:
            told = f"This model's maximum context length is {self.window} tokens. However, your request has {n_words}"
            return 400, {"error": {"message": f"{told} input tokens.", "code": "context_length_exceeded"}}
        return None

    def chat(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of a chat completion."""
        refused = self.refusal(body)
        if refused:
            return refused
        text = self.answer(body)
        finish = "stop"
        limit = body.get("max_tokens", body.get("max_completion_tokens"))
        if limit and len(text.split()) > limit:
            text, finish = " ".join(text.split()[:limit]), "length"
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_token(word, body["top_logprobs"]) for word in text.split()]}
        n_in = sum(len(message["content"].split()) for message in body["messages"])
        usage = {"prompt_tokens": n_in, "completion_tokens": len(text.split()), **self.usage}
        return 200, {"choices": [{"index": 0, **choice}], "usage": usage, "model": body["model"]}

    def message(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body of an Anthropic message."""
        code, found = self.chat(body)
        if code != 200:
            kind = "not_found_error" if code == 404 else "invalid_request_error"
            said = f"model: {body['model']}" if code == 404 else found["error"]["message"]
            return code, {"type": "error", "error": {"type": kind, "message": said}}
        choice, usage = found["choices"][0], found["usage"]
        tokens = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
        tokens |= {"cache_read_input_tokens": 5, "cache_creation_input_tokens": 2} if "system" in body else {}
        return 200, {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": choice["message"]["content"]}],
            "stop_reason": {"stop": "end_turn", "length": "max_tokens"}[choice["finish_reason"]],
            "usage": tokens,
        }


COMPLETIONS = {"/v1/chat/completions": FakeServer.chat, "/v1/messages": FakeServer.message}


def _token(word: str, n_top: int) -> dict[str, Any]:
    top = [{"token": f"{word}{i or ''}", "logprob": -0.5 - i} for i in range(n_top)]
    return {"token": word, "logprob": -0.5, "top_logprobs": top}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    fake: FakeServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Http  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _serve(self, raw: bytes) -> None:
        fake, path = self.server.fake, self.path.partition("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        is_json = raw and headers.get("content-type", "").startswith("application/json")
        body = json.loads(raw) if is_json else raw
        fake.seen.append((path, headers, body))
        sent = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        if fake.key is not None and sent != fake.key:
            self._send(401, {"error": {"message": f"Incorrect API key provided: {sent}"}})
        elif fake.fail_looks and not raw and "/batches/" in path:
            fake.fail_looks -= 1
            self._send(500, {"error": {"message": "try later"}})
        elif path in COMPLETIONS:
            self._complete(path, body)
        elif path == "/v1/models":
            self._send(200, {"data": [{"id": name} for name in fake.models], "has_more": False})
        else:
            found = fake.openai_batches.serve(path, body) or fake.anthropic_batches.serve(path, body)
            self._send(*(found or (404, {"error": {"message": f"nothing at {path}"}})))

    def _complete(self, path: str, body: dict[str, Any]) -> None:
        fake, start = self.server.fake, time.monotonic()
        step = fake.step()
        fake.busy(1)
        time.sleep(fake.latency_s + step.wait_s)
        fake.busy(-1)
        fake.busy_s += time.monotonic() - start
        if step.drop:
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        code, found = (step.status, step.body) if step.body is not None else COMPLETIONS[path](fake, body)
        self._send(code, found, step.headers, cut=step.cut)

    def _send(self, code: int, body: Any, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        raw = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw[: len(raw) // 2] if cut else raw)
        self.close_connection = self.close_connection or cut
