"""The simulated latents of benchmarks: what is planted in them is there, and nothing else tells active from silent."""

import json

import numpy as np
import pytest

from autointerp.llm.planted import Planted, n_found
from autointerp.prompts import quote
from autointerp.prompts.output_intervention import CHOOSE
from bench.planted_latents import FAMILY, shuffled, trial, word_of

N_LATENTS = 4 * FAMILY


def test_a_latent_fires_where_its_word_is_and_nowhere_else():
    for item in trial(7, N_LATENTS, 20).items:
        own = [bool(n_found([word_of(7)], token)) for token in item.window.tokens]
        assert own == [value > 0 for value in item.window.values]
        assert any(own) == item.active


def test_neighbours_fire_where_the_latent_is_silent_and_are_no_ones_null():
    given = trial(7, N_LATENTS, 2)
    assert len(given.neighbours) == 3
    for each in given.neighbours:
        assert each.latent // FAMILY != 7 // FAMILY
        assert all(not n_found([word_of(7)], window.text) for window in each.windows)


def test_a_shuffled_explanation_is_of_another_latent_of_the_family():
    others = shuffled(N_LATENTS)
    assert sorted(others) == list(range(N_LATENTS))
    assert all(a != b and a // FAMILY == b // FAMILY for a, b in enumerate(others))
    with pytest.raises(ValueError, match="whole families"):
        shuffled(N_LATENTS + 1)


def test_the_word_of_the_null_is_as_common_in_active_contexts_as_in_silent_ones():
    n_each = 2000
    items = trial(7, N_LATENTS, n_each).items
    n_active, n_silent = (
        sum(bool(n_found([word_of(8)], item.window.text)) for item in items if item.active == active)
        for active in (True, False)
    )
    share = (n_active + n_silent) / n_each / 2
    assert 0.2 < share < 0.35
    assert abs(n_active - n_silent) / n_each < 3.3 * np.sqrt(2 * share * (1 - share) / n_each)


def test_the_planted_judge_chooses_the_model_that_wrote_the_word():
    said = {"A": "a b", "B": "a w3", "C": "b"}
    models = "\n\n".join(f"Model {letter}\n{quote(text)}" for letter, text in said.items())
    request = CHOOSE.request(max_tokens=9, description=quote("the word “w3”"), models=models)
    assert json.loads(Planted(tpr=1.0)(request)) == {"model": "B"}
