"""What is found on a prompt, as plain frozen types: effects of a latent, and what tells texts apart.

Apart from what finds it, so that whoever shows it need not load torch.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

NOTHING = {"frequency": 0.0, "mean": 0.0, "auroc": 0.5}
"""Contrasts that latents can be ranked by, and what they are of a latent that tells nothing."""


class Moved(NamedTuple):
    """A next token and its probability with the latent and without."""

    token_id: int
    token: str
    clean: float
    without: float


@dataclass(frozen=True)
class Change:
    """What taking a latent away does to the next token after one position."""

    loss: float
    """Change of the chosen token's loss, in nats: above 0, the latent made it likelier."""
    kl: float
    """KL(clean ‖ without) in nats."""
    up: tuple[Moved, ...]
    """Tokens whose probability rises most."""
    down: tuple[Moved, ...]


@dataclass(frozen=True)
class Effects:
    """What a latent does on one token of a text."""

    latent: int
    pos: int
    everywhere: bool
    """Whether it was set to 0 on every token, in the full effect."""
    target: str
    """The chosen next token."""
    activation: float
    """Of the latent on the token."""
    clean_loss: float
    """Of the chosen token, in nats, as the model is."""
    full: Change
    n_altered: int
    """Tokens on which the full effect's pass was changed: those on which the latent fires, but the first and sinks."""
    loss_change: np.ndarray
    """`[n_tokens]` change of every token's own loss in that pass, in nats; NaN of the first."""
    direct: Change | None
    """None where there is none to be told, for the reason in `no_direct`."""
    logit: float | None
    """What the latent's write adds to the chosen token's logit, less its mean over the vocabulary."""
    no_direct: str


@dataclass(frozen=True)
class Contrasted:
    """Latents of two sides, A and B."""

    rows: pd.DataFrame
    """A row for each latent that is among the first of a side by one of `NOTHING`: `latent`; `mean` and `frequency`,
    those of A less those of B; `auroc` of A against B by a text's highest value; `of_tokens`, `of_other_tokens`,
    `of_texts`, `of_other_texts`, all on the texts that it was chosen on. And on the others `held_mean held_frequency
    held_auroc`, and the last one's 95% interval, `held_low held_high`; NaN where no texts are left for that."""
    n_texts: tuple[int, int]
    """Different texts of A and of B."""
    n_tokens: tuple[int, int]
    """Normal tokens of all of them."""
    n_held: tuple[int, int]
    """Texts that were left for judging: 0 where either side has too few."""

    def ranked(self, by: str, *, more_in_a: bool, n: int | None = None) -> pd.DataFrame:
        """The rows of latents with more in A, or in B, the highest contrast first."""
        score = (1 if more_in_a else -1) * (self.rows[by].to_numpy() - NOTHING[by])
        order = np.argsort(-score, kind="stable")
        return self.rows.iloc[order[score[order] > 0][:n]].reset_index(drop=True)


class Step(NamedTuple):
    """How far a comparison is."""

    n_read: int
    n_texts: int
