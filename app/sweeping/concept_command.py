"""`monosem steer concept`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from app.arguments import RootArgs, checked, lines_of, parse
from app.rows import Format, print_rows
from sae.contrast import ChoiceConfig
from store.feature_index import FeatureIndex
from store.files import whole_file
from store.run import find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs, ChoiceConfig):
    """Find latents that fire on texts with a concept and not on others, on a part of the texts; the rest is left for
    what is measured of them.

    Example: monosem steer concept --concept "The moon rose." "A pale moon hung there." --other "It rained." "We ate."
    """

    concept: tuple[str, ...]
    """Texts with the concept, one by one or as @FILE, a line each."""
    other: tuple[str, ...]
    """Texts without it, and else alike."""
    select_share: float = 0.5
    """Share of the texts that latents are chosen on."""
    seed: int = 0
    """Of which those are."""
    index_run: str = "latest"
    """The index: an id, the start of one, a folder, or `latest`."""
    out: Path | None = None
    """A folder for the texts that nothing was chosen on: `concept.txt` and `other.txt`, a line each."""
    format: Format = "table"
    """How rows are printed; json is one object a line."""


def main(arguments: Sequence[str]) -> None:
    """Parse, read the texts and print the latents."""
    args = parse(Args, "steer concept", arguments)
    from autointerp.concept import Concept, ConceptConfig, choose
    from autointerp.subject import Subject

    concept, other = (lines_of(name, getattr(args, name)) for name in ("concept", "other"))
    cfg = checked(ConceptConfig, args, choice=checked(ChoiceConfig, args))
    index = find_run(args.root, args.index_run, "index")
    found: Concept = choose(Subject.open(index, args.root), concept, other, cfg)
    said = _explanations(FeatureIndex(index.folder), found.latents)
    print_rows(
        pd.DataFrame([_row(found, latent) | {"explanation": said.get(latent, "")} for latent in found.latents]),
        args.format,
    )
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, texts in (("concept", found.concept), ("other", found.other)):
            with whole_file(args.out / f"{name}.txt") as scratch:
                scratch.write_text("\n".join(map(_line, texts)) + "\n", encoding="utf-8")
    if args.format == "table":
        way = "" if args.out else ": --out DIR writes them"
        print(f"chosen on {cfg.select_share:.0%} of the texts")
        print(f"not looked at, for measuring: {len(found.concept):,} with it, {len(found.other):,} without{way}")
        retain = f"@{shlex.quote(str(args.out / 'other.txt'))}" if args.out else "…"
        latents = " ".join(map(str, found.latents))
        print(f"measure: monosem steer sweep --latents {latents} --op ablate --retain {retain} --words … --prompts …")


def _line(text: str) -> str:
    return " ".join(text.split())


def _row(found: Any, latent: int) -> dict[str, Any]:
    columns = {
        "mean": "mean difference",
        "frequency": "rate difference",
        "auroc": "auroc",
        "of_tokens": "of concept tokens",
        "of_other_tokens": "of other tokens",
        "of_texts": "of concept texts",
    }
    return {"latent": latent} | {
        label: round(float(getattr(found.found, name)[latent]), 4) for name, label in columns.items()
    }


def _explanations(index: FeatureIndex, latents: Sequence[int]) -> dict[int, str]:
    frame = index.sql("SELECT latent, explanation FROM features WHERE list_contains(?, latent)", [list(latents)])
    said = zip(frame["latent"].tolist(), frame["explanation"].tolist(), strict=True)
    return {latent: text for latent, text in said if isinstance(text, str)}
