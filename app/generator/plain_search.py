"""What a search found, as plain data and back."""

from typing import Any

import pandas as pd


def plain_found(found: pd.DataFrame) -> dict[str, Any]:
    """What `Workbench.search` returns, for `app.generator.plain.line`; missing values are None."""
    rows = found.astype(object).where(found.notna(), None)
    return {"columns": {name: rows[name].tolist() for name in rows}, "note": found.attrs.get("note", "")}


def found(plain: dict[str, Any]) -> pd.DataFrame:
    """What went through `plain_found` and JSON."""
    frame = pd.DataFrame(plain["columns"])
    frame.attrs["note"] = plain["note"]
    return frame
