"""The parts about directions: geometry, atoms and planted recovery, each beside its controls."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from app.evaluation.atoms import AtomsConfig, measure_atoms
from app.evaluation.geometry import GeometryConfig, measure_geometry
from app.evaluation.recovery import RecoveryConfig, measure_recovery, planted_config
from app.evaluation.subject import NotApplicable, Subject
from sae import VARIANTS
from sae.atoms import uniqueness_bound
from sae.geometry import CONTROLS
from store.figures import Measured, find
from store.run import list_runs

ARMS = {"sae", *CONTROLS}
MAPPED = {"transcoder": {"d_out": 6}, "skip_transcoder": {"d_out": 6}, "crosscoder": {"site_widths": (4, 4)}}


@pytest.fixture
def subject(tiny_root: Path) -> Subject:
    runs = {run.kind: run for run in list_runs(tiny_root)}
    return Subject(runs["sae"], runs["activations"])


def arms_of(measured: Measured, metric: str) -> set[str]:
    return {figure.arm for figure in measured.figures if figure.metric == metric}


@pytest.fixture
def atoms(subject) -> Measured:
    return measure_atoms(AtomsConfig(n_pursued=40), subject)


def test_every_geometry_figure_stands_beside_all_controls(subject):
    found = measure_geometry(GeometryConfig(), subject)
    for metric in {figure.metric for figure in found.figures}:
        assert arms_of(found, metric) == ARMS
    assert {curve.series for curve in found.curves if curve.plot == "nearest_cosine"} == ARMS
    assert {curve.series for curve in found.curves if curve.plot == "singular_spectrum"} == ARMS
    assert all(sum(curve.y) == pytest.approx(1) for curve in found.curves if curve.plot == "nearest_cosine")


def test_dead_latents_are_left_out_and_said_to_be(subject):
    alive = find(measure_geometry(GeometryConfig(), subject).figures, "effective_rank")
    with torch.no_grad():
        subject.sae.W_enc[:, :5] = 0.0
        subject.sae.b_enc[:5] = -1e6
    fewer = find(measure_geometry(GeometryConfig(), subject).figures, "effective_rank")
    assert fewer.n <= alive.n - 1
    assert "left out" in fewer.note


def test_a_dictionary_that_never_fires_has_no_geometry(subject):
    with torch.no_grad():
        subject.sae.b_enc.fill_(-1e9)
    for measure, cfg in ((measure_geometry, GeometryConfig()), (measure_atoms, AtomsConfig(n_pursued=40))):
        with pytest.raises(NotApplicable, match="latents fire"):
            measure(cfg, subject)


def test_no_q_star_without_its_l0_its_r2_and_its_controls(atoms):
    for setting in ("euclidean", "mean-centred", "atomic"):
        for arm in ARMS:
            figure = find(atoms.figures, "uniqueness", arm=arm, setting=setting)
            assert 0 <= figure.value <= 1
            assert "L0 median" in figure.note
            assert "R²" in figure.note


def test_atoms_figures_stand_beside_all_controls_and_curves_beside_their_bound(atoms):
    for metric in ("sparse_reconstruction", "coherence", "angle_mean", "angle_sd", "rip_bound", "uniqueness"):
        assert arms_of(atoms, metric) == ARMS
    series = {curve.series for curve in atoms.curves if curve.plot == "coherence"}
    assert {"bound at its L0: sae", "bound at its L0: neurons", "atomic: random", "euclidean: sae"} <= series


def test_the_encoders_r2_is_one_minus_its_fvu(subject, atoms):
    from sae.metrics import evaluate

    rows = subject.activations.rows("heldout", ("normal",))
    figure = find(atoms.figures, "sparse_reconstruction", setting="own encoder")
    assert figure.value == pytest.approx(1 - evaluate(subject.sae, rows.in_order()).fvu)
    assert figure.n == len(rows)
    assert figure.token_class == "normal"


def test_coordinates_have_an_l0_of_their_own_and_the_other_controls_the_dictionarys(atoms):
    own, full = (find(atoms.figures, "l0", arm=arm, setting="q=0.5").value for arm in ("sae", "neurons"))
    assert full > own
    rip = {arm: find(atoms.figures, "rip_bound", arm=arm, setting="euclidean").note for arm in ARMS}
    assert rip["random"] == rip["permuted"] == rip["sae"] != rip["neurons"]
    bound = next(curve for curve in atoms.curves if curve.series == "bound at its L0: sae")
    assert bound.y[-1] <= uniqueness_bound(own)


def test_more_atoms_explain_more(atoms):
    for curve in atoms.curves:
        if curve.plot == "sparse_reconstruction":
            assert list(curve.y) == sorted(curve.y)


def small(name: str) -> SimpleNamespace:
    cls = VARIANTS[name]
    settings = {"d_in": 8, "d_sae": 32} | MAPPED.get(name, {})
    known = {field.name for field in dataclasses.fields(cls.config_cls)}
    settings |= {key: value for key, value in {"k": 4, "target_l0": 4.0}.items() if key in known}
    return SimpleNamespace(sae=cls(cls.config_cls(**settings)), sae_run=SimpleNamespace(config={}))


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - set(MAPPED)))
def test_every_variant_that_reconstructs_has_recovery_with_controls(name):
    found = measure_recovery(RecoveryConfig(n_seeds=2, n_steps=20), small(name))
    for metric in ("planted_mcc", "planted_mmcs", "planted_n_recovered", "planted_f1", "planted_l0"):
        assert arms_of(found, metric) == {"sae", "random", "pca"}
        assert all("not of these weights" in figure.note for figure in found.figures)
    figure = find(found.figures, "planted_mcc")
    assert figure.low <= figure.value <= figure.high
    assert figure.n == 2


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_variants_that_map_elsewhere_have_none(name):
    with pytest.raises(NotApplicable, match="does not reconstruct"):
        measure_recovery(RecoveryConfig(n_steps=1), small(name))


def test_planted_settings_keep_what_has_no_size():
    cls = VARIANTS["matryoshka"]
    cfg = cls.config_cls(d_in=576, d_sae=4096, k=50, prefixes=(256, 1024), decoder_norm="free", keep="row", k_aux=100)
    found = planted_config(cfg)
    assert (found.d_in, found.d_sae, found.k, found.prefixes) == (32, 128, 4, (8, 32))
    assert (found.decoder_norm, found.keep, found.k_aux) == ("free", "row", None)


def test_planted_l1_costs_the_same_share():
    """λ sqrt(K / d_in): 576 dimensions are 18 times the planted world's 32."""
    found = planted_config(VARIANTS["relu"].config_cls(d_in=576, d_sae=4096, l1_coefficient=18.0))
    assert found.l1_coefficient == pytest.approx(18.0 / 18**0.5)


@pytest.mark.parametrize("cfg", [GeometryConfig, AtomsConfig, RecoveryConfig])
def test_quick_is_less_of_the_same(cfg):
    quick, full = dataclasses.asdict(cfg.quick()), dataclasses.asdict(cfg())
    assert quick != full
    assert all(quick[name] <= full[name] for name in full)
