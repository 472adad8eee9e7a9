"""A whole small workbench on disk: 30 latents over three documents, one of them hostile, and a tiny model to run."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from activations.models import find_model
from activations.statistics import Moments, write_statistics
from autointerp.index.config import IndexConfig
from autointerp.index.encode import Codes
from autointerp.index.given import index_codes
from sae import checkpoint
from sae.topk import TopK, TopKConfig
from store import layout
from store.figures import Figure, Measured, write_measured
from store.index import publish, write_part
from store.index_tables import SCHEMAS
from store.run import Run, start_run
from store.tables import HARVEST_SCHEMAS

D_SAE, D_IN = 30, 32
DEAD = (7, 29)
SCORED, UNJUDGED, UNSCORED, HOSTILE = 3, 4, 5, 6
"""Latents by the state of their explanation; all others have none."""
PERCENT = 9
"""The one latent that promotes a token with a percent sign, which SQL patterns would take for anything."""
HOOK_POINT = "blocks.0.hook_resid_post"
MOMENTS = Moments(n=10, mean=np.zeros(D_IN), spread=np.full(D_IN, 10.0), norm_sum=55.0, max_abs=3.0)
"""Of the activations: their mean length is 5.5."""
EVIL = '<script>window.pwned=1</script><img src=x onerror="window.pwned=1">'
EVIL_MARKDOWN = f"**not bold** $x$ [link](javascript:alert(1)) :red[no] {EVIL}"
DOCUMENTS = (
    ("prose", "A quiet harbour", "The boats came in before dawn. " * 12 + "\n\nNobody spoke, and the tide turned."),
    ("code", "sort.py", "def sort(items):\n\tif not items:\n        return []\n    return sorted(items)\n" * 5),
    ("a&b", EVIL, f"<b>bold</b> <|im_start|> \"quoted\" 'single' {EVIL} שלום \u202eabc 👩‍👩‍👧 naïve\n" * 6),
)


def build_workbench(root: Path, *, explained: bool = True) -> Run:
    """Runs of every kind that the workbench opens, under `root`; the index run is returned."""
    tokens = [_tokens(text) for _, _, text in DOCUMENTS]
    activations = _activations_run(root, tokens)
    sae = _sae_run(root, activations)
    _evaluate(root, {"sae": sae.id, "activations": activations.id})
    with start_run(root, "index", {"made": "by hand"}, {"sae": sae.id, "activations": activations.id}) as index:
        cfg = IndexConfig(n_top=6, per_band=3, half_window=14, n_bins=20)
        words = [f" w{i}" for i in range(max(map(len, tokens)))]
        results = index_codes(index.folder, activations.folder, [_codes(tokens)], D_SAE, words, cfg)
        logits = [row for latent in range(D_SAE) for row in _logit_rows(latent)]
        write_part(index.folder, "logits", {name: [row[name] for row in logits] for name in SCHEMAS["logits"].names})
        index.finish(results)
    if explained:
        _write_explanations(root, index)
    publish(index)
    return index


EVALUATION = {
    "reconstruction": [
        Figure(metric="fvu", value=0.2137, low=0.19, high=0.24, n=120, n_of="rows", token_class="normal"),
        Figure(metric="l0", value=8.0, n=120, n_of="rows", token_class="normal"),
        Figure(metric="fvu", value=None, n=3, n_of="rows", token_class="sink", note="withheld: 3 rows"),
        Figure(metric="n_dead", value=float(len(DEAD)), n=D_SAE, n_of="latents"),
    ],
    "loss": [
        Figure(metric="loss_recovered", value=None, n=0, n_of="predictions", setting="against mean ablation"),
    ],
}


def _evaluate(root: Path, inputs: dict[str, str]) -> None:
    for part, figures in EVALUATION.items():
        with start_run(root, "evaluation", {"part": part, "settings": {}}, inputs) as run:
            write_measured(run.folder, Measured(figures))
            run.finish({"part": part, "n_figures": len(figures)})


def _tokens(text: str) -> list[tuple[int, int]]:
    """Spans of words with the space before them, after one for BOS."""
    return [(-1, -1), *(match.span() for match in re.finditer(r" ?\S+|\s", text))]


def _activations_run(root: Path, tokens: list[list[tuple[int, int]]]) -> Run:
    harvest = {"model": "tiny", "revision": None, "device": "cpu", "model_dtype": "float32"}
    same = {"model": find_model("tiny").identity}
    with start_run(root, "activations", {"harvest": harvest}, {}, same) as run:
        documents = [
            {"doc_id": i, "source": source, "title": title, "split": "train", "n_tokens": len(tokens[i]), "text": text}
            for i, (source, title, text) in enumerate(DOCUMENTS)
        ]
        sequences = [
            {
                "seq": i,
                "token_ids": list(range(len(spans))),
                "doc_ids": [i] * len(spans),
                "char_start": [start for start, _ in spans],
                "char_end": [stop for _, stop in spans],
                "text_class": [0] * len(spans),
            }
            for i, spans in enumerate(tokens)
        ]
        for path, table, rows in (
            (layout.document_part(run.folder, 0), "documents", documents),
            (layout.token_part(run.folder, 0), "sequences", sequences),
        ):
            path.parent.mkdir()
            pq.write_table(pa.Table.from_pylist(rows, schema=HARVEST_SCHEMAS[table]), path)
        write_statistics(run.folder / layout.STATISTICS, {(HOOK_POINT, "train", "normal"): MOMENTS})
        run.finish({"hook_points": {HOOK_POINT: {"sink_norm": 1e6}}})
    return run


def _sae_run(root: Path, activations: Run) -> Run:
    config = {"sae": {"d_sae": D_SAE, "d_in": D_IN, "k": 8}, "hook_point": HOOK_POINT}
    with start_run(root, "sae", config, {"activations": activations.id}) as run:
        checkpoint.save(run.folder, TopK(TopKConfig(**config["sae"])))
        run.finish({"d_sae": D_SAE})
    return run


def _codes(tokens: list[list[tuple[int, int]]]) -> Codes:
    """What fires on each token: a latent on its own share of them, and for certain on the hostile document's first."""
    random = np.random.default_rng(0)
    places = np.concatenate([np.arange(len(spans)) for spans in tokens])
    seq = np.repeat(np.arange(len(tokens)), [len(spans) for spans in tokens])
    on = np.zeros((len(places), D_SAE), bool)
    for latent in set(range(D_SAE)) - set(DEAD):
        on[:, latent] = random.random(len(places)) < 10 ** random.uniform(-1.8, -0.3)
    on[(seq == 2) & (places < 20), SCORED] = True
    on[places == 0] = False
    token, latents = np.nonzero(on)
    values = random.exponential(3.0, len(token)).astype(np.float32) + np.float32(0.1)
    offsets = np.concatenate([[0], np.cumsum(on.sum(axis=1))])
    by_class = np.stack([on.sum(axis=0), *np.zeros((3, D_SAE), int)])
    return Codes(offsets, latents.astype(np.int32), values, places > 0, by_class)


