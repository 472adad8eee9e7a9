"""Ways that were tried to take the core figures' losses in fewer passes' time, each against three bare passes.

Run from anywhere: `python bench/evaluate_ways.py`. Four sets of logits are needed: clean, spliced, and two ablations.
`evaluate_core` has what an evaluation does now, figures over rows included; here are the losses alone, on less text.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch

from activations import losses
from activations.batching import batches
from activations.harvest import harvest
from activations.lm import LanguageModel
from activations.models import DEFAULT_MODEL
from activations.prepare import heldout_sequences
from app.evaluation.loss import LossConfig, measure_loss
from app.evaluation.subject import Subject
from bench.evaluate_core import D_SAE, HOOK_POINT, N_TOKENS, bare_model, three_passes, trained
from bench.harness import Figure, main, paired, write
from bench.sides import N_THREADS, config

N_SEQUENCES = 6


def measure() -> bool:
    """Every way in pairs with the floor."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        activations = harvest(config(DEFAULT_MODEL, (HOOK_POINT,), "english", N_TOKENS), root)
        subject = Subject(trained(activations, root), activations)
        sequences = heldout_sequences(activations.folder, N_SEQUENCES, 0)
        jobs = [batch.tokens for batch in batches(sequences, LossConfig().batch_tokens)]
        floor = partial(three_passes, bare_model(), jobs)
        pairs = {}
        for name, way in WAYS.items():
            with way(subject.lm):
                pairs[name] = paired(partial(lose, subject), floor)
    figures = [Figure(f"{name} / three forward passes", pair.ratio, "ratio") for name, pair in pairs.items()]
    settings = {"model": DEFAULT_MODEL, "hook_point": HOOK_POINT, "d_sae": D_SAE, "n_tokens": sum(map(len, sequences))}
    return write("evaluate_ways", figures, **settings, n_threads=N_THREADS, **pairs)


def lose(subject: Subject) -> None:
    """Losses clean and under all edits."""
    measure_loss(LossConfig(n_sequences=N_SEQUENCES), subject)


@contextmanager
def whole(lm: LanguageModel) -> Iterator[None]:
    """Every pass from the embedding on."""
    from_here = partial(LanguageModel.logits_from, lm)
    with two_steps(lm), patch.object(lm, "logits_from", from_here):
        yield


@contextmanager
def two_steps(lm: LanguageModel) -> Iterator[None]:
    """A pass to the hook point, and the clean one begun there like the others."""
    with patch.object(lm, "capture_with_logits", partial(LanguageModel.capture_with_logits, lm)):
        yield


@contextmanager
def small_pieces(lm: LanguageModel) -> Iterator[None]:
    """As now, with logits looked at in a quarter of the pieces' size."""
    with patch.object(losses, "CHUNK_LOGITS", losses.CHUNK_LOGITS // 4):
        yield


@contextmanager
def as_now(lm: LanguageModel) -> Iterator[None]:
    """One whole pass, three begun at the hook point."""
    yield


WAYS: dict[str, Callable[[LanguageModel], AbstractContextManager[None]]] = {
    "four whole passes": whole,
    "a pass to the hook point, four begun there": two_steps,
    "a whole pass, three begun there, small pieces": small_pieces,
    "a whole pass, three begun there": as_now,
}


if __name__ == "__main__":
    main(measure)
