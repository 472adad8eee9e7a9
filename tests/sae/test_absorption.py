"""Absorption: a dictionary that absorbs on purpose is told from one that does not."""

from functools import cache

import numpy as np
import pytest
from scipy import sparse

from sae.absorption import (
    MIN_MAIN_F1,
    Absorption,
    Decoder,
    Letter,
    Words,
    fit_letters,
    mean_main_f1,
    measure,
    probe_directions,
    qualified,
)

N_LETTERS, N_OWN, D_IN, ABSORBED = 4, 21, 60, 0.25
D_SAE = N_LETTERS + N_LETTERS * N_OWN + 20


def dictionary() -> np.ndarray:
    """Latent j is letter j, then each letter has latents of single words that lean towards it, then 20 of no letter."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.standard_normal((D_IN, D_IN)))[0]
    letters, rest = basis[:N_LETTERS], basis[N_LETTERS:]
    own = random.standard_normal((D_SAE - N_LETTERS, len(rest))) @ rest
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    leaning = np.repeat(letters, N_OWN, axis=0)
    own[: len(leaning)] = (leaning + own[: len(leaning)]) / np.sqrt(2)
    return np.concatenate([letters, own])


DECODER = Decoder(dictionary(), np.full(D_IN, 0.3))


def words(n: int, seed: int, *, absorbing: bool) -> Words:
    """Every fourth word is absorbed: its letter latent is silent, and a latent of its own carries the letter."""
    random, W_dec = np.random.default_rng(seed), dictionary()
    letters, each = np.arange(n) % N_LETTERS, np.arange(n)
    absorbed = absorbing & ((each // N_LETTERS) % round(1 / ABSORBED) == 0)
    values = np.zeros((n, D_SAE))
    values[each, letters] = np.where(absorbed, 0, random.uniform(0.9, 1.1, n))
    own = N_LETTERS + letters * N_OWN + (each // N_LETTERS) % N_OWN
    values[each, own] = np.where(absorbed, np.sqrt(2), 0)
    values[each, D_SAE - 20 + random.integers(0, 20, n)] = 0.5
    x = values @ W_dec + 0.02 * random.standard_normal((n, D_IN)) + 0.3
    return Words(x, sparse.csr_array(values), letters, each)


@cache
def fitted(*, absorbing: bool) -> tuple[Letter, ...]:
    return fit_letters(words(320, 1, absorbing=absorbing), DECODER, 0)


def measured(*, absorbing: bool, turn: int = 0) -> Absorption:
    test = words(160, 2, absorbing=absorbing)
    letters = qualified(fitted(absorbing=absorbing), test)
    assert len(letters) == N_LETTERS
    return measure(letters, test, DECODER, np.roll(probe_directions(letters), turn, axis=0), "sae", 0)


def test_the_planted_rate_is_found() -> None:
    found = measured(absorbing=True)
    assert found.full.value == pytest.approx(ABSORBED, abs=0.02)
    assert found.fraction.value == pytest.approx(ABSORBED, abs=0.05)
    assert found.main_silent.value == pytest.approx(ABSORBED, abs=0.02)
    assert found.full.low is not None


def test_a_clean_dictionary_absorbs_nothing() -> None:
    found = measured(absorbing=False)
    assert found.full.value == 0
    assert found.fraction.value == pytest.approx(0, abs=0.01)


def test_another_letters_probe_finds_no_absorption() -> None:
    found = measured(absorbing=True, turn=1)
    assert found.full.value == pytest.approx(0, abs=0.05)


def test_random_activations_tell_no_letter() -> None:
    random = np.random.default_rng(0)
    noise = words(160, 1, absorbing=False)._replace(x=random.standard_normal((160, D_IN)))
    letters = fit_letters(noise, Decoder(dictionary(), np.zeros(D_IN)), 0)
    assert not qualified(letters, noise)


def test_main_latents_are_the_planted_ones() -> None:
    assert [one.main.tolist() for one in fitted(absorbing=True)] == [[i] for i in range(N_LETTERS)]


def test_main_latents_of_an_empty_dictionary_tell_nothing() -> None:
    assert mean_main_f1(fitted(absorbing=True)) > 0.8
    train = words(320, 1, absorbing=True)
    nothing = train._replace(latents=sparse.csr_array(train.latents.shape))
    assert mean_main_f1(fit_letters(nothing, DECODER, 0)) < MIN_MAIN_F1


def test_a_seed_decides_the_letters() -> None:
    train = words(160, 1, absorbing=True)
    one, two = (fit_letters(train, DECODER, 0) for _ in range(2))
    assert all(np.array_equal(a.main, b.main) and a.f1 == b.f1 for a, b in zip(one, two, strict=True))


def test_other_test_letters_change_nothing_before_measuring() -> None:
    test = words(160, 2, absorbing=True)
    other = test._replace(letters=np.roll(test.letters, 1))
    scores = [[one.probe.scores(each.x) for one in fitted(absorbing=True)] for each in (test, other)]
    assert np.array_equal(*scores)
