"""The index's figures against brute force on dense matrices."""

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from activations.reader import Activations
from app.cli import main
from app.workbench import Workbench
from autointerp.index.config import IndexConfig
from autointerp.index.job import build_index
from sae import checkpoint
from store.errors import UsageError
from store.run import Run, find_run
from store.shards import TOKEN_CLASSES, as_torch

NAMED = ("seq", "pos", "doc_id", "token_class", "token_id")


@pytest.fixture(scope="module")
def wb(tiny_root: Path) -> Workbench:
    return Workbench.open(tiny_root)


class Dense(dict[str, np.ndarray]):
    """Every latent on every token, as a dense matrix, in order of sequence and position, with where each row is."""

    @property
    def counted(self) -> np.ndarray:
        """Rows that count."""
        return (self["token_class"] == 0) & (self["pos"] > 0)

    def of(self, latent: int) -> np.ndarray:
        """`[n_counted]` float64 activations."""
        return self["latents"][self.counted, latent].astype(np.float64)


@pytest.fixture(scope="module")
def dense(wb: Workbench) -> Dense:
    sae = checkpoint.load(wb.sae_run.folder)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("latents", "pre_acts", *NAMED)}
    activations = Activations(wb.activations_run)
    for block in activations.blocks:
        opened = block.open()
        with torch.no_grad():
            x = as_torch(opened.vectors, activations.dtype).float()
            rows["latents"].append(sae.encode(x).dense().numpy())
            rows["pre_acts"].append(((x - sae.b_dec) @ sae.W_enc + sae.b_enc).numpy())
        for name in NAMED:
            rows[name].append(opened.columns[name])
    together = {name: np.concatenate(parts) for name, parts in rows.items()}
    order = np.lexsort((together["pos"], together["seq"]))
    return Dense({name: column[order] for name, column in together.items()})


@pytest.fixture(scope="module")
def latents(wb: Workbench) -> list[dict]:
    return wb.index.arrow("SELECT * FROM latents ORDER BY latent").to_pylist()


class TestStatistics:
    def test_every_statistic_of_values_equals_brute_force(self, wb: Workbench, dense: Dense, latents: list[dict]):
        assert len(latents) == wb.d_sae
        for row in latents:
            values = dense.of(row["latent"])
            active = np.sort(values[values != 0])
            assert row["n_fired"] == row["n_events"] == len(active)
            assert row["density"] == pytest.approx(len(active) / len(values))
            assert row["dead"] == (len(active) == 0)
            assert row["dense"] == (len(active) > 0.1 * len(values))
            assert row["max"] == pytest.approx(active.max())
            assert row["min"] == pytest.approx(active.min())
            assert row["mean"] == pytest.approx(active.mean(), rel=1e-6)
            assert row["mean_square"] == pytest.approx((active**2).mean(), rel=1e-6)
            centred = active - active.mean()
            assert row["skewness"] == pytest.approx((centred**3).mean() / (centred**2).mean() ** 1.5, rel=1e-4)
            for name, q in (("q50", 0.5), ("q90", 0.9), ("q99", 0.99), ("q999", 0.999)):
                assert row[name] == pytest.approx(np.quantile(active, q, method="inverted_cdf"))
            edges = np.linspace(0, active.max(), len(row["histogram"]) + 1)
            assert sum(row["histogram"]) == len(active)
            assert np.abs(np.cumsum(row["histogram"]) - np.searchsorted(active, edges[1:], "right")).max() <= 1

    def test_every_statistic_of_places_equals_brute_force(self, wb: Workbench, dense: Dense, latents: list[dict]):
        sources = dict(wb.index.sql("SELECT doc_id, source FROM titles").itertuples(index=False))
        for row in latents:
            on = dense.of(row["latent"]) != 0
            docs = Counter(dense["doc_id"][dense.counted][on].tolist())
            assert row["n_docs"] == len(docs)
            assert row["doc_entropy"] == pytest.approx(entropy(docs))
            by_source: Counter[str] = Counter()
            for doc, n in docs.items():
                by_source[sources[doc]] += n
            assert row["source_entropy"] == pytest.approx(entropy(by_source), abs=1e-9)
            seq = dense["seq"][dense.counted][on]
            assert (row["first_seq"], row["last_seq"]) == (seq.min(), seq.max())
            everywhere = dense["token_class"][dense["latents"][:, row["latent"]] != 0]
            for name, number in TOKEN_CLASSES.items():
                assert row[f"n_{name}"] == (everywhere == number).sum()
            assert row["special_share"] == pytest.approx((everywhere == TOKEN_CLASSES["special"]).mean())

    def test_counts_add_up_to_the_events_and_tokens(self, wb: Workbench, dense: Dense, latents: list[dict]):
        results = wb.run.results
        assert results["n_tokens"] == dense.counted.sum()
        assert (
            results["n_events"] == sum(row["n_fired"] for row in latents) == len(wb.index.sql("SELECT * FROM events"))
        )
        assert results["l0"] == pytest.approx((dense["latents"][dense.counted] != 0).sum(1).mean())


