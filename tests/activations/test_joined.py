"""Hook points side by side: a row is one token at all of them, whatever harvests, models and dtypes they come from."""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from harvests import CFG, HOOKS, sequences_of

from activations import recompute, shuffle
from activations.harvest import harvest
from activations.joined import JoinedActivations, split
from activations.models import load_model
from activations.reader import Activations
from activations.shuffle import ShuffleState
from activations.text import TextConfig
from activations.tiny import TinyLM
from store import layout
from store.errors import UsageError
from store.run import Run
from store.shards import TOKEN_CLASSES


def joined(*members: tuple[Run, str]) -> JoinedActivations:
    return JoinedActivations([Activations(run, hook_point) for run, hook_point in members])


def everything(activations: Activations | JoinedActivations, *args, **options) -> torch.Tensor:
    return torch.cat(list(activations.rows("all", *args, **options).in_order(700)))


def with_settings(run: Run, **settings) -> Run:
    """The small harvest once more, beside itself."""
    return harvest(dataclasses.replace(CFG, **settings), run.root)


def counted(x: torch.Tensor) -> Counter:
    return Counter(row.numpy().tobytes() for row in x)


def assert_rows_are_what_the_models_compute(activations: JoinedActivations):
    """Every token has one row, with what each member's model computes for it."""
    computed = [by_token(member) for member in activations.members]
    seen = []
    for block in activations.blocks:
        rows = block.open()
        x = rows.tensor(np.arange(len(rows)), activations.dtype).float()
        tokens = list(zip(rows.columns["seq"].tolist(), rows.columns["pos"].tolist(), strict=True))
        expected = [torch.stack([found[token] for token in tokens]) for found in computed]
        assert block.n_rows == len(rows) == len(tokens)
        assert torch.allclose(x, torch.cat(expected, dim=1), rtol=1e-2, atol=1e-2)
        seen += tokens
    assert sorted(seen) == sorted(computed[0])


def by_token(member: Activations) -> dict[tuple[int, int], torch.Tensor]:
    """What a hook point's model computes, by sequence and position."""
    lm = load_model(member.run.config["harvest"]["model"])
    hook, found = lm.hook_point(member.hook_point), {}
    for seq, sequence in sequences_of(member.run).items():
        ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
        found |= {(seq, pos): x for pos, x in enumerate(lm.capture(ids, [hook])[hook.name].flatten(2)[0])}
    return found


@pytest.fixture(scope="module")
def both(run: Run) -> JoinedActivations:
    return joined((run, HOOKS[0]), (run, HOOKS[1]))


