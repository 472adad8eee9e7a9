"""SAEBench's core metrics, recorded from SAEBench itself: where its formula is right both agree, and where not, why.

`python bench/evaluate_saebench.py --fixture` makes the files; `bench/results/evaluate_saebench.json` has larger ones.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from bench.evaluate_saebench import FIXTURE, compared, explained, off, ours
from sae.convert import read
from sae.metrics import StreamingEvaluation

FIGURES = dict(compared(FIXTURE))


@pytest.fixture(scope="module")
def theirs() -> dict:
    return json.loads((FIXTURE / "saebench.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def seen() -> dict[str, torch.Tensor]:
    return load_file(FIXTURE / "seen.safetensors")


@pytest.mark.parametrize("name", FIGURES)
def test_both_agree_to_one_in_ten_thousand(name: str):
    assert FIGURES[name] <= 1e-4


def test_enough_is_compared(theirs, seen):
    sae = read(FIXTURE, "saelens").sae
    assert len(ours(sae, seen)) == 12
    assert len(explained(sae, seen)) == 4
    assert theirs["ce_loss_with_ablation"] > theirs["ce_loss_with_sae"] > theirs["ce_loss_without_sae"]


def test_saebenchs_wrong_formulas_are_far_from_the_true_figures(theirs, seen):
    """So that agreeing with them by other names is no accident: the model's residual stream has a mean."""
    rows = StreamingEvaluation(read(FIXTURE, "saelens").sae)
    x = seen["x"].flatten(0, 1)
    rows.update(x)
    true = rows.value()
    assert theirs["explained_variance"] - (1 - true.fvu) > 0.05
    assert abs(theirs["explained_variance_legacy"] - (1 - true.fvu)) > 2e-4
    n_of_a_batch = len(x) // int(seen["n_batches"])
    assert theirs["mse"] * n_of_a_batch == pytest.approx(rows.fvu.residual / len(x), rel=1e-4)


def test_how_far_apart_numbers_are_is_relative_and_the_worst_of_a_list():
    assert off([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
