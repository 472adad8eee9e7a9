"""Harvests: the right vectors in the right rows, resumed after any kill byte for byte, mended alone."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from activations import harvest as module
from activations.harvest import HarvestConfig, harvest
from activations.models import load_model
from activations.prepare import read_window
from activations.reader import Activations
from activations.repair import repair
from activations.sequences import TokenSequence
from activations.text import TextConfig
from activations.tiny import TinyLM
from store import layout
from store.errors import DiskFull, UsageError
from store.files import FileEntry
from store.run import UNCHECKED, Run, find_run, locked
from store.shards import TOKEN_CLASSES, as_torch

HOOKS = ("blocks.1.hook_resid_post", "blocks.0.attn.hook_z")
CFG = HarvestConfig(
    model="tiny",
    hook_points=HOOKS,
    text=TextConfig(corpus="stories", n_tokens=4000),
    n_ctx=64,
    batch_size=8,
    shard_rows=500,
    window_shards=2,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return harvest(CFG, tmp_path_factory.mktemp("harvest"))


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """A harvest that a test may damage."""
    shutil.copytree(run.root, tmp_path / "copy")
    return find_run(tmp_path / "copy", run.id)


def sequences_of(run: Run) -> dict[int, TokenSequence]:
    windows = (read_window(run.folder, number) for number in range(run.results["n_windows"]))
    return {sequence.seq: sequence for window in windows for sequence in window}


def columns_of(run: Run, hook_point: str) -> dict[str, np.ndarray]:
    opened = [block.open() for block in Activations(run, hook_point).blocks]
    return {name: np.concatenate([rows.columns[name] for rows in opened]) for name in opened[0].columns}


def assert_rows_are_what_the_model_computes(
    run: Run, hook_point: str, expected: Callable[[torch.Tensor], torch.Tensor]
):
    """Every token has one row, with its vector, its id and its document."""
    sequences = sequences_of(run)
    vectors = {seq: expected(torch.from_numpy(s.ids.astype(np.int64))[None]) for seq, s in sequences.items()}
    seen = set()
    for block in Activations(run, hook_point).blocks:
        rows = block.open()
        x = as_torch(rows.vectors, "float16").float()
        for i, (seq, pos) in enumerate(zip(rows.columns["seq"], rows.columns["pos"], strict=True)):
            assert rows.columns["token_id"][i] == sequences[seq].ids[pos]
            assert rows.columns["doc_id"][i] == sequences[seq].doc_ids[pos]
            assert torch.allclose(x[i], vectors[seq][pos], rtol=2e-3, atol=2e-3)
            seen.add((seq, pos))
    assert seen == {(seq, pos) for seq, sequence in sequences.items() for pos in range(len(sequence))}


@pytest.mark.parametrize("hook_point", HOOKS)
@pytest.mark.parametrize("mode", ["sequential", "pack"])
def test_every_token_has_one_row_with_what_the_model_computes_there(tmp_path: Path, mode: str, hook_point: str):
    made = harvest(dataclasses.replace(CFG, text=dataclasses.replace(CFG.text, mode=mode)), tmp_path)
    lm = load_model("tiny")
    hook = lm.hook_point(hook_point)
    assert_rows_are_what_the_model_computes(
        made, hook_point, lambda ids: lm.capture(ids, [hook])[hook_point].flatten(2)[0]
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "neox"])
def test_real_architectures_give_what_plain_hooks_on_the_plain_model_see(
    architecture: str, save_model: Callable[..., Path], tmp_path: Path
):
    from transformers import AutoModelForCausalLM

    folder = save_model(architecture, tmp_path / "model")
    name = "blocks.1.hook_resid_post"
    made = harvest(dataclasses.replace(CFG, model=str(folder), hook_points=(name,), n_ctx=48), tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    blocks = {"llama": "model.layers", "gpt2": "transformer.h", "neox": "gpt_neox.layers"}[architecture]
    seen: list[torch.Tensor] = []
    plain.get_submodule(f"{blocks}.1").register_forward_hook(
        lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )

    @torch.inference_mode()
    def expected(ids: torch.Tensor) -> torch.Tensor:
        plain(ids)
        return seen.pop()[0]

    assert_rows_are_what_the_model_computes(made, name, expected)


def test_first_positions_are_sinks_and_nothing_else_of_a_tame_model_is(run: Run):
    columns = columns_of(run, HOOKS[0])
    first = columns["pos"] == 0
    assert (columns["token_class"][first] == TOKEN_CLASSES["sink"]).all()
    assert (columns["token_class"][~first] == TOKEN_CLASSES["normal"]).all()


def test_rows_are_shuffled_across_the_shards_of_a_window(run: Run):
    first, second = (layout.shard(run.folder, HOOKS[0], 0, part) for part in (0, 1))
    seq = [np.unique(Activations(run, HOOKS[0]).blocks[i].columns()["seq"][:100]) for i in (0, 1)]
    assert first.exists()
    assert second.exists()
    assert min(len(found) for found in seq) > 10
    assert len(np.intersect1d(*seq)) > 5


def test_asking_again_does_nothing(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "load_model", lambda *a, **k: pytest.fail("the model was loaded"))
    before = files_of(run.folder)
    assert harvest(CFG, run.root).id == run.id
    assert files_of(run.folder) == before


@pytest.mark.parametrize(
    "change",
    [
        {"n_ctx": 32}, {"seed": 1}, {"dtype": "float32"}, {"hook_points": HOOKS[:1]}, {"shard_rows": 400},
        {"text": TextConfig(corpus="stories", n_tokens=3000)},
        {"text": TextConfig(corpus="stories", n_tokens=4000, mode="pack")},
        {"model_dtype": "bfloat16"}, {"keep_activations": "none"},
    ],
)  # fmt: skip
def test_another_request_is_another_run(run: Run, tmp_path: Path, change: dict):
    assert harvest(dataclasses.replace(CFG, **change), tmp_path).id != run.id


def test_the_same_contents_found_elsewhere_are_the_same_run(run: Run, tmp_path: Path, save_model: Callable[..., Path]):
    reordered = dataclasses.replace(CFG, hook_points=("blocks.{0}.attn.hook_z", "blocks.1.hook_resid_pos*"))
    assert harvest(reordered, run.root).id == run.id
    ids = set()
    for name in ("here", "there"):
        folder = tmp_path / name
        model = save_model("gpt2", folder / "model")
        (folder / "t.jsonl").write_text("".join(f'{{"text": "document number {i}"}}\n' for i in range(9)))
        text = TextConfig(corpus=str(folder / "t.jsonl"))
        cfg = dataclasses.replace(CFG, model=str(model), hook_points=("blocks.1.hook_resid_post",), n_ctx=32, text=text)
        ids.add(harvest(cfg, tmp_path / name / "runs").id)
    assert len(ids) == 1


def test_a_model_whose_width_changed_is_another_run_and_is_not_taken_for_the_old_one(
    tmp_path: Path, save_model: Callable[..., Path]
):
    hook = "blocks.1.hook_resid_post"
    folder = save_model("gpt2", tmp_path / "model")
    cfg = dataclasses.replace(CFG, model=str(folder), hook_points=(hook,), keep_activations="none", n_ctx=32)
    old = harvest(cfg, tmp_path)
    shutil.rmtree(folder)
    save_model("gpt2", folder, width=64)
    new = harvest(cfg, tmp_path)
    assert (Activations(old, hook).d_in, Activations(new, hook).d_in) == (32, 64)
    with pytest.raises(UsageError, match="bring that model back"):
        next(iter(Activations(old, hook).rows().in_order()))


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [p for p in folder.rglob("*") if p.is_file() and p.name not in UNCHECKED]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


ZYGOTE = f"""
import os, sys, time, pandas, torch
from pathlib import Path
import activations.keep, activations.tiny
from activations.harvest import HarvestConfig, harvest
from activations.text import TextConfig