class TestOneHarvest:
    def test_a_row_is_the_same_token_at_each_hook_point(self, both: JoinedActivations):
        assert_rows_are_what_the_models_compute(both)

    def test_in_order_it_is_the_members_read_in_order(self, both: JoinedActivations):
        parts = split(everything(both), both.widths)
        for part, member in zip(parts, both.members, strict=True):
            assert torch.equal(part, everything(member))

    def test_shuffled_it_is_the_members_read_with_the_same_seed(self, both: JoinedActivations):
        streams = [a.rows().shuffled(100, seed=3, prefetch=0) for a in (both, *both.members)]
        for whole, *parts in islice(zip(*streams, strict=True), 60):
            assert torch.equal(whole, torch.cat(parts, dim=1))
        assert streams[0].mixing == streams[1].mixing

    def test_an_epoch_has_every_row_exactly_once(self, both: JoinedActivations):
        rows = both.rows()
        n, stream = len(rows), rows.shuffled(100, seed=3)
        got = torch.cat(list(islice(stream, -(-2 * n // 100))))
        stream.close()
        wanted = counted(torch.cat(list(rows.in_order())))
        assert counted(got[:n]) == counted(got[n : 2 * n]) == wanted
        assert rows.n_sequences == both.members[0].rows().n_sequences

    @pytest.mark.parametrize("prefetch", [0, 2])
    @pytest.mark.parametrize("n_before", [1, 7, 40])
    def test_a_reader_goes_on_exactly(
        self, both: JoinedActivations, monkeypatch: pytest.MonkeyPatch, prefetch: int, n_before: int
    ):
        monkeypatch.setattr(shuffle, "POOL_ROWS", 1500)
        rows = both.rows()
        whole = list(islice(rows.shuffled(130, seed=1, prefetch=0), 60))
        first = rows.shuffled(130, seed=1, prefetch=prefetch)
        list(islice(first, n_before))
        first.close()
        rest = rows.shuffled(130, seed=1, prefetch=0, state=ShuffleState(*first.state))
        assert all(torch.equal(a, b) for a, b in zip(whole[n_before:], rest, strict=False))

    def test_a_state_is_not_taken_for_that_of_other_hook_points(self, run: Run, both: JoinedActivations):
        state = both.rows().shuffled(50, seed=0, prefetch=0).state
        for other in (joined((run, HOOKS[1]), (run, HOOKS[0])), both.members[0]):
            with pytest.raises(UsageError, match="is of other rows"):
                other.rows().shuffled(50, seed=0, state=state)

    def test_splits_and_documents_are_chosen_as_at_one_hook_point(self, both: JoinedActivations):
        alone = both.members[0]
        assert np.array_equal(both.heldout_docs, alone.heldout_docs)
        for chosen in ({"split": "heldout"}, {"split": "all", "documents": [3, 5]}, {"split": "all", "first": True}):
            assert len(both.rows(**chosen)) == len(alone.rows(**chosen)) > 0
        with pytest.raises(UsageError, match="not known"):
            both.rows("all", ("nromal",))


def test_a_sink_at_one_hook_point_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    original = TinyLM.capture

    def with_giants(self: TinyLM, tokens: torch.Tensor, hook_points: list) -> dict:
        found, giant = original(self, tokens, hook_points), (tokens == ord("e"))[..., None]
        return found | {HOOKS[0]: torch.where(giant, 50 * found[HOOKS[0]], found[HOOKS[0]])}

    monkeypatch.setattr(TinyLM, "capture", with_giants)
    run = harvest(CFG, tmp_path)
    both = joined((run, HOOKS[0]), (run, HOOKS[1]))
    columns = {name: np.concatenate([b.columns()[name] for b in both.blocks]) for name in ("token_id", "token_class")}
    giant = columns["token_id"] == ord("e")
    assert np.array_equal(columns["token_class"] == TOKEN_CLASSES["sink"], giant[:, None] & [True, False] | bos(both))
    n_normal = len(both.rows("all"))
    assert n_normal == len(both.members[0].rows("all")) == len(both.members[1].rows("all")) - giant.sum()
    assert len(everything(both, ("normal", "sink"))) == len(both.members[1].rows("all"))
    assert len(both.rows("all", ("sink",))) == 0


def bos(activations: JoinedActivations) -> np.ndarray:
    return np.concatenate([block.columns()["pos"] == 0 for block in activations.blocks])[:, None]


class TestSeveralHarvests:
    @pytest.mark.parametrize(
        "settings",
        [
            {"hook_points": HOOKS[1:]},
            {"seed": 1},
            {"shard_rows": 250, "window_shards": 4},
            {"keep_activations": "none"},
            {"seed": 2, "shard_rows": 1000, "window_shards": 1, "dtype": "bfloat16"},
        ],
    )
    def test_the_order_and_the_shards_need_not_be_the_same(self, run: Run, both: JoinedActivations, settings: dict):
        other = with_settings(run, **settings)
        assert_rows_are_what_the_models_compute(joined((other, HOOKS[1]), (run, HOOKS[0])))
        crossed = joined((run, HOOKS[0]), (other, HOOKS[1]))
        assert torch.allclose(everything(crossed), everything(both), rtol=1e-2, atol=1e-2)
        rows = crossed.rows()
        batch = next(rows.shuffled(len(rows), seed=0, prefetch=0))
        assert torch.allclose(batch.sort(0).values, everything_to_train_on(both).sort(0).values, rtol=1e-2, atol=1e-2)

    def test_dtypes_may_differ_and_lose_nothing(self, run: Run):
        other = with_settings(run, dtype="bfloat16", hook_points=HOOKS[:1])
        mixed = joined((run, HOOKS[1]), (other, HOOKS[0]))
        assert (mixed.dtype, joined((run, HOOKS[0]), (run, HOOKS[1])).dtype) == ("float32", "float16")
        assert torch.equal(everything(mixed), torch.cat([everything(m) for m in mixed.members], dim=1))

    def test_two_models_with_the_same_tokens(self, tmp_path: Path, save_model: Callable[..., Path]):
        """A base model and a chat model: their tokenizers' files differ, the tokens of a text do not."""
        models = (
            save_model("gpt2", tmp_path / "base"),
            save_model("llama", tmp_path / "chat", chat=True, width=64),
        )
        cfg = dataclasses.replace(CFG, hook_points=("blocks.1.hook_resid_post",), n_ctx=48)
        runs = [harvest(dataclasses.replace(cfg, model=str(model)), tmp_path) for model in models]
        assert len({run.results["tokenizer"] for run in runs}) == 2
        models_side_by_side = joined(*((run, cfg.hook_points[0]) for run in runs))
        assert (models_side_by_side.widths, models_side_by_side.d_in) == ((32, 64), 96)
        assert_rows_are_what_the_models_compute(models_side_by_side)
        assert [part.shape for part in split(next(models_side_by_side.rows().shuffled(9, 0)), (32, 64))] == [
            (9, 32),
            (9, 64),
        ]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"n_ctx": 32}, "n_ctx 32 instead of 64"),
            ({"shard_rows": 400}, r"\(shard_rows x window_shards 800 instead of 1000\)"),
            ({"text": TextConfig(corpus="stories", n_tokens=3000)}, "n_tokens 3000 instead of 4000"),
            ({"text": TextConfig(corpus="stories", n_tokens=4000, mode="pack")}, "mode pack instead of sequential"),
            ({"text": TextConfig(corpus="stories", n_tokens=4000, heldout=0.3)}, "heldout 0.3 instead of 0.1"),
            ({"text": TextConfig(corpus="english", n_tokens=4000)}, r"text english \(\w{12}\) instead of stories"),
        ],
    )
    def test_other_tokens_are_refused_and_what_differs_is_named(self, run: Run, change: dict, message: str):
        other = with_settings(run, **change)
        with pytest.raises(UsageError, match=message) as error:
            joined((run, HOOKS[0]), (other, HOOKS[1]))
        assert "\n" not in str(error.value)
        assert "make one again as the other was made" in str(error.value)

    def test_another_vocabulary_is_refused(self, tmp_path: Path, run: Run, save_model: Callable[..., Path]):
        hook = "blocks.1.hook_resid_post"
        cfg = dataclasses.replace(CFG, model=str(save_model("gpt2", tmp_path / "model")), hook_points=(hook,))
        with pytest.raises(UsageError, match=r"tokenizer .* instead of bytes-1"):
            joined((run, HOOKS[0]), (harvest(cfg, tmp_path), hook))


