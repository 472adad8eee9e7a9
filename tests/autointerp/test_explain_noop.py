"""Explanations that exist: loaded from runs and files with what is known of where they come from."""

import asyncio
import gzip
import json
from pathlib import Path

import pytest

from app.workbench import Workbench
from autointerp.explain.noop import NoOpExplainer
from autointerp.latent import Evidence, Explanation, Unexplained
from autointerp.sample import SampleConfig, Sampler
from autointerp.tools import Tools, ToolsConfig
from store.errors import UsageError
from store.run import find_run

LINE = {"modelId": "m", "layer": "3-res", "index": "3", "description": "cats", "explanationModelName": "gpt"}


def load(explanations: object, root: Path | None = None, sampler: Sampler | None = None) -> NoOpExplainer:
    return NoOpExplainer.open(Tools(ToolsConfig(load=str(explanations)), root=root, sampler=sampler))


def look_up(loaded: NoOpExplainer, latent: int) -> Explanation | Unexplained:
    return asyncio.run(loaded(Evidence(latent, (), (), ())))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"3": "cats"}'),
        ("a.json", '[{"latent": 3, "text": "cats"}]'),
        ("a.CSV", "latent,text\n3,cats\n"),
        ("a.csv", "\ufefftext,latent,by\ncats,3,me\n"),
        ("a.jsonl", json.dumps(LINE)),
    ],
)
def test_a_file_is_looked_up_and_nothing_is_known_of_what_its_author_saw(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    loaded = load(tmp_path / name)
    found = look_up(loaded, 3)
    assert isinstance(found, Explanation)
    assert (found.text, found.input_text, found.explainer) == ("cats", "cats", "noop")
    assert (found.n_contexts, found.doc_ids) == (None, None)
    assert found.method.startswith("loaded: ")
    assert look_up(loaded, 4) == Unexplained(4, "noop", "not loaded")


def test_neuronpedias_export_is_a_folder_too_and_says_who_wrote_it(tmp_path: Path):
    (tmp_path / "batch-0.jsonl.gz").write_bytes(gzip.compress(json.dumps(LINE).encode()))
    found = look_up(load(tmp_path), 3)
    assert isinstance(found, Explanation)
    assert found.method == "loaded: Neuronpedia, m/3-res: written by gpt"


def test_a_run_is_loaded_with_the_documents_that_its_explainer_saw(tiny_root: Path):
    sampler = Sampler(Workbench.open(tiny_root).index, SampleConfig())
    run = find_run(tiny_root, "latest", "explanations")
    loaded = load("latest", tiny_root, sampler)
    latent, found = next(iter(loaded.loaded.items()))
    row = sampler.index.arrow("SELECT * FROM explanations WHERE latent = ? AND run = ?", [latent, run.id]).to_pylist()[
        0
    ]
    assert (found.text, found.input_text, found.n_contexts) == (row["text"], row["input_text"], row["n_contexts"])
    assert found.doc_ids == frozenset(row["doc_ids"])
    assert found.method == f"loaded: tokens of {run.id}, counts"
    assert load(run.folder, tiny_root, sampler).loaded == loaded.loaded


def test_documents_of_another_index_are_not_counted_as_this_ones(tiny_root: Path):
    assert {found.doc_ids for found in load("latest", tiny_root).loaded.values()} == {None}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is no JSON"),
        ("a.json", "3", "holds no explanations"),
        ("a.json", "{}", "has no explanation in it"),
        ("a.json", '{"x": "cats"}', "'x' is no latent's number"),
        ("a.json", '{"-1": "cats"}', "'-1' is no latent's number"),
        ("a.json", '[{"text": "cats"}]', "'None' is no latent's number"),
        ("a.json", '[{"latent": true, "text": "cats"}]', "'True' is no latent's number"),
        ("a.json", '{"3": ""}', "latent 3 has '' for a text"),
        ("a.json", '{"3": 7}', "latent 3 has '7' for a text"),
        ("a.json", '{"3": "\\ud800"}', "half a surrogate pair"),
        ("a.json", '[{"latent": 3, "text": "a"}, {"latent": "3", "text": "b"}]', "two texts for latent 3"),
        ("a.csv", "number,words\n3,cats\n", "'None' is no latent's number"),
        ("a.csv", b"latent,text\n3,\xff\n", "is no CSV in UTF-8"),
        ("a.jsonl", "{}", "has no description"),
    ],
)
def test_a_file_of_something_else_is_one_clear_line(tmp_path: Path, name: str, text: str | bytes, message: str):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("where", "message"), [("", "name a run or a file"), ("gone.json", "check the path")])
def test_nothing_to_load_says_what_to_name(where: str, message: str):
    with pytest.raises(UsageError, match=message):
        load(where)


def test_an_unknown_run_lists_those_there_are(tiny_root: Path):
    with pytest.raises(UsageError, match="no finished explanations run 'gone'"):
        load("gone", tiny_root)
