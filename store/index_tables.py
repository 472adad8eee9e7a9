"""The tables of the feature index: columns, types and meanings, the single source for writers, readers and docs."""

from typing import NamedTuple

import pyarrow as pa

from store.shards import TOKEN_CLASSES


class Column(NamedTuple):
    """A column of a table."""

    type: pa.DataType
    about: str


I32, I64, F32, F64, TEXT, BOOL = pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.bool_()

LATENTS = {
    "latent": Column(I32, "its number"),
    "n_fired": Column(I64, "tokens on which it is active, of the classes that count; exact"),
    "density": Column(F64, "n_fired over all tokens that count"),
    "dead": Column(BOOL, "it never fires"),
    "dense": Column(BOOL, "its density is above 0.1"),
    "mean": Column(F64, "of active values; exact, as are the next two"),
    "mean_square": Column(F64, "of active values"),
    "skewness": Column(F64, "third standardised moment of active values; 0 where all are equal"),
    "min": Column(F32, "smallest active value: negative where latents have signs"),
    "max": Column(F32, "largest active value"),
    "q50": Column(F32, "quantile of active values: the smallest with at least this share at or below it"),
    "q90": Column(F32, "the same for 0.9"),
    "q99": Column(F32, "the same for 0.99"),
    "q999": Column(F32, "the same for 0.999"),
    "histogram": Column(pa.list_(I64), "active values in bins of equal width over (min(0, min), max]"),
    "n_docs": Column(I32, "documents in which it fires"),
    "doc_entropy": Column(F64, "bits: how its firings spread over documents"),
    "source_entropy": Column(F64, "bits: how its firings spread over the documents' sources"),
    "first_seq": Column(I32, "first sequence in which it fires; -1 if none"),
    "last_seq": Column(I32, "last one"),
    **{
        f"n_{name}": Column(I64, f"tokens of class {name} on which it fires, first positions too")
        for name in TOKEN_CLASSES
    },
    "special_share": Column(F64, "share of all its firings, on tokens of every class, that are on special tokens"),
    "event_share": Column(F64, "share of sequences whose events are kept: 1 but for latents that fire too often"),
    "n_events": Column(I64, "events kept; those of its strongest peaks' sequences always"),
    "part": Column(I32, "which part of `events` holds them"),
    "first_row": Column(I64, "the first of them there; they lie together"),
}
EVENTS = {
    "latent": Column(I32, "which latent fired"),
    "seq": Column(I32, "in which sequence"),
    "pos": Column(I32, "on which of its tokens"),
    "doc_id": Column(I32, "in which document: a packed sequence holds several"),
    "value": Column(F32, "how strongly"),
}
CONTEXTS = {
    "latent": Column(I32, "whose context it is"),
    "band": Column(
        TEXT,
        "`top`; `q1` (weakest) to `q4`, equal counts of its peaks; `v1` to `v4`, equal widths of value; `near`, silent "
        "tokens of the highest pre-activation; `silent`, silent on a token on which it fires elsewhere",
    ),
    "rank": Column(I32, "within the band, largest value first; where latents have signs, those are not left out"),
    "seq": Column(I32, "the sequence"),
    "pos": Column(I32, "of the peak"),
    "value": Column(F32, "at the peak; of a near miss its pre-activation; 0 where silent"),
    "start": Column(I32, "the window is positions start <= pos < stop, never beyond the document"),
    "stop": Column(I32, "one past its last position"),
    "doc_id": Column(I32, "the document"),
    "source": Column(TEXT, "where the document is from"),
    "title": Column(TEXT, "its name there"),
    "split": Column(TEXT, "`train` or `heldout`"),
    "char_start": Column(I32, "the window's first character in the document; -1 for none"),
    "char_end": Column(I32, "one past its last"),
    "weight": Column(F64, "peaks of the band it stands for; of a silent one, silent occurrences of its token"),
    "n_same": Column(I32, "contexts it was chosen from that read the same around the peak, itself included"),
    "seed": Column(I64, "of the draw"),
    "active_at": Column(pa.list_(pa.int16()), "positions, counted from start, on which the latent fires"),
    "activations": Column(pa.list_(F32), "how strongly on each of them"),
}
LOGITS = {
    "latent": Column(I32, "whose decoder row it is"),
    "side": Column(TEXT, "`top` or `bottom`"),
    "rank": Column(I32, "0 is the most promoted, or the most suppressed"),
    "token_id": Column(I32, "the token"),
    "token": Column(TEXT, "its text"),
    "value": Column(
        F32, "logits per unit of activation at a final-norm scale of 1, minus their mean over the vocabulary"
    ),
}
LOGIT_EFFECTS = {
    "latent": Column(I32, "whose decoder row it is"),
    "std": Column(F64, "standard deviation of its logit effects over the vocabulary; their mean is 0"),
    "skewness": Column(F64, "third standardised moment"),
    "kurtosis": Column(F64, "fourth standardised moment, 3 for a normal distribution"),
    "low": Column(F32, "smallest effect"),
    "high": Column(F32, "largest effect"),
    "histogram": Column(pa.list_(I32), "tokens in bins of equal width over [low, high]"),
}
HEADS = {
    "latent": Column(I32, "whose decoder row it is"),
    "head": Column(I32, "of the hook point's layer"),
    "share": Column(F64, "of the decoder row's square norm that lies in the head's coordinates"),
    "norm": Column(F64, "of what the head writes to the residual stream, per unit of activation"),
    "along": Column(F64, "its part of what all heads write together, along that; the heads' parts add up to 1"),
}
NGRAMS = {
    "latent": Column(I32, "which latent fires"),
    "n": Column(I32, "1: on the token; 2: on the second of two neighbours"),
    "rank": Column(I32, "commonest first"),
    "token_ids": Column(pa.list_(I32), "the token, or both"),
    "text": Column(TEXT, "their text"),
    "n_fired": Column(I64, "times it fires there"),
    "n_seen": Column(I64, "times this is there, among tokens that count"),
    "fires": Column(F64, "n_fired / n_seen"),
    "share": Column(F64, "n_fired over all its firings"),
    "mean": Column(F64, "mean value there, of kept events; missing where none is kept"),
}
COACTIVATIONS = {
    "latent": Column(I32, "a latent"),
    "other": Column(I32, "one that fires on the same tokens"),
    "n_both": Column(I64, "tokens on which both fire"),
    "expected": Column(F64, "the same were they independent"),
    "jaccard": Column(F64, "n_both over tokens on which either fires"),
    "phi": Column(F64, "correlation of firing or not"),
    "pmi": Column(F64, "bits: log2(n_both / expected)"),
    "implies": Column(F64, "share of the latent's firings on which the other fires"),
    "implied_by": Column(F64, "share of the other's firings on which the latent fires"),
}
NEIGHBOURS = {
    "latent": Column(I32, "a latent"),
    "side": Column(TEXT, "`decoder` or `encoder`"),
    "rank": Column(I32, "nearest first"),
    "other": Column(I32, "another latent"),
    "cosine": Column(F32, "of their decoder rows, or encoder columns"),
}
PLANE = {
    "latent": Column(I32, "a latent"),
    "x": Column(F32, "where UMAP puts its decoder row; latents that never fire are left out"),
    "y": Column(F32, "the same; how it was made is in the run of kind `plane` that `runs` names"),
}
TITLES = {
    "doc_id": Column(I32, "the document"),
    "source": Column(TEXT, "where it is from"),
    "title": Column(TEXT, "its name there"),
    "split": Column(TEXT, "`train` or `heldout`"),
    "n_tokens": Column(I64, "its tokens"),
}
EXPLANATIONS = {
    "latent": Column(I32, "what is explained"),
    "explainer": Column(TEXT, "its name"),
    "text": Column(TEXT, "the explanation"),
    "input_text": Column(TEXT, "the part of it that speaks of inputs, which is what scorers of inputs read"),
    "output_text": Column(TEXT, "the part that speaks of outputs, where it was asked for apart"),
    "method": Column(TEXT, "who wrote it, in words for the reader"),
    "n_contexts": Column(I32, "contexts shown to the explainer; missing where it was written elsewhere"),
    "n_docs": Column(I32, "their documents; missing likewise"),
    "doc_ids": Column(pa.list_(I32), "which documents; missing likewise"),
    "prompt": Column(TEXT, "id, version and hash of the prompt; empty where no language model was asked"),
    "quoted": Column(F64, "share of its words that are copied from contexts it was shown, in runs of six or more"),
    "calls": Column(pa.list_(TEXT), "keys in `calls` of the replies that it was read from"),
    "run": Column(TEXT, "id of the run that wrote it"),
}
CANDIDATES = {
    "latent": Column(I32, "what is explained"),
    "explainer": Column(TEXT, "its name"),
    "rank": Column(I32, "0 was kept"),
    "text": Column(TEXT, "the explanation"),
    "seed": Column(I32, "of the sample"),
    "value": Column(F64, "its score on the documents that chose: too high for the one that was kept"),
    "n_judged": Column(I32, "examples"),
    "run": Column(TEXT, "id of the run that wrote it"),
}
CLUSTERS = {
    "latent": Column(I32, "a member"),
    "medoid": Column(I32, "the member of the highest mean cosine to the others: the same for all members"),
    "n_latents": Column(I32, "members, this one included"),
    "cosine": Column(F64, "mean over pairs of members, of decoder rows"),
    "run": Column(TEXT, "id of the run that explained them together"),
}
UNEXPLAINED = {
    "latent": Column(I32, "what has no explanation"),
    "explainer": Column(TEXT, "who was asked"),
    "reason": Column(TEXT, "`no evidence`, `unreadable`, `cut off`, `not loaded`"),
    "calls": Column(pa.list_(TEXT), "keys in `calls` of the replies that could not be read"),
    "run": Column(TEXT, "id of the run that asked"),
}
_SCORED = {
    "latent": Column(I32, "what is scored"),
    "explainer": Column(TEXT, "who explained it"),
    "scorer": Column(TEXT, "who scored it"),
    "arm": Column(
        TEXT,
        "`explanation`, or a null: `shuffled` (of another latent), `generic`, `empty`, `unigram` (its commonest "
        "words), `random` (a random direction of its density, explained and scored as it was)",
    ),
}
SCORES = {
    **_SCORED,
    "value": Column(F64, "missing when nothing could be judged"),
    "ci_low": Column(F64, "95 % interval"),
    "ci_high": Column(F64, ""),
    "worst": Column(F64, "the value were every unread answer wrong; missing where all were read"),
    "best": Column(F64, "the value were every unread answer right"),
    "chance": Column(F64, "what guessing gets"),
    "n_judged": Column(I32, "examples"),
    "n_unparsed": Column(I32, "answers that could not be read"),
    "n_asked_twice": Column(I32, "examples that were asked about once more"),
    "n_docs": Column(I32, "documents of the examples"),
    "n_docs_shared": Column(
        I32, "with the contexts the explainer saw: 0, or the score is refused; missing if not known"
    ),
    "base_rate": Column(F64, "share of all windows in which it fires; missing where it was not looked for"),
    "prompt": Column(TEXT, "id, version and hash of the prompt; empty where no language model was asked"),
    "run": Column(TEXT, "id of the run"),
}
SCORE_METRICS = {
    **_SCORED,
    "metric": Column(TEXT, "a name in `autointerp.statistics.METRICS`, or `precision_at_base_rate` and its ends"),
    "value": Column(F64, "of the same examples; missing where it is not defined"),
    "run": Column(TEXT, "id of the run"),
}
EXAMPLES = {
    **_SCORED,
    "number": Column(I32, "in the order in which they were asked about"),
    "kind": Column(TEXT, "`active`, or how it was chosen among silent ones; or what the scorer calls its questions"),
    "doc_id": Column(I32, "the document; missing where a model wrote the text"),
    "text": Column(TEXT, "what was judged"),
    "token": Column(I32, "of the context, where it was about one"),
    "truth": Column(F64, "1 or 0, a choice, or an activation"),
    "answer": Column(F64, "missing where it could not be read"),
    "probability": Column(F64, "that the judge gave to yes; missing where it was not asked for"),
    "n_asked": Column(I32, "2 where the first reply could not be read"),
    "call": Column(TEXT, "key in `calls` of the reply"),
    "run": Column(TEXT, "id of the run"),
}
CALLS = {
    "key": Column(TEXT, "of the reply: a hash of the model and all that it was asked"),
    "model": Column(TEXT, "backend and model"),
    "prompt": Column(TEXT, "id, version and hash of the prompt"),
    "request": Column(TEXT, "what was asked, as JSON"),
    "reply": Column(TEXT, "what came back"),
    "n_tokens_in": Column(I32, "tokens asked"),
    "n_tokens_out": Column(I32, "tokens that came back"),
    "usd": Column(F64, "what it cost; missing where that is not known"),
    "run": Column(TEXT, "id of the run that used it"),
}

