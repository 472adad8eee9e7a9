"""Steering a real model: a planted latent that writes a word is found at equal effect, a random direction is not."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from activations.models import DEFAULT_MODEL, load_model
from autointerp.latent import Explanation, Trial
from autointerp.scorers.continuations import InterventionConfig
from autointerp.scorers.intervention import InterventionScorer
from autointerp.subject import Subject
from sae import TopK, TopKConfig
from store.latents import Window

pytestmark = pytest.mark.slow
HOOK = "blocks.28.hook_resid_post"
WORD, PLANTED, D_SAE = " ocean", 3, 12
SENTENCES = (
    "The committee agreed to publish its report",
    "My grandmother always kept a small garden",
    "Prices rose again in the second quarter",
    "He closed the door and looked at",
    "The function returns a list of numbers",
    "Our train was delayed because of snow",
)


class CountsTheWord:
    """Finds the explanation likelier the more often the word was written."""

    name = "counts"

    async def logprobs(self, prefix: str, texts: Sequence[str]) -> list[np.ndarray]:
        written = prefix.rsplit("Written:", 1)[-1]
        return [np.array([-20.0 + written.lower().count(WORD.strip())]) for _ in texts]

    async def choices(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        raise NotImplementedError


@pytest.fixture(scope="module")
def subject() -> Subject:
    lm = load_model(DEFAULT_MODEL, device="cpu")
    sae = TopK(TopKConfig(d_in=lm.d_model, d_sae=D_SAE, k=2))
    rows = torch.randn(D_SAE, lm.d_model, generator=torch.Generator().manual_seed(0))
    W_U = lm.unembedding().float()
    # About the mean: what all tokens have in common favours rare ones.
    rows[PLANTED] = W_U[:, lm.tokenizer.encode(WORD).ids[0]] - W_U.mean(dim=1)
    rows /= rows.norm(dim=1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return Subject(lm, sae, HOOK, sink_norm=1e9, units=np.full(D_SAE, 400.0))


def window(subject: Subject, text: str, doc_id: int) -> Window:
    encoding = subject.lm.tokenizer.encode(text)
    ids, peak = tuple(encoding.ids), len(encoding.ids) - 1
    pieces = tuple(subject.lm.tokenizer.token_texts(ids))
    values = tuple(float(i == peak) for i in range(len(ids)))
    return Window("given", 1.0, doc_id, "s", "t", "train", 0, 0, peak, pieces, ids, values)


def test_zero_strength_is_the_clean_model_exactly(subject: Subject):
    clean = subject.next_logprobs(SENTENCES)
    assert np.array_equal(clean, subject.next_logprobs(SENTENCES, [PLANTED] * 6, [0.0] * 6))


def test_every_kind_of_direction_reaches_the_same_effect(subject: Subject):
    for direction in (PLANTED, 5, subject.random_direction(PLANTED, 1)):
        said = subject.steer(direction, SENTENCES, kl=0.5, n_tokens=2)
        assert all(s and s.kl == pytest.approx(0.5, rel=0.1) for s in said)


def test_clamping_promotes_the_word_most(subject: Subject):
    assert subject.token_change(PLANTED, SENTENCES).promoted[0].token == WORD


def test_the_word_is_found_and_other_latents_are_at_chance(subject: Subject):
    active = [window(subject, text, i) for i, text in enumerate(SENTENCES)]
    scorer = InterventionScorer(subject, CountsTheWord(), InterventionConfig(n_tokens=12, kl=2.0))
    values = {}
    for latent in (PLANTED, 5):
        explanation = Explanation(latent, "test", "the word ocean", "", "by hand", 0, frozenset())
        values[latent] = asyncio.run(scorer(explanation, Trial.of(latent, active, []))).value
    assert values[PLANTED] is not None
    assert values[PLANTED] > 0.8
    assert values[5] == pytest.approx(0.5, abs=0.1)
