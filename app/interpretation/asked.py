"""What a form asks for, as the command that does it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.job_commands import arguments
from app.workbench import Workbench
from autointerp.interpret import InterpretConfig
from autointerp.llm.config import LLMConfig
from autointerp.llm.keys import checked_url, variables
from autointerp.sample_config import SampleConfig
from store.errors import UsageError
from store.run import Run

LANGUAGE_MODELS = frozenset(
    {"contrastive", "default", "ensemble", "output", "single_token", "top"}
    | {"detection", "discrimination", "fuzzing", "generation", "intervention", "intervention_choice", "intruder"}
    | {"simulation", "simulation_logprobs", "surprisal"}
)
"""Explainers and scorers that ask one."""
ADDRESSES = {
    "anthropic_api": "https://api.anthropic.com",
    "anthropic_batch": "https://api.anthropic.com",
    "openai_batch": "https://api.openai.com/v1",
    "openai_compatible": "http://localhost:8000/v1",
}
"""Of each backend, where no other is given."""
USUAL = {
    "n-explain": SampleConfig.n_explain,
    "n-score": SampleConfig.n_score,
    "seed": SampleConfig.seed,
    "nulls": InterpretConfig.nulls,
    "n-null": InterpretConfig.n_null,
}
"""What the command takes where nothing is said."""
MOST_LISTED = 2_000
"""Latents on a list: a command line is not endless."""


@dataclass(frozen=True)
class Which:
    """Latents: drawn, unless some are listed or a condition is given."""

    n: int = 30
    listed: str | None = None
    """Numbers with spaces or commas between them."""
    where: str | None = None
    """A condition over the columns of `features`."""

    @property
    def latents(self) -> list[int]:
        """Those that are listed, each once.

        Raises:
            UsageError: something on the list is no number, or it is too long.
        """
        words = (self.listed or "").replace(",", " ").split()
        for word in words:
            if not (word.isascii() and word.isdecimal() and len(word) < 10):
                raise UsageError(f"'{word}' is no latent: list whole numbers with spaces between them")
        if len(words) > MOST_LISTED:
            raise UsageError(f"{len(words):,} latents are listed: list at most {MOST_LISTED:,}, or give a condition")
        return list(dict.fromkeys(map(int, words)))

    @property
    def select(self) -> str | None:
        """The query of the condition, on one line.

        Raises:
            UsageError: it is empty.
        """
        if self.where is None:
            return None
        condition = " ".join(self.where.split())
        if not condition:
            raise UsageError("there is no condition: give one over the columns of features, like density < 0.001")
        return f"SELECT latent FROM features WHERE {condition}"


@dataclass(frozen=True)
class Asked:
    """All of a form."""

    which: Which
    explainer: str = "tokens"
    scorers: tuple[str, ...] = ("embedding",)
    nulls: tuple[str, ...] = ()
    embedder: str = "minilm"
    llm: Mapping[str, Any] = field(default_factory=dict)
    """By option of the command line."""
    sample: Mapping[str, int] = field(default_factory=dict)


def command(asked: Asked, index: Run) -> list[str]:
    """What is typed after `monosem`: `interpret`, or `explain` where nobody is to judge.

    Raises:
        UsageError: something that is asked for cannot be had.
    """
    _check_money(asked.llm)
    which: dict[str, Any] = {"n-latents": asked.which.n}
    if asked.which.listed is not None:
        which = {"latents": asked.which.latents}
        if not which["latents"]:
            raise UsageError("no latent is listed: list whole numbers with spaces between them")
    elif asked.which.where is not None:
        which = {"select": asked.which.select}
    judged = _unusual({"scorers": asked.scorers, "nulls": asked.nulls, "n-null": asked.sample.get("n-null")})
    sample = _unusual({name: value for name, value in asked.sample.items() if name != "n-null"})
    how = {"explainer": asked.explainer, "embedder": asked.embedder, **sample, **asked.llm}
    options = {"index-run": index.id, **which, **how}
    if not asked.scorers:
        return arguments("explain", index.root, options)
    return arguments("interpret", index.root, options | judged)


def _unusual(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not the command's own: a command is to be read."""
    return {name: value for name, value in options.items() if value != USUAL.get(name)}


def n_chosen(which: Which, bench: Workbench) -> int:
    """How many latents a list or a condition names.

    Raises:
        UsageError: there is no such latent, or DuckDB refuses the condition, with its own words.
    """
    if which.select is not None:
        return int(bench.sql(f"SELECT count(*) AS n FROM ({which.select})")["n"].iloc[0])
    for latent in which.latents:
        if latent >= bench.d_sae:
            raise UsageError(f"there is no latent {latent}: choose 0 to {bench.d_sae - 1}")
    return len(which.latents)


def keys_of(url: str) -> dict[str, bool]:
    """The variables that may hold the key for an address, and whether each is set; what it holds is not kept.

    Raises:
        UsageError: it is no address.
    """
    if not url:
        return {}
    return {name: bool(os.environ.get(name, "").strip()) for name in variables(checked_url(url))}


def _check_money(llm: Mapping[str, Any]) -> None:
    """Refuse at once what would end the job in its first second.

    Raises:
        UsageError: dollars are capped at an unknown price.
    """
    money = {name.replace("-", "_"): value for name, value in llm.items() if "usd" in name}
    LLMConfig(backend=str(llm.get("backend", "scripted")), **money)