PUBLISHED: dict[str, dict[str, Column]] = {
    "latents": LATENTS,
    "contexts": CONTEXTS,
    "logits": LOGITS,
    "logit_effects": LOGIT_EFFECTS,
    "heads": HEADS,
    "ngrams": NGRAMS,
    "coactivations": COACTIVATIONS,
    "neighbours": NEIGHBOURS,
    "plane": PLANE,
    "titles": TITLES,
    "explanations": EXPLANATIONS,
    "candidates": CANDIDATES,
    "clusters": CLUSTERS,
    "unexplained": UNEXPLAINED,
    "scores": SCORES,
    "score_metrics": SCORE_METRICS,
}
"""Tables of the published file."""
TABLES: dict[str, dict[str, Column]] = {**PUBLISHED, "events": EVENTS, "examples": EXAMPLES, "calls": CALLS}
"""All that an index writes."""
ROWS: dict[str, str] = {
    "latents": "A row for each latent, dead ones included. All figures are of tokens that count: of the classes that "
    "were asked for, first positions left out.",
    "contexts": "A row for each stored context of a latent, sorted by latent.",
    "logits": "A row for each of the tokens that a latent's decoder row promotes or suppresses most, where the hook "
    "point is in the residual stream's basis, or is heads' outputs, which are read through their output weights.",
    "logit_effects": "A row for each latent: how its effects are distributed over the whole vocabulary.",
    "heads": "A row for each latent and head, where the dictionary reads heads' outputs side by side.",
    "ngrams": "A row for each of the commonest tokens, and pairs of tokens, on which a latent fires.",
    "coactivations": "A row for each pair of latents that is among the first of the one by Jaccard, φ, PMI or "
    "implication. Counts are of all tokens; pairs that fire together on fewer than five are left out.",
    "neighbours": "A row for each of the nearest latents, exact.",
    "plane": "A row for each latent, where a plane was made.",
    "titles": "A row for each document, without its text.",
    "explanations": "A row for each explanation that was published.",
    "scores": "A row for each score, and for each of its nulls.",
    "candidates": "A row for each explanation among which the best was chosen.",
    "clusters": "A row for each latent that was explained together with others.",
    "unexplained": "A row for each latent that an explainer had no words for.",
    "score_metrics": "A row for each other figure of a score.",
    "examples": "A row for each question that a scorer asked; read from Parquet where it lies.",
    "calls": "A row for each reply of a language model that a run used; read from Parquet where it lies.",
    "events": "A row for each firing, sorted by latent, sequence and position; read from Parquet where it lies.",
}
"""What a row of each table is."""
SCHEMAS: dict[str, pa.Schema] = {
    table: pa.schema({name: column.type for name, column in columns.items()}) for table, columns in TABLES.items()
}
# Sorting by these makes one latent's rows neighbours on disk, so a lookup reads one or two row groups.
SORTED_BY = {
    "latents": "latent",
    "contexts": "latent, band, rank",
    "logits": "latent, side, rank",
    "logit_effects": "latent",
    "heads": "latent, head",
    "ngrams": "latent, n, rank",
    "coactivations": "latent, phi DESC, other",
    "neighbours": "latent, side, rank",
    "plane": "latent",
    "titles": "doc_id",
    "explanations": "latent, run",
    "candidates": "latent, run, rank",
    "clusters": "latent, run",
    "unexplained": "latent, run",
    "scores": "latent, run, arm",
    "score_metrics": "latent, run, arm, metric",
}

