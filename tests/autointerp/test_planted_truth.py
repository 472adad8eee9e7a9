"""A judge whose errors are known: rates, chance and the promised 95% come out of the scorers as they were put in."""

import asyncio
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from judging import DETECTIVES, JUDGED, explained, judge, trial

from autointerp.latent import Score, Trial
from autointerp.llm.planted import Planted
from autointerp.llm.scripted import Scripted
from autointerp.scorers.detection import DetectionScorer
from autointerp.statistics.intervals import wilson

TPR, FPR = 0.7, 0.2
BASE_RATE = 0.01
N_LATENTS, N_EACH = 100, 25
CHANCE = {"intruder": 0.2, "discrimination": 0.25, "simulation": 0.0}


def planted(seed: int) -> Scripted:
    return Scripted(Planted(tpr=TPR, fpr=FPR, seed=seed))


@cache
def of_many(name: str, word: str, tpr: float = TPR, n_latents: int = N_LATENTS) -> tuple[Score, ...]:
    llms = (Scripted(Planted(tpr=tpr, fpr=FPR, seed=i)) for i in range(n_latents))
    return tuple(judge(name, llm, word, trial(i, N_EACH)) for i, llm in enumerate(llms))


def pooled(scores: tuple[Score, ...]) -> tuple[float, float]:
    """Mean over latents and half of its own 95% interval."""
    values = np.array([score.value for score in scores], float)
    return float(values.mean()), float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))


@pytest.mark.parametrize("name", DETECTIVES)
class TestYesOrNo:
    def test_rates_come_out_as_they_were_planted(self, name: str):
        for metric, truth in (("recall", TPR), ("fpr", FPR)):
            n = N_EACH * N_LATENTS
            k = round(sum((score.metrics[metric] or 0) * N_EACH for score in of_many(name, "cat")))
            low, high = wilson(k, n, 0.999)
            assert low <= truth <= high

    def test_balanced_accuracy_is_three_quarters_within_the_interval_of_the_mean(self, name: str):
        mean, _ = pooled(of_many(name, "cat"))
        # The half width at 99.9% of the mean of 100 latents, each of 25 + 25 with the planted rates.
        half = 3.29 * np.sqrt((TPR * (1 - TPR) + FPR * (1 - FPR)) / N_EACH) / 2 / np.sqrt(N_LATENTS)
        assert abs(mean - 0.75) <= half

    def test_precision_at_the_base_rate_is_bayes_rule_of_the_answers(self, name: str):
        for score in of_many(name, "cat")[:10]:
            hits = sum(e.answer == 1 for e in score.examples if e.truth == 1) / N_EACH
            alarms = sum(e.answer == 1 for e in score.examples if e.truth == 0) / N_EACH
            by_hand = BASE_RATE * hits / (BASE_RATE * hits + (1 - BASE_RATE) * alarms)
            assert score.metrics["precision_at_base_rate"] == pytest.approx(by_hand)

    def test_precision_at_the_base_rate_has_the_planted_one_in_its_interval(self, name: str):
        truth = BASE_RATE * TPR / (BASE_RATE * TPR + (1 - BASE_RATE) * FPR)
        assert truth == pytest.approx(0.0341, abs=1e-4)
        held = [
            (score.metrics["precision_at_base_rate_low"] or 1) <= truth
            and truth <= (score.metrics["precision_at_base_rate_high"] or 0)
            for score in of_many(name, "cat")
        ]
        assert np.mean(held) >= 0.89, "95% of 100 is 95; fewer than 89 has a chance of one in a hundred"


@pytest.mark.parametrize(
    ("name", "n_latents"), [("detection", 100), ("fuzzing", 100), ("discrimination", 100), ("simulation", 40)]
)
def test_another_latents_explanation_is_at_chance_within_the_interval_of_the_mean(name: str, n_latents: int):
    """Nothing that a judge is shown tells active from silent, but for what the explanation says."""
    scores = of_many(name, "zebra", n_latents=n_latents)
    defined = tuple(score for score in scores if score.value is not None)
    assert len(defined) > 0.9 * n_latents
    mean, half = pooled(defined)
    assert {score.chance for score in defined} == {CHANCE.get(name, 0.5)}
    assert abs(mean - CHANCE.get(name, 0.5)) <= 1.7 * half, "99.9%"


def test_a_judge_that_knows_nothing_finds_an_intruder_by_chance():
    mean, half = pooled(of_many("intruder", "cat", tpr=0.0))
    assert abs(mean - 0.2) <= 1.7 * half


def test_every_judged_scorer_has_its_null_checked():
    assert set(JUDGED) == {*DETECTIVES, "discrimination", "simulation", "intruder"}


def test_intervals_of_the_scorer_hold_the_truth_of_95_in_100_latents():
    """2,000 latents with 12 + 12 contexts each, through the prompts, the judge, the reader of replies and the score."""
    whole = trial(n=12, base_rate=None)
    held = asyncio.run(_held(whole, 2000))
    assert len(held) == 2000
    assert 0.93 <= np.mean(held) <= 0.97


async def _held(given: Trial, n_latents: int) -> list[bool]:
    held = []
    for i in range(n_latents):
        score = await DetectionScorer(llm=planted(i))(explained("cat"), replace(given, seed=i))
        assert score.interval is not None
        held.append(score.interval[0] <= (TPR + 1 - FPR) / 2 <= score.interval[1])
    return held
