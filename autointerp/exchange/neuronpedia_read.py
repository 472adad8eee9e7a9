"""Neuronpedia's explanations, from the JSON lines that it exports, as explanations of an index here."""

from dataclasses import dataclass, field
from pathlib import Path

from autointerp.exchange.neuronpedia_lines import Line, chosen_lines, explanation_files
from autointerp.latent import Explanation
from autointerp.rows import columns, explanation_row
from autointerp.sample import SampleConfig
from store.feature_index import FeatureIndex
from store.hashing import content_hash, plain, sha256_file
from store.index import publish, write_part
from store.index_tables import SCHEMAS
from store.run import Run, start_run


@dataclass(frozen=True, kw_only=True)
class NeuronpediaConfig:
    """Which of a file's explanations to take."""

    source: str | None = None
    """Of this dictionary (its `layer`), where the file has several."""
    type: str | None = None
    """Written in this way (its `typeName`), where features have several explanations."""
    explainer: str = "neuronpedia"
    """What they are called here."""
    sample: SampleConfig = field(default_factory=SampleConfig)
    """What scores of them are judged on."""


def import_neuronpedia(cfg: NeuronpediaConfig, path: Path, index_run: Run, root: Path) -> Run:
    """Read explanations into `root/explanations/<hash>` and publish them, or return what is already there.

    Nothing is known of what their authors saw, so scores of them cannot say that it was other documents.

    Args:
        cfg: which of them.
        path: a file of JSON lines, gzipped or not, or a folder of such.
        index_run: the index of the same dictionary.
        root: of the runs.

    Raises:
        UsageError: no such file, or a line that is no explanation of a latent of this index.
    """
    files = explanation_files(path)
    same = plain(cfg) | {"files": content_hash([sha256_file(file) for file in files])}
    with start_run(root, "explanations", cfg, {"index": index_run.id}, same) as run:
        if not run.finished:
            n_latents = FeatureIndex(index_run.folder).n_latents
            lines = chosen_lines(files, n_latents, source=cfg.source, kind=cfg.type)
            explanations = [_explanation(cfg, line) for line in lines]
            rows = [explanation_row(each, run.id) for each in explanations]
            write_part(run.folder, "explanations", columns(rows, SCHEMAS["explanations"].names))
            run.finish({"n_explained": len(explanations), "explain_docs": None})
        publish(index_run)
        return run


def _explanation(cfg: NeuronpediaConfig, line: Line) -> Explanation:
    return Explanation(
        latent=line.latent,
        explainer=cfg.explainer,
        text=line.text,
        input_text=line.text,
        method=line.method,
        n_contexts=None,
        doc_ids=None,
    )
