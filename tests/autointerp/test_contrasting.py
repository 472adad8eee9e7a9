"""Contrasts of two texts and of two sets of texts, on the tiny model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from app.workbench import Workbench
from autointerp.concept import read
from autointerp.contrasting import MIN_JUDGED, contrasted, steps
from autointerp.prompt_findings import NOTHING, Contrasted, Step
from autointerp.subject import Subject
from sae.contrast import contrast
from store.errors import UsageError

A = [f"{word} {word.upper()}!" for word in ("ship", "harbour", "sail", "tide", "mast", "anchor", "rope", "deck")]
B = [f"def {word}(x): return x" for word in ("sort", "head", "tail", "map", "fold", "scan", "zip", "take")]


@pytest.fixture(scope="module")
def subject(tiny_root: Path) -> Subject:
    return Workbench.open(tiny_root)._subject


def test_two_texts_are_compared_as_they_are(subject: Subject):
    found = contrasted(subject, A[:1], B[:1])
    assert (found.n_texts, found.n_held) == ((1, 1), (0, 0))
    true = contrast(read(subject, A[:1])[0], read(subject, B[:1])[0])
    for name in true._fields:
        assert found.rows[name].to_numpy() == pytest.approx(
            getattr(true, name)[found.rows["latent"].to_numpy()].numpy()
        )
    assert found.rows[["held_auroc", "held_low", "held_mean"]].isna().to_numpy().all()


@pytest.mark.parametrize("by", list(NOTHING))
def test_the_first_of_either_side_are_those_of_the_highest_contrast(subject: Subject, by: str):
    found = contrasted(subject, A[:2], B[:3], n=5)
    true = getattr(contrast(read(subject, A[:2])[0], read(subject, B[:3])[0]), by) - NOTHING[by]
    for more_in_a, sign in ((True, 1), (False, -1)):
        ranked = found.ranked(by, more_in_a=more_in_a, n=5)
        best = torch.topk(sign * true, 5).values.clamp(min=0)
        assert (sign * (ranked[by] - NOTHING[by])).tolist() == pytest.approx(best[best > 0].tolist())


def test_of_sets_a_half_is_left_for_judging(subject: Subject):
    found = contrasted(subject, A, B)
    assert (found.n_texts, found.n_held) == ((8, 8), (4, 4))
    rows = found.rows
    low, auroc, high = (rows[f"held_{name}"].to_numpy() for name in ("low", "auroc", "high"))
    assert ((low <= auroc) & (auroc <= high)).all()
    again = contrasted(subject, A[::-1], [*B, *B])
    assert again.rows.equals(rows), "neither the order of lines nor a line that is there twice matters"
    assert not contrasted(subject, A, B, seed=1).rows.equals(rows)


def test_a_side_with_few_texts_leaves_none_for_judging(subject: Subject):
    assert contrasted(subject, A, B[: MIN_JUDGED - 1]).n_held == (0, 0)


def test_the_sides_are_each_others_mirror(subject: Subject):
    one, other = contrasted(subject, A[:3], B[:3]), contrasted(subject, B[:3], A[:3])
    for by, nothing in NOTHING.items():
        forth, back = one.ranked(by, more_in_a=True), other.ranked(by, more_in_a=False)
        assert forth[by].to_numpy() - nothing == pytest.approx(nothing - back[by].to_numpy())


def test_it_can_be_stopped_between_batches(subject: Subject):
    many = [f"text {i}" for i in range(40)]
    found = list(steps(subject, many, B))
    told = [step for step in found[:-1] if isinstance(step, Step)]
    assert [step.n_read for step in told] == [0, 16, 32, 40]
    assert {step.n_texts for step in told} == {48}
    assert isinstance(found[-1], Contrasted)
    assert np.isfinite(found[-1].rows["held_auroc"]).all()


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([], B, "A has no text"),
        (A, [], "B has no text"),
        (A, [*B, A[2]], "'sail SAIL!' is in A and in B"),
        (A, ["b" * 900], "the text has 901 tokens, the model reads 512"),
    ],
)
def test_what_cannot_be_compared_is_one_line(subject: Subject, a: list[str], b: list[str], said: str):
    with pytest.raises(UsageError, match=said):
        contrasted(subject, a, b)