def _logit_rows(latent: int) -> list[dict[str, Any]]:
    fourth = " 50%" if latent == PERCENT else " tide"
    sides = {"top": [" harbour", "<b>", "\n", fourth, f" word{latent}"], "bottom": ["</s>", " the", "&amp;"]}
    return [
        {
            "latent": latent,
            "side": side,
            "rank": rank,
            "token_id": rank,
            "token": token,
            "value": sign * (2.0 - rank / 4),
        }
        for (side, words), sign in zip(sides.items(), (1, -1), strict=True)
        for rank, token in enumerate(words)
    ]


def _write_explanations(root: Path, index: Run) -> None:
    texts = {
        SCORED: "fires on boats and harbours",
        UNJUDGED: "fires at dawn",
        UNSCORED: "fires on sorted lists",
        HOSTILE: EVIL_MARKDOWN,
    }
    rows = [
        {
            "latent": latent,
            "explainer": "tokens",
            "text": text,
            "input_text": text,
            "method": "counts",
            "n_contexts": 12,
            "n_docs": 2,
        }
        for latent, text in texts.items()
    ]
    explanations = _write_run(root, "explanations", rows, {"index": index.id})
    shared = {"explainer": "tokens", "scorer": "embedding", "chance": 0.5, "n_docs": 4, "n_docs_shared": 0}
    judged = {"n_judged": 40, "n_unparsed": 0}
    scores = [
        {"latent": SCORED, "arm": "explanation", "value": 0.83, "ci_low": 0.71, "ci_high": 0.93, **judged, **shared},
        {"latent": SCORED, "arm": "shuffled", "value": 0.52, "ci_low": 0.38, "ci_high": 0.66, **judged, **shared},
        {
            "latent": UNJUDGED,
            "arm": "explanation",
            **dict.fromkeys(("value", "ci_low", "ci_high")),
            "n_judged": 0,
            "n_unparsed": 12,
            **shared,
        },
    ]
    _write_run(root, "scores", scores, {"index": index.id, "explanations": explanations.id})


def _write_run(root: Path, table: str, rows: list[dict[str, Any]], inputs: dict[str, str]) -> Run:
    with start_run(root, table, {}, inputs) as run:
        names = [name for name in SCHEMAS[table].names if name != "run"]
        columns = {name: [row.get(name) for row in rows] for name in names}
        write_part(run.folder, table, {**columns, "run": [run.id] * len(rows)})
        run.finish({})
    return run