# Sums in another order round differently: the same bytes need the same number of threads.
torch.set_num_threads(1)

def slow(items, total, label, **options):
    for item in items:
        time.sleep(0.003)
        yield item

print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        harvest({CFG!r}, Path(line.strip()), slow)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
"""Forks a process per harvest, so that none spends its short life importing torch."""


class Zygote:
    """Starts harvests that may be killed."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def harvest(self, root: Path, kill_after_s: float | None) -> int:
        """The exit code of a harvest that is killed after a while, if it still runs then."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{root}\n")
        self._process.stdin.flush()
        pid = int(self._line())
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            # Not waited for yet, the process is there even if it has ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return int(self._line())


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    command = [sys.executable, "-c", ZYGOTE]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        yield Zygote(process)
        process.kill()


def test_a_harvest_killed_at_25_random_moments_ends_with_the_same_bytes(run: Run, tmp_path: Path, zygote: Zygote):
    chance = random.Random(0)
    started = time.monotonic()
    assert zygote.harvest(tmp_path / "0", None) == 0
    whole_s = time.monotonic() - started
    n_kills, n_finished = 0, 1
    while n_kills < 25 or n_finished < 3:
        root = tmp_path / str(n_finished)
        exit_code = zygote.harvest(root, chance.uniform(0, 0.6 * whole_s))
        assert exit_code in (0, -signal.SIGKILL)
        n_kills += exit_code != 0
        n_finished += exit_code == 0
    for number in range(n_finished):
        done = find_run(tmp_path / str(number), "latest", "activations")
        assert files_of(done.folder) == files_of(run.folder)
        assert done.results == run.results
        assert done.broken_files() == []


