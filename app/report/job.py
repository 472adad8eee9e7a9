"""The report job: one HTML file that needs nothing else, kept as a run made from the parts' runs."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

from app.evaluation.evaluated import Compared, Evaluated
from app.report.plotted import Plotted
from app.report.view import NOTHING, Page, page
from store.files import whole_file
from store.run import start_run

FILE = "report.html"
LAYOUT = 5
"""Raised when the page changes, so that it is written again."""


def write_report(evaluated: Sequence[Evaluated], root: Path, compared: Compared = NOTHING) -> Path:
    """The page on these dictionaries, in `root/report/<hash>`; one that is there already is kept."""
    inputs = {}
    for number, one in enumerate(evaluated):
        inputs[f"sae {number}"] = one.sae_run.id
        inputs |= {f"{part} {number}": run.id for part, run in one.runs.items()}
    inputs |= {part: run.id for part, run in compared.runs.items()}
    failed = [dict(one.failed) for one in (*evaluated, compared)]
    with start_run(root, "report", {"layout": LAYOUT, "failed": failed}, inputs) as run:
        path = run.folder / FILE
        if not run.finished:
            with whole_file(path) as scratch:
                scratch.write_text(render(page(evaluated, compared)), encoding="utf-8")
            run.finish({"file": FILE, "n_dictionaries": len(evaluated)})
        return path


def render(shown: Page) -> str:
    """The page as HTML. Whatever came from a text, a model or a manifest is escaped by the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2").render(page=shown, plotted=Plotted())
