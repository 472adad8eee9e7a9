"""Explanations are read as they are asked for: what is held does not grow with how many there are."""

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autointerp.explained import GROUPS, Explanations
from autointerp.explaining import ExplainConfig, explain, sample_of
from autointerp.latent import Explanation
from autointerp.rows import columns, explanation_of, explanation_row
from autointerp.scoring import ScoreConfig, score
from autointerp.tools import ToolsConfig
from store import index as published
from store.index import SAID_ROWS, batches_of, parts_of, write_part
from store.index_tables import SCHEMAS
from store.run import Run, find_run, start_run

VALUES = {"latent", "arm", "value", "n_judged", "n_unparsed", "quoted", "reason", "medoid"}
"""Columns of which a job may hold all rows: numbers and short words."""


def written(root: Path, parts: list[list[int]], n_letters: int = 10) -> Run:
    """A run whose parts explain these latents, each in words of its own."""
    with start_run(root, "explanations", {"parts": [len(part) for part in parts]}, {}) as run:
        for number, latents in enumerate(parts):
            said = [_said(latent, n_letters) for latent in latents]
            rows = [explanation_row(each, run.id) for each in said]
            write_part(run.folder, "explanations", columns(rows, SCHEMAS["explanations"].names), number)
        run.finish({})
    return run


def _said(latent: int, n_letters: int) -> Explanation:
    text = f"{latent} ".ljust(n_letters, "x")
    seen = frozenset({latent, latent + 1}) if latent % 2 else None
    return Explanation(latent, "tokens", text, text, "counts", 2, seen, calls=(str(latent),), output_text=text)


@pytest.mark.parametrize("n", [0, 1, SAID_ROWS, 3 * SAID_ROWS + 5])
def test_they_are_the_rows_by_ascending_latent_however_they_lie(tmp_path: Path, n: int):
    latents = np.random.default_rng(n).permutation(n * 2)[:n].tolist()
    run = written(tmp_path, [latents[: n // 3], latents[n // 3 :]])
    found = Explanations(run)
    expected = [explanation_of(row) for row in parts_of(run.folder, "explanations").sort_by("latent").to_pylist()]
    assert list(found) == found[:] == expected
    assert found[1::2] == expected[1::2]
    assert len(found) == n
    assert [found.of(each.latent) for each in expected] == expected
    assert not n or [found.of(latent) for latent in (-1, 2 * n)] == [None, None]


def test_what_is_held_while_all_are_read_does_not_grow_with_their_number(tmp_path: Path):
    few, many = (peak(tmp_path / str(n), n * GROUPS) for n in (2, 8))
    assert many < few * 1.2


def peak(root: Path, n_parts: int) -> int:
    """Bytes, in Python and in Arrow, while every explanation is read, and beside it that of another latent."""
    run = written(root, np.arange(n_parts * SAID_ROWS).reshape(n_parts, -1).tolist(), n_letters=500)
    others = np.random.default_rng(0).permutation(n_parts * SAID_ROWS)[:: 4 * n_parts]
    before, most = pa.total_allocated_bytes(), 0
    tracemalloc.start()
    found = Explanations(run)
    for i in range(0, len(found), SAID_ROWS // 4):
        assert found[i].latent == i
        most = max(most, pa.total_allocated_bytes() - before)
    for i in others.tolist():
        assert found[i].latent == i
        most = max(most, pa.total_allocated_bytes() - before)
    _, traced = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Twelve bytes a latent are meant to be held.
    return most + traced - 12 * len(found)


def test_batches_are_small_and_all_rows_come(tmp_path: Path):
    run = written(tmp_path, [list(range(2 * SAID_ROWS)), [7000]])
    batches = list(batches_of(run.folder, "explanations", ["latent"]))
    assert max(len(batch) for batch in batches) <= SAID_ROWS
    assert [row for batch in batches for row in batch.column(0).to_pylist()] == [*range(2 * SAID_ROWS), 7000]


def test_no_job_reads_the_texts_of_all_latents_at_once(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = Path(shutil.copytree(tiny_root, tmp_path / "runs"))
    whole: list[set[str]] = []
    original = pq.read_table

    def counting(*args: Any, **given: Any) -> pa.Table:
        found = original(*args, **given)
        whole.append(set(found.column_names))
        return found

    monkeypatch.setattr(published.pq, "read_table", counting)
    cfg = ExplainConfig(n_latents=5, sample=sample_of(find_run(root, "latest", "explanations")))
    explained = explain(cfg, find_run(root, "latest", "index"), root)
    run = score(ScoreConfig(tools=ToolsConfig(embedder="hashed"), n_null=2), explained, root)
    assert run.results["explanation"]["n_scored"] == 5
    assert whole
    assert set().union(*whole) <= VALUES
