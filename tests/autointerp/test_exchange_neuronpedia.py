"""Neuronpedia's lines and lists of features: what is written is the index's, and a bad line is named."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from autointerp.exchange.export import Export, ExportConfig, choose
from autointerp.exchange.feature_list import write_list
from autointerp.exchange.neuronpedia_read import NeuronpediaConfig, import_neuronpedia
from autointerp.exchange.neuronpedia_write import write_neuronpedia
from autointerp.scoring import ScoreConfig, score
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.run import Run, find_run

ONE_LINE = r"^[^\n]+\Z"


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> FeatureIndex:
    return FeatureIndex(find_run(tiny_root, "latest", "index").folder)


def an_export(index: FeatureIndex, latents: str | None = None, **called: Any) -> Export:
    return Export(index, choose(index, latents), ExportConfig(**called))


def read_lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    files = sorted(folder.glob(f"*/*/{kind}/batch-*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


class TestNeuronpedia:
    @pytest.fixture(scope="class")
    def written(self, index: FeatureIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
        out = tmp_path_factory.mktemp("neuronpedia") / "out"
        write_neuronpedia(out, an_export(index))
        return out

    def test_every_line_has_the_columns_of_the_first(self, written: Path):
        for kind in ("features", "activations", "explanations"):
            lines = read_lines(written, kind)
            assert len({tuple(line) for line in lines}) == 1
            assert {(line["modelId"], line["layer"][:10], type(line["index"])) for line in lines} == {
                ("tiny", "1-monosem-", str)
            }

    def test_features_are_the_indexs(self, index: FeatureIndex, written: Path):
        lines = read_lines(written, "features")
        rows = index.arrow("select * from latents order by latent").to_pylist()
        for line, row in zip(lines, rows, strict=True):
            assert line["index"] == str(row["latent"])
            assert line["maxActApprox"] == row["max"]
            assert line["frac_nonzero"] == row["density"]
            assert line["freq_hist_data_bar_heights"] == row["histogram"]
            assert len(line["pos_str"]) == len(line["pos_values"]) == 10
            assert line["pos_values"] == sorted(line["pos_values"], reverse=True)

    def test_activations_lie_in_their_bins_and_the_bins_hold_all_firings(self, index: FeatureIndex, written: Path):
        by_latent: dict[str, list[dict[str, Any]]] = {}
        for line in read_lines(written, "activations"):
            by_latent.setdefault(line["index"], []).append(line)
            peak = line["values"][line["qualifyingTokenIndex"]]
            assert len(line["tokens"]) == len(line["values"])
            assert line["maxValue"] == max(line["values"]) == line["values"][line["maxValueTokenIndex"]]
            if line["binMin"] >= 0:
                assert line["binMin"] - 1e-4 <= peak <= line["binMax"] + 1e-4
        density = index.sql("select density from latents order by latent")["density"]
        for latent, lines in by_latent.items():
            bins = {line["binMin"]: line["binContains"] for line in lines if line["binMin"] >= 0}
            assert sum(bins.values()) <= density[int(latent)] * (1 + 1e-9)
        assert len({line["id"] for lines in by_latent.values() for line in lines}) == sum(map(len, by_latent.values()))

    def test_the_same_index_gives_the_same_bytes(self, index: FeatureIndex, written: Path, tmp_path: Path):
        write_neuronpedia(tmp_path / "again", an_export(index))
        for path in written.rglob("*.gz"):
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(written)).read_bytes()

    def test_features_are_in_batches(self, index: FeatureIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("autointerp.exchange.neuronpedia_write.BATCH", 3)
        monkeypatch.setattr("autointerp.exchange.neuronpedia_write.AT_A_TIME", 2)
        write_neuronpedia(tmp_path / "out", an_export(index, "1,2,5-9"))
        assert [line["index"] for line in read_lines(tmp_path / "out", "features")] == [
            "1",
            "2",
            "5",
            "6",
            "7",
            "8",
            "9",
        ]
        assert len(list(tmp_path.glob("out/*/*/features/*"))) == 3

    @pytest.mark.parametrize(
        "called", [{"sae_id": "../up"}, {"model_name": "a/b"}, {"sae_id": "res"}, {"sae_id": "1-"}]
    )
    def test_a_name_that_is_no_part_of_a_path_is_refused(self, index: FeatureIndex, tmp_path: Path, called: dict):
        with pytest.raises(UsageError):
            write_neuronpedia(tmp_path / "out", an_export(index, "1", **called))
        assert not list(tmp_path.iterdir())


class TestExplanations:
    GOOD = '{"modelId":"m","layer":"1-a","index":"3","description":"fires on <b>","typeName":"t"}'

    @pytest.fixture
    def root(self, tiny_root: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_root, tmp_path / "runs"))

    def read(self, root: Path, lines: list[str] | bytes, **asked: Any) -> Run:
        path = root.parent / "explanations.jsonl"
        path.write_bytes(lines if isinstance(lines, bytes) else "\n".join(lines).encode())
        return import_neuronpedia(NeuronpediaConfig(**asked), path, find_run(root, "latest", "index"), root)

    def test_they_are_published_with_where_they_are_from_and_scored(self, root: Path):
        other = '{"modelId":"m","layer":"1-a","index":5,"description":"the letter w","explanationModelName":"x"}'
        run = self.read(root, [self.GOOD, "", other])
        index = FeatureIndex(root / "index" / run.inputs["index"])
        rows = index.arrow("select * from explanations where run = ? order by latent", [run.id]).to_pylist()
        assert [(row["latent"], row["text"], row["explainer"]) for row in rows] == [
            (3, "fires on <b>", "neuronpedia"),
            (5, "the letter w", "neuronpedia"),
        ]
        assert rows[0]["method"] == "Neuronpedia, m/1-a: t by somebody"
        assert rows[0]["n_contexts"] is None
        scored = score(ScoreConfig(), run, root)
        shared = (
            index.arrow("select n_docs_shared from scores where run = ? and arm = 'explanation'", [scored.id])
            .column(0)
            .to_pylist()
        )
        assert set(shared) == {None}

    def test_our_own_export_is_read_back(self, root: Path):
        ours = find_run(root, "latest", "index")
        write_neuronpedia(root.parent / "np", an_export(FeatureIndex(ours.folder)))
        folder = next((root.parent / "np").glob("*/*/explanations"))
        run = import_neuronpedia(NeuronpediaConfig(), folder, ours, root)
        rows = FeatureIndex(ours.folder).sql("select latent, text from explanations order by latent, run")
        assert (rows.groupby("latent")["text"].nunique() == 1).all()
        assert run.results["n_explained"] == rows["latent"].nunique()

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("{no json", "line 2 is no JSON"),
            ("[" * 100_000, "line 2 is no JSON"),
            ("[1]", "line 2 is no JSON object"),
            ('{"index":"4"}', "line 2 has no description"),
            ('{"index":"4","description":" "}', "line 2 has no description"),
            ('{"index":"4.5","description":"a"}', 'line 2: index is "4.5"'),
            ('{"index":NaN,"description":"a"}', "line 2: index is NaN"),
            ('{"index":true,"description":"a"}', "line 2: index is true"),
            ('{"index":-1,"description":"a"}', "line 2: index is -1"),
            ('{"modelId":"m","layer":"1-a","index":"64","description":"a"}', "latent 64 is out of range"),
            (GOOD, "line 2: latent 3 has an explanation in explanations.jsonl line 1 already"),
            (GOOD.replace('"t"', '"u"'), "(t there, u here): choose one kind with --type"),
            (GOOD.replace("1-a", "2-a"), "is of m/2-a, line 1 of explanations.jsonl of m/1-a"),
            (GOOD.replace('"1-a"', "7"), "line 2: layer is 7"),
            (GOOD.replace('"3"', '"4"').replace("fires", "\\ud800"), "half a surrogate pair"),
            ("x" * (1 << 20), "line 2 is longer than 1,048,576 bytes"),
        ],
    )
    def test_a_bad_line_is_named(self, tiny_root: Path, tmp_path: Path, line: str, said: str):
        path = tmp_path / "explanations.jsonl"
        path.write_text(f"{self.GOOD}\n{line}\n")
        with pytest.raises(UsageError, match=ONE_LINE) as caught:
            import_neuronpedia(NeuronpediaConfig(), path, find_run(tiny_root, "latest", "index"), tmp_path / "runs")
        assert said in str(caught.value)
        assert str(path) in str(caught.value)

    def test_one_kind_and_one_dictionary_can_be_chosen(self, root: Path):
        lines = [self.GOOD, self.GOOD.replace('"t"', '"u"'), self.GOOD.replace("1-a", "2-a")]
        assert self.read(root, lines, type="u", source="1-a").results["n_explained"] == 1

    def test_a_cut_gzip_file_is_named(self, tiny_root: Path, tmp_path: Path):
        path = tmp_path / "batch-0.jsonl.gz"
        path.write_bytes(gzip.compress((self.GOOD + "\n").encode() * 100)[:-9])
        with pytest.raises(UsageError, match=r"batch-0.jsonl.gz"):
            import_neuronpedia(NeuronpediaConfig(), path, find_run(tiny_root, "latest", "index"), tmp_path / "runs")


def test_a_list_of_features_is_a_quick_list(index: FeatureIndex, tmp_path: Path):
    write_list(
        tmp_path / "list.json", an_export(index, "3,9", model_name="gpt2-small", sae_id="6-res-jb", name="a & b")
    )
    found = json.loads((tmp_path / "list.json").read_text())
    assert found["features"] == [3, 9]
    assert found["neuronpedia_id"] == "gpt2-small/6-res-jb"
    assert found["quick_list"][0] == {"modelId": "gpt2-small", "layer": "6-res-jb", "index": "3"}
    assert "name=a+%26+b" in found["url"]
