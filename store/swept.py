"""Sweeps of steering: tables as Parquet, and SQL over them."""

import pyarrow as pa

from store.asked_run import AskedRun
from store.index_tables import F64, I32, I64, TEXT, Column

CELL = {
    "arm": Column(
        TEXT, "`latents`, `random latents`, `random direction`, `mean difference`, `instruction`, or `clean`: the model"
    ),
    "draw": Column(I32, "of a random control; 0 elsewhere"),
    "tier": Column(TEXT, "`always`, `input` or `token`; empty where nothing is edited"),
    "strength": Column(F64, "multiples of q99.9, or a factor; 0 where nothing is edited"),
}
MEASURES = {
    **CELL,
    "text_of": Column(TEXT, "`prompts` or `retain`"),
    "item": Column(I32, "number of the prompt or text"),
    "seed": Column(I32, "of the continuation; missing where nothing was continued"),
    "measure": Column(TEXT, "what was measured: docs/steering.md has each"),
    "value": Column(F64, "missing where it could not be"),
}
SUMMARY = {
    **CELL,
    "measure": Column(TEXT, "as in `measures`"),
    "mean": Column(F64, "over texts, each the mean of its continuations"),
    "ci_low": Column(F64, "95 %, over texts"),
    "ci_high": Column(F64, "its other end"),
    "n": Column(I64, "texts"),
    "above_clean": Column(F64, "mean difference to the clean model, text by text"),
    "above_low": Column(F64, "95 %, over texts"),
    "above_high": Column(F64, "its other end"),
}
TEXTS = {
    **CELL,
    "item": Column(I32, "number of the prompt"),
    "seed": Column(I32, "of the continuation"),
    "text": Column(TEXT, "what was written after the prompt"),
}
MOVED = {
    **CELL,
    "latent": Column(I32, "another latent than those that were edited"),
    "change": Column(F64, "of the share of tokens it fires on, read by the clean model: steered texts less clean ones"),
    "n_tokens": Column(I64, "of the steered texts"),
}
TABLES: dict[str, dict[str, Column]] = {"measures": MEASURES, "summary": SUMMARY, "texts": TEXTS, "moved": MOVED}
SCHEMAS: dict[str, pa.Schema] = {
    table: pa.schema({name: column.type for name, column in columns.items()}) for table, columns in TABLES.items()
}


class Swept(AskedRun):
    """One finished sweep; its tables are those of `TABLES`."""

    kind = "steering"
    command = "monosem steer sweep"
    tables = SCHEMAS
