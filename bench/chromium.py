"""A served dashboard and a real Chromium, for benchmarks of what a person waits for."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, sync_playwright

from app.commands import serve
from store.errors import UsageError

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LONGEST_MS = 120_000
DRAWN = """([heading, text]) => {
  const app = document.querySelector('[data-testid=stApp]');
  if (!app || app.dataset.testScriptState === 'running') return false;
  if (document.querySelector('[data-testid=stSkeleton], [data-stale=true]')) return false;
  const h1 = document.querySelector('h1');
  if (!h1 || h1.innerText.trim() !== heading) return false;
  return !text || document.body.innerText.includes(text);
}"""
"""Whether a page with a heading is there in full: the server has ended its run, nothing is left of the last one, no
grey box stands for what is still to come."""
ROWS = """() => document.querySelector('[data-testid=stDataFrame] canvas table')?.textContent ?? ''"""
"""What a table shows, which is drawn on a canvas: as it is read to those who do not see it."""


@contextmanager
def served(root: Path, index: str = "latest") -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """The dashboard's URL, its process and when that was started; it has not answered yet."""
    if not CHROMIUM.exists():
        raise UsageError(f"{CHROMIUM} is missing: install Chromium (apt-get install chromium) or set CHROMIUM")
    with socket.socket() as free:
        free.bind((serve.HOST, 0))
        port = free.getsockname()[1]
    started = time.perf_counter()
    with subprocess.Popen(serve.command(port), env=serve.environment(root, index), stdout=subprocess.DEVNULL) as server:
        try:
            yield f"http://{serve.HOST}:{port}", server, started
        finally:
            server.terminate()


def wait_up(url: str) -> None:
    """Wait until a server answers."""
    deadline = time.perf_counter() + LONGEST_MS / 1000
    while time.perf_counter() < deadline:
        with suppress(OSError), urlopen(f"{url}/_stcore/health", timeout=1):
            return
        time.sleep(0.02)
    raise UsageError(f"no answer from {url}: the server has not started")


@contextmanager
def browser() -> Iterator[Browser]:
    """Headless."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield opened
        finally:
            opened.close()


def wait_drawn(page: Page, heading: str, text: str = "") -> None:
    """Wait until a page is there in full.

    Args:
        page: where.
        heading: its first heading, exactly.
        text: what must be there too.
    """
    page.wait_for_function(DRAWN, arg=[heading, text], timeout=LONGEST_MS)


def first_visit(page: Page, url: str, heading: str) -> None:
    """Open a page of a server that may not answer yet."""
    wait_up(url)
    page.goto(url, timeout=LONGEST_MS)
    wait_drawn(page, heading)


def wait_changed(page: Page, rows: str) -> None:
    """Wait until the first table shows something else than `rows`."""
    page.wait_for_function(f"rows => ({ROWS})() !== rows", arg=rows, timeout=LONGEST_MS)


def milliseconds(act: Callable[[], None], done: Callable[[], None]) -> float:
    """From an action until it is done."""
    started = time.perf_counter()
    act()
    done()
    return 1000 * (time.perf_counter() - started)
