"""The dashboard as served, in real Chromium, on the small workbench with the tiny model."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import pytest

import app.web

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "dashboard-tiny"
START_SECONDS = 60
OPTIONS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
}


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The dashboard of `root`, served until the context ends; its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--{name}={value}" for name, value in {**OPTIONS, "server.port": str(port)}.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(Path(app.web.__file__).parent / "main.py"), *options]
    with subprocess.Popen(command, env={**os.environ, "MONOSEM_ROOT": str(root), "MONOSEM_INDEX": "latest"}) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/_stcore/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait(url: str, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(f"no answer from {url} after {START_SECONDS} seconds")


@pytest.mark.slow
def test_a_person_can_go_through_the_dashboard(browser, fixture_index, runs_root):
    if not browser.CHROMIUM.exists():
        missing = f"{browser.CHROMIUM} is missing: install Chromium (apt-get install chromium) or set CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with served(runs_root) as base_url:
        browser.drive_dashboard(base_url, ARTIFACTS, fixture_index.SCORED)
