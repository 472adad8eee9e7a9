"""`monosem steer concept`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from app.arguments import RootArgs, checked, lines_of, parse
from app.rows import Format, print_rows
from sae.contrast import ChoiceConfig
from store.feature_index import FeatureIndex
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
    if args.format == "table":
        print(f"chosen on {cfg.select_share:.0%} of the texts; not seen, for measuring:")
        print(f"  {len(found.concept):,} with the concept, {len(found.other):,} without")
        print(f"measure them: monosem steer sweep --latents {' '.join(map(str, found.latents))} --op ablate …")


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
