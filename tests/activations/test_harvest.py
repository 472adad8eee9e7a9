"""Harvests: the right vectors in the right rows, resumed after a kill byte for byte, refused when wrong."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from activations import harvest as module
from activations.harvest import HarvestConfig, harvest
from activations.models import load_model
from activations.reader import Activations
from activations.text import TextConfig
from activations.tiny import TinyLM
from store.errors import UsageError
from store.run import Run
from store.shards import TOKEN_CLASSES

HOOKS = ("blocks.1.hook_resid_post", "blocks.0.attn.hook_z")
CFG = HarvestConfig(
    model="tiny",
    hook_points=HOOKS,
    text=TextConfig(corpus="stories", n_tokens=4000),
    n_ctx=64,
    batch_size=8,
    shard_rows=500,
    window_sequences=20,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return harvest(CFG, tmp_path_factory.mktemp("harvest"))


def sequences_of(run: Run) -> dict[int, list[int]]:
    import pyarrow.parquet as pq

    rows = pq.read_table(run.folder / "tokens" / "tokens.parquet").to_pylist()
    return {row["seq"]: row["token_ids"] for row in rows}


@pytest.mark.parametrize("hook_point", HOOKS)
def test_every_token_has_one_row_with_what_the_model_computes_there(run: Run, hook_point: str):
    lm, sequences = load_model("tiny"), sequences_of(run)
    expected = {
        seq: lm.capture(torch.tensor([ids]), [lm.hook_point(hook_point)])[hook_point].flatten(2)[0]
        for seq, ids in sequences.items()
    }
    seen = set()
    for shard in Activations(run, hook_point).shards:
        columns = shard.columns
        for row, (seq, pos, token_id) in enumerate(
            zip(columns["seq"], columns["pos"], columns["token_id"], strict=True)
        ):
            assert sequences[seq][pos] == token_id
            assert np.allclose(shard.vectors[row], expected[seq][pos].numpy(), rtol=2e-3, atol=2e-3)
            seen.add((seq, pos))
    assert seen == {(seq, pos) for seq, ids in sequences.items() for pos in range(len(ids))}


def test_first_positions_are_sinks_and_nothing_else_of_a_tame_model_is(run: Run):
    columns = [shard.columns for shard in Activations(run, HOOKS[0]).shards]
    classes = np.concatenate([c["token_class"] for c in columns])
    first = np.concatenate([c["pos"] for c in columns]) == 0
    assert (classes[first] == TOKEN_CLASSES["sink"]).all()
    assert (classes[~first] == TOKEN_CLASSES["normal"]).all()


def test_rows_are_shuffled_across_sequences(run: Run):
    seq = Activations(run, HOOKS[0]).shards[0].columns["seq"]
    assert len(np.unique(seq[:50])) > 10


def test_asking_again_does_nothing(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("the model was loaded"))
    assert harvest(CFG, run.root).id == run.id


@pytest.mark.parametrize("change", [{"n_ctx": 32}, {"seed": 1}, {"dtype": "float32"}, {"hook_points": HOOKS[:1]}])
def test_another_request_is_another_run(run: Run, tmp_path: Path, change: dict):
    assert harvest(dataclasses.replace(CFG, **change), tmp_path).id != run.id


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def test_a_killed_harvest_goes_on_and_ends_with_the_same_bytes(run: Run, tmp_path: Path):
    code = (
        # Sums in another order round differently: the same bytes need the same number of threads.
        "import sys, time, torch\ntorch.set_num_threads(1)\nfrom pathlib import Path\n"
        "from activations.harvest import HarvestConfig, harvest\n"
        "from activations.text import TextConfig\n"
        "def slow(items, total, label):\n"
        "    print('started', flush=True)\n"
        "    for item in items:\n        time.sleep(0.02)\n        yield item\n"
        f"harvest({CFG!r}, Path(sys.argv[1]), slow)\n"
    )
    chance = random.Random(0)
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.25))
            os.kill(process.pid, signal.SIGKILL)
    resumed = harvest(CFG, tmp_path)
    assert resumed.finished
    assert files_of(resumed.folder) == files_of(run.folder)
    assert resumed.results == run.results


@pytest.mark.parametrize(
    ("factor", "dtype", "message"),
    [(1e9, "float16", "use --dtype bfloat16"), (float("nan"), "float32", "is not finite"), (1e9, "float32", None)],
)
def test_values_the_dtype_cannot_hold_are_refused_with_place_and_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float, dtype: str, message: str | None
):
    original = TinyLM.capture
    monkeypatch.setattr(TinyLM, "capture", lambda *a: {k: v * factor for k, v in original(*a).items()})
    cfg = dataclasses.replace(CFG, dtype=dtype, hook_points=HOOKS[:1])
    if message is None:
        assert harvest(cfg, tmp_path).finished
        return
    with pytest.raises(UsageError, match=message) as error:
        harvest(cfg, tmp_path)
    assert "document" in str(error.value)
    assert not list(tmp_path.rglob("shard-*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hook_points": ("blocks.7.hook_resid_post",)}, "the nearest are"),
        ({"n_ctx": 100_000}, "exceeds the 512"),
        ({"model": "no-such-model"}, "no model"),
        ({"text": TextConfig(corpus="no-such-file.txt")}, "does not exist"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(tmp_path: Path, change: dict, message: str):
    with pytest.raises(UsageError, match=message):
        harvest(dataclasses.replace(CFG, **change), tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_far_out_norms_are_sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = TinyLM.capture

    def with_one_giant(self: TinyLM, tokens: torch.Tensor, hook_points: list) -> dict:
        return {
            k: torch.where((tokens == ord("q"))[..., None], 50 * v, v)
            for k, v in original(self, tokens, hook_points).items()
        }

    monkeypatch.setattr(TinyLM, "capture", with_one_giant)
    texts = "\n".join(f'{{"text": "the quick brown fox number {i} asked a question"}}' for i in range(40))
    (tmp_path / "t.jsonl").write_text(texts)
    cfg = dataclasses.replace(CFG, hook_points=HOOKS[:1], text=TextConfig(corpus=str(tmp_path / "t.jsonl")))
    shards = Activations(harvest(cfg, tmp_path)).shards
    for shard in shards:
        giant = shard.columns["token_id"] == ord("q")
        later = shard.columns["pos"] > 0
        assert ((shard.columns["token_class"] == TOKEN_CLASSES["sink"]) == (giant | ~later)).all()


class TestReader:
    def test_an_epoch_has_every_row_of_the_split_exactly_once(self, run: Run):
        rows = Activations(run, HOOKS[0]).rows("train")
        stream, n = rows.shuffled(100, seed=3), len(rows)
        got = torch.cat([next(stream) for _ in range(-(-n // 100) * 2)])[: 2 * n]
        everything = torch.cat(list(rows.in_order()))
        for epoch in (got[:n], got[n:]):
            assert torch.equal(epoch.sort(0).values, everything.sort(0).values)
        assert not torch.equal(got[:n], got[n : 2 * n])

    def test_splits_share_no_document_and_together_are_everything(self, run: Run):
        activations = Activations(run, HOOKS[0])
        docs = {}
        for split in ("train", "heldout"):
            kept = [activations._kept(shard, split, [0], False) for shard in activations.shards]
            pairs = zip(activations.shards, kept, strict=True)
            docs[split] = {int(d) for shard, rows in pairs for d in shard.columns["doc_id"][rows]}
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

    def test_statistics_equal_a_two_pass_oracle(self, run: Run):
        x = torch.cat(list(Activations(run, HOOKS[1]).rows("train").in_order())).double()
        summary = run.results["hook_points"][HOOKS[1]]
        assert np.allclose(summary["mean"], x.mean(0).numpy(), atol=1e-12)
        assert summary["total_variance"] == pytest.approx((x - x.mean(0)).square().sum(1).mean().item(), rel=1e-10)
        assert summary["mean_norm"] == pytest.approx(x.norm(dim=1).mean().item(), rel=1e-10)

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