def entropy(counts: Counter) -> float:
    """In bits, straight from its definition."""
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


def test_a_latents_events_are_those_of_the_matrix(wb: Workbench, dense: Dense):
    for latent in range(wb.d_sae):
        fired = wb.index.events(latent)
        on = dense.counted & (dense["latents"][:, latent] != 0)
        for name in ("seq", "pos", "doc_id"):
            assert np.array_equal(getattr(fired, name), dense[name][on])
        assert np.allclose(fired.value, dense["latents"][on, latent], rtol=1e-5)


class TestRelations:
    def test_coactivations_equal_the_dense_product(self, wb: Workbench, dense: Dense):
        on = (dense["latents"][dense.counted] != 0).astype(np.float64)
        both, n = on.T @ on, on.sum(0)
        rows = wb.index.arrow("SELECT * FROM coactivations").to_pylist()
        assert len(rows) > wb.d_sae
        for row in rows:
            i, j = row["latent"], row["other"]
            assert i != j
            assert row["n_both"] == both[i, j]
            assert row["expected"] == pytest.approx(n[i] * n[j] / len(on))
            assert row["jaccard"] == pytest.approx(both[i, j] / (n[i] + n[j] - both[i, j]))
            assert row["pmi"] == pytest.approx(math.log2(both[i, j] * len(on) / (n[i] * n[j])))
            assert row["phi"] == pytest.approx(np.corrcoef(on[:, i], on[:, j])[0, 1])
            assert row["implies"] == pytest.approx(both[i, j] / n[i])
            assert row["implied_by"] == pytest.approx(both[i, j] / n[j])

    @pytest.mark.parametrize("measure", ["jaccard", "phi", "pmi", "implies"])
    def test_the_first_by_each_measure_are_kept(self, wb: Workbench, dense: Dense, measure: str):
        on = (dense["latents"][dense.counted] != 0).astype(np.float64)
        both, n = on.T @ on, on.sum(0)
        np.fill_diagonal(both, 0)
        figures = {
            "jaccard": both / (n[:, None] + n - both),
            "phi": np.corrcoef(on.T),
            "pmi": both / (n[:, None] * n),
            "implies": both / n[:, None],
        }[measure]
        for latent in range(wb.d_sae):
            enough = np.flatnonzero(both[latent] >= 5)
            wanted = np.sort(figures[latent, enough])[::-1][:8]
            found = wb.index.sql(f"SELECT other FROM coactivations WHERE latent = {latent}")["other"].to_numpy()
            assert np.allclose(np.sort(figures[latent, found])[::-1][: len(wanted)], wanted)

    def test_neighbours_are_the_nearest(self, wb: Workbench):
        sae = checkpoint.load(wb.sae_run.folder)
        for side, rows in (("decoder", sae.W_dec), ("encoder", sae.W_enc.t())):
            unit = torch.nn.functional.normalize(rows.detach().double(), dim=1)
            cosines = (unit @ unit.t()).fill_diagonal_(-2)
            query = "SELECT other, cosine FROM neighbours WHERE latent = ? AND side = ? ORDER BY rank"
            for latent in range(0, wb.d_sae, 5):
                found = wb.index.sql(query, [latent, side])
                assert np.allclose(found["cosine"], cosines[latent].sort(descending=True).values[:16], atol=1e-5)
                assert np.allclose(cosines[latent, found["other"].to_numpy()], found["cosine"], atol=1e-5)


