"""Harvests: the right vectors in the right rows, resumed after any kill byte for byte, mended alone."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from harvests import CFG, HOOKS, columns_of, files_of, sequences_of

from activations import harvest as module
from activations.harvest import harvest
from activations.models import load_model
from activations.reader import Activations
from activations.text import TextConfig
from activations.tiny import TinyLM
from store import layout
from store.errors import UsageError
from store.run import Run, locked
from store.shards import TOKEN_CLASSES, as_torch


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


def test_two_cannot_make_the_same_harvest_at_once(tmp_path: Path, run: Run):
    (tmp_path / "activations").mkdir()
    with locked(tmp_path / "activations" / run.id), pytest.raises(UsageError, match="another process is making"):
        harvest(CFG, tmp_path)


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


def test_progress_is_logged_beside_the_run_and_figures_are_in_the_results(run: Run):
    lines = [json.loads(line) for line in (run.folder / layout.PROGRESS).read_text().splitlines()]
    assert [line["window"] for line in lines] == list(range(run.results["n_windows"]))
    assert lines[-1]["n_tokens"] == run.results["n_tokens"]
    assert set(lines[0]) >= {"time", "tokens_per_s", "rows_per_s", "eta_s", "n_bytes", "padding_share"}
    assert 0 <= run.results["padding_share"] < 0.05
    shards = [entry for name, entry in run.manifest["files"].items() if "shard-" in name]
    assert run.results["n_bytes"] == sum(entry["n_bytes"] for entry in shards)
    assert sum(entry["n_rows"] for entry in shards) == len(HOOKS) * run.results["n_tokens"]


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


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seed": -1}, "seed=-1 is negative"), ({"sink_norm_ratio": float("inf")}, "is not a finite number above 1")],
)
def test_settings_out_of_range_name_the_value(change: dict, message: str):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(CFG, **change)


def test_a_text_that_leaves_one_side_empty_is_refused(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text('{"text": "short"}\n{"text": "' + "long " * 100 + '"}\n')
    text = TextConfig(corpus=str(tmp_path / "t.jsonl"), overlong="skip")
    with pytest.raises(UsageError, match=r"no sequence is left for .* another --overlong than skip"):
        harvest(dataclasses.replace(CFG, text=text), tmp_path)


def test_what_is_left_out_of_the_text_is_counted(tmp_path: Path):
    (tmp_path / "t.jsonl").write_text("".join(f'{{"text": "{letter * 70}"}}\n' for letter in "abcd"))
    text = TextConfig(corpus=str(tmp_path / "t.jsonl"))
    made = harvest(dataclasses.replace(CFG, n_ctx=32, text=text), tmp_path)
    # 31 + 31 of each document have a row of their own; a rest of 8 and its BOS do too, being a quarter of the context.
    assert (made.results["n_tokens"], made.results["n_tokens_dropped"]) == (4 * (70 + 3), 0)
    made = harvest(dataclasses.replace(CFG, n_ctx=48, text=dataclasses.replace(text, overlong="truncate")), tmp_path)
    assert (made.results["n_tokens"], made.results["n_tokens_dropped"]) == (4 * 48, 4 * 23)


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
