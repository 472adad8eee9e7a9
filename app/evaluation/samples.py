"""Rows that parts measure on: some held-out ones with their documents, and which latents fire at all."""

from collections.abc import Iterator

import torch
from torch import Tensor

from activations.progress import Progress
from activations.reader import RowSet
from activations.text_order import Placed, in_text_order
from app.evaluation.subject import NotApplicable, Subject
from sae.metrics import StreamingFiring

NORMAL = "normal"
"""The token class that parts about directions look at: a sink's norm would decide every second moment alone."""
BATCH = 8192


def heldout_rows(subject: Subject, n_rows: int) -> Placed:
    """Held-out rows of the normal class in text order, `n_rows` or as many as there are.

    Raises:
        NotApplicable: there are none.
    """
    found = next(in_text_order(subject.activations.rows("heldout", (NORMAL,)), n_rows, n_rows), None)
    if found is None:
        raise NotApplicable(f"harvest {subject.activations_run.id} has no held-out row of class normal: harvest more")
    return found


def first_rows(rows: RowSet, n_rows: int) -> Iterator[Tensor]:
    """Batches of the rows as stored, `n_rows` or as many as there are."""
    left = n_rows
    for x in rows.in_order(BATCH):
        yield x[:left]
        left -= len(x)
        if left <= 0:
            return


@torch.no_grad()
def firing(subject: Subject, n_rows: int, progress: Progress) -> StreamingFiring:
    """How often each latent fires on rows of both splits, of the classes the dictionary was trained on."""
    seen = StreamingFiring(subject.sae.cfg.d_sae)
    rows = first_rows(subject.activations.rows("all", subject.run_classes), n_rows)
    for x in progress(rows, n_rows, "look which latents fire", weigh=len):
        seen.update(subject.sae.encode(x.to(subject.sae.W_dec)))
    return seen
