"""`monosem serve`."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.arguments import RootArgs, parse
from app.log import console
from store.errors import UsageError
from store.run import find_run, list_runs

HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Open the dashboard on http://127.0.0.1:PORT. It is reachable from this machine only, and phones nobody.

    Example: monosem serve --port 8501
    """

    index_run: str = "latest"
    """The index shown: an id, the start of one, a folder, or `latest`."""
    port: int = 8501
    """Where to listen."""
    read_only: bool = False
    """Leave out whatever writes or starts something: labels, lists, jobs. Texts may be run through the model."""


def main(arguments: Sequence[str]) -> None:
    """Parse and serve."""
    args = parse(Args, "serve", arguments)
    serve(args.root, args.index_run, args.port, read_only=args.read_only)


def serve(root: Path, index: str, port: int, *, read_only: bool = False) -> None:
    """Serve until interrupted. Where nothing was indexed yet, the pages say what to run.

    Raises:
        UsageError: there is no such index, the port is taken, or the server ended by itself.
    """
    if index != "latest" or list_runs(root, "index"):
        index = find_run(root, index, "index").id
    _check_port(port)
    console.print(f"dashboard: [bold]http://{HOST}:{port}[/bold]  (Ctrl-C ends it)")
    status = subprocess.run(command(port), env=environment(root, index, read_only=read_only), check=False).returncode
    if status not in (0, 130, -2, -15):
        raise UsageError(f"the dashboard ended with status {status}: see its message above")


def command(port: int) -> list[str]:
    """The Streamlit command line."""
    options = {
        "server.address": HOST,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.maxUploadSize": 1,
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",
    }
    page = Path(__file__).parent.parent / "web" / "main.py"
    return [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(page),
        *(f"--{key}={value}" for key, value in options.items()),
        # Another name for this machine would let a page elsewhere ask it through the browser (DNS rebinding).
        *(f"--server.allowedHosts={host}" for host in (HOST, "localhost")),
    ]


def environment(root: Path, index: str, *, read_only: bool = False) -> dict[str, str]:
    """The dashboard's environment: what to show, and whether only to look."""
    return {
        **os.environ,
        "MONOSEM_ROOT": str(root.resolve()),
        "MONOSEM_INDEX": index,
        "MONOSEM_READ_ONLY": str(int(read_only)),
    }


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} cannot be used ({error}): choose another with --port") from error
