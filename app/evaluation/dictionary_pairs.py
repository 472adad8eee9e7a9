"""How alike two dictionaries are: the tokens that two ITDAs chose, and the decoder rows of any two of one width."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from activations.progress import no_progress
from app.evaluation.samples import firing
from app.evaluation.subject import Subject
from app.evaluation.told import Told, Way
from app.itda_training import recorded_job
from sae.decoder_match import DecoderMatch, match_decoders, random_alike
from sae.geometry import random_like
from sae.intervals import Interval, ratio_interval
from sae.itda import ITDA
from sae.itda_overlap import Chosen, Overlap, chosen_tokens, jaccard, seed_tokens
from store.figures import SAE_ARM

CHANCE = "chance"
RANDOM_ACTIVATIONS = "random activations"
RANDOM = "random"
RANDOM_ALIKE = "random, same covariance"
ADJUSTED_ARMS = (SAE_ARM, RANDOM_ACTIVATIONS)
OVERLAPS = ("jaccard", "jaccard_beyond_seeds")
"""Of all atoms, and of those that were chosen because the ones before missed them."""


def compare_tokens(a: Subject, b: Subject, control: ITDA | None) -> Iterator[Told]:
    """Jaccard of the tokens that two ITDAs chose, beside chance and beside as many random activations as `a` has."""
    if not (isinstance(a.sae, ITDA) and isinstance(b.sae, ITDA) and control is not None):
        yield from _no_overlap(OVERLAPS, "only ITDAs know which tokens their latents are")
        return
    seeds = seed_tokens(a.sae, b.sae, (_n_seed(a), _n_seed(b)))
    for metric, without in zip(OVERLAPS, (None, seeds), strict=True):
        try:
            found, of_control = jaccard(a.sae, b.sae, without), jaccard(control, b.sae, without)
        except ValueError as error:
            yield from _no_overlap([metric], str(error))
            continue
        yield from _overlap(metric, found, of_control, chosen_tokens(a.sae, b.sae, without))


def _n_seed(subject: Subject) -> int:
    """How many atoms an ITDA began with."""
    return recorded_job(subject.sae_run).build.n_seed or subject.sae.cfg.d_in


def _no_overlap(metrics: Sequence[str], reason: str) -> Iterator[Told]:
    for metric in metrics:
        for name, arms in ((metric, (SAE_ARM, CHANCE, RANDOM_ACTIVATIONS)), (f"{metric}_adjusted", ADJUSTED_ARMS)):
            for arm in arms:
                yield Told(metric=name, value=None, n=0, n_of="tokens", arm=arm, note=reason)


def _overlap(metric: str, found: Overlap, of_control: Overlap, chosen: Chosen) -> Iterator[Told]:
    interval = _interval(chosen)
    note = "too few documents for an interval" if interval is None else "95 % interval over documents"
    n, chance = len(chosen.doc_id), found.chance

    def told(name: str, arm: str, value: float | None, between: Interval | None = None, why: str = "") -> Told:
        low, high = between or (None, None)
        why = why if value is not None else "chance alone makes the sets equal"
        return Told(metric=name, value=value, n=n, n_of="tokens", arm=arm, low=low, high=high, note=why)

    yield told(metric, SAE_ARM, found.jaccard, interval, note)
    yield told(metric, CHANCE, chance)
    yield told(metric, RANDOM_ACTIVATIONS, of_control.jaccard)
    adjusted = None if interval is None or chance >= 1 else Interval(*((b - chance) / (1 - chance) for b in interval))
    yield told(f"{metric}_adjusted", SAE_ARM, found.adjusted, adjusted, note)
    yield told(f"{metric}_adjusted", RANDOM_ACTIVATIONS, of_control.adjusted)


def _interval(chosen: Chosen) -> Interval | None:
    """Of the Jaccard, over documents."""
    _, which = np.unique(chosen.doc_id.numpy(), return_inverse=True)
    return ratio_interval(np.bincount(which, chosen.by_both.numpy()), np.bincount(which))


class Live(NamedTuple):
    """A dictionary's live directions."""

    directions: Float[Tensor, "n d_in"]
    n_dead: int
    """Latents left out."""


@torch.no_grad()
def live_directions(subject: Subject, n_rows: int) -> Live:
    """Decoder rows of latents that fire on some of `n_rows` rows and are not zero."""
    rows = subject.sae.W_dec.detach()
    alive = firing(subject, n_rows, no_progress).counts > 0
    kept = rows[alive.to(rows.device) & (torch.linalg.vector_norm(rows, dim=1) > 0)]
    return Live(kept, len(rows) - len(kept))


def compare_decoders(a: Live, b: Live, partner_cos: float, max_paired: int, seed: int) -> Iterator[Told]:
    """Cosines of live decoder rows, with `b` as it is and with random directions in its place."""
    rows_a, rows_b = a.directions, b.directions
    reason = ""
    if rows_a.shape[1] != rows_b.shape[1]:
        reason = f"decoder rows of width {rows_a.shape[1]} and {rows_b.shape[1]} have no cosine"
    elif min(len(rows_a), len(rows_b)) < 2:
        reason = f"{len(rows_a)} and {len(rows_b)} live latents: there are no directions to compare"
    if reason:
        for arm in (SAE_ARM, RANDOM, RANDOM_ALIKE):
            yield from _decoders(None, arm, reason)
        return
    generator = torch.Generator().manual_seed(seed)
    sides: dict[str, Tensor] = {
        SAE_ARM: rows_b,
        RANDOM: random_like(rows_b, generator),
        RANDOM_ALIKE: random_alike(rows_b, generator),
    }
    is_small = max(len(rows_a), len(rows_b)) <= max_paired
    note = f"partner: cosine >= {partner_cos}; {a.n_dead} and {b.n_dead} dead latents left out"
    for arm, rows in sides.items():
        found = match_decoders(rows_a, rows, partner_cos, one_to_one=is_small)
        yield from _decoders(found, arm, note, f"more than {max_paired} latents")


def _decoders(found: DecoderMatch | None, arm: str, note: str, unpaired: str = "") -> Iterator[Told]:
    pairs = found.one_to_one if found else None
    n_a, n_b, n_pairs = found.n_a if found else 0, found.n_b if found else 0, pairs.n_pairs if pairs else 0
    rows: list[tuple[str, float | None, int, Way]] = [
        ("best_cosine", found.mean_best_a if found else None, n_a, "forth"),
        ("best_cosine", found.mean_best_b if found else None, n_b, "back"),
        ("share_with_partner", found.share_a if found else None, n_a, "forth"),
        ("share_with_partner", found.share_b if found else None, n_b, "back"),
        ("paired_cosine", pairs.mean if pairs else None, n_pairs, "both"),
        ("paired_share", pairs.share if pairs else None, n_pairs, "both"),
    ]
    for metric, value, n, way in rows:
        why = unpaired if found and value is None else note
        yield Told(metric=metric, value=value, n=n, n_of="latents", arm=arm, way=way, note=why)
