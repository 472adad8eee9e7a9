"""A language-model service that answers every request the same after a fixed time, and tells how busy it was.

Run as a process of its own, so that it takes no time from who asks it: `python mock_llm.py LATENCY_S TEXT` prints its
port; GET /busy gives its figures. It speaks as much HTTP as a client with kept connections needs.
"""

import asyncio
import json
import sys
import time


class Mock:
    """The service, and what it saw since it began."""

    def __init__(self, latency_s: float, text: str) -> None:
        self.latency_s = latency_s
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 20}
        self.body = json.dumps({"choices": [choice], "usage": usage, "model": "mock"}).encode()
        self.n_busy = self.most_busy = self.n_calls = 0
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
                await reader.readexactly(length)
                body = self.told() if line.startswith(b"GET") else await self.answered()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answered(self) -> bytes:
        """The body of an answer, after the time it takes."""
        began = time.monotonic()
        self.first = self.first or began
        self.n_busy += 1
        self.most_busy = max(self.most_busy, self.n_busy)
        await asyncio.sleep(self.latency_s)
        self.n_busy -= 1
        self.n_calls += 1
        self.last = time.monotonic()
        self.busy_s += self.last - began
        return self.body

    def told(self) -> bytes:
        """Calls, seconds from the first to the last, and seconds that calls were under way, summed over them."""
        figures = {"n_calls": self.n_calls, "span_s": self.last - self.first, "busy_s": self.busy_s}
        return json.dumps(figures | {"most_busy": self.most_busy}).encode()


async def main() -> None:
    """Serve until killed."""
    mock = Mock(float(sys.argv[1]), sys.argv[2])
    server = await asyncio.start_server(mock.serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