class TestNgrams:
    def test_tokens_and_pairs_are_counted(self, wb: Workbench, dense: Dense):
        ids, seq, doc = (dense[name] for name in ("token_id", "seq", "doc_id"))
        text = wb.index.tokens.char_start[wb.index.tokens.places(seq, dense["pos"])] >= 0
        follows = np.zeros(len(ids), bool)
        follows[1:] = (seq[1:] == seq[:-1]) & (doc[1:] == doc[:-1]) & text[:-1]
        seen = {1: Counter(ids[dense.counted].tolist())}
        pairs = np.stack([np.roll(ids, 1), ids], axis=1)
        seen[2] = Counter(map(tuple, pairs[dense.counted & follows].tolist()))
        for latent in range(0, wb.d_sae, 9):
            on = dense.counted & (dense["latents"][:, latent] != 0)
            fired = {1: Counter(ids[on].tolist()), 2: Counter(map(tuple, pairs[on & follows].tolist()))}
            rows = wb.index.arrow("SELECT * FROM ngrams WHERE latent = ? ORDER BY n, rank", [latent]).to_pylist()
            for n in (1, 2):
                own = [row for row in rows if row["n"] == n]
                counts = [row["n_fired"] for row in own]
                assert counts == sorted((c for c in fired[n].values() if c >= n), reverse=True)[:10]
                for row in own:
                    key = row["token_ids"][0] if n == 1 else tuple(row["token_ids"])
                    assert (row["n_fired"], row["n_seen"]) == (fired[n][key], seen[n][key])
                    assert row["fires"] == pytest.approx(row["n_fired"] / row["n_seen"])
                    assert row["share"] == pytest.approx(row["n_fired"] / on.sum())
                    values = dense["latents"][on & (ids == row["token_ids"][-1]), latent]
                    if n == 1:
                        assert row["mean"] == pytest.approx(values.mean(), rel=1e-5)


class TestContexts:
    def test_top_contexts_are_the_strongest_peaks(self, wb: Workbench, dense: Dense):
        for latent in range(0, wb.d_sae, 7):
            values = dense["latents"][:, latent] * dense.counted
            found = [w.value for w in wb.windows(latent, "top")]
            assert found[0] == pytest.approx(values.max())
            assert found == sorted(found, reverse=True)
            peaks = {values[(dense["seq"] == s) & (dense["doc_id"] == d)].max() for s, d in pieces(dense)}
            assert all(min(abs(value - peak) for peak in peaks) < 1e-5 for value in found)

    def test_windows_show_the_latents_own_values(self, wb: Workbench, dense: Dense):
        for latent in (0, 31, 63):
            for window in wb.windows(latent):
                here = (dense["seq"] == window.seq) & dense.counted
                by_pos = dict(zip(dense["pos"][here], dense["latents"][here, latent], strict=True))
                expected = [by_pos.get(window.start + i, 0.0) for i in range(len(window.tokens))]
                assert np.allclose(window.values, expected, atol=1e-5)
                text = wb.index.tokens.document(window.doc_id)
                assert text[window.chars[0] : window.chars[1]] == window.text

    def test_bands_are_of_the_latents_range(self, wb: Workbench):
        for latent in range(0, wb.d_sae, 5):
            largest = wb.page(latent).statistics["max"]
            quarters = [[w.value for w in wb.windows(latent, f"q{i}")] for i in range(1, 5)]
            assert all(max(low) <= min(high) for low, high in pairwise(quarters) if low and high)
            for i in range(1, 5):
                for window in wb.windows(latent, f"v{i}"):
                    assert (i - 1) / 4 * largest < window.value * (1 + 1e-6) <= i / 4 * largest * (1 + 1e-5)

    def test_weights_of_bands_add_up_to_all_peaks(self, wb: Workbench, dense: Dense):
        for latent in range(0, wb.d_sae, 5):
            on = dense.counted & (dense["latents"][:, latent] != 0)
            n_peaks = len({*zip(dense["seq"][on].tolist(), dense["doc_id"][on].tolist(), strict=True)})
            for kind in "qv":
                bands = [w for w in wb.windows(latent) if w.band.startswith(kind)]
                assert sum(window.weight for window in bands) == pytest.approx(n_peaks)

    def test_near_misses_are_silent_and_their_value_the_pre_activation(self, wb: Workbench, dense: Dense):
        for latent in range(0, wb.d_sae, 5):
            found = wb.windows(latent, "near")
            assert found
            assert [w.value for w in found] == sorted((w.value for w in found), reverse=True)
            silent = dense.counted & (dense["latents"][:, latent] == 0)
            assert found[0].value == pytest.approx(dense["pre_acts"][silent, latent].max(), rel=1e-4)
            for window in found:
                here = (dense["seq"] == window.seq) & (dense["pos"] == window.start + window.peak)
                assert silent[here].all()
                assert window.value == pytest.approx(dense["pre_acts"][here, latent][0], rel=1e-4, abs=1e-5)

    def test_silent_contexts_are_silent_on_a_token_it_fires_on(self, wb: Workbench, dense: Dense):
        n_found = 0
        for latent in range(0, wb.d_sae, 5):
            on = dense.counted & (dense["latents"][:, latent] != 0)
            fires_on = Counter(dense["token_id"][on].tolist())
            seen = Counter(dense["token_id"][dense.counted].tolist())
            weights: Counter[int] = Counter()
            for window in wb.windows(latent, "silent"):
                token = window.token_ids[window.peak]
                assert window.values[window.peak] == 0
                assert fires_on[token] > 0
                weights[token] += window.weight
                n_found += 1
            for token, weight in weights.items():
                assert weight == pytest.approx(seen[token] - fires_on[token])
        assert n_found > 10


