"""The tables: one Arrow schema each, the single source for writers, publisher and readers."""

import pyarrow as pa

LATENTS = pa.schema(
    {
        "latent": pa.int32(),
        "n_fired": pa.int64(),  # tokens on which it is active
        "n_docs": pa.int32(),  # documents with at least one such token
        "density": pa.float64(),  # n_fired / tokens encoded
        "mean": pa.float64(),  # of active values; so are all figures below
        "mean_square": pa.float64(),
        "max": pa.float32(),
        "q50": pa.float32(),
        "q90": pa.float32(),
        "q99": pa.float32(),
        "q999": pa.float32(),
        "histogram": pa.list_(pa.int64()),  # counts in equal-width bins over (0, max]
    }
)
EVENTS = pa.schema(
    {
        "latent": pa.int32(),
        "seq": pa.int32(),
        "pos": pa.int32(),
        "doc_id": pa.int64(),  # of the token it fired on: a packed sequence holds several
        "value": pa.float32(),
    }
)
CONTEXTS = pa.schema(
    {
        "latent": pa.int32(),
        "band": pa.string(),  # `top`, or `q1` (weakest quarter of peaks) to `q4`
        "rank": pa.int32(),
        "seq": pa.int32(),
        "pos": pa.int32(),  # of the peak
        "value": pa.float32(),  # at the peak
        "start": pa.int32(),  # the window is positions start <= pos < stop
        "stop": pa.int32(),
        "doc_id": pa.int64(),
        "weight": pa.float64(),  # peaks of the band that this context stands for
    }
)
LOGITS = pa.schema(
    {
        "latent": pa.int32(),
        "side": pa.string(),  # `top` or `bottom`
        "rank": pa.int32(),
        "token_id": pa.int32(),
        "token": pa.string(),
        "value": pa.float32(),
    }
)
SEQUENCES = pa.schema(
    {
        "seq": pa.int32(),
        "token_ids": pa.list_(pa.int32()),
        "doc_ids": pa.list_(pa.int64()),  # of each token: packed sequences hold several documents
        "char_start": pa.list_(pa.int32()),  # span of each token in its document's text; -1, -1 for BOS
        "char_end": pa.list_(pa.int32()),
        "text_class": pa.list_(pa.int8()),  # class as the text tells it: `sink` is known only from the activations
    }
)
DOCUMENTS = pa.schema(
    {
        "doc_id": pa.int64(),
        "source": pa.string(),
        "title": pa.string(),
        "split": pa.string(),  # `train` or `heldout`
        "n_tokens": pa.int64(),
        "text": pa.large_string(),
    }
)
EXPLANATIONS = pa.schema(
    {
        "latent": pa.int32(),
        "explainer": pa.string(),
        "text": pa.string(),
        "input_text": pa.string(),  # the part of it that speaks of inputs, which is what is scored
        "method": pa.string(),  # who wrote it, in words for the reader
        "n_contexts": pa.int32(),  # shown to the explainer
        "n_docs": pa.int32(),
        "run": pa.string(),
    }
)
SCORES = pa.schema(
    {
        "latent": pa.int32(),
        "explainer": pa.string(),
        "scorer": pa.string(),
        "arm": pa.string(),  # `explanation`, or the null `shuffled`
        "value": pa.float64(),  # null when nothing could be judged
        "ci_low": pa.float64(),
        "ci_high": pa.float64(),
        "chance": pa.float64(),
        "n_judged": pa.int32(),
        "n_unparsed": pa.int32(),
        "n_docs": pa.int32(),
        "n_docs_shared": pa.int32(),  # with the contexts the explainer saw: 0, or the score is refused
        "run": pa.string(),
    }
)

STATISTICS = pa.schema(
    {
        "hook_point": pa.string(),
        "split": pa.string(),
        "token_class": pa.string(),
        "n": pa.int64(),  # rows; all figures below are of these
        "mean": pa.list_(pa.float64()),  # `[d_in]`
        "variance": pa.list_(pa.float64()),  # `[d_in]`
        "mean_square_norm": pa.float64(),
        "mean_norm": pa.float64(),
        "max_abs": pa.float64(),
    }
)

FIGURES = pa.schema(
    {
        "metric": pa.string(),
        "value": pa.float64(),  # null where it could not be told; `note` says why
        "n": pa.int64(),
        "n_of": pa.string(),  # what n counts
        "token_class": pa.string(),  # of the rows; empty where it is not over rows
        "arm": pa.string(),  # `sae`, or the control or baseline beside it
        "setting": pa.string(),  # whatever else it depends on
        "low": pa.float64(),  # 95 % interval
        "high": pa.float64(),
        "note": pa.string(),
    }
)
CURVES = pa.schema(
    {
        "plot": pa.string(),
        "series": pa.string(),
        "x": pa.list_(pa.float64()),
        "y": pa.list_(pa.float64()),
    }
)

SCHEMAS: dict[str, pa.Schema] = {
    "latents": LATENTS,
    "events": EVENTS,
    "contexts": CONTEXTS,
    "logits": LOGITS,
    "sequences": SEQUENCES,
    "documents": DOCUMENTS,
    "explanations": EXPLANATIONS,
    "scores": SCORES,
}
"""Tables of the feature index."""
HARVEST_SCHEMAS: dict[str, pa.Schema] = {"documents": DOCUMENTS, "sequences": SEQUENCES, "statistics": STATISTICS}
"""Tables of a harvest, beside its shards."""

FEATURES_VIEW = """
CREATE VIEW features AS
WITH promoted AS (
    SELECT latent, string_agg(token, ' ' ORDER BY rank) AS promotes
    FROM logits WHERE side = 'top' AND rank < 5 GROUP BY latent
), explained AS (
    SELECT latent, text AS explanation, explainer FROM explanations JOIN runs ON runs.id = run
    QUALIFY row_number() OVER (PARTITION BY latent ORDER BY finished_at DESC, run) = 1
), scored AS (
    SELECT latent, run, scorer, value AS score, ci_low, ci_high, chance, n_judged FROM scores JOIN runs ON runs.id = run
    WHERE arm = 'explanation'
    QUALIFY row_number() OVER (PARTITION BY latent ORDER BY finished_at DESC, run, scorer) = 1
), nulls AS (
    SELECT latent, run, scorer, value AS null_score FROM scores WHERE arm = 'shuffled'
)
SELECT l.latent, l.density, l.n_fired, l.n_docs, l.max, l.q50, l.mean, e.explanation, e.explainer,
       s.score, s.ci_low, s.ci_high, s.n_judged, s.chance, n.null_score, s.score - n.null_score AS score_minus_null,
       p.promotes
FROM latents l
LEFT JOIN promoted p USING (latent) LEFT JOIN explained e USING (latent)
LEFT JOIN scored s USING (latent)
LEFT JOIN nulls n ON n.latent = s.latent AND n.run = s.run AND n.scorer = s.scorer
"""
