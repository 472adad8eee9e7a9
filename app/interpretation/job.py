"""Writes the page of an interpretation: one HTML file that needs nothing else."""

from pathlib import Path

import jinja2
from markupsafe import Markup

from app.cards import escape, number, visible
from app.estimates import figure, interval
from app.interpretation.view import Page, by_arm
from app.report.plotted import Plotted
from store.files import whole_file

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
"""Whatever a text may hold, the browser fetches nothing; the scripts are those of the plots."""
VERDICTS = {"wrong": "Judged wrong", "not read": "Not read", "right": "Judged right"}


def write_page(shown: Page, out: Path) -> None:
    """Write the page, replacing whatever file is there."""
    with whole_file(out) as scratch:
        scratch.write_text(render(shown), encoding="utf-8")


def render(shown: Page) -> str:
    """The page as HTML. Whatever came from a text, a model or a manifest is escaped by the template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "interval": interval, "number": number, "by_arm": by_arm, "seen": _seen}
    return environment.get_template("page.html.j2").render(
        page=shown, plotted=Plotted(), policy=POLICY, verdicts=VERDICTS
    )


def _seen(text: str) -> Markup:
    """A text with nothing in it that would hide or reorder what is beside it."""
    return Markup(escape(visible(text) if not text.strip() else text))
