"""`Workbench`: a published index with its model and dictionary, asked by notebook, dashboard and command line."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from app.evaluation.evaluated import Evaluated, evaluations_of
from app.feature_query import features_query
from store.confined import Parameters
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.latents import LatentPage, Window, latent_page, token_texts, windows
from store.run import Run, find_run
from store.shards import TOKEN_CLASSES

if TYPE_CHECKING:
    from app.steered import Side, Steering, Token
    from autointerp.concept import Concept
    from autointerp.steer_config import SteerEdit
    from autointerp.sweep import Measured, SweepConfig


@dataclass(frozen=True)
class Inspection:
    """One text through model and dictionary."""

    tokens: tuple[str, ...]
    """BOS first where the model has one."""
    token_class: tuple[int, ...]
    """As `store.shards.TOKEN_CLASSES`: sinks and special tokens are encoded too, but did not train the dictionary."""
    latent: np.ndarray
    """`[n_events]`: which latent fired."""
    pos: np.ndarray
    """`[n_events]`: on which token."""
    value: np.ndarray
    """`[n_events]`: how strongly."""
    fvu: float | None
    """Reconstruction error over the text's normal tokens as a share of their variance; None for fewer than two."""

    def values(self, latent: int) -> np.ndarray:
        """`[n_tokens]` activation of one latent, 0 where it is silent."""
        out = np.zeros(len(self.tokens))
        here = self.latent == latent
        out[self.pos[here]] = self.value[here]
        return out

    def top(self, k: int | None = 10) -> pd.DataFrame:
        """The `k` strongest latents by their highest value on a normal token: `latent value token pos n_tokens`.

        Args:
            k: how many at most; None for all.
        """
        normal = np.array(self.token_class)[self.pos] == TOKEN_CLASSES["normal"]
        latent, pos, value = self.latent[normal], self.pos[normal], self.value[normal]
        found, n_tokens = np.unique(latent, return_counts=True)
        strongest = np.lexsort((-value, latent))[np.searchsorted(np.sort(latent), found)]
        chosen = np.argsort(-value[strongest])[:k]
        peak = strongest[chosen]
        return pd.DataFrame(
            {
                "latent": latent[peak],
                "value": value[peak],
                "token": [self.tokens[place] for place in pos[peak]],
                "pos": pos[peak],
                "n_tokens": n_tokens[chosen],
            }
        )


class Workbench:
    """A dictionary, its index and its model. The model is loaded when it is first needed, and used by one at a time."""

    def __init__(self, run: Run) -> None:
        """Open the index of `run`; see `open` for the usual way.

        Raises:
            UsageError: it was imported, and has no dictionary and no model here.
        """
        if "sae" not in run.inputs:
            raise UsageError(
                f"index {run.id} was imported, so there is no dictionary and no model to open it with: "
                "use `monosem sql`, `monosem explain`, `monosem score` and `monosem export html` on it"
            )
        self.run = run
        self.sae_run = find_run(run.root, run.inputs["sae"], "sae")
        self.activations_run = find_run(run.root, run.inputs["activations"], "activations")
        self.index = FeatureIndex(run.folder)
        self._busy = threading.RLock()

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

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        return self.sae_run.results["d_sae"]

    @property
    def hook_point(self) -> str:
        """Where the dictionary reads the model."""
        return self.sae_run.config["hook_point"]

    @property
    def model_name(self) -> str:
        """The model's reference."""
        return self.activations_run.config["harvest"]["model"]

    @property
    def evaluated(self) -> Evaluated | None:
        """What was measured of the dictionary, on the harvest that was last used for it."""
        found = evaluations_of(self.run.root, self.sae_run)
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

    def search(self, query: str, by: str = "text", n: int = 20) -> pd.DataFrame:
        """The `n` latents that have most to do with `query`: by a `text` that they fire on, `token`, `explanation` or
        `meaning`. `autointerp.search` has the columns and further settings.

        Raises:
            UsageError: the query is none, or there is no such way to search.
        """
        from autointerp.search import SearchConfig

        return self._searcher.search(query, by, SearchConfig(n=n))

    def inspect(self, text: str) -> Inspection:
        """Which latents fire on which token of `text`.

        Raises:
            UsageError: there is no text, or more than the model's context.
        """
        ids = self._subject.ids(text)
        tokenizer = self._subject.lm.tokenizer
        encoding = tokenizer.encode(text)
        pieces = token_texts(text, encoding.char_start, encoding.char_end)
        special = tokenizer.token_texts(ids[: len(ids) - len(pieces)])
        with self._busy:
            return self._inspect(ids, (*special, *pieces))

    def _inspect(self, ids: list[int], tokens: tuple[str, ...]) -> Inspection:
        import torch

        from sae.metrics import StreamingFVU

        with torch.inference_mode():
            x = self._subject.rows(ids)
            out = self._subject.sae(x)
            classes = self._subject.classes(ids, x.norm(dim=1).numpy())
            normal = torch.from_numpy(classes == TOKEN_CLASSES["normal"])
            fvu = StreamingFVU()
            fvu.update(x[normal], out.x_hat[normal])
            on = out.latents.active.numpy()
            pos, latent, value = (t.numpy()[on] for t in (out.latents.rows, out.latents.indices, out.latents.values))
        return Inspection(
            tokens=tokens,
            token_class=tuple(int(c) for c in classes),
            latent=latent,
            pos=pos,
            value=value,
            fvu=fvu.value() if int(normal.sum()) > 1 else None,
        )

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
    def _searcher(self):
        from autointerp.search import Searcher

        return Searcher(self.index)

    @cached_property
    def _subject(self):
        from autointerp.subject import Subject

        with self._busy:
            return Subject.open(self.run, self.run.root)
