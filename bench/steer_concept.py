"""Months and colours taken out of SmolLM2 by the demo's dictionary: what ablating chosen latents does to the concept's
words, beside twenty draws of as many latents that fire as often, and twenty random directions moved as far.

Run from anywhere: `python bench/steer_concept.py [--out RUNS]`; about ten minutes on two cores. Latents are chosen by
contrast on half of the texts; the effect is measured after prompts, and the cost on texts, that nothing was chosen on.
"""

import argparse
from pathlib import Path
from typing import Any

from app.log import progress
from autointerp.concept import ConceptConfig, choose
from autointerp.steer_config import SteerConfig
from autointerp.subject import Subject
from autointerp.sweep import SweepConfig, sweep
from bench.concepts import CONCEPTS, Texts
from bench.harness import Figure, main, write
from bench.smollm2_runs import smollm2_runs
from sae.contrast import ChoiceConfig
from store.run import Run, find_run
from store.swept import Swept

NAME = "steer_concept"
N_LATENTS, N_DRAWS = 10, 20
CHOICE = ConceptConfig(choice=ChoiceConfig(n_latents=N_LATENTS))
MASS = "SELECT draw, above_clean FROM summary WHERE arm = ? AND measure = 'mass' ORDER BY draw"


def measure() -> bool:
    """Both concepts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    args = parser.parse_args()
    figures: list[Figure] = []
    rows = []
    with smollm2_runs(args.out) as root:
        index = find_run(root, "latest", "index")
        subject = Subject.open(index, root)
        for name, texts in CONCEPTS.items():
            found, row = taken_out(name, texts, index, root, subject)
            figures += found
            rows.append(row)
    settings = {"n_latents": N_LATENTS, "n_draws": N_DRAWS, "max_other": CHOICE.choice.max_other}
    return write(NAME, figures, **settings, model="SmolLM2-135M-Instruct", rows=rows)


def taken_out(name: str, texts: Texts, index: Run, root: Path, subject: Subject) -> tuple[list[Figure], dict[str, Any]]:
    """Choose, ablate, and compare."""
    concept = choose(subject, texts.concept, texts.other, CHOICE)
    cfg = SweepConfig(
        edit=SteerConfig(latents=tuple(concept.latents), op="ablate"),
        prompts=texts.prompts,
        retain=concept.other,
        words=texts.words,
        n_draws=N_DRAWS,
        n_seeds=0,
    )
    run = sweep(cfg, index, root, progress, subject)
    [effect] = run.results["effects"]
    draws = {
        arm: Swept(run.folder).sql(MASS, [arm])["above_clean"].tolist()
        for arm in ("latents", "random latents", "random direction")
    }
    own = draws["latents"][0]
    random = draws["random latents"]
    p = (1 + sum(each <= own for each in random)) / (1 + len(random))
    clean = effect["mass"] - own
    figures = [
        Figure(f"{name}: probability of its words, clean", clean, ""),
        Figure(f"{name}: change by chosen latents, of the clean", own / clean, ""),
        *(
            Figure(f"{name}: the same, its 95 % interval over prompts {which}", end / clean, "")
            for which, end in zip(("from", "to"), effect["interval"], strict=True)
            if end is not None
        ),
        Figure(f"{name}: mean change by random latents, of the clean", sum(random) / len(random) / clean, ""),
        *(
            Figure(f"{name}: 95 % of random latents {which}", end / clean, "")
            for which, end in zip(("from", "to"), effect["controls"]["random latents"]["interval"], strict=True)
        ),
        Figure(f"{name}: outside of that (1 is yes)", float(effect["controls"]["random latents"]["outside"]), ""),
        Figure(f"{name}: one-sided p among draws", p, ""),
        Figure(f"{name}: KL on retained texts", effect["kl_retain"], "nats"),
    ]
    return figures, {"concept": name, "latents": concept.latents, "effect": effect, "draws": draws}


if __name__ == "__main__":
    main(measure)
