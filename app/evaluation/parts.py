"""The table of parts: what each measures, in which settings, and which of its figures sum it up."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from activations.progress import Progress
from app.evaluation.absorption import AbsorptionConfig, measure_absorption
from app.evaluation.atoms import AtomsConfig, measure_atoms
from app.evaluation.comparable import RECOVERED
from app.evaluation.geometry import GeometryConfig, measure_geometry
from app.evaluation.itda import ItdaConfig, measure_itda
from app.evaluation.legacy import LegacyConfig, measure_legacy
from app.evaluation.loss import LossConfig, measure_loss
from app.evaluation.probing import ProbingConfig, measure_probing
from app.evaluation.reconstruction import ReconstructionConfig, measure_reconstruction
from app.evaluation.recovery import RecoveryConfig, measure_recovery
from app.evaluation.similarity import SimilarityConfig, measure_similarity
from app.evaluation.subject import Subject
from app.evaluation.targeted import TargetedConfig, measure_targeted
from store.figures import Measured

M = TypeVar("M")


@dataclass(frozen=True, kw_only=True)
class Part(Generic[M]):
    """One part of an evaluation; `M` is what it measures: a dictionary, or several against each other."""

    config: type[Any]
    """Its settings; has a `quick` preset."""
    measure: Callable[[Any, M, Progress], Measured]
    summary: str
    """What it measures, in a line."""
    version: int = 1
    """Raised when what it measures changes, so that earlier runs are not taken for it."""
    headline: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The figures that sum it up: how a run's results call them, and which they are."""


PARTS: dict[str, Part[Subject]] = {
    "reconstruction": Part(
        config=ReconstructionConfig,
        measure=measure_reconstruction,
        version=2,
        summary="FVU, cosine, norms, L0, density and dead latents, for each token class",
        headline={
            "fvu": {"metric": "fvu", "token_class": "normal"},
            "l0": {"metric": "l0", "token_class": "normal"},
            "n_dead": {"metric": "n_dead"},
        },
    ),
    "loss": Part(
        config=LossConfig,
        measure=measure_loss,
        version=2,
        summary="cross-entropy and KL divergence of the model with reconstructions spliced in, against two ablations",
        headline={
            "loss_recovered": {"metric": "loss_recovered", **RECOVERED},
            "kl_recovered": {"metric": "kl_recovered", **RECOVERED},
        },
    ),
    "legacy": Part(
        config=LegacyConfig,
        measure=measure_legacy,
        summary="other libraries' explained variances under their own names, to check published numbers",
        headline={"explained_variance": {"metric": "explained_variance"}},
    ),
    "geometry": Part(
        config=GeometryConfig,
        measure=measure_geometry,
        version=2,
        summary="how near decoder directions lie to each other, and how many dimensions they fill",
        headline={"nearest_cosine": {"metric": "nearest_cosine", "setting": "q=0.5"}},
    ),
    "atoms": Part(
        config=AtomsConfig,
        measure=measure_atoms,
        version=2,
        summary="sparse reconstruction, coherence under three inner products, and the share with unique sparse sums",
        headline={
            "uniqueness": {"metric": "uniqueness", "setting": "atomic"},
            "uniqueness_random": {"metric": "uniqueness", "setting": "atomic", "arm": "random"},
        },
    ),
    "probing": Part(
        config=ProbingConfig,
        version=2,
        measure=measure_probing,
        summary="how well a few latents tell labelled texts apart, against probes on the activations themselves",
        headline={
            "probe_k5": {"metric": "probe_balanced_accuracy", "setting": "mean k=5"},
            "probe_k5_random_latents": {
                "metric": "probe_balanced_accuracy",
                "setting": "mean k=5",
                "arm": "random_latents",
            },
            "probe_dense": {"metric": "probe_balanced_accuracy", "setting": "mean all", "arm": "dense"},
        },
    ),
    "targeted": Part(
        config=TargetedConfig,
        measure=measure_targeted,
        version=2,
        summary="what ablating a class's latents costs it and the others (TPP), and spurious correlations undone (SCR)",
    ),
    "absorption": Part(
        config=AbsorptionConfig,
        measure=measure_absorption,
        version=2,
        summary="latents that take over part of another's words, where the model can spell",
        headline={
            "absorption_full": {"metric": "absorption_full"},
            "absorption_full_random": {"metric": "absorption_full", "arm": "random_direction"},
        },
    ),
    "recovery": Part(
        config=RecoveryConfig,
        measure=measure_recovery,
        summary="planted features that the variant, with these settings, recovers on synthetic data",
        headline={"planted_mcc": {"metric": "planted_mcc"}},
    ),
    "itda": Part(
        config=ItdaConfig,
        measure=measure_itda,
        version=2,
        summary="what an ITDA keeps under matching pursuit and OMP, beside as many random activations",
        headline={
            "fvu": {"metric": "fvu", "token_class": "normal"},
            "fvu_random_activations": {"metric": "fvu", "token_class": "normal", "arm": "random activations"},
        },
    ),
}
"""Every part by the name that `--only` takes."""
ACROSS: dict[str, Part[Sequence[Subject]]] = {
    "similarity": Part(
        config=SimilarityConfig,
        measure=measure_similarity,
        version=2,
        summary="how alike every two dictionaries, and the activations they read, are",
    ),
}
"""Every part that takes two or more dictionaries."""
TABLE: dict[str, Part[Any]] = PARTS | ACROSS
"""All of them."""
