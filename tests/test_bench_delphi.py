"""What the benchmark beside delphi's scorers compares: figures that are equal, and what explains those that are not."""

import pytest

from autointerp.latent import Judged
from bench.interpret_delphi import compared, kept
from store.latents import Window

SAID: list[tuple[str, float, float | None]] = [("a", 1.0, 1.0), ("b", 1.0, 0.0), ("c", 0.0, 1.0), ("d", 0.0, 0.0)]
"""Contexts, whether they are active, and the judge's answers."""
NAMES = ("accuracy", "true_positive_rate", "false_positive_rate", "precision", "f1_score")
OF_ALL: dict[str, float] = dict(zip(NAMES, (0.5, 0.5, 0.5, 0.5, 0.5), strict=True))
WITHOUT_B: dict[str, float] = dict(zip(NAMES, (0.75, 1.0, 0.5, 0.5, 2 / 3), strict=True))
"""By hand."""


def judged(said: list[tuple[str, float, float | None]]) -> list[Judged]:
    windows = [Window("given", 1.0, 0, "", "", "", 0, 0, 0, (text,), (0,), (1.0,)) for text, _, _ in said]
    return [Judged("given", window, truth, answer) for window, (_, truth, answer) in zip(windows, said, strict=True)]


def rows(texts: str) -> list[dict]:
    """delphi's, with a prediction of these texts alone."""
    return [
        {"text": text, "activating": truth == 1, "prediction": bool(answer) if text in texts else None}
        for text, truth, answer in SAID
    ]


def test_the_same_answers_have_the_same_figures():
    assert compared(judged(SAID), rows("abcd"), OF_ALL) == pytest.approx((0, 0, 0))


def test_what_delphi_drops_explains_the_difference():
    assert compared(judged(SAID), rows("acd"), WITHOUT_B) == pytest.approx((0.5, 0, 1))


def test_a_difference_of_the_same_answers_is_not_explained():
    assert compared(judged(SAID), rows("abcd"), WITHOUT_B) == pytest.approx((0.5, 0.5, 0))


def test_an_answer_that_neither_side_has_is_not_dropped():
    said = [(text, truth, None if text == "b" else answer) for text, truth, answer in SAID]
    assert compared(judged(said), rows("acd"), WITHOUT_B) == pytest.approx((0, 0, 0))


def test_of_equal_contexts_as_many_are_kept_as_delphi_has():
    same = judged([("a", 1.0, 1.0), ("a", 1.0, 1.0), ("a", 0.0, 1.0)])
    assert kept(same, [{"text": "a", "activating": True, "prediction": True}]) == same[:1]