FEATURES = """
CREATE TABLE features AS
WITH promoted AS (
    SELECT latent, string_agg(token, ' ' ORDER BY rank) AS promotes
    FROM logits WHERE side = 'top' AND rank < 5 GROUP BY latent
), fires AS (
    SELECT latent, string_agg(text, ' ' ORDER BY rank) AS fires_on
    FROM ngrams WHERE n = 1 AND rank < 5 GROUP BY latent
), explained AS (
    SELECT latent, text AS explanation, explainer FROM explanations JOIN runs ON runs.id = run
    QUALIFY row_number() OVER (PARTITION BY latent ORDER BY finished_at DESC, run) = 1
), scored AS (
    SELECT latent, explainer, run, scorer, value AS score, ci_low, ci_high, chance, n_judged
    FROM scores JOIN runs ON runs.id = run WHERE arm = 'explanation'
    QUALIFY row_number() OVER (PARTITION BY latent, explainer ORDER BY finished_at DESC, run, scorer) = 1
), nulls AS (
    SELECT latent, run, scorer, value AS null_score FROM scores WHERE arm = 'shuffled'
)
SELECT l.latent, l.density, l.n_fired, l.n_docs, l.dead, l.dense, l.max, l.q50, l.mean, l.skewness, l.doc_entropy,
       e.explanation, e.explainer,
       s.score, s.ci_low, s.ci_high, s.n_judged, s.chance, n.null_score, s.score - n.null_score AS score_minus_null,
       f.fires_on, p.promotes
FROM latents l
LEFT JOIN promoted p USING (latent) LEFT JOIN fires f USING (latent) LEFT JOIN explained e USING (latent)
LEFT JOIN scored s ON s.latent = l.latent AND s.explainer = e.explainer
LEFT JOIN nulls n ON n.latent = s.latent AND n.run = s.run AND n.scorer = s.scorer
ORDER BY l.latent
"""
"""One row a latent, what a list of features shows: the newest explanation, and the newest score beside its null."""
