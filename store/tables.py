"""Tables of a harvest and of evaluations: one Arrow schema each, the single source for writers and readers."""

import pyarrow as pa

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

HARVEST_SCHEMAS: dict[str, pa.Schema] = {"documents": DOCUMENTS, "sequences": SEQUENCES, "statistics": STATISTICS}
"""Tables of a harvest, beside its shards."""
