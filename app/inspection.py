"""`Inspection`: one text through model and dictionary, token by token and latent by latent."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from store.shards import TOKEN_CLASSES

By = Literal["value", "quantile"]


@dataclass(frozen=True)
class Inspection:
    """One text through model and dictionary."""

    tokens: tuple[str, ...]
    """BOS first where the model has one."""
    token_ids: tuple[int, ...]
    token_class: tuple[int, ...]
    """As `store.shards.TOKEN_CLASSES`: sinks and special tokens are encoded too, but did not train the dictionary."""
    latent: np.ndarray
    """`[n_events]`: which latent fired."""
    pos: np.ndarray
    """`[n_events]`: on which token."""
    value: np.ndarray
    """`[n_events]`: how strongly."""
    quantile: np.ndarray
    """`[n_events]`: share of the latent's own active values on the indexed text that are at or below it, read off its
    histogram and quantiles (`store.quantiles`); NaN where it never fired there."""
    error: np.ndarray
    """`[n_tokens]` ‖x − x̂‖² / ‖x‖², the part of the activation that the dictionary does not rebuild."""
    fvu_part: np.ndarray
    """`[n_tokens]` ‖x − x̂‖² in units of the variance of normal tokens: its mean over those is `fvu`. NaN where that is
    None."""
    loss: np.ndarray
    """`[n_tokens]` nats: − log of the probability that the model gave the token, from those before it. NaN of the
    first, and of all where losses were not asked for."""
    fvu: float | None
    """Reconstruction error over the text's normal tokens as a share of their variance; None for fewer than two."""

    @property
    def normal(self) -> np.ndarray:
        """`[n_tokens]` whether each token is of the class that trains dictionaries."""
        return np.array(self.token_class) == TOKEN_CLASSES["normal"]

    def values(self, latent: int) -> np.ndarray:
        """`[n_tokens]` activation of one latent, 0 where it is silent."""
        out = np.zeros(len(self.tokens))
        here = self.latent == latent
        out[self.pos[here]] = self.value[here]
        return out

    def top(self, k: int | None = 10, by: By = "value") -> pd.DataFrame:
        """The `k` strongest latents by their highest value on a normal token, a row a latent:
        `latent value quantile token pos n_tokens`, of its peak.

        Args:
            k: how many at most; None for all.
            by: the `value` at the peak, or its `quantile` among the latent's own active values; ties by value, latents
                that never fired on the indexed text last.
        """
        normal = self.normal[self.pos]
        latent, pos, value = self.latent[normal], self.pos[normal], self.value[normal]
        quantile = self.quantile[normal]
        found, n_tokens = np.unique(latent, return_counts=True)
        strongest = np.lexsort((-value, latent))[np.searchsorted(np.sort(latent), found)]
        chosen = _order(value[strongest], quantile[strongest], by)[:k]
        peak = strongest[chosen]
        return pd.DataFrame(
            {
                "latent": latent[peak],
                "value": value[peak],
                "quantile": quantile[peak],
                "token": [self.tokens[place] for place in pos[peak]],
                "pos": pos[peak],
                "n_tokens": n_tokens[chosen],
            }
        )

    def at(self, pos: int, k: int | None = None, by: By = "value") -> pd.DataFrame:
        """The `k` strongest latents on one token of whatever class, a row a latent: `latent value quantile token pos`.

        Args:
            pos: which token.
            k: how many at most; None for all.
            by: as `top` has it.
        """
        here = np.flatnonzero(self.pos == pos)
        here = here[_order(self.value[here], self.quantile[here], by)][:k]
        columns = {"latent": self.latent[here], "value": self.value[here], "quantile": self.quantile[here]}
        return pd.DataFrame(columns).assign(token=self.tokens[pos], pos=pos)

    def per_token(self, n_latents: int = 3, by: By = "value") -> pd.DataFrame:
        """A row a token: `pos token loss error fvu_part n_active`, and its strongest latents from `1` on, -1 for none.

        Args:
            n_latents: how many of them.
            by: as `top` has it.
        """
        # Within a token, the strongest first.
        order = _order(self.value, self.quantile, by)
        order = order[np.argsort(self.pos[order], kind="stable")]
        n_active = np.bincount(self.pos, minlength=len(self.tokens))
        first = np.concatenate([[0], np.cumsum(n_active)[:-1]])
        strongest = {}
        for rank in range(n_latents):
            strongest[str(rank + 1)] = np.full(len(self.tokens), -1)
            has = n_active > rank
            strongest[str(rank + 1)][has] = self.latent[order[first[has] + rank]]
        columns = {"loss": self.loss, "error": self.error, "fvu_part": self.fvu_part, "n_active": n_active}
        return pd.DataFrame({"pos": range(len(self.tokens)), "token": self.tokens, **columns, **strongest})


def _order(value: np.ndarray, quantile: np.ndarray, by: By) -> np.ndarray:
    """Of events, the strongest first; what has no quantile last."""
    if by == "value":
        return np.argsort(-value, kind="stable")
    return np.lexsort((-value, -np.nan_to_num(quantile, nan=-1.0)))
