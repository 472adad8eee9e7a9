"""The job that builds an ITDA from a harvest: what it stores, and what its atoms are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from activations.reader import Activations
from app.itda_training import ItdaJob, train_itda
from sae import checkpoint
from sae.itda import ITDA
from sae.itda_build import BuildConfig
from store.errors import UsageError
from store.run import Run, find_run
from store.shards import float_rows

HOOK = "blocks.1.hook_resid_post"
BUILD = BuildConfig(k=4, target_cos=0.95, n_seed=8)


@pytest.fixture
def harvested(tiny_root: Path) -> Run:
    return find_run(tiny_root, "latest", "activations")


@pytest.fixture
def built(harvested: Run, tmp_path: Path) -> Run:
    return train_itda(ItdaJob(build=BUILD, hook_point=HOOK, batch_size=100), harvested, tmp_path)


def loaded(run: Run) -> ITDA:
    itda = checkpoint.load(run.folder)
    assert isinstance(itda, ITDA)
    return itda


def test_every_atom_is_a_row_of_the_training_split_at_its_place(built: Run, harvested: Run):
    itda, activations = loaded(built), Activations(harvested, HOOK)
    selection, found = activations.rows("train").selection, {}
    for block in activations.blocks:
        opened = block.open()
        rows = selection.of(opened.columns)
        names = ("seq", "pos", "doc_id", "token_id")
        labels = zip(*(opened.columns[name][rows].tolist() for name in names), strict=True)
        found |= dict(zip(labels, float_rows(opened.vectors, activations.dtype, rows), strict=True))
    labels = zip(*(column.tolist() for column in itda.places), strict=True)
    truth = torch.stack([found[label] for label in labels])
    torch.testing.assert_close(itda.W_dec.data, torch.nn.functional.normalize(truth, dim=1))
    assert (itda.atom_pos > 0).all()
    assert not activations.heldout_docs[itda.atom_doc.numpy()].any()


def test_results_put_the_control_beside_the_dictionary(built: Run):
    found = built.results
    assert built.finished
    assert found["d_sae"] == loaded(built).cfg.d_sae > 8
    assert found["heldout_rows"] > 0
    assert 0 < found["heldout_fvu"] < 1
    assert 0 < found["heldout_fvu_random_atoms"] < 1
    assert 0 < found["heldout_l0"] <= 4
    lines = [json.loads(line) for line in (built.folder / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["n_atoms"] == found["d_sae"]
    assert lines[-1]["n_tokens"] == found["n_rows"]


def test_the_same_job_elsewhere_gives_the_same_bytes(built: Run, harvested: Run, tmp_path: Path):
    again = train_itda(ItdaJob(build=BUILD, hook_point=HOOK, batch_size=100), harvested, tmp_path / "other")
    assert again.id == built.id
    assert again.results == built.results
    assert (again.folder / "sae.safetensors").read_bytes() == (built.folder / "sae.safetensors").read_bytes()


def test_the_same_job_is_not_done_twice(built: Run, harvested: Run):
    job = ItdaJob(build=BUILD, hook_point=HOOK, batch_size=100)
    assert train_itda(job, harvested, built.root).reused


def test_a_number_of_tokens_is_a_limit(harvested: Run, tmp_path: Path):
    run = train_itda(ItdaJob(build=BUILD, hook_point=HOOK, n_tokens=300, n_heldout=70), harvested, tmp_path)
    assert run.results["n_rows"] == run.results["n_tokens"] == 300
    assert run.results["heldout_rows"] == 70


def test_centring_subtracts_the_mean_of_the_training_split(harvested: Run, tmp_path: Path):
    job = ItdaJob(build=BuildConfig(k=4, n_seed=8, centre=True), hook_point=HOOK)
    itda = loaded(train_itda(job, harvested, tmp_path))
    mean = Activations(harvested, HOOK).moments("train", ("normal",)).mean
    assert np.allclose(itda.b_dec.numpy(), mean, atol=1e-6)


def test_no_matching_row_is_the_persons_to_mend(harvested: Run, tmp_path: Path):
    with pytest.raises(UsageError, match="choose other token classes"):
        train_itda(ItdaJob(build=BUILD, hook_point=HOOK, classes=("role",)), harvested, tmp_path)


@pytest.mark.parametrize("name", ["batch_size", "n_tokens", "n_heldout"])
def test_counts_that_are_none_are_refused(name: str):
    with pytest.raises(ValueError, match=f"{name}=0"):
        ItdaJob(build=BUILD, hook_point=HOOK, **{name: 0})
