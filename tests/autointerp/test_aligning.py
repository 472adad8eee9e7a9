"""Alignments of dictionaries of two layers: every row is what a recount gives."""

from pathlib import Path

import numpy as np
import pytest
from reporting_runs import explanations

from app.cli import main
from autointerp.aligning import AligningConfig, By, Side, align
from autointerp.latent import Explanation
from autointerp.rows import columns, explanation_row
from sae import checkpoint
from store.aligned import TABLES, Aligned
from store.errors import UsageError
from store.index import write_part
from store.index_tables import SCHEMAS
from store.matching import Matching
from store.run import Run, find_run, list_runs, start_run

HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
TRAIN = "train topk --d-sae 40 --k 4 --n-steps 40 --batch-size 256 --hook-points"
COMMANDS = (
    f"harvest --model tiny --hook-points {' '.join(HOOKS)} --corpus stories --n-tokens 6000",
    f"{TRAIN} {HOOKS[0]}",
    "index",
    f"{TRAIN} {HOOKS[0]} --seed 1",
    "index",
    f"{TRAIN} {HOOKS[1]}",
    "index",
)
WORDS = ("cats", "dogs", "kings", "numbers", "colours", "verbs", "places", "rivers", "dates", "music")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("aligning") / "runs"
    for command in COMMANDS:
        assert main([*command.split(), "--root", str(root)]) == 0
    return root


@pytest.fixture(scope="module")
def indexes(root: Path) -> list[Run]:
    return list_runs(root, "index")


def aligned(by: By, runs: list[Run], root: Path) -> Aligned:
    return Aligned(align(AligningConfig(by=by, embedder="hashed"), runs, root).folder)


def first(of: Aligned) -> dict:
    return of.sql("FROM alignments").to_dict("records")[0]


def test_by_weights_is_a_recount_of_cosines_of_living_decoder_rows(indexes: list[Run], root: Path):
    row = first(aligned("weights", indexes[:2], root))
    sides = [Side.of(run) for run in indexes[:2]]
    saes = [checkpoint.load(find_run(root, side.index.inputs["sae"], "sae").folder) for side in sides]
    rows = [sae.W_dec.detach().double().numpy()[~side.dead] for sae, side in zip(saes, sides, strict=True)]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in rows]
    cosines = unit[0] @ unit[1].T
    best = np.concatenate([cosines.max(axis=1), cosines.max(axis=0)])
    n_mutual = sum(cosines[:, j].argmax() == i for i, j in enumerate(cosines.argmax(axis=1)))
    assert row["mean_best"] == pytest.approx(best.mean(), abs=1e-5)
    assert row["mutual"] == pytest.approx(2 * n_mutual / len(best))
    assert row["n_latents"] == len(best)
    assert row["mean_best"] > row["mean_best_null"]


def test_by_activations_is_the_matching(indexes: list[Run], root: Path):
    of = aligned("activations", indexes[:2], root)
    matching = Matching(find_run(root, "latest", "matching").folder)
    row = first(of)
    best = matching.sql("SELECT value, mutual FROM best WHERE measure = 'correlation'")
    assert (row["mean_best"], row["mutual"]) == pytest.approx((best["value"].mean(), best["mutual"].mean()))
    matched = matching.sql("SELECT a, b FROM one_to_one WHERE measure = 'correlation' AND matched ORDER BY a")
    mine = of.sql("SELECT latent_a AS a, latent_b AS b FROM pairs WHERE matched ORDER BY latent_a")
    assert mine.to_numpy().tolist() == matched.to_numpy().tolist()
    assert row["n_matched"] == len(matched)


