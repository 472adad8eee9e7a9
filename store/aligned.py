"""Alignments of several dictionaries with one another: tables as Parquet, and SQL over them."""

from typing import TypeVar

import pyarrow as pa

from store.asked_run import AskedRun
from store.index_tables import BOOL, F64, I32, I64, TEXT, Column

T = TypeVar("T")
NAMES = {
    "a": Column(TEXT, "index of one dictionary"),
    "b": Column(TEXT, "index of the other"),
}
ALIGNMENTS = {
    **NAMES,
    "hook_point_a": Column(TEXT, "where a is read"),
    "hook_point_b": Column(TEXT, "where b is read"),
    "layers_apart": Column(I32, "blocks between the two"),
    "paired_by": Column(TEXT, "`activations`, `weights` or `explanations`"),
    "n_latents": Column(I64, "of both that have a best partner"),
    "mean_best": Column(F64, "mean correlation or cosine with the best partner, over the latents of both"),
    "mean_best_null": Column(F64, "the same of the null"),
    "mutual": Column(F64, "share of latents that are their best partner's best"),
    "mutual_null": Column(F64, "the same of the null"),
    "n_pairs": Column(I64, "pairs, one to one"),
    "n_matched": Column(I64, "of those above the null's threshold"),
    "n_judged": Column(I64, "of those, pairs of which the other measure is known on both sides"),
    "judged_by": Column(TEXT, "the other measure: `explanations` or `weights`; missing where there is none"),
    "likeness": Column(F64, "mean of the other measure over matched pairs"),
    "likeness_null": Column(F64, "the same of the same latents paired at random"),
    "difference": Column(F64, "likeness less its null"),
    "ci_low": Column(F64, "of the difference, 95 %, over pairs"),
    "ci_high": Column(F64, "its other end"),
    "p_value": Column(F64, "one-sided: how often a random pairing of the same latents is as alike"),
}
PAIRS = {
    **NAMES,
    "latent_a": Column(I32, "latent of a"),
    "latent_b": Column(I32, "latent of b"),
    "value": Column(F64, "what they were paired by: correlation or cosine"),
    "matched": Column(BOOL, "it is above the null's threshold"),
    "likeness": Column(F64, "the other measure; missing where a side has none"),
    "likeness_null": Column(F64, "mean likeness of latent_a to the partners of all other matched pairs"),
}
DISTANCES = {
    "layers_apart": Column(I32, "blocks between the two"),
    "n_alignments": Column(I64, "pairs of dictionaries that far apart"),
    "difference": Column(F64, "likeness less its null, mean over matched pairs of all of them"),
    "ci_low": Column(F64, "95 %, over pairs of dictionaries; missing where there is one"),
    "ci_high": Column(F64, "its other end"),
}
TABLES: dict[str, dict[str, Column]] = {"alignments": ALIGNMENTS, "pairs": PAIRS, "distances": DISTANCES}
SCHEMAS: dict[str, pa.Schema] = {
    table: pa.schema({name: column.type for name, column in columns.items()}) for table, columns in TABLES.items()
}


class Aligned(AskedRun):
    """One finished run of alignments; its tables are those of `TABLES`."""

    kind = "alignment"
    command = "monosem align"
    tables = SCHEMAS
