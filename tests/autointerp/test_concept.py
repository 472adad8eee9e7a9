"""Latents of a concept are chosen on texts that nothing is measured on, from normal tokens alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autointerp.concept import ConceptConfig, choose, read, split
from autointerp.subject import Subject
from sae.contrast import ChoiceConfig
from store.errors import UsageError
from store.run import find_run
from store.shards import TOKEN_CLASSES

CONCEPT = ("the moon rose", "a pale moon hung there", "moon moon", "full moon tonight", "no moon")
OTHER = ("it rained", "we ate bread", "home again", "no", "a b c")
CFG = ConceptConfig(choice=ChoiceConfig(n_latents=4, max_other=0.5))


@pytest.fixture(scope="module")
def subject(tiny_root: Path) -> Subject:
    return Subject.open(find_run(tiny_root, "latest", "index"), tiny_root)


@given(st.lists(st.text(min_size=1), min_size=2, unique=True, max_size=30), st.floats(0.05, 0.95), st.integers(0, 99))
def test_a_split_has_every_text_on_one_side_and_no_side_empty(texts: list[str], share: float, seed: int):
    one, other = split([*texts, *texts[:3]], share, seed)
    assert sorted([*one, *other]) == sorted(texts)
    assert one
    assert other
    assert split(texts, share, seed) == (one, other), "twice in the list or once, in whatever order"


def test_what_is_read_is_each_text_alone_on_its_normal_tokens(subject: Subject):
    found, mean = read(subject, CONCEPT)
    rows = []
    for i, text in enumerate(CONCEPT):
        ids = subject.ids(text)
        x = subject.rows(ids)
        normal = torch.from_numpy(subject.classes(ids, x.norm(dim=1).numpy()) == TOKEN_CLASSES["normal"])
        z = subject.sae.encode(x[normal]).dense()
        torch.testing.assert_close(found.peak[i], z.max(0).values, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.total[i], z.sum(0), atol=1e-4, rtol=1e-4)
        assert found.n_tokens[i] == int(normal.sum()) < len(ids), "the first is none"
        rows.append(x[normal])
    torch.testing.assert_close(mean, torch.cat(rows).double().mean(0), atol=1e-6, rtol=1e-4)


def test_latents_are_those_of_one_half_and_the_other_is_given_back(subject: Subject):
    found = choose(subject, CONCEPT, OTHER, CFG)
    seen = set(CONCEPT) - set(found.concept), set(OTHER) - set(found.other)
    assert all(seen)
    again = choose(subject, [*seen[0], *found.concept], [*seen[1], *found.other], CFG)
    assert again.latents == found.latents
    assert len(found.latents) <= 4
    (with_it, with_mean), (without, other_mean) = (read(subject, sorted(texts)) for texts in seen)
    rate = with_it.n_fired.sum(0) / with_it.n_tokens.sum() - without.n_fired.sum(0) / without.n_tokens.sum()
    np.testing.assert_allclose(found.found.frequency, rate, atol=1e-6)
    torch.testing.assert_close(found.direction, with_mean - other_mean, atol=1e-6, rtol=1e-4)
    chosen = found.found.frequency[found.latents].tolist()
    assert chosen == sorted(chosen, reverse=True)


@pytest.mark.parametrize(
    ("concept", "other", "said"),
    [
        (CONCEPT, (*OTHER, "moon moon"), "'moon moon' is with the concept and without it"),
        (CONCEPT, OTHER[:1], "1 different texts cannot be chosen on and judged on"),
        (CONCEPT, ("x" * 600, "y"), "the model reads 512"),
    ],
)
def test_texts_that_cannot_be_chosen_on_are_one_line(subject: Subject, concept: tuple, other: tuple, said: str):
    with pytest.raises(UsageError, match=said):
        choose(subject, concept, other, CFG)


def test_a_concept_without_a_latent_says_what_to_do(subject: Subject):
    strict = ConceptConfig(choice=ChoiceConfig(max_other=0.0, min_texts=1.0))
    with pytest.raises(UsageError, match=r"no latent fires in 100% of \d texts .* or raise --max-other"):
        choose(subject, CONCEPT, tuple(f"{text}!" for text in CONCEPT), strict)


def test_a_share_that_leaves_a_side_empty_is_refused():
    with pytest.raises(ValueError, match="leaves one side no texts"):
        ConceptConfig(select_share=1.0)
