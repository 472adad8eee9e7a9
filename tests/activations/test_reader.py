"""Harvests read back: every chosen row once, statistics of what is read, and harvests that stored no vector."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from harvests import CFG, HOOKS, columns_of

from activations.harvest import harvest
from activations.reader import Activations
from activations.tiny import TinyLM
from store.errors import UsageError
from store.run import Run


class TestReader:
    def test_an_epoch_has_every_row_of_the_split_exactly_once(self, run: Run):
        rows = Activations(run, HOOKS[0]).rows("train")
        n = len(rows)
        stream = rows.shuffled(100, seed=3)
        got = torch.cat([next(stream) for _ in range(-(-n // 100) * 2)])[: 2 * n]
        stream.close()
        everything = torch.cat(list(rows.in_order()))
        for epoch in (got[:n], got[n:]):
            assert torch.equal(epoch.sort(0).values, everything.sort(0).values)
        assert not torch.equal(got[:n], got[n : 2 * n])

    def test_splits_share_no_document_and_together_are_everything(self, run: Run):
        activations = Activations(run, HOOKS[0])
        docs = {}
        for split in ("train", "heldout"):
            selection = activations.rows(split).selection
            docs[split] = {
                int(doc_id)
                for block in activations.blocks
                for doc_id in block.columns()["doc_id"][selection.of(block.columns())]
            }
        assert docs["train"].isdisjoint(docs["heldout"])
        assert len(docs["heldout"]) == run.results["n_documents_heldout"]
        total = len(activations.rows("train")) + len(activations.rows("heldout"))
        assert total == len(activations.rows("all"))

    def test_classes_and_first_positions_are_explicit(self, run: Run):
        activations = Activations(run, HOOKS[0])
        assert len(activations.rows("all", ("sink",))) == 0
        assert len(activations.rows("all", ("sink",), first=True)) == run.results["n_sequences"]
        with pytest.raises(UsageError, match="not known"):
            activations.rows("all", ("nromal",))

    def test_rows_of_some_documents_only(self, run: Run):
        activations = Activations(run, HOOKS[0])
        columns = columns_of(run, HOOKS[0])
        wanted = [3, 5]
        n = int((np.isin(columns["doc_id"], wanted) & (columns["pos"] > 0)).sum())
        assert len(activations.rows("all", documents=wanted)) == n > 0

    def test_batches_mix_nearly_as_well_as_they_could(self, run: Run):
        stream = Activations(run, HOOKS[0]).rows().shuffled(500, seed=0)
        found = [stream.mixing for _, _ in zip(range(5), stream, strict=False)]
        stream.close()
        assert min(mixing.entropy for mixing in found) > 0.9
        assert min(mixing.n_distinct for mixing in found) > 0.8 * run.results["n_sequences"]

    @pytest.mark.parametrize("hook_point", HOOKS)
    def test_statistics_equal_a_two_pass_oracle_over_what_is_read(self, run: Run, hook_point: str):
        activations = Activations(run, hook_point)
        for split, classes in (("train", ("normal",)), ("all", ("normal", "sink"))):
            x = torch.cat(list(activations.rows(split, classes, first=True).in_order())).double()
            found = activations.moments(split, classes)
            assert found.n == len(x)
            assert np.allclose(found.mean, x.mean(0).numpy(), atol=1e-12)
            assert np.allclose(found.variance, x.var(0, correction=0).numpy(), rtol=1e-10)
            assert found.mean_norm == pytest.approx(x.norm(dim=1).mean().item(), rel=1e-6)
            assert found.max_abs == float(x.abs().max())

    def test_a_batch_of_one_documents_rows_mixes_as_well_as_it_can(self, run: Run):
        rows = Activations(run, HOOKS[0]).rows("all", documents=[3])
        stream = rows.shuffled(len(rows), seed=0, prefetch=0)
        next(stream)
        assert stream.mixing.n_distinct == rows.n_sequences > 1
        assert stream.mixing.entropy > 0.9

    def test_a_state_is_not_taken_for_that_of_other_rows(self, run: Run):
        activations = Activations(run, HOOKS[0])
        stream = activations.rows("train").shuffled(50, seed=0, prefetch=0)
        next(stream)
        for other in (activations.rows("all"), Activations(run, HOOKS[1]).rows("train")):
            with pytest.raises(UsageError, match="is of other rows"):
                other.shuffled(50, seed=0, state=stream.state)

    def test_a_hook_point_must_be_one_of_the_harvests(self, run: Run):
        with pytest.raises(UsageError, match="name one with --hook-point"):
            Activations(run)
        with pytest.raises(UsageError, match="it has blocks"):
            Activations(run, "blocks.0.hook_resid_post")

    def test_bfloat16_is_read_back_as_the_model_rounded_it(self, tmp_path: Path):
        stored = harvest(dataclasses.replace(CFG, dtype="bfloat16", hook_points=HOOKS[:1]), tmp_path / "b")
        exact = harvest(dataclasses.replace(CFG, dtype="float32", hook_points=HOOKS[:1]), tmp_path / "f")
        x, y = (torch.cat(list(Activations(r).rows("all").in_order())) for r in (stored, exact))
        assert torch.equal(x, y.bfloat16().float())


class TestKeepingNothing:
    """A harvest that stores no vector gives the same rows as one that does, computed when they are read."""

    @pytest.fixture(scope="class")
    def streamed(self, run: Run) -> Run:
        return harvest(dataclasses.replace(CFG, keep_activations="none"), run.root)

    def test_no_vector_is_on_disk(self, streamed: Run):
        assert not list(streamed.folder.rglob("shard-*"))
        assert streamed.results["n_bytes"] == 0

    @pytest.mark.parametrize("hook_point", HOOKS)
    def test_rows_are_those_of_a_harvest_that_stores_them(self, run: Run, streamed: Run, hook_point: str):
        stored, again = (Activations(r, hook_point) for r in (run, streamed))
        assert (stored.d_in, stored.sink_norm) == (again.d_in, again.sink_norm)
        for split in ("train", "heldout"):
            x, y = (torch.cat(list(a.rows(split).in_order())) for a in (stored, again))
            assert torch.allclose(x, y, atol=1e-3)
            assert len(again.rows(split)) == len(y)

    def test_shuffled_batches_have_every_row_once_an_epoch_and_are_measured(self, streamed: Run):
        rows = Activations(streamed, HOOKS[0]).rows()
        n = len(rows)
        stream = rows.shuffled(n, seed=0)
        x = next(stream)
        assert stream.mixing.entropy > 0.9
        stream.close()
        everything = torch.cat(list(rows.in_order()))
        assert torch.allclose(x.sort(0).values, everything.sort(0).values, atol=1e-3)

    def test_a_reader_goes_on_exactly(self, streamed: Run):
        rows = Activations(streamed, HOOKS[0]).rows()
        first = rows.shuffled(300, seed=0, prefetch=0)
        for _ in range(4):
            next(first)
        rest = rows.shuffled(300, seed=0, prefetch=0, state=first.state)
        assert torch.equal(next(first), next(rest))

    def test_rows_are_counted_rightly_once_they_were_computed(self, run: Run, monkeypatch: pytest.MonkeyPatch):
        """Until then nobody knows which tokens are sinks by their norm."""
        original = TinyLM.capture

        def with_giants(self: TinyLM, tokens: torch.Tensor, hook_points: list) -> dict:
            giant = (tokens == ord("e"))[..., None]
            return {k: torch.where(giant, 50 * v, v) for k, v in original(self, tokens, hook_points).items()}

        monkeypatch.setattr(TinyLM, "capture", with_giants)
        cfg = dataclasses.replace(CFG, hook_points=HOOKS[:1])
        root = run.root.parent / "giants"
        stored, again = (
            Activations(harvest(dataclasses.replace(cfg, keep_activations=keep), root)) for keep in ("all", "none")
        )
        for classes in (("normal",), ("sink",)):
            rows = again.rows("train", classes)
            n = sum(map(len, rows.in_order()))
            assert n == len(rows) == len(stored.rows("train", classes)) > 0

    def test_statistics_say_what_they_are_of(self, streamed: Run):
        assert streamed.results["statistics_of"].startswith("the first ")
        assert Activations(streamed, HOOKS[0]).moments().n > 0
