"""A text of one's own in a notebook: its tokens with what fires on each, what the SAE misses and what surprises."""

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from app.cards import escape, number, shade_scale, strongest_html, token_html, wrapped
from store.errors import UsageError

if TYPE_CHECKING:
    from app.inspection import Inspection
    from app.workbench import Workbench

TOP_SHOWN = 8
"""Latents listed below an inspected text."""
KNOWN = "SELECT latent, max, explanation FROM features WHERE latent IN (SELECT unnest(?::BIGINT[]))"


class Html(str):
    """HTML that a notebook shows as what it says; to everything else, a string."""

    def _repr_html_(self) -> str:
        return str(self)


@dataclass(frozen=True)
class InspectedText:
    """A text and the latents that fire on it; shown with its strongest latents."""

    workbench: "Workbench"
    """What it was put through."""
    inspection: "Inspection"
    """Every activation, token by token."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text's tokens, with the one the model puts in front."""
        return self.inspection.tokens

    @property
    def fvu(self) -> float | None:
        """Fraction of variance unexplained by the SAE on this text's normal tokens; None for fewer than two."""
        return self.inspection.fvu

    def values(self, latent: int) -> np.ndarray:
        """`[n_tokens]` activation of `latent`, 0 where it is silent.

        Raises:
            UsageError: there is no such latent.
        """
        number, last = latent_number(latent), self.workbench.d_sae - 1
        if not 0 <= number <= last:
            raise UsageError(f"there is no latent {number}: choose 0 to {last}")
        return self.inspection.values(number)

    def top(self, k: int | None = 10, by: Literal["value", "share", "quantile"] = "value") -> pd.DataFrame:
        """The strongest latents: `latent value share quantile token pos n_tokens explanation`; `token` and `pos` are
        its peak's.

        Args:
            k: how many at most; None for all.
            by: the `value` at the peak (on a normal token), or what `share` it is of the latent's maximum on the
                harvested text: above 1 where it never fired so strongly there, NaN (and last) where it never fired; or
                its `quantile` among the latent's own active values there.

        Raises:
            UsageError: `by` is none of them, or `k` is negative.
        """
        if by not in ("value", "share", "quantile"):
            raise UsageError(f"by={by!r} is no order of latents: choose value, share or quantile")
        peaks = self._peaks
        ordered = peaks if by == "value" else peaks.sort_values(by, ascending=False, kind="stable")
        return ordered.iloc[: count(k)].reset_index(drop=True)

    def per_token(self, n_latents: int = 3, by: Literal["value", "quantile"] = "value") -> pd.DataFrame:
        """A row a token: `pos token loss error fvu_part n_active`, and its strongest latents from `1` on, -1 for none.

        Args:
            n_latents: how many of them.
            by: their value there, or its quantile among the latent's own active values on the harvested text.

        Raises:
            UsageError: `by` is neither.
        """
        if by not in ("value", "quantile"):
            raise UsageError(f"by={by!r} is no order of latents: choose value or quantile")
        return self.inspection.per_token(n_latents, by)

    @cached_property
    def _peaks(self) -> pd.DataFrame:
        """Every latent that fires on a normal token, by value."""
        found = self.inspection.top(None)
        found.insert(2, "share", found["value"] / self._known["max"].to_numpy())
        return found.assign(explanation=self._known["explanation"].to_numpy())

    @cached_property
    def _known(self) -> pd.DataFrame:
        """What the index knows of them: `max`, NaN where there is none, and `explanation`."""
        latents = self.inspection.top(None)["latent"]
        known = self.workbench.index.sql(KNOWN, [latents.tolist()]).set_index("latent").loc[latents]
        return known.assign(max=known["max"].astype(float).where(known["max"] > 0))

    def matrix(self, latents: Iterable[int] | None = None) -> pd.DataFrame:
        """Activations as a data frame: a row a token (by `pos` and `token`), a column a latent.

        Args:
            latents: which, in this order; by default all that fire on a normal token, the strongest first.

        Raises:
            UsageError: there is no such latent.
        """
        chosen = [latent_number(each) for each in (self._peaks["latent"] if latents is None else latents)]
        columns = {each: self.values(each) for each in chosen}
        rows = pd.MultiIndex.from_arrays([range(len(self.tokens)), self.tokens], names=["pos", "token"])
        return pd.DataFrame(columns, index=rows).rename_axis(columns="latent")

    def tokens_html(self, latent: int | None = None) -> Html:
        """The tokens shaded by one latent, each saying its activation.

        Args:
            latent: which; without one, each normal token is shaded by the latent that comes nearest to its own maximum
                there, and says which that is.

        Raises:
            UsageError: there is no such latent.
        """
        if latent is not None:
            return Html(wrapped(self._shaded(latent_number(latent))))
        scales = np.fmax(self._peaks["value"], self._known["max"].to_numpy())
        return Html(wrapped(strongest_html(self.inspection, dict(zip(self._peaks["latent"], scales, strict=True)))))

    def _shaded(self, latent: int) -> str:
        page = self.workbench.page(latent)
        return token_html(self.tokens, self.inspection.values(latent), shade_scale(page, self.inspection))

    def _repr_html_(self) -> str:
        rows = [
            f'<div class="ms-context"><div class="ms-small">{_named(row)}</div>{self._shaded(row["latent"])}</div>'
            for row in self.top(TOP_SHOWN).to_dict("records")
        ]
        return wrapped(f'<div class="ms-small">FVU on this text {number(self.fvu)}</div>{"".join(rows)}')


def _named(row: dict[str, Any]) -> str:
    said = f" · {escape(row['explanation'])}" if isinstance(row["explanation"], str) else ""
    return f"latent {row['latent']}{said}"


def latent_number(given: Any) -> int:
    """A latent's number as the index has it: data frames hold numbers of other types."""
    try:
        return operator.index(given)
    except TypeError as error:
        raise UsageError(f"{given!r} is no latent: give its number, such as 12") from error


def count(k: int | None) -> int | None:
    """A number of rows; None for all."""
    if k is not None and k < 0:
        raise UsageError(f"k={k} is no number of rows: choose 0 or more, or None for all")
    return k
