"""Tables of an interpretation, and what a rater sees, as HTML; every text of a corpus or a model is escaped here."""

import re
from collections.abc import Sequence

from app.cards import escape, visible, wrapped

FIGURE = re.compile(r"$|[\[+−–$\-]*[\d.]|–$")
"""How a figure begins; where there is none, a cell is empty or a dash."""
RIGHT = ' class="ms-right"'
STYLE = """<style>
.ms-figures{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
.ms-figures th,.ms-figures td{text-align:left;padding:.18rem .9rem .18rem 0;vertical-align:top;
 border-bottom:1px solid rgba(128,128,128,.22)}
.ms-figures th{font-weight:600} .ms-figures .ms-right{text-align:right}
.ms-figures td:last-child{max-width:44rem;overflow-wrap:anywhere}
.ms-rated{font-size:1.15rem;padding:.7rem .9rem;border-left:4px solid #0072b2;background:rgba(128,128,128,.1);
 overflow-wrap:anywhere;margin:.2rem 0 .8rem}
.ms-rated-contexts{padding-left:1.4rem;margin:0} .ms-rated-contexts li{padding:.25rem 0;overflow-wrap:anywhere}
.ms-rated-contexts mark{background:rgba(230,140,0,.45);padding:0 .15em}
</style>"""


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells of text; columns of figures stand to the right. Names of columns may be the same."""
    right = [all(FIGURE.match(row[place]) for row in rows) for place in range(len(columns))]
    head = "".join(f"<th{RIGHT * at}>{escape(name)}</th>" for name, at in zip(columns, right, strict=True))
    body = "".join(f"<tr>{_cells(row, right)}</tr>" for row in rows)
    table = f'<table class="ms-figures"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return wrapped(f'{STYLE}<div class="ms-scroll">{table}</div>')


def _cells(row: Sequence[str], right: Sequence[bool]) -> str:
    return "".join(f"<td{RIGHT * at}>{escape(_seen(cell))}</td>" for cell, at in zip(row, right, strict=True))


def rated_html(text: str, contexts: Sequence[str]) -> str:
    """An explanation and the contexts it is to be held against, with the words marked on which the latent fires.

    Args:
        text: the explanation.
        contexts: each with « and » around those words, as `autointerp.prompts.marked` writes them.
    """
    items = "".join(f"<li>{_marks(context)}</li>" for context in contexts)
    shown = f'<ol class="ms-rated-contexts">{items}</ol>' if items else "<p>There are no contexts.</p>"
    return wrapped(f'{STYLE}<div class="ms-rated" dir="auto">{escape(_seen(text))}</div>{shown}')


def _marks(context: str) -> str:
    return escape(context).replace("«", "<mark>").replace("»", "</mark>")


def _seen(text: str) -> str:
    return text if not text or text.strip() else visible(text)
