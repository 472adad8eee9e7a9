"""Feature absorption: a latent for "begins with S" is silent on some words, whose own latents carry S in its place.

Chanin et al. 2024, arXiv:2409.14507. Truth is a logistic probe p for each letter on the activations at the word. Main
latents of a letter are those that a k-sparse probe needs. A word that p gets right is absorbed when all main latents
are silent and the latent with the largest a_i · (W_dec[i] · p̂) has cos(W_dec[i], p̂) >= 0.025 and carries at least 0.4
of the word's projection (x − b_dec) · p̂. The fraction lets up to three latents with cosine >= 0.1 share the work, and
counts words where the main latents are only weaker than they should be.

Where SAEBench 0.6 differs: it takes main latents by an L1 probe and adds them while the F1 **on the test words** grows
by 0.03; letters are kept by the probe's F1 on the test words. Here latents are ranked by class-mean difference, and
both choices are made by cross-validation among training words. Its projections are of raw x, here of x − b_dec, which
is what latents add up to. A letter's words share no stem (first four letters) between training and test.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from sae.probe_scores import Told, text_weights, told
from sae.probes import Prepared, Probe, fit_prepared, out_of_fold, prepare
from sae.probing import mean_difference
from sae.threads import one_blas_thread

MIN_F1 = 0.6
"""Of a letter's probe, across folds of the training words: below it the model does not say which letter it is."""
MIN_WORDS = 20
"""Test words of a letter."""
MIN_LETTERS = 5
"""Letters that must qualify before a rate is given."""
F1_GAIN = 0.03
"""A further main latent has to bring this much."""
MAX_MAIN = 10
MIN_MAIN_F1 = 0.5
"""Of the main latents, mean over letters: below it they tell too few words for their silence to mean anything."""
FULL_COSINE, FRACTION_COSINE = 0.025, 0.1
MIN_SHARE = 0.4
"""Of the projection, for whatever stands in for the main latents."""
MAX_ABSORBERS = 3
SILENT = 1e-8


class Words(NamedTuple):
    """Words at the token where the model reads them."""

    x: Float[np.ndarray, "n d_in"]
    latents: sparse.csr_array
    """`[n, d_sae]`"""
    letters: Int[np.ndarray, " n"]
    """0 for a."""
    stems: Int[np.ndarray, " n"]
    """Words of one stem are never in two folds."""

    def take(self, rows: np.ndarray) -> "Words":
        """Some of the words."""
        return Words(self.x[rows], self.latents[rows], self.letters[rows], self.stems[rows])


class Decoder(NamedTuple):
    """The dictionary's side."""

    W_dec: Float[np.ndarray, "d_sae d_in"]
    b_dec: Float[np.ndarray, " d_in"]


@dataclass(frozen=True)
class Letter:
    """What training words say about a letter."""

    letter: int
    probe: Probe
    f1: float
    """Of the probe, across folds of the training words."""
    main: Int[np.ndarray, " n_main"]
    main_f1: float
    """Of the k-sparse probe on the main latents, across the same folds."""

    @property
    def able(self) -> bool:
        """Whether the model tells this letter well enough."""
        return self.f1 > MIN_F1


@dataclass(frozen=True)
class Absorption:
    """One arm on the test words."""

    arm: str
    n_letters: int
    n_words: int
    """True positives of the probes."""
    full: Told
    """Mean over letters of the share of words that one latent absorbs."""
    fraction: Told
    """Mean over letters of the mean absorption fraction."""
    main_silent: Told
    """Mean over letters of the share of words on which all main latents are silent."""


@one_blas_thread
def fit_letters(train: Words, decoder: Decoder, seed: int) -> tuple[Letter, ...]:
    """Probes and main latents of every letter with enough training words; no test word is seen."""
    features, norms = prepare(train.x), np.linalg.norm(decoder.W_dec, axis=1)
    letters = [i for i in np.unique(train.letters) if (train.letters == i).sum() >= MIN_WORDS]
    return tuple(_fit_letter(train, int(letter), features, norms, seed) for letter in letters)


def qualified(letters: tuple[Letter, ...], test: Words) -> tuple[Letter, ...]:
    """Letters that the model tells, with enough test words."""
    return tuple(one for one in letters if one.able and (test.letters == one.letter).sum() >= MIN_WORDS)


