"""Steering token by token: it is what steering at once is, and leaves no edit behind however it ends."""

from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest

from activations.statistics import mean_norm
from app.steered import Steering, Token
from app.workbench import Workbench
from autointerp.steer_config import SteerConfig, SteerVector
from sae.checkpoint import decoder_norms
from store.errors import UsageError

ASKED = {"n_tokens": 12, "temperature": 0.9, "seed": 5, "chat": False}


@pytest.fixture(scope="module")
def bench(runs_root: Path) -> Workbench:
    return Workbench.open(runs_root)


@pytest.fixture
def edits(fixture_index) -> list[SteerConfig]:
    return [SteerConfig(latents=(fixture_index.SCORED,), strength=(3.0,))]


@pytest.fixture
def clean(bench: Workbench):
    """What the model computes without an edit; asserts, after the test, that it still does."""
    rows = bench._subject.rows([1, 2, 3, 4])
    yield
    assert np.array_equal(bench._subject.rows([1, 2, 3, 4]), rows)


def test_the_steps_are_the_tokens_of_both_texts_in_turns_and_then_what_steer_returns(bench: Workbench, edits, clean):
    *before, found = bench.steps("Ahoy", edits, **ASKED)
    tokens = [step for step in before if isinstance(step, Token)]
    assert len(tokens) == len(before)
    assert found == bench.steer("Ahoy", edits, **ASKED)
    assert isinstance(found, Steering)
    written = {side: [each for each in tokens if each.side == side] for side in ("clean", "steered")}
    assert [each.side for each in tokens[:4]] == ["steered", "clean", "steered", "clean"]
    assert written["clean"][-1].text == found.clean != found.steered == written["steered"][-1].text
    assert len(written["steered"]) == len(found.steered_tokens)
    decode = bench._subject.lm.tokenizer.decode
    for own in written.values():
        assert [each.text for each in own] == [decode([e.id for e in own[: i + 1]]) for i in range(len(own))]


def test_a_token_is_there_before_the_other_text_is_read(bench: Workbench, edits, monkeypatch):
    n_steps, step = [], bench._subject.lm.step
    monkeypatch.setattr(bench._subject.lm, "step", lambda *given: n_steps.append(1) or step(*given))
    with closing(bench.steps("Ahoy", edits, **ASKED)) as steps:  # pyright: ignore[reportArgumentType]
        for n in (1, 2, 3):
            next(steps)
            assert len(n_steps) == n


def test_each_text_is_what_the_model_writes_alone(bench: Workbench, edits):
    subject = bench._subject
    ids = subject.lm.tokenizer.with_bos(subject.lm.tokenizer.encode("Ahoy").ids)
    found = bench.steer("Ahoy", edits, **ASKED)
    assert found.clean == subject.lm.tokenizer.decode(subject.lm.generate(ids, 12, 0.9, 5))


@pytest.mark.parametrize("n_taken", [0, 1, 2, 5])
def test_whoever_stops_leaves_a_clean_model(bench: Workbench, edits, clean, n_taken: int):
    with closing(bench.steps("Ahoy", edits, **ASKED)) as steps:  # pyright: ignore[reportArgumentType]
        for _ in range(n_taken):
            assert isinstance(next(steps), Token)


def test_who_asks_in_between_meets_the_clean_model(bench: Workbench, edits, clean):
    values = bench.inspect("Ahoy there").value
    steps = bench.steps("Ahoy", edits, **ASKED)
    for _ in zip(range(6), steps, strict=False):
        assert np.array_equal(bench.inspect("Ahoy there").value, values)


def test_a_text_that_was_read_in_between_changes_nothing(bench: Workbench, edits):
    *_, alone = bench.steps("Ahoy", edits, **ASKED)
    first, second = bench.steps("Ahoy", edits, **ASKED), bench.steps("Boats", edits, **{**ASKED, "seed": 9})
    assert [mine for mine, _ in zip_longest(first, second) if mine][-1] == alone


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"n_tokens": 10_000}, "shorten one of them"), ({"prompt": " "}, "there is no prompt")],
)
def test_what_is_refused_leaves_a_clean_model(bench: Workbench, edits, clean, settings: dict, said: str):
    with pytest.raises(UsageError, match=said):
        list(bench.steps(**{"prompt": "Ahoy", "edits": edits, **ASKED, **settings}))