def everything_to_train_on(activations: JoinedActivations) -> torch.Tensor:
    return torch.cat(list(activations.rows().in_order()))


class TestKeepingNothing:
    @pytest.fixture(scope="class")
    def streamed(self, run: Run) -> Run:
        return with_settings(run, keep_activations="none")

    def test_rows_are_those_of_a_harvest_that_stores_them(self, both: JoinedActivations, streamed: Run):
        again = joined((streamed, HOOKS[0]), (streamed, HOOKS[1]))
        rows = again.rows()
        assert torch.allclose(everything_to_train_on(again), everything_to_train_on(both), atol=1e-3)
        assert (len(rows), again.is_stored, both.is_stored) == (len(both.rows()), False, True)
        first = rows.shuffled(300, seed=0, prefetch=0)
        list(islice(first, 4))
        assert torch.equal(next(rows.shuffled(300, seed=0, prefetch=0, state=first.state)), next(first))

    def test_each_window_is_computed_once_for_all_hook_points(self, streamed: Run, monkeypatch: pytest.MonkeyPatch):
        computed, original = [], recompute.compute_window

        def counting(lm: TinyLM, number: int, *rest):
            computed.append(number)
            return original(lm, number, *rest)

        monkeypatch.setattr(recompute, "compute_window", counting)
        everything(joined((streamed, HOOKS[0]), (streamed, HOOKS[1])))
        assert computed == list(range(streamed.results["n_windows"]))


class TestRefusals:
    def test_fewer_than_two_and_one_twice(self, run: Run):
        with pytest.raises(UsageError, match="give at least 2"):
            joined((run, HOOKS[0]))
        with pytest.raises(UsageError, match=f"{HOOKS[0]} is there twice"):
            joined((run, HOOKS[0]), (run, HOOKS[1]), (run, HOOKS[0]))

    def test_a_missing_shard_is_named_with_the_way_out(self, copy: Run):
        path = layout.shards(copy.folder, HOOKS[1])[2]
        path.unlink()
        with pytest.raises(UsageError, match=f"{path.name} is missing: .*--repair {copy.id}"):
            joined((copy, HOOKS[0]), (copy, HOOKS[1]))

    def test_rows_of_other_tokens_are_found_when_they_are_read(self, copy: Run):
        first, second = (layout.shard(copy.folder, HOOKS[1], 0, part) for part in (0, 1))
        shutil.copy(first, second)
        with pytest.raises(UsageError, match=r"has other tokens than .*--repair"):
            everything(joined((copy, HOOKS[0]), (copy, HOOKS[1])))
