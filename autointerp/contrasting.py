"""Latents that tell two texts, or two sets of texts, apart: the contrasts of `sae.contrast`, both ways round.

Of sets, one half of either is for choosing and the other for judging, as in `autointerp.concept`: a latent that is
chosen among thousands for its contrast has a smaller one elsewhere.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from autointerp.concept import BATCH, read, split
from autointerp.prompt_findings import NOTHING, Contrasted, Step
from autointerp.statistics.intervals import CLOSED
from autointerp.statistics.metrics import Answers
from sae.contrast import Contrast, Summary, contrast
from store.errors import UsageError

if TYPE_CHECKING:
    from autointerp.subject import Subject

MIN_JUDGED = 4
"""Different texts that either set has to have for a half of them to be left for judging."""


def contrasted(subject: "Subject", a: Sequence[str], b: Sequence[str], **settings: int) -> Contrasted:
    """Read both sides and compare them; the settings and what is refused are those of `steps`."""
    *_, found = steps(subject, a, b, **settings)
    assert isinstance(found, Contrasted)
    return found


def steps(
    subject: "Subject", a: Sequence[str], b: Sequence[str], *, n: int = 30, seed: int = 0
) -> Iterator[Step | Contrasted]:
    """The same, batch by batch of texts; the last item is the comparison.

    Args:
        subject: model and dictionary.
        a: one text or more; those that are there twice count once.
        b: the others.
        n: latents of either side, by each contrast.
        seed: of who is chosen on.

    Raises:
        UsageError: a side without texts, a text on both, or one that does not fit the model's context.
    """
    sides = [sorted(set(side)) for side in (a, b)]
    for name, side in zip("AB", sides, strict=True):
        if not side:
            raise UsageError(f"{name} has no text: write at least one line")
    if both := set(sides[0]) & set(sides[1]):
        raise UsageError(f"'{min(both)[:60]}' is in A and in B: take it out of one of the two")
    n_texts, n_read, summaries = sum(map(len, sides)), 0, []
    for side in sides:
        parts = []
        for at in range(0, len(side), BATCH):
            yield Step(n_read, n_texts)
            parts.append(read(subject, side[at : at + BATCH])[0])
            n_read += len(parts[-1].n_tokens)
        summaries.append(Summary.cat(parts))
    yield _compared(sides, summaries, n, seed)


def _compared(sides: Sequence[list[str]], summaries: Sequence[Summary], n: int, seed: int) -> Contrasted:
    judged = min(map(len, sides)) >= MIN_JUDGED
    chosen_on = [split(side, 0.5, seed)[0] if judged else side for side in sides]
    on = [_of(summary, side, chosen) for summary, side, chosen in zip(summaries, sides, chosen_on, strict=True)]
    found = contrast(*on)
    latents = _first(found, n)
    rows = {"latent": latents, **{name: column[latents].numpy() for name, column in found._asdict().items()}}
    rest = [sorted(set(side) - set(chosen)) for side, chosen in zip(sides, chosen_on, strict=True)]
    held = [_of(summary, side, left) for summary, side, left in zip(summaries, sides, rest, strict=True)]
    return Contrasted(
        rows=pd.DataFrame(rows | _held(held, latents)),
        n_texts=(len(sides[0]), len(sides[1])),
        n_tokens=(int(summaries[0].n_tokens.sum()), int(summaries[1].n_tokens.sum())),
        n_held=(len(rest[0]), len(rest[1])),
    )


def _of(summary: Summary, texts: Sequence[str], some: Sequence[str]) -> Summary:
    """What of a summary of `texts` is of some of them."""
    wanted = set(some)
    return summary[[i for i, text in enumerate(texts) if text in wanted]]


def _first(found: Contrast, n: int) -> np.ndarray:
    """The latents that are among the `n` first, of either side, by one of the contrasts; ascending."""
    latents: set[int] = set()
    for by in NOTHING:
        score = getattr(found, by) - NOTHING[by]
        for side in (score, -score):
            order = side.argsort(descending=True, stable=True)[:n]
            latents |= set(order[side[order] > 0].tolist())
    return np.array(sorted(latents), np.int64)


def _held(held: Sequence[Summary], latents: np.ndarray) -> dict[str, np.ndarray]:
    """The contrasts of some latents on texts that they were not chosen on."""
    names = ("held_mean", "held_frequency", "held_auroc", "held_low", "held_high")
    if not all(len(side.n_tokens) for side in held):
        return {name: np.full(len(latents), np.nan) for name in names}
    found = contrast(*held)
    truth = np.repeat([1.0, 0.0], [len(side.n_tokens) for side in held])
    peaks = np.concatenate([side.peak[:, latents].numpy() for side in held])
    ends = np.array([CLOSED["auroc"](Answers(truth, peak)) for peak in peaks.T]).reshape(-1, 2)
    columns = [getattr(found, by)[latents].numpy() for by in ("mean", "frequency", "auroc")]
    return dict(zip(names, (*columns, ends[:, 0], ends[:, 1]), strict=True))