def test_an_edit_that_raises_leaves_a_clean_model(bench: Workbench, edits, clean, monkeypatch):
    steps = bench.steps("Ahoy", edits, **ASKED)
    assert [type(next(steps)), type(next(steps))] == [Token, Token]
    monkeypatch.setattr(bench._subject.sae, "encode", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(steps)


def test_a_strength_that_leaves_nothing_finite_is_refused_and_leaves_a_clean_model(bench, fixture_index, clean):
    endless = [SteerConfig(latents=(fixture_index.SCORED,), strength=(1e39,))]
    with pytest.raises(UsageError, match="too strong"):
        list(bench.steps("Ahoy", endless, **ASKED))


@pytest.mark.parametrize("side", ["clean", "steered"])
def test_one_side_alone_is_what_it_is_beside_the_other(bench: Workbench, edits, clean, side: str):
    both = bench.steer("Ahoy", edits, **ASKED)
    *tokens, alone = bench.steps("Ahoy", edits, **ASKED, sides=(side,))  # pyright: ignore[reportArgumentType]
    assert {token.side for token in tokens if isinstance(token, Token)} == {side}
    assert isinstance(alone, Steering)
    assert getattr(alone, side) == getattr(both, side)
    assert getattr(alone, "clean" if side == "steered" else "steered") == ""
    assert alone.n_hook_calls == (both.n_hook_calls if side == "steered" else 0)


def test_the_edit_takes_part_in_every_pass_and_never_touches_the_first_token(bench: Workbench, edits):
    found = bench.steer("Ahoy", edits, **ASKED)
    n_written = len(found.steered_tokens)
    assert found.n_hook_calls == n_written + (n_written < ASKED["n_tokens"])
    assert len(found.touchable) == len(found.altered)
    assert found.touchable == (False, *[True] * (len(found.altered) - 1))
    assert not any(changed and not may for changed, may in zip(found.altered, found.touchable, strict=True))
    assert len(found.shares) == sum(found.altered)
    assert found.share_of_norm is not None
    assert min(found.shares) <= found.share_of_norm <= max(found.shares)


def test_an_edit_that_misses_a_pass_is_our_mistake_and_no_text(bench: Workbench, edits, monkeypatch):
    class Deaf:
        n_calls = 0

    inner = bench._subject.edited

    @contextmanager
    def edited(edit):
        with inner(edit):
            yield Deaf()

    monkeypatch.setattr(bench._subject, "edited", edited)
    with pytest.raises(RuntimeError, match="took part in 0 passes"):
        list(bench.steps("Ahoy", edits, **ASKED))


class TestVectors:
    """A vector of one's own, its strength a share of the mean length of activations."""

    def test_it_moves_every_token_but_the_first_by_its_share_of_the_mean_length(self, bench: Workbench, clean):
        vector = tuple(np.random.default_rng(0).standard_normal(bench._subject.sae.cfg.d_in).tolist())
        found = bench.steer("Ahoy", [SteerVector(vector=vector, strength=0.5, name="mine.safetensors")], **ASKED)
        assert found.altered == found.touchable
        assert found.values == ((pytest.approx(0.5 * 5.5),),)
        assert found.told.startswith("0.5 × the mean length of activations added along mine.safetensors, on every")
        assert found.steered != found.clean

    def test_strength_0_is_the_clean_text(self, bench: Workbench, clean):
        found = bench.steer("Ahoy", [SteerVector(vector=(1.0,) * 32, strength=0.0)], **ASKED)
        assert (found.steered, any(found.altered), found.shares) == (found.clean, False, ())

    def test_along_a_decoder_row_it_is_adding_to_the_latent(self, bench: Workbench, fixture_index):
        subject, latent = bench._subject, fixture_index.SCORED
        row = subject.sae.W_dec[latent].detach().double()
        times = float(row.norm()) * float(subject.units[latent]) / 5.5
        own = bench.steer("Ahoy", [SteerVector(vector=tuple(row.tolist()), strength=times)], **ASKED)
        assert own.steered == bench.steer("Ahoy", latent, op="add", **ASKED).steered

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"vector": (1.0, 2.0)}, "a vector has 2 numbers, x has 32"),
            ({"when": "token"}, "needs a condition"),
            ({"condition": (3,)}, "does nothing on every position"),
            ({"when": "token", "condition": (999,)}, "there is no latent 999"),
            ({"when": "token", "condition": (7,), "above": (1.0,)}, "latent 7 never fired"),
        ],
    )
    def test_what_cannot_be_is_refused(self, bench: Workbench, clean, settings: dict, said: str):
        with pytest.raises(UsageError, match=said):
            bench.steer("Ahoy", [SteerVector(**{"vector": (1.0,) * 32, **settings})], **ASKED)

    def test_a_harvest_without_statistics_has_no_unit(self, bench: Workbench, monkeypatch):
        monkeypatch.setattr(bench._subject, "mean_norm", None)
        with pytest.raises(UsageError, match="no unit of strength"):
            bench.steer("Ahoy", [SteerVector(vector=(1.0,) * 32)], **ASKED)


def test_the_mean_length_of_activations_is_of_normal_tokens_and_of_this_hook_point(bench: Workbench, tmp_path: Path):
    assert bench.mean_norm == bench._subject.mean_norm == 5.5
    assert mean_norm(bench.activations_run, "blocks.1.hook_resid_post") is None
    assert mean_norm(replace(bench.activations_run, folder=tmp_path), "blocks.0.hook_resid_post") is None


def test_lengths_of_decoder_rows_are_read_without_the_dictionary(bench: Workbench, tmp_path: Path):
    rows = bench._subject.sae.W_dec.detach()
    assert decoder_norms(bench.sae_run.folder, [3, 29, 0]) == pytest.approx(rows[[3, 29, 0]].norm(dim=1).tolist())
    with pytest.raises(UsageError, match="cannot be read"):
        decoder_norms(tmp_path, [3])
    with pytest.raises(UsageError, match="cannot be read"):
        decoder_norms(bench.sae_run.folder, [30])
