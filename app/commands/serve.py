"""`monosem serve`."""

import importlib.util
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
SECRETS = Path(".streamlit/secrets.toml")


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
    login: bool = False
    """Have people sign in by OpenID Connect first, as `[auth]` in .streamlit/secrets.toml says."""
    host_names: tuple[str, ...] = ()
    """Other names that browsers may ask by, where a proxy or tunnel of yours passes them on to this machine."""


def main(arguments: Sequence[str]) -> None:
    """Parse and serve."""
    args = parse(Args, "serve", arguments)
    serve(args.root, args.index_run, args.port, Access(args.read_only, args.login, args.host_names))


@dataclass(frozen=True)
class Access:
    """Who may do what."""

    read_only: bool = False
    login: bool = False
    host_names: tuple[str, ...] = ()

    def check(self) -> None:
        """Refuse what would let others in by mistake.

        Raises:
            UsageError: names for others without a login or read-only, or nothing to sign in with.
        """
        if self.host_names and not (self.login or self.read_only):
            raise UsageError(
                f"--host-names {' '.join(self.host_names)} lets others in, who could write notes and start jobs: add "
                "--login or --read-only"
            )
        if self.login and importlib.util.find_spec("authlib") is None:
            raise UsageError("--login needs Authlib, which is not installed: pip install 'monosem[login]'")
        if self.login and not any((folder / SECRETS).exists() for folder in (Path.cwd(), Path.home())):
            raise UsageError(
                f"--login finds no {SECRETS} here or in your home: write [auth] into one (docs/dashboard.md)"
            )


def serve(root: Path, index: str, port: int, access: Access = Access()) -> None:
    """Serve until interrupted. Where nothing was indexed yet, the pages say what to run.

    Raises:
        UsageError: there is no such index, the port is taken, others would be let in by mistake, or the server ended by
            itself.
    """
    if index != "latest" or list_runs(root, "index"):
        index = find_run(root, index, "index").id
    access.check()
    _check_port(port)
    console.print(f"dashboard: [bold]http://{HOST}:{port}[/bold]  (Ctrl-C ends it)")
    status = subprocess.run(command(port, access), env=environment(root, index, access), check=False).returncode
    if status not in (0, 130, -2, -15):
        raise UsageError(f"the dashboard ended with status {status}: see its message above")


def command(port: int, access: Access = Access()) -> list[str]:
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
        # -P: a folder called `app` where the person stands is not ours.
        "-P",
        "-m",
        "app.web.server",
        "run",
        str(page),
        *(f"--{key}={value}" for key, value in options.items()),
        # Another name for this machine would let a page elsewhere ask it through the browser (DNS rebinding).
        *(f"--server.allowedHosts={host}" for host in (HOST, "localhost", *access.host_names)),
    ]


def environment(root: Path, index: str, access: Access = Access()) -> dict[str, str]:
    """The dashboard's environment: what to show, and whether only to look."""
    return {
        **os.environ,
        "MONOSEM_ROOT": str(root.resolve()),
        "MONOSEM_INDEX": index,
        "MONOSEM_READ_ONLY": str(int(access.read_only)),
        "MONOSEM_LOGIN": str(int(access.login)),
    }


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port} cannot be used ({error}): choose another with --port") from error
