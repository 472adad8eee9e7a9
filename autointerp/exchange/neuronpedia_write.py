"""An index as Neuronpedia's import reads it: gzipped JSON lines of features, activations and explanations.

MODEL/SOURCE/{features,activations,explanations}/batch-N.jsonl.gz, N for each 1024 features, and the four lines
(model, release, source set, source) that name them. The importer takes its columns from the first line of a file, so
every line has them all.
"""

import gzip
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from activations.progress import Progress, no_progress
from autointerp.exchange.export import Export
from store.files import whole_folder

T = TypeVar("T")
BATCH = 1024
"""Features whose rows are in one file."""
AT_A_TIME = 64
"""Features whose rows are in memory."""
LEVEL = 5
"""Of gzip, as Neuronpedia's."""
DIGITS = 5
"""Of activations, after the point."""
TOP_BIN = -1.0
"""What Neuronpedia has for a bin's lower bound and share to tell the strongest examples from those of a bin."""
LISTS = ("logits", "logit_effects", "heads", "neighbours", "plane", "explanations", "contexts")
"""Tables read for each feature, besides `latents`."""


def write_neuronpedia(out: Path, export: Export, progress: Progress = no_progress) -> dict[str, int]:
    """Write the folder `out`; returns what was written in numbers."""
    rows = _Rows(export)
    counts = dict.fromkeys(rows.makers, 0)
    with whole_folder(out) as scratch:
        folder = scratch / export.model_id / export.sae_id
        for name, line in rows.names().items():
            _write_lines(folder / f"{name}.jsonl", [line])
        batches = [export.latents[start : start + BATCH] for start in range(0, len(export.latents), BATCH)]
        for number, latents in enumerate(progress(batches, len(batches), "write features and their activations")):
            for kind, n in rows.write(folder, number, latents).items():
                counts[kind] += n
    return {f"n_{kind}": n for kind, n in counts.items()}


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines), encoding="utf-8")


