"""Several explanations of a latent, of which the one that does best on contexts of their own is kept.

The contexts that choose are neither the explainer's nor those of the score: the best of several is best by luck too, so
what it got while it was chosen is kept, and is not its score.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import final

from autointerp.explain.asking import Asking
from autointerp.latent import Candidate, Evidence, Explanation, Score, Trial, Unexplained
from autointerp.sample import Sampler
from autointerp.scorers import Scorer
from store.errors import UsageError


@final
@dataclass(frozen=True, kw_only=True)
class BestOf:
    """An explainer that is asked `n` times."""

    explainer: Asking
    scorer: Scorer
    """A cheap one: it judges every candidate."""
    trial: Callable[[int], Trial]
    """A latent's contexts to choose on, from documents of neither explaining nor scoring."""
    n: int = 4
    temperature: float = 1.0
    """Of all samples: at 0 they would be one."""

    @classmethod
    def of(cls, explainer: Asking, scorer: Scorer, sampler: Sampler, n: int) -> "BestOf":
        """Chosen on the sampler's `select` part, which its config must leave documents for."""
        trial = partial(sampler.trial, wants=scorer.wants, part="select")
        return cls(explainer=explainer, scorer=scorer, trial=trial, n=n)

    def __post_init__(self) -> None:
        if self.n < 1 or self.temperature <= 0:
            raise UsageError(f"best of {self.n} at temperature {self.temperature}: both must be above 0")

    @property
    def wants(self) -> frozenset[str]:
        """As the explainer does."""
        return self.explainer.wants

    async def __call__(self, evidence: Evidence) -> Explanation | Unexplained:
        """The best of the samples that could be read, with all of them; the earliest of equals."""
        first = self.explainer.seed
        drawn = [self.explainer.drawn(first + i, self.temperature) for i in range(self.n)]
        found = await asyncio.gather(*(each(evidence) for each in drawn))
        read = [(each.seed, said) for each, said in zip(drawn, found, strict=True) if isinstance(said, Explanation)]
        if not read:
            failed = [said for said in found if isinstance(said, Unexplained)]
            return replace(failed[0], calls=tuple(key for each in failed for key in each.calls))
        trial = self.trial(evidence.latent)
        scores = await self._scores([said for _, said in read], trial)
        order = sorted(range(len(read)), key=lambda i: -_worth(scores[i]))
        winner = read[order[0]][1]
        return replace(
            winner,
            # Documents that chose it are as good as seen: a score on them would be too high.
            doc_ids=None if winner.doc_ids is None else winner.doc_ids | trial.doc_ids,
            candidates=tuple(_candidate(*read[i], scores[i]) for i in order),
        )

    async def _scores(self, explanations: Sequence[Explanation], trial: Trial) -> list[Score]:
        """Of each; texts that are equal are judged once."""
        different = {each.text: each for each in reversed(explanations)}
        scores = await asyncio.gather(*(self.scorer(each, trial) for each in different.values()))
        by_text = dict(zip(different, scores, strict=True))
        return [by_text[each.text] for each in explanations]


def _worth(score: Score) -> float:
    return float("-inf") if score.value is None else score.value


def _candidate(seed: int, explanation: Explanation, score: Score) -> Candidate:
    return Candidate(explanation.text, seed, score.value, score.n_judged, explanation.calls)
