"""The workbench in a notebook: features, inspected texts and steered texts that show themselves as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from app.cards import (
    bands_html,
    escape,
    feature_card_html,
    wrapped,
)
from app.figures import activation_histogram
from app.notebook_steering import FoundConcept, SteeredText
from app.notebook_text import Html, InspectedText, count, latent_number
from store.confined import Parameters
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index_tables import SCHEMAS
from store.latents import LatentPage, Window

if TYPE_CHECKING:
    from app.workbench import Workbench
    from autointerp.steer_config import SteerConfig

EXAMPLES = ("band", "value", "token", "text", "source", "title", "doc_id", "seq", "pos", "split")
"""Columns of `Feature.examples`."""


def open_workbench(root: Path | str = "runs", index: str = "latest") -> "NotebookWorkbench":
    """Open an index under `root`; no model is loaded until text is inspected or steered.

    Args:
        root: the folder of all runs.
        index: an id, the start of one, a folder, or `latest`.

    Raises:
        UsageError: there is no such index.
    """
    from app.workbench import Workbench

    return NotebookWorkbench(Workbench.open(root, index))


@dataclass(frozen=True)
class NotebookWorkbench:
    """A workbench whose answers show themselves."""

    workbench: "Workbench"
    """What answers; `app.workbench.Workbench` has the rest it can be asked."""

    @property
    def index(self) -> FeatureIndex:
        """The feature index, for its events and for Arrow tables."""
        return self.workbench.index

    def features(
        self, where: str = "", order_by: str | None = None, limit: int | None = None, offset: int | None = None
    ) -> pd.DataFrame:
        """Rows of the `features` view, one a latent, by density and 100 of them unless asked otherwise.

        Args:
            where: an SQL condition over its columns, and after it, if wanted, ORDER BY, LIMIT and OFFSET:
                `"density < .01 order by score desc limit 20"`.
            order_by: columns to sort by; ties are in the order of the latents' numbers.
            limit: rows at most.
            offset: rows to leave out before them.

        Raises:
            UsageError: DuckDB refuses it, with its own words; or a clause stands in `where` and beside it.
        """
        return self.workbench.features(where, order_by, limit, offset)

    def sql(self, query: str, parameters: Parameters = None) -> pd.DataFrame:
        """Rows of one SELECT over the tables of the index: read-only, and in sight of nothing but its own files.

        Args:
            query: in DuckDB's dialect; docs/schema.md has the tables and their columns.
            parameters: for its placeholders.

        Raises:
            UsageError: it is no single SELECT, DESCRIBE or SHOW, or DuckDB refuses it, with its own words.
        """
        return self.workbench.sql(query, parameters)

    def search(self, query: str, by: str = "text", n: int = 20) -> pd.DataFrame:
        """The latents that have most to do with `query`, best first.

        Args:
            query: words, or a text.
            by: `text` (a text that they fire on), `token`, `explanation` or `meaning`; docs/search.md has each.
            n: how many at most.

        Raises:
            UsageError: the query is none, or there is no such way to search.
        """
        return self.workbench.search(query, by, n)

    def feature(self, latent: int) -> "Feature":
        """One latent, shown as its card.

        Args:
            latent: its number, as a column `latent` has it.

        Raises:
            UsageError: there is no such latent.
        """
        return Feature(self.workbench, self.workbench.page(latent_number(latent)))

    def inspect(self, text: str, *, chat: bool = False, losses: bool = True) -> InspectedText:
        """Which latents fire on each token of `text`, what the SAE misses there and how it surprises; the model is
        loaded the first time.

        Args:
            text: to read.
            chat: put it through the model's chat template.
            losses: find each token's loss, too, which takes the whole model.

        Raises:
            UsageError: there is no text, more than the model's context, or no chat template.
        """
        return InspectedText(self.workbench, self.workbench.inspect(text, chat=chat, losses=losses))

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

        Raises:
            UsageError: no prompt or one that does not fit, a latent that there is not or that never fired and so has no
                unit of strength, an edit that there is none of, or one that leaves no finite logits.
        """
        return SteeredText(self.workbench.steer(prompt, latent, strength, **options), self.workbench)

    def concept(self, concept: Sequence[str], other: Sequence[str], **settings: Any) -> "FoundConcept":
        """Latents that fire on texts with a concept and not on others, chosen on half of them.

        Args:
            concept: texts with it.
            other: texts without, and else alike.
            settings: `by`, `n_latents`, `max_other` and `min_texts`, as `sae.contrast.ChoiceConfig` has them.

        Raises:
            UsageError: too few texts, no latent is allowed, or there is no such setting.
        """
        return FoundConcept(self.workbench.concept(concept, other, **settings), self.workbench)

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
    """What it is of."""
    page: LatentPage
    """All that is stored of it but its contexts."""

    @property
    def latent(self) -> int:
        """Its number."""
        return self.page.latent

    def examples(self, k: int | None = None, band: str | None = None) -> pd.DataFrame:
        """Its stored contexts, one a row: `band value token text source title doc_id seq pos split`.

        Args:
            k: how many at most, the strongest first; None for all.
            band: only those of this band: `top`; `q1` (weakest) to `q4`, of equal counts; `v1` to `v4`, of equal widths
                of value; `near` (misses, by pre-activation); `silent`.

        Raises:
            UsageError: there is no such band, or `k` is negative.
        """
        rows = [
            (
                each.band,
                each.value,
                each.tokens[each.peak],
                each.text,
                each.source,
                each.title,
                each.doc_id,
                each.seq,
                each.start + each.peak,
                each.split,
            )
            for each in self._examples(k, band)
        ]
        return pd.DataFrame(rows, columns=list(EXAMPLES))

    def examples_html(self, k: int | None = None, band: str | None = None) -> Html:
        """The same contexts with their tokens shaded, below the names of their bands.

        Raises:
            UsageError: as `examples`.
        """
        bands = {window.band for window in self.workbench.windows(self.latent)}
        shown = bands_html(self.page, self._examples(k, band), bands)
        return Html(wrapped(shown or '<div class="ms-small">no such contexts stored</div>'))

    def _examples(self, k: int | None, band: str | None) -> list[Window]:
        found = self.workbench.windows(self.latent, band)
        if band is not None and not found:
            bands = self.workbench.index.sql("SELECT DISTINCT band FROM contexts ORDER BY band")["band"]
            if band not in set(bands):
                raise UsageError(f"there is no band {band!r}: choose one of {', '.join(bands)}")
        return found[: count(k)]

    def histogram(self, marker: float | None = None) -> go.Figure:
        """Its active values as a Plotly figure, counts on a log axis.

        Args:
            marker: a value to point out, such as its highest on a text of your own.
        """
        return activation_histogram(self.page, marker)

    def logits(self) -> pd.DataFrame:
        """Tokens that its decoder direction promotes (`top`) and suppresses (`bottom`): `side token value token_id`."""
        sides = (("top", self.page.promoted), ("bottom", self.page.suppressed))
        rows = [(side, logit.token, logit.value, logit.token_id) for side, logits in sides for logit in logits]
        return pd.DataFrame(rows, columns=["side", "token", "value", "token_id"])

    def explanations(self) -> pd.DataFrame:
        """Its explanations with who made each and how: the table `explanations` of docs/schema.md."""
        return pd.DataFrame(self.page.explanations, columns=SCHEMAS["explanations"].names)

    def scores(self) -> pd.DataFrame:
        """Scores of its explanations, the table `scores` of docs/schema.md; `arm` tells a score from its nulls."""
        return pd.DataFrame(self.page.scores, columns=SCHEMAS["scores"].names)

    def _repr_html_(self) -> str:
        return feature_card_html(self.page, self.workbench.windows(self.latent))
