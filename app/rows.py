"""Rows on the terminal, or for another program."""

import sys
from typing import Literal

import pandas as pd

from app.log import printable

Format = Literal["table", "csv", "json"]


def print_rows(frame: pd.DataFrame, how: Format) -> None:
    """Print a frame; json is one object a line."""
    if how == "csv":
        # For a program as it is; on a terminal, texts may hold commands for it.
        text = frame.to_csv(index=False)
        print("\n".join(map(printable, text.split("\n"))) if sys.stdout.isatty() else text, end="")
    elif how == "json":
        print(frame.to_json(orient="records", lines=True, force_ascii=False), end="")
    elif frame.empty:
        print("no rows")
    else:
        # Texts may hold commands for the terminal, those inside lists too.
        shown = frame.map(lambda value: printable(value) if isinstance(value, str) else value)
        lines = shown.to_string(index=False, max_colwidth=80).split("\n")
        print("\n".join(map(printable, lines)))
