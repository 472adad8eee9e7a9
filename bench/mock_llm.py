"""A language-model service that answers after a fixed time, and tells how busy it was and how often it was asked.

Run as a process of its own, so that it takes no time from who asks it: `python mock_llm.py LATENCY_S ANSWERS` prints
its port; GET /busy gives its figures. ANSWERS is a JSON object: a request gets the first text whose name stands in it.
It speaks as much HTTP as a client with kept connections needs.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Mock:
    """The service, and what it saw since it began."""

    def __init__(self, latency_s: float, answers: dict[str, str]) -> None:
        self.latency_s = latency_s
        self.bodies = {needle.encode(): _body(text) for needle, text in answers.items()}
        self.seen: set[int] = set()
        self.n_busy = self.most_busy = self.n_calls = self.n_asked = 0
        self.busy_s = 0.0
        self.first = self.last = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while line := await reader.readline():
                length = 0
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                asked = await reader.readexactly(length)
                body = self.told() if line.startswith(b"GET") else await self.answered(asked)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answered(self, asked: bytes) -> bytes:
        """The body of an answer, after the time it takes."""
        began = time.monotonic()
        self.first = self.first or began
        self.seen.add(hash(asked))
        self.n_asked += 1
        self.n_busy += 1
        self.most_busy = max(self.most_busy, self.n_busy)
        await asyncio.sleep(self.latency_s)
        self.n_busy -= 1
        self.n_calls += 1
        self.last = time.monotonic()
        self.busy_s += self.last - began
        return next(body for needle, body in self.bodies.items() if needle in asked)

    def told(self) -> bytes:
        """Calls, seconds from the first to the last, and seconds that calls were under way, summed over them."""
        figures = {"n_calls": self.n_calls, "span_s": self.last - self.first, "busy_s": self.busy_s}
        asked = {"n_asked": self.n_asked, "n_different": len(self.seen)}
        return json.dumps(figures | asked | {"most_busy": self.most_busy}).encode()


def _body(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps({"choices": [choice], "usage": usage, "model": "mock"}).encode()


@contextmanager
def service(latency_s: float, answers: dict[str, str]) -> Iterator[str]:
    """The address of a service that lives as long as the block."""
    command = [sys.executable, __file__, str(latency_s), json.dumps(answers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def told(url: str) -> dict[str, Any]:
    """The figures of the service at `url`."""
    with urllib.request.urlopen(f"{url}/busy") as response:
        return json.load(response)


async def main() -> None:
    """Serve until killed."""
    mock = Mock(float(sys.argv[1]), json.loads(sys.argv[2]))
    server = await asyncio.start_server(mock.serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
