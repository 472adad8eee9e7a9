"""The `noop` explainer: explanations that exist, from a run here, a JSON or CSV file, or Neuronpedia's export."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from autointerp.exchange.neuronpedia_lines import chosen_lines, explanation_files
from autointerp.explained import Explanations
from autointerp.latent import Evidence, Explanation, Unexplained
from autointerp.tools import Tools
from store.errors import UsageError
from store.hashing import sha256_file, sha256_texts
from store.run import MANIFEST, find_run

NOT_LOADED = "not loaded"
"""Why a latent has no explanation: the file has none of it."""
N_LATENTS = 1 << 31
"""Where no index says how many there are."""
WAY_OUT = "write an object of latent: text, a list of objects with latent and text, or a CSV with those two columns"


@final
@dataclass(frozen=True)
class NoOpExplainer:
    """Looks the latent up."""

    wants: ClassVar[frozenset[str]] = frozenset()

    loaded: Mapping[int, Explanation]
    """By latent."""

    @classmethod
    def open(cls, tools: Tools) -> "NoOpExplainer":
        """With what `tools.cfg.load` names.

        Raises:
            UsageError: it names nothing, no such file or run, or a file that is no table of explanations.
        """
        where = tools.cfg.load
        if not where:
            raise UsageError("noop loads explanations and was not told which: name a run or a file with --load")
        path = Path(where)
        form = "folder" if path.is_dir() and not (path / MANIFEST).exists() else path.suffix.lower()
        if path.exists() and form in FORMS:
            return cls(_by_latent(FORMS[form](path, tools), path))
        return cls(_of_run(where, tools))

    async def __call__(self, evidence: Evidence) -> Explanation | Unexplained:
        """What was loaded of the latent."""
        found = self.loaded.get(evidence.latent)
        return found or Unexplained(evidence.latent, "noop", NOT_LOADED)


def loaded_identity(where: str, root: Path) -> str:
    """What `--load` names now: the hash of a file's or folder's contents, or the id of a run."""
    path = Path(where)
    if path.is_file():
        return sha256_file(path)
    if path.is_dir() and not (path / MANIFEST).exists():
        files = sorted(each for each in path.rglob("*") if each.is_file())
        return sha256_texts(text for each in files for text in (str(each.relative_to(path)), sha256_file(each)))
    return find_run(root, where, "explanations").id


def _written(path: Path, rows: Iterable[tuple[Any, Any]]) -> list[Explanation]:
    """Of `(latent, text)` as they stand in a file; nothing is known of what their author saw."""
    return [_elsewhere(_number(latent, path), _words(text, latent, path), path.name) for latent, text in rows]


def _elsewhere(latent: int, text: str, method: str) -> Explanation:
    return Explanation(latent, "noop", text, text, f"loaded: {method}", None, None)


def _number(latent: Any, path: Path) -> int:
    if isinstance(latent, int) and not isinstance(latent, bool) and 0 <= latent < N_LATENTS:
        return latent
    if isinstance(latent, str) and latent.isascii() and latent.isdigit() and len(latent) < 10:
        return int(latent)
    raise UsageError(f"{path}: {str(latent)[:40]!r} is no latent's number: {WAY_OUT}")


def _words(text: Any, latent: Any, path: Path) -> str:
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{path}: latent {latent} has {str(text)[:40]!r} for a text: write words, or leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{path}: latent {latent} has half a surrogate pair, which is no character") from error
    return text


def _json(path: Path, tools: Tools) -> list[Explanation]:
    del tools
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON ({error}): {WAY_OUT}") from error
    if isinstance(found, dict):
        return _written(path, found.items())
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        return _written(path, ((row.get("latent"), row.get("text")) for row in found))
    raise UsageError(f"{path} holds no explanations: {WAY_OUT}")


def _csv(path: Path, tools: Tools) -> list[Explanation]:
    del tools
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no CSV in UTF-8 ({error}): {WAY_OUT}") from error
    return _written(path, ((row.get("latent"), row.get("text")) for row in rows))


def _neuronpedia(path: Path, tools: Tools) -> list[Explanation]:
    n_latents = tools.sampler.index.n_latents if tools.sampler else N_LATENTS
    lines = chosen_lines(explanation_files(path), n_latents)
    return [_elsewhere(line.latent, line.text, line.method) for line in lines]


def _by_latent(explanations: Iterable[Explanation], path: Path) -> dict[int, Explanation]:
    found: dict[int, Explanation] = {}
    for explanation in explanations:
        if explanation.latent in found:
            raise UsageError(f"{path} has two texts for latent {explanation.latent}: delete one")
        found[explanation.latent] = explanation
    if not found:
        raise UsageError(f"{path} has no explanation in it: {WAY_OUT}")
    return found


def _of_run(reference: str, tools: Tools) -> "_OfRun":
    """Of a run here. What its explainer saw is known where it explained this index: others count documents anew."""
    if tools.root is None:
        raise UsageError(f"{reference} is no file, and there is no folder of runs to look in: check the path")
    run = find_run(tools.root, reference, "explanations")
    same = tools.sampler is not None and tools.sampler.index.run.id == run.inputs["index"]
    return _OfRun(Explanations(run), run.id, same)


@dataclass(frozen=True, eq=False)
class _OfRun(Mapping[int, Explanation]):
    """By latent; read as it is asked for."""

    explanations: Explanations
    run: str
    same_index: bool

    def __getitem__(self, latent: int) -> Explanation:
        found = self.explanations.of(latent)
        if found is None:
            raise KeyError(latent)
        return Explanation(
            latent=latent,
            explainer="noop",
            text=found.text,
            input_text=found.input_text,
            method=f"loaded: {found.explainer} of {self.run}, {found.method}",
            n_contexts=found.n_contexts,
            doc_ids=found.doc_ids if self.same_index else None,
            output_text=found.output_text or "",
        )

    def __iter__(self) -> Iterator[int]:
        return iter(dict.fromkeys(self.explanations.latents.tolist()))

    def __len__(self) -> int:
        return len(np.unique(self.explanations.latents))


FORMS: dict[str, Callable[[Path, Tools], list[Explanation]]] = {
    ".csv": _csv,
    ".gz": _neuronpedia,
    ".json": _json,
    ".jsonl": _neuronpedia,
    "folder": _neuronpedia,
}
"""How a file is read, by the end of its name."""
