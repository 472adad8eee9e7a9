"""Steering in a notebook: texts side by side, latents that stand for a concept, and what an edit does and costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from app.cards import escape, steering_html, wrapped
from app.sweeping import plots
from app.sweeping.view import COLUMNS, OTHER_COLUMNS, other_rows, remarks, rows, snippet
from app.tables import table_html
from autointerp.steer_config import SteerConfig
from store.errors import UsageError
from store.run import Run
from store.swept import Swept

if TYPE_CHECKING:
    from app.steered import Steering
    from app.workbench import Workbench
    from autointerp.concept import Concept


@dataclass(frozen=True)
class SteeredText:
    """Two continuations of one prompt; shown side by side."""

    steering: "Steering"
    """Both texts, their tokens, and where the activation was changed."""
    workbench: "Workbench"
    """Whose model it is."""

    def sweep(
        self, *, prompts: Sequence[str], retain: Sequence[str], words: Sequence[str], **settings: Any
    ) -> "SweptEdit":
        """What the same edit does and costs, at several strengths and beside controls.

        Args:
            prompts: what is continued.
            retain: texts that should be left alone.
            words: the concept's: the effect is the probability that the next token begins one.
            settings: as `autointerp.sweep.SweepConfig` has them: `strengths`, `tiers`, `n_draws`, `n_seeds`, ….

        Raises:
            UsageError: several edits at once, a text that does not fit, or a setting that there is none of.
        """
        if len(self.steering.edits) != 1:
            raise UsageError(f"{len(self.steering.edits)} edits are in place, a sweep is of one: steer with one")
        (edit,) = self.steering.edits
        if not isinstance(edit, SteerConfig):
            raise UsageError("a vector of your own is in place, a sweep is of latents: steer with some")
        return swept(self.workbench, edit, prompts=prompts, retain=retain, words=words, **settings)

    def _repr_html_(self) -> str:
        return wrapped(steering_html(self.steering))


@dataclass(frozen=True)
class FoundConcept:
    """Latents that stand for a concept, and the texts that they were not chosen on; shown as a table."""

    found: "Concept"
    """Latents, contrasts and texts, as `autointerp.concept.choose` gives them."""
    workbench: "Workbench"
    """Whose model it is."""

    @property
    def latents(self) -> list[int]:
        """Highest contrast first."""
        return self.found.latents

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row a latent: contrasts, and on what share of tokens and texts it fires."""
        of = {name: getattr(self.found.found, name)[self.latents].tolist() for name in self.found.found._fields}
        return pd.DataFrame({"latent": self.latents, **of})

    def sweep(
        self, *, prompts: Sequence[str], words: Sequence[str], op: str = "ablate", **settings: Any
    ) -> "SweptEdit":
        """What an edit of these latents does and costs, on texts that they were not chosen on.

        Args:
            prompts: what is continued; none of the texts given to `concept`.
            words: the concept's.
            op: `clamp`, `add`, `scale`, `ablate` or `project_out`.
            settings: as `autointerp.sweep.SweepConfig` has them; `retain` is the other texts that were held out.

        Raises:
            UsageError: a text does not fit, or there is no such setting.
        """
        edit = SteerConfig(latents=tuple(self.latents), op=op)
        retain = settings.pop("retain", self.found.other)
        return swept(self.workbench, edit, prompts=prompts, retain=retain, words=words, **settings)

    def _repr_html_(self) -> str:
        held = f"{len(self.found.concept):,} texts with it and {len(self.found.other):,} without were not looked at"
        return wrapped(f'{table_html(self.table.round(4))}<div class="ms-small">{held}</div>')


@dataclass(frozen=True)
class SweptEdit:
    """What an edit did and cost; shown as its main table."""

    run: Run
    """The finished sweep."""

    @property
    def effects(self) -> list[dict[str, Any]]:
        """By tier and strength: the effect, what controls do, and the cost."""
        return self.run.results["effects"]

    @property
    def summary(self) -> pd.DataFrame:
        """Every arm, strength, tier and measure, with intervals over texts."""
        return self.sql("SELECT * FROM summary ORDER BY tier, strength, arm, draw, measure")

    @property
    def texts(self) -> pd.DataFrame:
        """What was written."""
        return self.sql("SELECT * FROM texts ORDER BY item, seed, arm, tier, strength, draw")

    @property
    def snippet(self) -> str:
        """The same sweep in Python, in full."""
        return snippet(self.run)

    def sql(self, query: str) -> pd.DataFrame:
        """Rows of one SELECT over `measures`, `summary`, `texts` and `moved`.

        Raises:
            UsageError: DuckDB refuses the query.
        """
        return Swept(self.run.folder).sql(query)

    def figure(self, tier: str = "always", measure: str = "mass") -> go.Figure:
        """A measure above the clean model's against strength, with every control.

        Raises:
            UsageError: nothing was measured in that tier, or no such measure.
        """
        found = self.summary
        found = found.loc[found["measure"] == measure]
        if tier not in set(found["tier"]):
            raise UsageError(
                f"no {measure} in tier '{tier}': there is {', '.join(sorted(set(self.summary['measure'])))}"
            )
        return plots.against_strength(found, tier, f"{measure} above clean")

    def _repr_html_(self) -> str:
        table = pd.DataFrame(rows(self.run.results), columns=list(COLUMNS))
        lines = "".join(f"<div>{escape(line)}</div>" for line in remarks(self.run.results))
        written = pd.DataFrame(other_rows(self.run.results), columns=list(OTHER_COLUMNS))
        tables = "".join(table_html(each) for each in (table, written) if len(each))
        return wrapped(f'{tables}<div class="ms-small">{lines}</div>')


def swept(workbench: "Workbench", edit: SteerConfig, **settings: Any) -> SweptEdit:
    """Measure an edit; `settings` are those of `autointerp.sweep.SweepConfig`.

    Raises:
        UsageError: there is no such setting, or one that cannot be.
    """
    from autointerp.sweep import SweepConfig

    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }
    try:
        cfg = SweepConfig(edit=edit, **given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{error}") from error
    return SweptEdit(workbench.sweep(cfg))
