"""Hugging Face datasets, streamed: from the hub at one commit, from a folder of data files, or as saved to disk."""

import logging
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from activations.documents import DEFAULT_SPLIT, Document, Source, TextConfig
from activations.rows import Row, check_columns, document, first_line, wanted_columns
from activations.sources import streamed
from activations.text_files import files_hash, local_file
from store.errors import UsageError

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
HUB_TIMEOUT_S = 30
SAVED = ("state.json", "dataset_dict.json")
"""What a folder has that `save_to_disk` wrote."""


def dataset_source(reference: str, cfg: TextConfig) -> Source:
    """A split of a dataset, by what follows `dataset:`. No code that comes with a dataset is run.

    Raises:
        UsageError: no such dataset, configuration, split or column; no network; or it is damaged.
    """
    folder = Path(os.path.expanduser(reference))
    if os.path.isdir(folder):
        rows, version = _local(folder, cfg), _folder_hash(folder)
    elif HUB_ID.match(reference):
        commit = _commit(reference, cfg)
        rows, version = _opened(reference, cfg, reference, commit), commit
    else:
        raise UsageError(f"dataset:{reference} is no folder and no ORG/NAME of the hub: check the spelling")
    rows = _wanted(rows, reference, cfg)
    name = folder.resolve().name if os.path.isdir(folder) else reference

    def read(order: random.Random | None) -> Iterator[Document]:
        # In the dataset's own order, so that a row's number can be looked up; the buffer shuffles.
        del order
        for number, values in enumerate(_checked(rows, reference)):
            yield document(Row(f"dataset:{reference} row {number}", f"row {number}", values), name, cfg)

    return streamed(name, f"dataset:{reference}", f"{version} {cfg.dataset_name}/{cfg.dataset_split}", read)


def _local(folder: Path, cfg: TextConfig) -> Any:
    if cfg.dataset_revision:
        raise UsageError(f"dataset_revision '{cfg.dataset_revision}' is for the hub: {folder} has none, leave it out")
    if not any((folder / name).exists() for name in SAVED):
        return _opened(str(folder.resolve()), cfg, str(folder), None)
    try:
        saved = _library().load_from_disk(str(folder))
    except _read_errors() as error:
        _complain(str(folder), error)
    if not hasattr(saved, "to_iterable_dataset"):
        if cfg.dataset_split not in saved:
            raise UsageError(f"{folder} has no split '{cfg.dataset_split}', only {', '.join(saved)}: --dataset-split")
        saved = saved[cfg.dataset_split]
    elif cfg.dataset_split not in (DEFAULT_SPLIT, str(saved.split)):
        raise UsageError(f"{folder} has no splits, so not '{cfg.dataset_split}': leave dataset_split out")
    return saved.to_iterable_dataset()


def _opened(path: str, cfg: TextConfig, shown: str, commit: str | None) -> Any:
    """The split as a stream of rows."""
    load = _library().load_dataset
    try:
        return load(path, cfg.dataset_name, split=cfg.dataset_split, revision=commit, streaming=True)
    except _read_errors() as error:
        _complain(shown, error)


def _wanted(rows: Any, reference: str, cfg: TextConfig) -> Any:
    """Only the columns that are read, where the dataset knows its columns: pictures are never decoded."""
    if not rows.column_names:
        return rows
    check_columns(f"dataset:{reference}", rows.column_names, cfg)
    return rows.select_columns([name for name in wanted_columns(cfg) if name in rows.column_names])


def _checked(rows: Any, reference: str) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except _read_errors() as error:
        _complain(reference, error)


def _commit(name: str, cfg: TextConfig) -> str:
    """The commit that the hub has now."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        commit = HfApi().dataset_info(name, revision=cfg.dataset_revision, timeout=HUB_TIMEOUT_S).sha
    except RevisionNotFoundError as error:
        raise UsageError(f"the hub's '{name}' has no revision '{cfg.dataset_revision}': check the spelling") from error
    except GatedRepoError as error:
        raise UsageError(f"the hub's '{name}' is gated: ask for access there and run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"the hub has no public dataset '{name}': check the spelling") from error
    except _read_errors() as error:
        offline = " and unset HF_HUB_OFFLINE" if "offline" in str(error).lower() else ""
        raise UsageError(
            f"could not reach the hub for dataset:{name} ({type(error).__name__}): check the network{offline}, or give "
            "a folder that holds the dataset"
        ) from error
    return str(commit)


def _complain(shown: str, error: Exception) -> NoReturn:
    raise UsageError(
        f"dataset:{shown} cannot be read ({type(error).__name__}: {first_line(error):.300}): check its files or "
        "the network, --dataset-name and --dataset-split"
    ) from error


def _read_errors() -> tuple[type[Exception], ...]:
    """What opening and reading a dataset raises: no network, no such split or configuration, a damaged file."""
    # The hub's own export: which package this is has changed between its versions.
    from huggingface_hub.utils import httpx

    return OSError, ValueError, RuntimeError, httpx.HTTPError


def _folder_hash(folder: Path) -> str:
    files = [local_file(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return files_hash([file for file in files if not file.is_hidden])


def _library() -> Any:
    """`datasets`, slow to import; told not to draw bars, to log what it raises, or to report who uses it."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    return datasets
