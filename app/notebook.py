"""The workbench in a notebook: features, inspected texts and steered texts that show themselves as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.cards import escape, feature_card_html, number, shade_scale, steering_html, token_html, wrapped
from app.figures import activation_histogram
from store.feature_index import FeatureIndex
from store.latents import LatentPage

if TYPE_CHECKING:
    from app.steered import Steering
    from app.workbench import Inspection, Workbench
    from autointerp.steer_config import SteerConfig

TOP_SHOWN = 8
"""Latents listed below an inspected text."""


def open_workbench(root: Path | str = "runs", index: str = "latest") -> "NotebookWorkbench":
    """Open the index `index` under `root`; nothing is loaded into a model until text is inspected or steered.

    Raises:
        UsageError: there is no such index.
    """
    from app.workbench import Workbench

    return NotebookWorkbench(Workbench.open(root, index))


@dataclass(frozen=True)
class NotebookWorkbench:
    """A workbench whose answers show themselves."""

    workbench: "Workbench"

    @property
    def index(self) -> FeatureIndex:
        """The feature index, for SQL of your own: `wb.index.sql("SELECT ...")`."""
        return self.workbench.index

    def features(
        self, where: str = "true", order_by: str = "density DESC", limit: int = 100, offset: int = 0
    ) -> pd.DataFrame:
        """Rows of the `features` view that satisfy the SQL condition `where`."""
        return self.workbench.features(where, order_by, limit, offset)

    def feature(self, latent: int) -> "Feature":
        """One latent.

        Raises:
            UsageError: there is no such latent.
        """
        return Feature(self.workbench, self.workbench.page(latent))

    def inspect(self, text: str) -> "InspectedText":
        """Which latents fire on each token of `text`."""
        return InspectedText(self.workbench, self.workbench.inspect(text))

    def steer(
        self,
        prompt: str,
        latent: "int | Sequence[int] | Sequence[SteerConfig]",
        strength: float = 1.0,
        **options: Any,
    ) -> "SteeredText":
        """`prompt` continued twice from one seed: as the model is, and with edits in place.

        Args:
            prompt: what to continue.
            latent: which latent to clamp, several, or edits of your own.
            strength: in multiples of its 99.9% quantile; 0 ablates it.
            options: `n_tokens`, `temperature`, `seed` and `chat`, and the edit's `op`, `when`, `condition`, `above` and
                `decode`, as `Workbench.steer` has them.
        """
        return SteeredText(self.workbench.steer(prompt, latent, strength, **options))

    def _repr_html_(self) -> str:
        bench = self.workbench
        return wrapped(
            f"<b>{escape(bench.model_name)}</b> at <code>{escape(bench.hook_point)}</code>: "
            f"{bench.d_sae:,} latents, index <code>{escape(bench.run.id)}</code>"
        )


@dataclass(frozen=True)
class Feature:
    """One latent; shown as its card."""

    workbench: "Workbench"
    page: LatentPage

    def contexts(self, band: str | None = None) -> pd.DataFrame:
        """Its stored contexts, one a row, strongest band first."""
        columns = ("band", "value", "text", "source", "title", "doc_id", "split")
        windows = self.workbench.windows(self.page.latent, band)
        return pd.DataFrame([{name: getattr(window, name) for name in columns} for window in windows], columns=columns)

    def histogram(self, marker: float | None = None) -> go.Figure:
        """Its active values; `marker` points one out."""
        return activation_histogram(self.page, marker)

    def logits(self) -> pd.DataFrame:
        """Tokens that its decoder direction promotes (`top`) and suppresses (`bottom`)."""
        sides = (("top", self.page.promoted), ("bottom", self.page.suppressed))
        rows = [(side, logit.token, logit.value, logit.token_id) for side, logits in sides for logit in logits]
        return pd.DataFrame(rows, columns=["side", "token", "value", "token_id"])

    def explanations(self) -> pd.DataFrame:
        """Its explanations, with who made each and how."""
        return pd.DataFrame(self.page.explanations)

    def scores(self) -> pd.DataFrame:
        """Scores of its explanations; `arm` tells a score from its shuffled null."""
        return pd.DataFrame(self.page.scores)

    def _repr_html_(self) -> str:
        return feature_card_html(self.page, self.workbench.windows(self.page.latent))


@dataclass(frozen=True)
class InspectedText:
    """A text and the latents that fire on it; shown with its strongest latents."""

    workbench: "Workbench"
    inspection: "Inspection"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text's tokens, with the one the model puts in front."""
        return self.inspection.tokens

    @property
    def fvu(self) -> float | None:
        """Fraction of variance unexplained by the SAE on this text's normal tokens; None for fewer than two."""
        return self.inspection.fvu

    def values(self, latent: int) -> np.ndarray:
        """One activation of `latent` for each token."""
        return self.inspection.values(latent)

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` strongest latents, each with its highest value on a normal token and where that is."""
        return self.inspection.top(k)

    def tokens_html(self, latent: int) -> str:
        """The tokens shaded by one latent."""
        values = self.values(latent)
        return token_html(self.tokens, values, shade_scale(self.workbench.page(latent), self.inspection))

    def _repr_html_(self) -> str:
        latents = [int(latent) for latent in self.top(TOP_SHOWN)["latent"]]
        rows = [
            f'<div class="ms-context"><div class="ms-small">latent {latent}</div>{self.tokens_html(latent)}</div>'
            for latent in latents
        ]
        return wrapped(f'<div class="ms-small">FVU on this text {number(self.fvu)}</div>{"".join(rows)}')


@dataclass(frozen=True)
class SteeredText:
    """Two continuations of one prompt; shown side by side."""

    steering: "Steering"

    def _repr_html_(self) -> str:
        return wrapped(steering_html(self.steering))
