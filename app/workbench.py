"""`Workbench`: a published index with its model and dictionary, asked by notebook, dashboard and command line."""

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from app.evaluation.evaluated import Evaluated, evaluations_of
from app.feature_query import features_query
from app.inspection import Inspection
from store.confined import Parameters
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.latents import LatentPage, Window, latent_page, windows
from store.quantiles import own_quantiles
from store.run import Run, find_run

if TYPE_CHECKING:
    from app.steered import Side, Steering, Token
    from autointerp.concept import Concept
    from autointerp.prompt_findings import Contrasted, Effects, Step
    from autointerp.search import Searcher
    from autointerp.steer_config import SteerEdit
    from autointerp.subject import Subject
    from autointerp.sweep import Measured, SweepConfig


class Workbench:
    """A dictionary, its index and its model. The model is loaded when it is first needed, and used by one at a time.

    Of an index that was imported, or whose dictionary or harvest is gone, all is there that needs neither.
    """

    def __init__(self, run: Run) -> None:
        """Open the index of `run`; see `open` for the usual way."""
        self.run = run
        self.index = FeatureIndex(run.folder)
        self._busy = threading.RLock()
        self._whole = self

    def pinned(self) -> "Workbench":
        """The same on the version of the index that is newest now, whatever is published later; for one view of it.

        A search is of the newest version all the same: what it lays out once it keeps for all.
        """
        twin = copy(self)
        twin.index = self.index.pinned()
        return twin

    @classmethod
    def open(cls, root: Path | str = "runs", index: str = "latest") -> "Workbench":
        """The index called `index` under `root`.

        Args:
            root: the folder of all runs.
            index: an id, the start of one, a folder, or `latest`.

        Raises:
            UsageError: there is no such index.
        """
        return cls(find_run(Path(root), index, "index"))

    @cached_property
    def sae_run(self) -> Run:
        """The run that made the dictionary.

        Raises:
            UsageError: it is not here, as of an index that was imported.
        """
        return self._made_by("sae", "dictionary")

    @cached_property
    def activations_run(self) -> Run:
        """The harvest that the dictionary was indexed on.

        Raises:
            UsageError: it is not here, as of an index that was imported.
        """
        return self._made_by("activations", "model")

    def _made_by(self, kind: str, what: str) -> Run:
        if kind not in self.run.inputs:
            raise UsageError(
                f"index {self.run.id} was imported, so there is no dictionary and no model to ask: statistics, "
                "contexts, search and SQL need none"
            )
        try:
            return find_run(self.run.root, self.run.inputs[kind], kind)
        except UsageError as error:
            raise UsageError(
                f"index {self.run.id} has no {what} here: {error}; what needs none of it still works"
            ) from error

    @property
    def dictionary(self) -> str:
        """What notes are of: the dictionary's run, be it here or not; of an imported index, the index itself."""
        return self.run.inputs.get("sae", self.run.id)

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.index.n_latents

    @property
    def hook_point(self) -> str:
        """Where the dictionary reads the model; empty where that is not known here."""
        return self._known("sae_run", lambda run: run.config["hook_point"])

    @property
    def model_name(self) -> str:
        """The model's reference; empty where that is not known here."""
        return self._known("activations_run", lambda run: run.config["harvest"]["model"])

    def _known(self, run: str, of: Callable[[Run], str]) -> str:
        try:
            return of(getattr(self, run))
        except UsageError:
            return ""

    @property
    def evaluated(self) -> Evaluated | None:
        """What was measured of the dictionary, on the harvest that was last used for it; None where nothing was."""
        try:
            found = evaluations_of(self.run.root, self.sae_run)
        except UsageError:
            return None
        return found[-1] if found else None

    def page(self, latent: int) -> LatentPage:
        """Everything stored of a latent but its contexts."""
        return latent_page(self.index, latent)

    def windows(self, latent: int, band: str | None = None) -> list[Window]:
        """The stored contexts of a latent, of one band if named."""
        return windows(self.index, latent, band)

    def features(
        self, where: str = "", order_by: str | None = None, limit: int | None = None, offset: int | None = None
    ) -> pd.DataFrame:
        """Rows of the `features` view, by density and 100 of them unless asked otherwise.

        Args:
            where: an SQL condition over its columns, and after it, if wanted, ORDER BY, LIMIT and OFFSET:
                `"density < .01 order by score desc limit 20"`.
            order_by: columns to sort by; ties are in the order of the latents' numbers.
            limit: rows at most.
            offset: rows to leave out before them.

        Raises:
            UsageError: DuckDB refuses it, with its own words; or a clause stands in `where` and beside it.
        """
        query = features_query(where, order_by, limit, offset)
        try:
            return self.index.sql(query)
        except UsageError as error:
            raise UsageError(f"{error}: {self._features_help}") from error

    def sql(self, query: str, parameters: Parameters = None) -> pd.DataFrame:
        """Rows of one SELECT over the tables of the index: read-only, and in sight of nothing but its own files.

        Args:
            query: in DuckDB's dialect; docs/schema.md has the tables and their columns.
            parameters: for its placeholders.

        Raises:
            UsageError: it is no single SELECT, DESCRIBE or SHOW, or DuckDB refuses it, with its own words.
        """
        try:
            return self.index.sql(query, parameters)
        except UsageError as error:
            raise UsageError(f"{error}: `SHOW TABLES` and `DESCRIBE features` say what there is") from error

    @cached_property
    def _features_help(self) -> str:
        columns = self.index.sql("DESCRIBE features")["column_name"]
        return f"`features` has {' '.join(columns)}"

    def search(self, query: str, by: str = "text", n: int = 20, **settings: Any) -> pd.DataFrame:
        """The `n` latents that have most to do with `query`: by a `text` that they fire on, `token`, `explanation` or
        `meaning`. `autointerp.search` has the columns, and `SearchConfig` the `settings`.

        Raises:
            UsageError: the query is none, or there is no such way to search.
        """
        from autointerp.search import SearchConfig

        return self._searcher.search(query, by, SearchConfig(n=n, **settings))

    def inspect(self, text: str, *, chat: bool = False, losses: bool = True) -> Inspection:
        """Which latents fire on which token of `text`, what of each the dictionary misses, and how it surprises.

        Args:
            text: to read.
            chat: put it through the model's chat template: its turns, where lines begin with `user:` and the like, or
                all of it as one message.
            losses: find each token's loss, too. It takes the whole model, and for a text of ten thousand tokens some
                gigabytes.

        Raises:
            UsageError: there is no text, more than the model's context, or no chat template.
        """
        from autointerp.per_token import per_token
        from autointerp.typed import typed

        with self._busy:
            read = typed(self._subject, text, chat=chat)
            found = per_token(self._subject, read.ids, losses=losses)
        quantile = own_quantiles(self.index, found.latent, found.value)
        columns = found._asdict() | {"token_class": tuple(found.token_class.tolist()), "quantile": quantile}
        return Inspection(tokens=read.tokens, token_ids=tuple(read.ids), **columns)

    def effects(
        self,
        text: str,
        latent: int,
        pos: int,
        *,
        chat: bool = False,
        everywhere: bool = False,
        target: str | None = None,
    ) -> "Effects":
        """What a latent does to the token after token `pos` of a text: in full, by running the model without it, and
        directly; see `autointerp.effects`.

        Args:
            text: to read.
            latent: its number.
            pos: the token, counted from BOS where the model has one, as `inspect` counts them.
            chat: put the text through the model's chat template.
            everywhere: in full, take the latent away on every token, not on this one alone.
            target: the next token whose loss is told; by default the one that comes next.

        Raises:
            UsageError: as `inspect`; or no such latent or token, or a `target` that is not one token.
        """
        from autointerp.effects import effects
        from autointerp.typed import typed

        with self._busy:
            ids = typed(self._subject, text, chat=chat).ids
            return effects(self._subject, ids, latent, pos, everywhere=everywhere, target=target)

    def contrast(self, a: Sequence[str], b: Sequence[str], **settings: int) -> "Contrasted":
        """Latents that tell texts `a` from texts `b`, both ways round; see `autointerp.contrasting`.

        Raises:
            UsageError: a side without texts, a text on both, or one that does not fit the model's context.
        """
        *_, found = self.contrast_steps(a, b, **settings)
        return found  # pyright: ignore[reportReturnType]

    def contrast_steps(self, a: Sequence[str], b: Sequence[str], **settings: int) -> "Iterator[Step | Contrasted]":
        """What `contrast` does, batch by batch; what it returns is the last item."""
        from autointerp.contrasting import steps

        with self._busy:
            subject = self._subject
        return steps(subject, a, b, **settings)

    def steer(
        self,
        prompt: str,
        latent: int | Sequence[int] | Sequence["SteerEdit"],
        strength: float = 1.0,
        *,
        n_tokens: int = 40,
        temperature: float = 0.7,
        seed: int = 0,
        chat: bool = True,
        **edit: Any,
    ) -> "Steering":
        """Continue `prompt` with edits in place and without, from the same seed.

        Args:
            prompt: what the user says, or the text to go on from.
            latent: a latent, several that are edited alike, or edits of your own.
            strength: in multiples of each latent's q99.9 on the harvested text; 0 ablates it.
            n_tokens: new tokens at most.
            temperature: 0 is greedy.
            seed: of the sampling, the same for both.
            chat: put the prompt through the model's chat template.
            edit: `op`, `when`, `condition`, `above` and `decode`, as `SteerConfig` has them.

        Raises:
            UsageError: no prompt or one that does not fit, a latent that never fired and so has no unit of strength,
                an edit that there is none of, or one that leaves no finite logits.
        """
        from app.steered import Steering
        from autointerp.steer_config import edits_of

        edits = edits_of(latent, strength, **edit)
        with self._busy, self._subject.busy:
            *_, found = self.steps(prompt, edits, n_tokens=n_tokens, temperature=temperature, seed=seed, chat=chat)
        assert isinstance(found, Steering)
        return found

    def steps(
        self,
        prompt: str,
        edits: Sequence["SteerEdit"],
        *,
        n_tokens: int = 40,
        temperature: float = 0.7,
        seed: int = 0,
        chat: bool = True,
        sides: Sequence["Side"] = ("steered", "clean"),
    ) -> "Iterator[Token | Steering]":
        """What `steer` does, token by token; what it returns is the last item. Whoever stops leaves no edit behind.

        `sides` says which of the two texts are written, and which of them first.

        Raises:
            UsageError: as `steer`, once the first item is asked for.
        """
        from app.steered import steps

        with self._busy:
            subject = self._subject
        return steps(
            subject, prompt, edits, n_tokens=n_tokens, temperature=temperature, seed=seed, chat=chat, sides=sides
        )

    def concept(self, concept: Sequence[str], other: Sequence[str], **settings: Any) -> "Concept":
        """Latents that fire on texts with a concept and not on others; see `autointerp.concept.choose`.

        Args:
            concept: texts with it.
            other: texts without, and else alike.
            settings: `by`, `n_latents`, `max_other` and `min_texts`, as `sae.contrast.ChoiceConfig` has them.

        Raises:
            UsageError: too few texts, no latent is allowed, or there is no such setting.
        """
        from autointerp.concept import ConceptConfig, choose
        from sae.contrast import ChoiceConfig

        try:
            cfg = ConceptConfig(choice=ChoiceConfig(**settings))
        except (TypeError, ValueError) as error:
            raise UsageError(str(error)) from error
        return choose(self._subject, concept, other, cfg)

    def sweep(self, cfg: "SweepConfig") -> Run:
        """The finished sweep of an edit, made now or before.

        Raises:
            UsageError: a text does not fit, an edit cannot be made, or there are too few other latents.
        """
        from app.log import progress
        from autointerp.sweep import sweep

        return sweep(cfg, self.run, self.run.root, progress, self._subject)

    def sweep_steps(self, cfg: "SweepConfig") -> "Iterator[Measured | Run]":
        """What `sweep` does, cell by cell; the run is the last item. Whoever stops keeps what was measured.

        Raises:
            UsageError: as `sweep`, once the first item is asked for.
        """
        from autointerp.sweep import steps

        return steps(cfg, self.run, self.run.root, self._subject)

    @cached_property
    def mean_norm(self) -> float | None:
        """Mean length of the activations on normal tokens, the unit of vectors of one's own; None if it is not known.

        Raises:
            UsageError: what the harvest counted is damaged.
        """
        from activations.statistics import mean_norm

        return mean_norm(self.activations_run, self.hook_point)

    @cached_property
    def _searcher(self) -> "Searcher":
        from autointerp.search import Searcher

        return Searcher(self.index) if self._whole is self else self._whole._searcher

    @cached_property
    def _subject(self) -> "Subject":
        from autointerp.subject import Subject

        with self._busy:
            return Subject.open(self.run, self.run.root) if self._whole is self else self._whole._subject
