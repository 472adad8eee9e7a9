"""Tables as HTML for notebooks; every cell is escaped."""

import pandas as pd

from app.cards import escape, number


def table_html(frame: pd.DataFrame) -> str:
    """Rows of a frame, numbers rounded as everywhere."""
    head = "".join(f"<th>{escape(str(name))}</th>" for name in frame.columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in frame.itertuples(index=False, name=None))
    table = f'<table class="ms-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="ms-scroll">{table}</div>'


def _cell(value: object) -> str:
    return f"<td>{escape(number(value) if isinstance(value, float) else str(value))}</td>"
