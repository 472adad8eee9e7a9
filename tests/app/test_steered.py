"""Steering token by token: it is what steering at once is, and leaves no edit behind however it ends."""

from contextlib import closing
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest

from app.steered import Steering, Token
from app.workbench import Workbench
from autointerp.steer_config import SteerConfig
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
    assert [each.side for each in tokens[:4]] == ["clean", "steered", "clean", "steered"]
    assert written["clean"][-1].text == found.clean != found.steered == written["steered"][-1].text
    assert len(written["steered"]) == len(found.steered_tokens)
    decode = bench._subject.lm.tokenizer.decode
    for own in written.values():
        assert [each.text for each in own] == [decode([e.id for e in own[: i + 1]]) for i in range(len(own))]


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