def pieces(dense: Dense) -> set[tuple[int, int]]:
    """Every document in every sequence."""
    return {*zip(dense["seq"].tolist(), dense["doc_id"].tolist(), strict=True)}


def test_logit_effects_equal_the_dense_product_and_its_moments(wb: Workbench):
    sae = checkpoint.load(wb.sae_run.folder)
    effect = (sae.W_dec.detach().double() @ wb._subject.lm.unembedding().double()).numpy()
    effect -= effect.mean(axis=1, keepdims=True)
    logits = wb.index.arrow("SELECT * FROM logits ORDER BY latent, side, rank").to_pylist()
    rows = wb.index.arrow("SELECT * FROM logit_effects ORDER BY latent").to_pylist()
    assert [row["latent"] for row in rows] == list(range(wb.d_sae))
    for row in rows:
        own = effect[row["latent"]]
        for side, expected in (("top", np.sort(own)[::-1]), ("bottom", np.sort(own))):
            kept = [r for r in logits if r["latent"] == row["latent"] and r["side"] == side]
            assert np.allclose([r["value"] for r in kept], expected[: len(kept)], atol=1e-5)
            assert np.allclose([own[r["token_id"]] for r in kept], [r["value"] for r in kept], atol=1e-5)
        assert row["std"] == pytest.approx(own.std(), rel=1e-5)
        assert row["skewness"] == pytest.approx((own**3).mean() / own.std() ** 3, rel=1e-3, abs=1e-5)
        assert row["kurtosis"] == pytest.approx((own**4).mean() / own.std() ** 4, rel=1e-4)
        assert (row["low"], row["high"]) == pytest.approx((own.min(), own.max()), rel=1e-5)
        assert sum(row["histogram"]) == len(own)
        expected, _ = np.histogram(own, len(row["histogram"]))
        assert np.abs(np.cumsum(row["histogram"]) - np.cumsum(expected)).max() <= 1


def test_heads_side_by_side_reach_the_logits_through_their_output_weights(tmp_path: Path):
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
    lm, W_dec = wb._subject.lm, checkpoint.load(wb.sae_run.folder).W_dec.detach()
    rows = W_dec @ lm.blocks[0]["o"]
    effect = (rows @ lm.unembedding()).double()
    effect -= effect.mean(1, keepdim=True)
    top = wb.index.sql("SELECT * FROM logits WHERE latent = 5 AND side = 'top' ORDER BY rank")
    assert top["token_id"].tolist() == effect[5].argsort(descending=True)[:10].tolist()
    heads = wb.index.sql("SELECT * FROM heads WHERE latent = 5 ORDER BY head")
    assert np.allclose(heads["share"], W_dec[5].view(4, 8).square().sum(1) / W_dec[5].square().sum(), atol=1e-6)
    written = torch.stack([W_dec[5, 8 * h : 8 * h + 8] @ lm.blocks[0]["o"][8 * h : 8 * h + 8] for h in range(4)])
    assert np.allclose(heads["norm"], written.norm(dim=1), atol=1e-5)
    assert heads["along"].sum() == pytest.approx(1, abs=1e-5)
    latent = int(wb.inspect("a story").top(1)["latent"][0])
    assert wb.steer("a story", latent, 3.0, n_tokens=4).n_hook_calls == 4


def test_a_dictionary_of_another_width_is_refused(tiny_root: Path, tmp_path: Path):
    from activations.harvest import HarvestConfig, harvest
    from activations.text import TextConfig

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


def test_a_harvest_of_another_model_is_refused_and_both_are_named(tiny_root: Path, tmp_path: Path):
    sae = find_run(tiny_root, "latest", "sae")
    own = find_run(tiny_root, sae.inputs["activations"])
    other = Run(own.folder, {**own.manifest, "id": "f" * 16, "same": {**own.same, "model": "another"}})
    with pytest.raises(UsageError, match=rf"SAE {sae.id} was trained on another model .*harvest {own.id}.*{other.id}"):
        build_index(IndexConfig(), sae, other, tmp_path)
    # Where its own harvest is gone, the dictionary itself knows.
    alone = Run(tmp_path / "sae" / sae.id, {**sae.manifest, "results": {**sae.results, "model_weights": "another"}})
    with pytest.raises(
        UsageError, match=rf"SAE {sae.id} was made for another model \(tiny, weights another\).*{other.id}"
    ):
        build_index(IndexConfig(), alone, Run(own.folder, {**own.manifest, "id": "f" * 16}), tmp_path)