def test_partners_that_are_explained_alike_stand_out_from_random_pairings(indexes: list[Run], root: Path):
    pairs = aligned("activations", indexes[:2], root).sql("FROM pairs WHERE matched ORDER BY latent_a")
    texts = [WORDS[i % len(WORDS)] for i in range(len(pairs))]
    said = [
        explanations(index, dict(zip(pairs[column].tolist(), texts, strict=True)), explainer="alike")
        for index, column in zip(indexes, ("latent_a", "latent_b"), strict=False)
    ]
    row = first(aligned("activations", said, root))
    assert row["judged_by"] == "explanations"
    assert row["n_judged"] == len(pairs) > 4
    assert row["likeness"] == pytest.approx(1)
    assert row["difference"] == pytest.approx(1 - row["likeness_null"])
    assert row["p_value"] < 0.05
    by_words = first(aligned("explanations", said, root))
    assert by_words["judged_by"] == "weights"
    assert by_words["mean_best"] == pytest.approx(1)


def test_layers_are_compared_near_and_far(indexes: list[Run], root: Path):
    said = [explanations(index, {i: WORDS[(i * k) % 10] for i in range(40)}) for k, index in enumerate(indexes, 1)]
    of = aligned("weights", said, root)
    rows = of.sql("SELECT layers_apart, count(*) AS n FROM alignments GROUP BY ALL ORDER BY ALL").to_numpy().tolist()
    assert rows == [[0, 1], [1, 2]]
    distances = of.sql("FROM distances ORDER BY layers_apart")
    assert distances["n_alignments"].tolist() == [1, 2]
    assert set(of.run.results["near_minus_far"]) >= {"difference", "p_value", "n_near", "n_far"}
    assert align(AligningConfig(by="weights", embedder="hashed"), said, root).reused


def test_partners_without_an_explanation_are_named(indexes: list[Run], root: Path):
    pairs = aligned("weights", indexes[:2], root).sql("FROM pairs WHERE matched ORDER BY latent_a")
    (a, b), (other_a, other_b) = pairs[["latent_a", "latent_b"]].to_numpy()[:2].tolist()
    texts = ({a: "cats"}, {other_b: "dogs"})
    said = [explanations(index, each, explainer="top") for index, each in zip(indexes, texts, strict=False)]
    of = aligned("weights", said, root)
    assert of.run.results["to_explain"] == {indexes[0].id: [other_a], indexes[1].id: [b]}


def test_what_cannot_be_aligned_is_refused(indexes: list[Run], root: Path):
    for runs, message in (
        (indexes[:1] * 2, "two or more"),
        ([find_run(root, "latest", "sae"), indexes[0]], "of kind sae"),
    ):
        with pytest.raises(UsageError, match=message):
            align(AligningConfig(), runs, root)


def test_the_command_prints_alignments_and_distances(root: Path, indexes: list[Run], capsys: pytest.CaptureFixture):
    capsys.readouterr()
    names = [index.id for index in indexes]
    assert main(["align", *names, "--by", "weights", "--embedder", "hashed", "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    for expected in ("mean best", "mutual", "apart", "nearest − farthest layers"):
        assert expected in printed
    assert main(["align", "--by", "weights", "--root", str(root), "--format", "json", "--embedder", "hashed"]) == 0
    query = "select a, b, count(*) as n from pairs where matched group by all"
    assert main(["sql", query, "--over", "alignment", "--root", str(root)]) == 0


def test_columns_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "autointerp.md").read_text(encoding="utf-8")
    for table, has in TABLES.items():
        assert f"| `{table}` | `{' '.join(has)}` |" in text


def test_an_index_stands_for_all_that_its_last_explainer_said(indexes: list[Run]):
    index = indexes[2]
    for n, texts in enumerate(({1: "old", 2: "kept"}, {1: "new"})):
        with start_run(index.root, "explanations", {"explainer": "last", "n": n}, {"index": index.id}) as run:
            said = [Explanation(i, "last", text, text, "", 1, frozenset()) for i, text in texts.items()]
            rows = [explanation_row(each, run.id) for each in said]
            write_part(run.folder, "explanations", columns(rows, SCHEMAS["explanations"].names), 0)
            run.finish({})
    assert Side.of(index).texts == {1: "new", 2: "kept"}