def test_progress_is_logged_beside_the_run_and_figures_are_in_the_results(run: Run):
    lines = [json.loads(line) for line in (run.folder / layout.PROGRESS).read_text().splitlines()]
    assert [line["window"] for line in lines] == list(range(run.results["n_windows"]))
    assert lines[-1]["n_tokens"] == run.results["n_tokens"]
    assert set(lines[0]) >= {"time", "tokens_per_s", "rows_per_s", "eta_s", "n_bytes", "padding_share"}
    assert 0 <= run.results["padding_share"] < 0.05
    shards = [entry for name, entry in run.manifest["files"].items() if "shard-" in name]
    assert run.results["n_bytes"] == sum(entry["n_bytes"] for entry in shards)
    assert sum(entry["n_rows"] for entry in shards) == len(HOOKS) * run.results["n_tokens"]


class TestDamage:
    SHARD = f"{HOOKS[0]}/shard-00001-000.parquet"

    @pytest.mark.parametrize(
        "broken",
        [
            [SHARD],
            [SHARD, f"{HOOKS[1]}/shard-00000-001.parquet"],
            ["windows/00000.json"],
            ["windows/00002.parquet", "statistics.parquet"],
            ["statistics.parquet"],
            ["tokens/part-00001.parquet", "text.json"],
            ["documents/part-00000.parquet", SHARD],
        ],
    )
    @pytest.mark.parametrize("how", ["gone", "truncated", "flipped"])
    def test_what_is_broken_is_named_and_made_again_alone(self, copy: Run, run: Run, broken: list[str], how: str):
        for name in broken:
            data = bytearray((copy.folder / name).read_bytes())
            data[len(data) // 2] ^= 1
            if how == "gone":
                (copy.folder / name).unlink()
            else:
                (copy.folder / name).write_bytes(data if how == "flipped" else data[: len(data) // 2])
        others = {name: (copy.folder / name).stat().st_mtime_ns for name in files_of(copy.folder) if "shard-" in name}
        assert copy.broken_files() == sorted(broken)
        assert repair(copy) == sorted(broken)
        assert files_of(copy.folder) == files_of(run.folder)
        assert find_run(copy.root, copy.id).broken_files() == []
        windows = {name for name in broken if name.startswith("windows/")}
        for name, when in others.items():
            if name not in broken and not windows:
                assert (copy.folder / name).stat().st_mtime_ns == when, f"{name} was written again"

    def test_a_whole_harvest_needs_no_mending(self, copy: Run):
        assert repair(copy) == []

    def test_a_harvest_whose_text_is_gone_says_what_it_needs(self, tmp_path: Path):
        text = tmp_path / "t.jsonl"
        text.write_text("".join(f'{{"text": "document number {i}"}}\n' for i in range(9)))
        made = harvest(dataclasses.replace(CFG, text=TextConfig(corpus=str(text))), tmp_path)
        text.write_text("".join(f'{{"text": "another number {i}"}}\n' for i in range(9)))
        (made.folder / "tokens/part-00000.parquet").unlink()
        with pytest.raises(UsageError, match="not what it was: bring the old text back"):
            repair(made)

    def test_two_cannot_mend_at_once(self, copy: Run):
        with locked(copy.folder), pytest.raises(UsageError, match="another process"):
            repair(copy)

    def test_a_shard_of_an_unfinished_harvest_that_broke_is_made_again(self, copy: Run, run: Run):
        (copy.folder / "manifest.json").unlink()
        (copy.folder / self.SHARD).write_bytes(b"half")
        assert harvest(CFG, copy.root).finished
        assert files_of(copy.folder) == files_of(run.folder)

    def test_reading_a_truncated_shard_says_what_to_do(self, copy: Run):
        (copy.folder / self.SHARD).write_bytes((copy.folder / self.SHARD).read_bytes()[:1000])
        with pytest.raises(UsageError, match="--repair"):
            list(Activations(copy, HOOKS[0]).rows().in_order())


class TestDisk:
    def test_too_little_room_is_said_before_anything_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr("activations.keep.shutil.disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(
            UsageError, match=r"needs about [\d,]+ bytes more, .* has 1,000 free.*--keep-activations none"
        ):
            harvest(CFG, tmp_path)
        assert not list(tmp_path.rglob("shard-*"))

    def test_a_disk_that_fills_up_keeps_what_is_finished_and_goes_on(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from store import shards as stored

        original, written = stored.write_shard, []

        def until_full(path: Path, *rest) -> FileEntry:
            if len(written) == 6:
                raise DiskFull(f"no space left on the disk of {path}")
            written.append(path)
            return original(path, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(stored, "write_shard", until_full)
            with pytest.raises(UsageError, match=r"What is left to harvest needs about \d"):
                harvest(CFG, tmp_path)
        (folder,) = (tmp_path / "activations").glob("[0-9a-f]*")
        assert layout.receipt(folder, 0).exists()
        kept = {path: path.stat().st_mtime_ns for path in written[:4]}
        assert harvest(CFG, tmp_path).finished
        assert files_of(folder) == files_of(run.folder)
        assert all(path.stat().st_mtime_ns == when for path, when in kept.items())

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
    def test_a_real_full_disk(self, run: Run, tmp_path: Path):
        small = tmp_path / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", small], check=False)
        if mounted.returncode:
            pytest.skip("this machine lets nobody mount")
        try:
            with pytest.raises(UsageError, match=r"needs about [\d,]+ bytes"):
                harvest(CFG, small)
        finally:
            subprocess.run(["umount", small], check=True)


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
        ({"hook_points": ("blocks.*.resid_post",)}, "the nearest are"),
        ({"model": "no-such-model"}, "no model"),
        ({"revision": "main"}, "no revision"),
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
    columns = columns_of(harvest(cfg, tmp_path), HOOKS[0])
    giant, first = columns["token_id"] == ord("q"), columns["pos"] == 0
    assert ((columns["token_class"] == TOKEN_CLASSES["sink"]) == (giant | first)).all()


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

    def test_statistics_say_what_they_are_of(self, streamed: Run):
        assert streamed.results["statistics_of"].startswith("the first ")
        assert Activations(streamed, HOOKS[0]).moments().n > 0
