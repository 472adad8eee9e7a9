"""The tables of a matching of two dictionaries, `a` and `b`: columns, types and meanings."""

import pyarrow as pa

from store.index_tables import BOOL, F64, I32, I64, TEXT, Column

MEASURES = "`decoder` or `encoder` (cosine), or `correlation`"
BEST = {
    "side": Column(TEXT, "whose latent it is: `a` or `b`"),
    "latent": Column(I32, "its number"),
    "measure": Column(TEXT, f"{MEASURES}, `phi` or `jaccard` (of firing)"),
    "other": Column(I32, "the latent of the other side with the largest value; the lowest number of several"),
    "value": Column(F64, "the largest value"),
    "mutual": Column(BOOL, "each is the other's best"),
}
ONE_TO_ONE = {
    "measure": Column(TEXT, MEASURES),
    "a": Column(I32, "latent of a"),
    "b": Column(I32, "latent of b, in no other pair of this measure"),
    "value": Column(F64, "of the pair"),
    "chance": Column(
        F64, "what latent a got where b was random, or its sequences rotated; missing where it got nothing"
    ),
    "matched": Column(BOOL, "the value is above the measure's threshold"),
}
THRESHOLDS = {
    "measure": Column(TEXT, MEASURES),
    "against": Column(TEXT, "what stood in for b"),
    "quantile": Column(F64, "of the null's best partners of all latents of both sides"),
    "threshold": Column(F64, "that quantile: a pair at or below it counts as unmatched"),
    "n": Column(I64, "best partners it is the quantile of"),
    "mean": Column(F64, "of them"),
    "mutual": Column(F64, "share of the null's latents that are their best partner's best"),
}
LATENTS = {
    "side": Column(TEXT, "`a` or `b`"),
    "latent": Column(I32, "its number"),
    "n_fired": Column(I64, "tokens that count on both sides on which it fires"),
    "density": Column(F64, "n_fired over all of them"),
    "dead": Column(BOOL, "it never fires there: it is not matched"),
    "rare": Column(BOOL, "it fires on too few to be matched by what it fires on"),
    "by_decoder": Column(BOOL, "it is in a one-to-one pair above the threshold; missing where it was not judged"),
    "by_encoder": Column(BOOL, "the same by encoder cosine"),
    "by_correlation": Column(BOOL, "the same by correlation"),
    "matched": Column(BOOL, "by decoder or correlation; missing where it was judged by neither"),
    "alone": Column(
        BOOL,
        "no latent of the other side is above the threshold by decoder or correlation, taken or not; missing as above",
    ),
}
PAIRS = {
    "a": Column(I32, "latent of a"),
    "b": Column(I32, "latent of b"),
    "decoder": Column(F64, "cosine of decoder rows; missing where they have none, as are the next two"),
    "encoder": Column(F64, "cosine of encoder columns"),
    "correlation": Column(F64, "Pearson's r of activations over the tokens that count on both sides, silence as 0"),
    "phi": Column(F64, "Pearson's r of firing or not"),
    "jaccard": Column(F64, "n_both over tokens on which either fires"),
    "n_both": Column(I64, "tokens on which both fire"),
    "a_implies_b": Column(F64, "share of a's firings on which b fires"),
    "b_implies_a": Column(F64, "share of b's firings on which a fires"),
}
FAMILIES = {
    "side": Column(TEXT, "whose latent the parent is; its children are of the other side"),
    "parent": Column(I32, "a latent that fires where any of several others fires"),
    "n_children": Column(I32, "how many"),
    "n_fired": Column(I64, "firings of the parent"),
    "coverage": Column(F64, "share of them on which some child fires"),
    "largest": Column(F64, "share on which the widest child alone fires: far below coverage where the parent is split"),
    "overlap": Column(F64, "of the covered ones, share on which two or more children fire"),
}
CHILDREN = {
    "side": Column(TEXT, "the parent's"),
    "parent": Column(I32, "the parent"),
    "latent": Column(I32, "a latent of the other side"),
    "role": Column(
        TEXT,
        "`child`; or `absorbs`: as near in direction, and the parent is often silent where it fires",
    ),
    "share": Column(F64, "of the parent's firings, those on which it fires"),
    "implies": Column(F64, "of its firings, those on which the parent fires"),
    "parent_silent": Column(F64, "of its firings, those on which the parent is silent"),
    "decoder": Column(F64, "cosine with the parent; missing where they have none"),
}

TABLES: dict[str, dict[str, Column]] = {
    "latents": LATENTS,
    "best": BEST,
    "one_to_one": ONE_TO_ONE,
    "pairs": PAIRS,
    "thresholds": THRESHOLDS,
    "families": FAMILIES,
    "children": CHILDREN,
}
"""All that a matching writes. `pairs` has every pair that another table names."""
SCHEMAS: dict[str, pa.Schema] = {
    table: pa.schema({name: column.type for name, column in columns.items()}) for table, columns in TABLES.items()
}