def measure(
    letters: tuple[Letter, ...], test: Words, decoder: Decoder, directions: np.ndarray, arm: str, seed: int
) -> Absorption:
    """Absorption along one direction for each letter.

    Args:
        letters: those that qualify, at least one.
        test: test words.
        decoder: of the dictionary.
        directions: `[n_letters, d_in]` the letters' probes, or what a control puts in their place.
        arm: what they are.
        seed: of the intervals.
    """
    full, fraction, silent, words = [], [], [], 0
    for one, direction in zip(letters, directions, strict=True):
        right = np.flatnonzero((test.letters == one.letter) & (one.probe.scores(test.x) > 0))
        some = test.take(right)
        found = _of_words(some, decoder, one.main, direction / np.linalg.norm(direction))
        words += len(right)
        if len(right):
            weights = text_weights(some.stems, seed)
            for values, into in zip(found, (full, fraction, silent), strict=True):
                into.append(weights @ values / weights.sum(axis=1))
    return Absorption(arm, len(letters), words, *(_mean_told(each) for each in (full, fraction, silent)))


def probe_directions(letters: tuple[Letter, ...]) -> Float[np.ndarray, "n_letters d_in"]:
    """The letters' own probes."""
    return np.stack([one.probe.weight for one in letters])


def mean_main_f1(letters: tuple[Letter, ...]) -> float:
    """How well main latents tell their letters, mean over letters, at least one."""
    return float(np.mean([one.main_f1 for one in letters]))


def f1_score(says: np.ndarray, wanted: np.ndarray) -> float:
    """2 · hits / (said + wanted); 0 where nothing is said."""
    return 2 * float((says & wanted).sum()) / max(float(says.sum() + wanted.sum()), 1.0)


def _fit_letter(train: Words, letter: int, features: Prepared, norms: np.ndarray, seed: int) -> Letter:
    wanted = train.letters == letter
    probe = fit_prepared(features, wanted, train.stems, seed)
    f1 = f1_score(out_of_fold(features, wanted, train.stems, seed, probe.strength) > 0, wanted)
    return Letter(letter, probe, f1, *_main_latents(train, wanted, norms, seed))


def _main_latents(train: Words, wanted: np.ndarray, norms: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Latents that are more active on the letter, taken while the k-sparse probe's F1 grows, and that F1."""
    ranked = np.argsort(-mean_difference(train.latents, wanted) * norms, kind="stable")[:MAX_MAIN]
    best, n_main = -1.0, 0
    for k in range(1, len(ranked) + 1):
        features = prepare(train.latents, ranked[:k])
        f1 = f1_score(out_of_fold(features, wanted, train.stems, seed, 1.0) > 0, wanted)
        if f1 <= best + F1_GAIN:
            break
        best, n_main = f1, k
    return ranked[:n_main], best


def _of_words(words: Words, decoder: Decoder, main: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, ...]:
    """For each word, whether it is fully absorbed, its absorption fraction, and whether the main latents are silent."""
    along = decoder.W_dec @ unit
    cosines = along / np.maximum(np.linalg.norm(decoder.W_dec, axis=1), SILENT)
    latents = words.latents.toarray()
    carried, projection = latents * along, (words.x - decoder.b_dec) @ unit
    silent = (np.abs(latents[:, main]) < SILENT).all(axis=1)
    top = carried.argmax(axis=1)
    each = np.arange(len(latents))
    full = silent & (projection > 0) & (cosines[top] >= FULL_COSINE) & (carried[each, top] >= MIN_SHARE * projection)
    others = np.where(cosines >= FRACTION_COSINE, np.maximum(carried, 0), 0)
    others[:, main] = 0
    absorbers = np.sort(others, axis=1)[:, -MAX_ABSORBERS:].sum(axis=1)
    return full.astype(float), _fraction(carried[:, main].sum(axis=1), absorbers, projection), silent.astype(float)


def _fraction(main: np.ndarray, absorbers: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """How much of what the main latents should carry others carry: SAEBench's absorption fraction."""
    taken = np.minimum(absorbers, projection - main)
    none = (projection <= 0) | (main >= projection) | (absorbers < MIN_SHARE * projection)
    part = np.divide(taken, taken + main, out=np.ones_like(main), where=main > 0)
    return np.where(none, 0.0, np.clip(part, 0, 1))


def _mean_told(by_letter: list[np.ndarray]) -> Told:
    """Of letters with intervals and without: an interval only where all have one."""
    if not by_letter:
        return Told(None)
    shortest = min(len(each) for each in by_letter)
    return told(np.mean([each[:shortest] for each in by_letter], axis=0))