@dataclass(frozen=True)
class _Rows:
    export: Export

    @property
    def makers(self) -> dict[str, Callable[[dict[str, Any]], Iterator[dict[str, Any]]]]:
        """What makes the lines of each folder, from all that is known of one feature."""
        return {"features": self._features, "activations": self._activations, "explanations": self._explanations}

    def write(self, folder: Path, number: int, latents: np.ndarray) -> dict[str, int]:
        """One file in each folder that has lines of these features; how many lines."""
        paths = {kind: folder / kind / f"batch-{number}.jsonl.gz" for kind in self.makers}
        counts = dict.fromkeys(paths, 0)
        for path in paths.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        # Without a time in the header, the same index gives the same bytes.
        files = {kind: gzip.GzipFile(path, "wb", LEVEL, mtime=0) for kind, path in paths.items()}
        try:
            for known in self._known(latents):
                for kind, make in self.makers.items():
                    for line in make(known):
                        files[kind].write((json.dumps(line, allow_nan=False) + "\n").encode())
                        counts[kind] += 1
        finally:
            for file in files.values():
                file.close()
        for kind, path in paths.items():
            if not counts[kind]:
                path.unlink()  # the importer looks for a file's columns in its first line
        return counts

    def names(self) -> dict[str, dict[str, Any]]:
        """The lines that say which model and dictionary these features are of."""
        export, source = self.export, self.export.sae_id
        set_name = source.partition("-")[2].partition("__")[0]
        creator = {"creatorId": self.export.cfg.creator, "visibility": "PRIVATE"}
        model = {"id": export.model_id, "displayNameShort": export.model_id, "displayName": export.model_id}
        index = f"monosem index {export.index.run.id}"
        return {
            "model": model
            | {"instruct": "instruct" in export.model_id, "layers": 0, "neuronsPerLayer": 0}
            | creator
            | {"owner": ""},
            "release": {"name": set_name, "description": index, "creatorName": "monosem", "urls": []} | creator,
            "sourceset": {"modelId": export.model_id, "name": set_name, "description": index, "creatorName": "monosem"}
            | {"releaseName": set_name, "urls": []}
            | creator,
            "source": {"id": source, "modelId": export.model_id, "setName": set_name, "dataset": self._dataset}
            | {"num_prompts": len(export.index.tokens.seqs), "num_tokens_in_prompt": None, "notes": index}
            | creator,
        }

    @property
    def _dataset(self) -> str:
        return f"monosem harvest {self.export.index.harvest.id}"

    def _known(self, latents: np.ndarray) -> Iterator[dict[str, Any]]:
        """All that is stored of one feature after another, read some at a time."""
        index = self.export.index
        for start in range(0, len(latents), AT_A_TIME):
            wanted = latents[start : start + AT_A_TIME].tolist()
            found: dict[str, dict[int, list[dict[str, Any]]]] = {}
            for table in ("latents", *LISTS):
                asked = f"SELECT * FROM {table} WHERE latent IN (SELECT unnest(?::INTEGER[]))"
                found[table] = {latent: [] for latent in wanted}
                for row in index.arrow(asked, [wanted]).to_pylist():
                    found[table][row["latent"]].append(row)
            for latent in wanted:
                yield found["latents"][latent][0] | {table: found[table][latent] for table in LISTS}

    @cached_property
    def _place(self) -> dict[str, str]:
        return {"modelId": self.export.model_id, "layer": self.export.sae_id}

    def _features(self, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
        effects = known["logit_effects"][0] if known["logit_effects"] else None
        sides = {
            side: sorted((row for row in known["logits"] if row["side"] == side), key=_rank)
            for side in ("top", "bottom")
        }
        near = sorted((row for row in known["neighbours"] if row["side"] == "decoder"), key=_rank)
        low = min(0.0, known["min"])
        yield (
            self._place
            | {
                "index": str(known["latent"]),
                "sourceSetName": self.export.sae_id.partition("-")[2].partition("__")[0],
                "creatorId": self.export.cfg.creator,
                "maxActApprox": known["max"],
                "frac_nonzero": known["density"],
                "freq_hist_data_bar_heights": known["histogram"],
                "freq_hist_data_bar_values": _middles(low, known["max"], len(known["histogram"])),
                "logits_hist_data_bar_heights": effects["histogram"] if effects else [],
                "logits_hist_data_bar_values": _middles(effects["low"], effects["high"], len(effects["histogram"]))
                if effects
                else [],
                "pos_str": [row["token"] for row in sides["top"]],
                "pos_values": [row["value"] for row in sides["top"]],
                "neg_str": [row["token"] for row in sides["bottom"]],
                "neg_values": [row["value"] for row in sides["bottom"]],
                "topkCosSimIndices": [row["other"] for row in near],
                "topkCosSimValues": [row["cosine"] for row in near],
                "decoder_weights_dist": _head_norms(known["heads"]),
                "hasVector": False,
                "vector": [],
                "vectorLabel": None,
                "hookName": self.export.origin.hook_point,
            }
            | _plane(known)
        )

    def _activations(self, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The strongest contexts, and those of bands of equal width: their bins. No others have a place there."""
        n_bands = max((int(row["band"][1:]) for row in known["contexts"] if row["band"][0] == "v"), default=0)
        n_bands = max(n_bands, self.export.index.run.config.get("n_bands", 0))
        bands = {"top": {"binMin": TOP_BIN, "binMax": known["max"], "binContains": TOP_BIN}} | _bins(known, n_bands)
        shown = [row for row in known["contexts"] if row["band"] in bands]
        for row in sorted(shown, key=lambda row: (row["band"] != "top", -_number(row["band"]), row["rank"])):
            yield self._activation(row, bands[row["band"]])

    def _activation(self, row: dict[str, Any], bin_of: dict[str, Any]) -> dict[str, Any]:
        tokens = self.export.index.tokens
        first = int(tokens.places(np.array([row["seq"]]), np.array([row["start"]]))[0])
        values = [0.0] * (row["stop"] - row["start"])
        for at, value in zip(row["active_at"], row["activations"], strict=True):
            values[at] = round(value, DIGITS)
        largest = max(values)
        name = f"{self.export.index.run.id} {row['latent']} {row['band']} {row['rank']}"
        return self._place | {
            "id": "m" + hashlib.sha256(name.encode()).hexdigest()[:24],
            "index": str(row["latent"]),
            "creatorId": self.export.cfg.creator,
            # PostgreSQL has no NUL in texts.
            "tokens": [text.replace("\0", "␀") for text in tokens.texts(first, first + len(values))],
            "values": values,
            "maxValue": largest,
            "maxValueTokenIndex": values.index(largest),
            "minValue": min(values),
            "qualifyingTokenIndex": row["pos"] - row["start"],
            **bin_of,
            "dataSource": self._dataset,
            "dataIndex": f"{row['doc_id']}:{row['char_start']}-{row['char_end']}",
            "dfaValues": [],
            "dfaTargetIndex": None,
            "dfaMaxValue": None,
            "lossValues": [],
        }

    def _explanations(self, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for row in sorted(known["explanations"], key=lambda row: row["run"]):
            name = f"{row['run']} {row['latent']}"
            yield (
                self._place
                | {
                    "id": "m" + hashlib.sha256(name.encode()).hexdigest()[:24],
                    "index": str(row["latent"]),
                    "authorId": self.export.cfg.creator,
                    "description": row["text"].replace("\0", "␀"),
                    # Both must be rows of Neuronpedia's own tables, which know neither our explainers nor their models.
                    "typeName": None,
                    "explanationModelName": None,
                    "notes": f"monosem {row['explainer']}: {row['method']}".replace("\0", "␀"),
                }
                | _plane(known)
            )


def _rank(row: Mapping[str, Any]) -> int:
    return row["rank"]


def _number(band: str) -> int:
    return int(band[1:]) if band[0] == "v" else 0


def _middles(low: float, high: float, n: int) -> list[float]:
    """The middle of each of `n` bins of equal width."""
    return (low + (high - low) * (np.arange(n) + 0.5) / n).tolist()


def _bins(known: Mapping[str, Any], n_bands: int) -> dict[str, dict[str, Any]]:
    """Bounds of the bands of equal width in value, and the share of all tokens whose activation is in each."""
    histogram = np.asarray(known["histogram"])
    per_band = len(histogram) // n_bands if n_bands and len(histogram) % n_bands == 0 and known["min"] >= 0 else 0
    n_tokens = known["n_fired"] / known["density"] if known["density"] else 0
    bins = {}
    for band in range(n_bands):
        held = histogram[band * per_band : (band + 1) * per_band].sum() if per_band else None
        bins[f"v{band + 1}"] = {
            "binMin": known["max"] * band / n_bands,
            "binMax": known["max"] * (band + 1) / n_bands,
            # Where the histogram's bins do not add up to the bands, the share is not known.
            "binContains": float(held / n_tokens) if held is not None and n_tokens else None,
        }
    return bins


def _head_norms(heads: list[dict[str, Any]]) -> list[float]:
    """Each head's norm over the sum of the heads' norms, which is how SAEDashboard shares a decoder row out."""
    norms = [math.sqrt(row["share"]) for row in sorted(heads, key=lambda row: row["head"])]
    return [norm / sum(norms) for norm in norms] if sum(norms) else []


def _plane(known: Mapping[str, Any]) -> dict[str, Any]:
    place = known["plane"][0] if known["plane"] else {"x": None, "y": None}
    density = known["density"]
    log = math.log10(density) if density else None
    return {"umap_x": place["x"], "umap_y": place["y"], "umap_cluster": None, "umap_log_feature_sparsity": log}
