"""Harvests made by hand for the catalogue: every vector and token can be told from all others."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from store import layout
from store.files import write_json
from store.hashing import sha256_file
from store.run import Run, start_run
from store.shards import STORED_AS, Rows, write_shard
from store.tables import DOCUMENTS, SEQUENCES, STATISTICS

RESID, MLP = "blocks.0.hook_resid_post", "blocks.0.mlp.hook_post"
WIDTHS = {RESID: 4, MLP: 6}
LENGTH, PER_WINDOW, N_WINDOWS = 8, 3, 2
"""Tokens a sequence, sequences a window, windows a harvest."""


def sequence(seq: int) -> dict:
    """Two documents packed into one sequence: BOS, two tokens of the first, a separator and four of the second."""
    first, second = 2 * seq, 2 * seq + 1
    return {
        "seq": seq,
        "token_ids": list(range(100 * seq, 100 * seq + LENGTH)),
        "doc_ids": [first] * 3 + [second] * 5,
        "char_start": [-1, 0, 1, -1, 0, 1, 2, 3],
        "char_end": [-1, 1, 2, -1, 1, 2, 3, 4],
        "text_class": [1, 0, 0, 1, 0, 0, 0, 0],
    }


def rows_of(sequences: list[dict], d_in: int, dtype: str, random: np.random.Generator) -> Rows:
    order = random.permutation(len(sequences) * LENGTH)
    columns = {
        "token_id": np.concatenate([s["token_ids"] for s in sequences]).astype(np.int32),
        "doc_id": np.concatenate([s["doc_ids"] for s in sequences]).astype(np.int64),
        "seq": np.repeat([s["seq"] for s in sequences], LENGTH).astype(np.int32),
        "pos": np.tile(np.arange(LENGTH), len(sequences)).astype(np.int32),
        "token_class": np.concatenate([s["text_class"] for s in sequences]).astype(np.int8),
    }
    values = random.standard_normal((len(order), d_in)).astype(np.float32)
    stored = (values.view(np.uint32) >> 16).astype("<u2") if dtype == "bfloat16" else values.astype(STORED_AS[dtype])
    return Rows(vectors=stored, columns=columns).take(order)


def harvest(root: Path, name: str = "a", dtype: str = "float16", widths: dict[str, int] = WIDTHS) -> Run:
    """A finished harvest made by hand; its vectors are random, so that each is told from all others."""
    random = np.random.default_rng(sum(name.encode()))
    n_sequences = PER_WINDOW * N_WINDOWS
    with start_run(root, "activations", {"name": name}, {}) as run:
        documents = [
            {"doc_id": i, "source": name, "title": f"{i}", "split": "train", "n_tokens": 4, "text": "abcd"}
            for i in range(2 * n_sequences)
        ]
        _write(layout.document_part(run.folder, 0), documents, DOCUMENTS)
        for window in range(N_WINDOWS):
            sequences = [sequence(window * PER_WINDOW + i) for i in range(PER_WINDOW)]
            _write(layout.token_part(run.folder, window), sequences, SEQUENCES)
            entries = {}
            for hook_point, d_in in widths.items():
                rows = rows_of(sequences, d_in, dtype, random)
                for part, chosen in enumerate(np.array_split(np.arange(len(rows)), 2)):
                    path = layout.shard(run.folder, hook_point, window, part)
                    write_shard(path, rows.take(chosen), dtype, {"hook_point": hook_point})
                    entries[path.relative_to(run.folder).as_posix()] = {
                        "n_bytes": path.stat().st_size,
                        "sha256": sha256_file(path),
                        "n_rows": len(chosen),
                        "hook_point": hook_point,
                        "d_in": d_in,
                        "dtype": dtype,
                    }
            write_json(layout.receipt(run.folder, window), {"window": window, "files": entries})
        figures = {"n": 5, "mean_square_norm": 1.0, "mean_norm": 1.0, "max_abs": 1.0}
        statistics = [
            {"hook_point": h, "split": "train", "token_class": "normal", "mean": [0.0] * d, "variance": [1.0] * d}
            | figures
            for h, d in widths.items()
        ]
        _write(run.folder / layout.STATISTICS, statistics, STATISTICS)
        run.finish({"n_tokens": n_sequences * LENGTH})
    return run


def _write(path: Path, rows: list[dict], schema: pa.Schema) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
