"""Best of several: chosen on contexts of their own, the others kept, the choice not mistaken for a score."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from explaining import CATS, EVIDENCE, Keyed, silent_window

from app.workbench import Workbench
from autointerp.explain.best_of import BestOf
from autointerp.explain.default import DefaultExplainer
from autointerp.latent import Explanation, Score, Trial, Unexplained
from autointerp.llm import Request
from autointerp.sample import SampleConfig, Sampler
from store.errors import UsageError

TRIAL = Trial.of(7, CATS, [silent_window("a| dog", 1, 90 + i) for i in range(3)])


@dataclass
class Judge:
    """Gives each text a value, and remembers which it judged."""

    values: dict[str, float | None]
    judged: list[str] = field(default_factory=list)
    reads_explanation: ClassVar[bool] = True
    wants: ClassVar[frozenset[str]] = frozenset({"items"})
    steers: ClassVar[bool] = False

    async def __call__(self, explanation: Explanation, trial: Trial) -> Score:
        self.judged.append(explanation.text)
        value = self.values[explanation.text]
        return Score(value, None, 0.5, 0 if value is None else len(trial.items), 0)


def by_seed(*texts: str):
    def say(request: Request) -> str:
        return json.dumps({"explanation": texts[request.seed]}) if texts[request.seed] else "no"

    return Keyed(say)


def best(llm: Keyed, judge: Judge, n: int) -> Explanation | Unexplained:
    explainer = BestOf(explainer=DefaultExplainer(llm=llm), scorer=judge, trial=lambda latent: TRIAL, n=n)
    return asyncio.run(explainer(EVIDENCE))


def test_the_best_is_kept_with_those_it_beat_in_order():
    judge = Judge({"a1": 0.6, "b2": 0.9, "c3": 0.7})
    found = best(by_seed("a1", "b2", "c3"), judge, 3)
    assert isinstance(found, Explanation)
    assert (found.text, found.explainer) == ("b2", "default")
    assert [(each.text, each.seed, each.value) for each in found.candidates] == [
        ("b2", 1, 0.9),
        ("c3", 2, 0.7),
        ("a1", 0, 0.6),
    ]
    assert [each.calls for each in found.candidates] == [("call2",), ("call3",), ("call1",)]
    assert {each.n_judged for each in found.candidates} == {6}


def test_documents_that_chose_count_as_seen():
    found = best(by_seed("a1", "b2"), Judge({"a1": 0.6, "b2": 0.9}), 2)
    assert isinstance(found, Explanation)
    assert found.doc_ids == frozenset({1, 2, 3, 90, 91, 92})


def test_the_earliest_of_equals_is_kept_and_equal_texts_are_judged_once():
    judge = Judge({"a1": 0.6, "b2": 0.6})
    found = best(by_seed("a1", "b2", "a1"), judge, 3)
    assert isinstance(found, Explanation)
    assert (found.text, found.candidates[0].seed) == ("a1", 0)
    assert sorted(judge.judged) == ["a1", "b2"]


def test_what_could_not_be_judged_is_never_preferred():
    found = best(by_seed("a1", "b2"), Judge({"a1": None, "b2": 0.1}), 2)
    assert isinstance(found, Explanation)
    assert [each.value for each in found.candidates] == [0.1, None]


def test_samples_that_cannot_be_read_are_left_out_and_all_of_them_are_no_explanation():
    found = best(by_seed("", "b2"), Judge({"b2": 0.1}), 2)
    assert isinstance(found, Explanation)
    assert [each.text for each in found.candidates] == ["b2"]
    none = best(by_seed("", ""), Judge({}), 2)
    assert isinstance(none, Unexplained)
    assert none.reason == "unreadable"
    assert sorted(none.calls) == ["call1", "call2", "call3", "call4"]


@pytest.mark.parametrize(("n", "temperature"), [(0, 1.0), (3, 0.0)])
def test_no_samples_and_cold_ones_are_refused(n: int, temperature: float):
    with pytest.raises(UsageError, match="must be above 0"):
        BestOf(
            explainer=DefaultExplainer(llm=by_seed()),
            scorer=Judge({}),
            trial=lambda latent: TRIAL,
            n=n,
            temperature=temperature,
        )


def test_the_choice_is_made_on_documents_of_neither_side(tiny_root: Path):
    cfg = SampleConfig(n_explain=8, n_score=8, min_contexts=3, min_docs=2, max_density=0.5, select_share=0.3)
    sampler = Sampler(Workbench.open(tiny_root).index, cfg)
    latent = sampler.choose(1)[0]
    explainer = BestOf.of(DefaultExplainer(llm=by_seed("a1", "b2")), Judge({"a1": 0.5, "b2": 0.6}), sampler, 2)
    evidence = sampler.evidence(latent, explainer.wants)
    found = asyncio.run(explainer(evidence))
    assert isinstance(found, Explanation)
    assert found.doc_ids is not None
    shown = frozenset(window.doc_id for window in evidence.shown)
    assert found.doc_ids > shown
    assert found.doc_ids.isdisjoint(sampler.trial(latent).doc_ids)


def test_choosing_among_worthless_texts_lifts_the_choice_and_not_the_score():
    random, n_latents, n = np.random.default_rng(0), 400, 5
    texts = [f"t{i}" for i in range(n)]
    chosen, scores = [], []
    for _ in range(n_latents):
        found = best(by_seed(*texts), Judge({text: random.normal(0.5, 0.1) for text in texts}), n)
        assert isinstance(found, Explanation)
        chosen.append(found.candidates[0].value)
        again = asyncio.run(Judge({text: random.normal(0.5, 0.1) for text in texts})(found, TRIAL))
        scores.append(again.value)
    # E[max of 5 normals] = 1.163 standard deviations
    assert np.mean(chosen) == pytest.approx(0.6163, abs=0.01)
    assert np.mean(scores) == pytest.approx(0.5, abs=0.015)
