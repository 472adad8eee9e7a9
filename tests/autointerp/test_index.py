"""The index's figures against brute force on dense matrices."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.reader import Activations
from app.cli import main
from app.workbench import Workbench
from autointerp.contexts import Layout, choose
from autointerp.events import Events, peaks, statistics
from autointerp.index import IndexConfig, build_index
from autointerp.logits import top_and_bottom
from sae import checkpoint
from store.errors import UsageError
from store.run import find_run
from store.shards import as_torch
from store.tables import SEQUENCES


@pytest.fixture(scope="module")
def wb(tiny_root: Path) -> Workbench:
    return Workbench.open(tiny_root)


@pytest.fixture(scope="module")
def dense(wb: Workbench) -> dict[str, np.ndarray]:
    """Every latent on every indexed token, as a dense matrix, with where each row is from."""
    sae = checkpoint.load(wb.sae_run.folder)
    rows: dict[str, list[np.ndarray]] = {"latents": [], "seq": [], "pos": [], "doc_id": []}
    activations = Activations(wb.activations_run)
    for block in activations.blocks:
        opened = block.open()
        kept = np.flatnonzero((opened.columns["token_class"] == 0) & (opened.columns["pos"] > 0))
        with torch.no_grad():
            x = as_torch(opened.vectors[kept], activations.dtype).float()
            rows["latents"].append(sae.encode(x).dense().numpy())
        for name in ("seq", "pos", "doc_id"):
            rows[name].append(opened.columns[name][kept])
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def test_every_statistic_equals_brute_force(wb: Workbench, dense: dict[str, np.ndarray]):
    table = wb.index.arrow("SELECT * FROM latents ORDER BY latent").to_pylist()
    assert len(table) == wb.d_sae
    for row in table:
        values = dense["latents"][:, row["latent"]].astype(np.float64)
        active = np.sort(values[values > 0])
        assert row["n_fired"] == len(active)
        assert row["density"] == pytest.approx(len(active) / len(values))
        assert row["n_docs"] == len(np.unique(dense["doc_id"][values > 0]))
        assert row["max"] == pytest.approx(active.max())
        assert row["mean"] == pytest.approx(active.mean(), rel=1e-6)
        assert row["mean_square"] == pytest.approx((active**2).mean(), rel=1e-6)
        for name, q in (("q50", 0.5), ("q90", 0.9), ("q99", 0.99), ("q999", 0.999)):
            assert row[name] == pytest.approx(np.quantile(active, q, method="inverted_cdf"))
        edges = np.linspace(0, active.max(), len(row["histogram"]) + 1)
        assert sum(row["histogram"]) == len(active)
        assert np.abs(np.cumsum(row["histogram"]) - np.searchsorted(active, edges[1:], "right")).max() <= 1


def test_top_contexts_are_the_strongest_peaks(wb: Workbench, dense: dict[str, np.ndarray]):
    for latent in range(0, wb.d_sae, 7):
        values = dense["latents"][:, latent]
        found = [w.value for w in wb.windows(latent, "top")]
        assert found[0] == pytest.approx(values.max())
        per_sequence = [values[dense["seq"] == seq].max() for seq in np.unique(dense["seq"])]
        assert all(min(abs(value - peak) for peak in per_sequence) < 1e-5 for value in found)


def test_windows_show_the_latents_own_values(wb: Workbench, dense: dict[str, np.ndarray]):
    for window in wb.windows(3)[:10]:
        here = dense["seq"] == window.seq
        by_pos = dict(zip(dense["pos"][here], dense["latents"][here, 3], strict=True))
        expected = [by_pos.get(window.start + i, 0.0) for i in range(len(window.tokens))]
        assert np.allclose(window.values, expected, atol=1e-5)


def random_events(seed: int, n: int, d_sae: int = 5, n_seq: int = 6) -> Events:
    random = np.random.default_rng(seed)
    where = random.choice(d_sae * n_seq * 20, size=min(n, d_sae * n_seq * 20), replace=False)
    latent, seq, pos = where // (n_seq * 20), where // 20 % n_seq, where % 20
    value = random.integers(1, 6, len(where)).astype(np.float32)  # with ties
    columns = (latent.astype(np.int32), seq.astype(np.int32), pos.astype(np.int32), seq // 2, value)
    return Events(*columns, d_sae=d_sae, n_tokens=n_seq * 20).sorted()


def layout_of(token_ids: list[range]) -> Layout:
    """Sequences of one document each, without BOS."""
    columns = {
        "seq": range(len(token_ids)),
        "token_ids": [list(ids) for ids in token_ids],
        "doc_ids": [[seq // 2] * len(ids) for seq, ids in enumerate(token_ids)],
        "char_start": [list(range(len(ids))) for ids in token_ids],
    }
    return Layout.of(pa.table({name: pa.array(values, SEQUENCES.field(name).type) for name, values in columns.items()}))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 300))
def test_peaks_are_one_a_sequence_and_descend(seed: int, n: int):
    events = random_events(seed, n)
    found = peaks(events)
    assert len(found) == len(set(zip(events.latent, events.seq, strict=True)))
    for latent in range(events.d_sae):
        values = found.value[found.latent == latent]
        assert (np.diff(values) <= 0).all()
        for seq, value in zip(found.seq[found.latent == latent], values, strict=True):
            assert value == events.value[(events.latent == latent) & (events.seq == seq)].max()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 300))
def test_bands_are_quarters_and_their_weights_add_up_to_all_peaks(seed: int, n: int):
    events = random_events(seed, n)
    strongest = peaks(events)
    layout = layout_of([range(100 * seq, 100 * seq + 20) for seq in range(6)])
    table = choose(strongest, layout, half_window=4, n_top=3, n_bands=4, per_band=2, seed=0)
    latent, band = np.array(table["latent"]), np.array(table["band"])
    for number in np.unique(events.latent):
        bands = (latent == number) & (band != "top")
        assert np.array(table["weight"])[bands].sum() == pytest.approx((strongest.latent == number).sum())
        means = [np.array(table["value"])[(latent == number) & (band == f"q{i}")] for i in range(1, 5)]
        present = [values for values in means if len(values)]
        assert all(low.max() <= high.min() for low, high in pairwise(present))
    assert all(
        0 <= start <= pos < stop <= 20
        for start, pos, stop in zip(table["start"], table["pos"], table["stop"], strict=True)
    )


def test_equal_contexts_are_kept_once():
    n = 6
    columns = (np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.full(n, 10, np.int32), np.arange(n))
    events = Events(*columns, np.linspace(1, 2, n).astype(np.float32), d_sae=1, n_tokens=100)
    layout = layout_of([range(20)] * 5 + [range(50, 70)])
    table = choose(peaks(events), layout, half_window=4, n_top=5, n_bands=1, per_band=5, seed=0)
    top = [seq for seq, band in zip(table["seq"], table["band"], strict=True) if band == "top"]
    assert top == [5, 4]


def test_a_dead_latent_has_zeros_and_no_context():
    events = random_events(0, 50)
    alive = events.take(np.flatnonzero(events.latent != 2))
    table = statistics(alive, n_bins=10)
    assert (table["n_fired"][2], table["max"][2], table["q999"][2], table["density"][2]) == (0, 0, 0, 0)
    assert 2 not in choose(peaks(alive), layout_of([range(20)] * 6), 4, 3, 4, 2, 0)["latent"]


def test_logit_effects_equal_the_dense_product():
    W_dec, unembedding = torch.randn(300, 8), torch.randn(8, 50)
    columns = top_and_bottom(W_dec, unembedding, 3)
    effect = W_dec @ unembedding
    effect -= effect.mean(1, keepdim=True)
    assert len(columns["latent"]) == 300 * 6
    for latent in (0, 255, 256, 299):
        rows = [i for i, value in enumerate(columns["latent"]) if value == latent]
        top = [columns["token_id"][i] for i in rows if columns["side"][i] == "top"]
        bottom = [columns["token_id"][i] for i in rows if columns["side"][i] == "bottom"]
        assert top == effect[latent].argsort(descending=True)[:3].tolist()
        assert bottom == effect[latent].argsort()[:3].tolist()
        assert all(
            columns["value"][i] == pytest.approx(effect[latent, columns["token_id"][i]].item(), abs=1e-4) for i in rows
        )


def test_heads_side_by_side_are_as_wide_as_the_residual_stream_but_have_no_logits(tmp_path: Path):
    """Wide enough is not enough: the unembedding cannot read them. All else works on them, steering too."""
    hook = "blocks.0.attn.hook_z"
    commands = [
        f"harvest --model tiny --hook-points {hook} --corpus stories --n-tokens 3000 --n-ctx 64",
        "train topk --d-sae 48 --k 4 --n-steps 10 --batch-size 64",
        "evaluate --only reconstruction loss --loss.n-sequences 2",
        "index",
    ]
    for command in commands:
        assert main([*command.split(), "--root", str(tmp_path)]) == 0
    wb = Workbench.open(tmp_path)
    assert wb.index.sql("SELECT * FROM logits").empty
    latent = int(wb.inspect("a story").top(1)["latent"][0])
    assert wb.steer("a story", latent, 3.0, n_tokens=4).n_hook_calls == 4


def test_a_dictionary_of_another_width_is_refused(tiny_root: Path, tmp_path: Path):
    from activations.harvest import HarvestConfig, harvest
    from activations.text import TextConfig
    from store.run import Run

    text = TextConfig(corpus="stories", n_tokens=2000)
    names = ("blocks.0.hook_resid_post",)
    other = harvest(HarvestConfig(model="tiny", hook_points=names, text=text, n_ctx=64), tmp_path)
    sae = find_run(tiny_root, "latest", "sae")
    with pytest.raises(UsageError, match=r"has no 'blocks\.1\.hook_resid_post'"):
        build_index(IndexConfig(), sae, other, tmp_path)
    narrow = Run(sae.folder, {**sae.manifest, "config": {**sae.config, "hook_point": names[0]}})
    checkpoint.save(
        tmp_path / "narrow",
        type(checkpoint.load(sae.folder))(type(checkpoint.load(sae.folder).cfg)(d_in=16, d_sae=64, k=4)),
    )
    narrow = Run(tmp_path / "narrow", narrow.manifest)
    with pytest.raises(UsageError, match="reads vectors of width 16"):
        build_index(IndexConfig(), narrow, other, tmp_path)
