"""The whole evaluation of the demo's dictionary, for docs/evaluation-demo.md, and pictures of its report.

Run from anywhere: `python bench/evaluate_demo.py [--out RUNS]`. A demo that was run in RUNS already is not run again.
Chromium takes the pictures; without it there are none.
"""

import argparse
import shutil
from dataclasses import asdict
from pathlib import Path

from app.evaluation.evaluated import Evaluated
from app.evaluation.job import evaluate_dictionary, requests
from app.evaluation.parts import PARTS
from app.log import progress
from app.report.job import write_report
from app.summary import COUNTED
from bench import render
from bench.harness import Figure, main, write
from bench.smollm2_runs import smollm2_runs
from store.run import find_run

NAME = "evaluate_demo"
WIDTH, SCALE = 1100, 1
# What each picture shows: from the head of one section to that of another.
PICTURES = {
    "evaluation-report": (None, "loss"),
    "evaluation-geometry": ("geometry", "probing"),
    "evaluation-probing": ("probing", "recovery"),
}


def measure() -> bool:
    """Run what is missing, write every figure, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    args = parser.parse_args()
    with smollm2_runs(args.out) as root:
        sae, activations = find_run(root, "latest", "sae"), find_run(root, "latest", "activations")
        evaluated = evaluate_dictionary(requests(list(PARTS)), sae, activations, root, progress)
        write_figures(evaluated)
        take_pictures(write_report([evaluated], root))
    return not evaluated.failed


def write_figures(evaluated: Evaluated) -> None:
    """Every part's figures, or why it has none; what sums them up as any benchmark's."""
    parts = {name: [asdict(figure) for figure in evaluated.measured(name).figures] for name in PARTS}
    remarks = {name: why for name in PARTS if (why := evaluated.not_applicable(name)) is not None}
    headline = [
        Figure(f"{name}: {key.replace('_', ' ')}", value, "")
        for name, run in evaluated.runs.items()
        for key, value in run.results.items()
        if key not in COUNTED and isinstance(value, float)
    ]
    settings = {name: run.config["settings"] for name, run in evaluated.runs.items()}
    write(NAME, headline, part_settings=settings, parts=parts, remarks=remarks)


def take_pictures(report: Path) -> None:
    """Parts of the page, as a browser shows them."""
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no pictures: chromium is not installed")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000}, device_scale_factor=SCALE)
        page.goto(report.resolve().as_uri())
        page.wait_for_function("document.querySelectorAll('.plots .main-svg').length > 0")
        for name, (first, last) in PICTURES.items():
            top = page.locator(f"#{first}").bounding_box()["y"] if first else 0
            bottom = page.locator(f"#{last}").bounding_box()["y"]
            clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top}
            page.screenshot(path=render.REPO / "docs" / f"{name}.png", full_page=True, clip=clip)
        browser.close()


if __name__ == "__main__":
    main(measure)
