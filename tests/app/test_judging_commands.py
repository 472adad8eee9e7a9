"""Commands that say what explanations and scores are worth, on runs of the tiny recipe."""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from app.cli import main
from autointerp.arms import NULLS
from autointerp.embedders import EMBEDDERS
from autointerp.explain import EXPLAINERS
from autointerp.explaining import explanations_of, sample_of
from autointerp.latent import Explanation
from autointerp.rating_sheets import SHEET, make_sheet
from autointerp.ratings import SheetConfig
from autointerp.rows import columns, explanation_row
from autointerp.sample import Sampler
from autointerp.scorers import SCORERS
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.index import parts_of, write_part
from store.index_tables import SCHEMAS
from store.run import Run, find_run, list_runs, start_run

SAMPLE = "--n-latents 6 --min-contexts 3 --min-docs 2 --max-density 0.5 --n-score 10 --half-window 6"


@pytest.fixture(scope="module")
def root(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny runs; the same latents explained from few contexts and from more, and scored by one scorer."""
    root = tmp_path_factory.mktemp("judging") / "runs"
    shutil.copytree(tiny_root, root)
    for n_explain in (3, 9):
        command = f"interpret {SAMPLE} --n-explain {n_explain} --embedder hashed --n-null 0"
        assert main([*command.split(), "--root", str(root)]) == 0
    return root


def newest_scores(root: Path) -> list[str]:
    return [run.id for run in list_runs(root, "scores")[-2:]]


def test_compare_prints_the_difference_and_what_it_may_come_from(root: Path, capsys: pytest.CaptureFixture):
    assert main(["compare", "--root", str(root)]) == 0
    printed = capsys.readouterr().out
    for expected in ("explanations.sample.n_explain: 3 | 9", "above shuffled", "p, Holm", "needed"):
        assert expected in printed


def test_compare_prints_rows_for_programs(root: Path, capsys: pytest.CaptureFixture):
    a, b = newest_scores(root)
    capsys.readouterr()
    assert main(["compare", a, b, "--root", str(root), "--format", "json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    means = [find_run(root, run, "scores").results["explanation"]["mean"] for run in (a, b)]
    assert rows[0]["what"] == "score"
    assert rows[0]["difference"] == pytest.approx(means[0] - means[1])


@pytest.mark.parametrize("named", [["latest", "latest"], ["latest"]])
def test_compare_wants_two_runs(root: Path, named: list[str], capsys: pytest.CaptureFixture):
    assert main(["compare", *named, "--root", str(root)]) == 2
    assert "two" in capsys.readouterr().err


@pytest.fixture
def own_root(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write in, which is the working directory's `runs`."""
    shutil.copytree(root, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def filled(file: Path, ratings: dict[int, int]) -> None:
    """A sheet as somebody gives it back who rates latents thus."""
    sheet = pd.read_csv(file)
    sheet["rating"] = [ratings[latent] for latent in sheet["latent"]]
    sheet.to_csv(file, index=False)


def table(capsys: pytest.CaptureFixture) -> dict[tuple[str, str], dict]:
    capsys.readouterr()
    assert main(["agreement", "--format", "json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {(row["what"], row["of"]): row for row in rows}


def test_agreement_without_ratings_says_how_to_give_them(own_root: Path, capsys: pytest.CaptureFixture):
    assert main(["agreement"]) == 2
    assert "--sheet ratings.csv" in capsys.readouterr().err


def test_a_sheet_hides_its_nulls_and_comes_back_as_ratings(own_root: Path, capsys: pytest.CaptureFixture):
    sheet = Path("ratings.csv")
    assert main(["agreement", "--sheet", str(sheet), "--n", "8", "--share-null", "0.25"]) == 0
    shown = pd.read_csv(sheet)
    assert list(shown.columns) == ["sheet", "place", "latent", "explanation", "contexts", "rating"]
    assert shown["contexts"].str.contains("«").all()
    latents = sorted(shown["latent"].unique().tolist())
    by_latent = {latent: i % 5 + 1 for i, latent in enumerate(latents)}
    filled(sheet, by_latent)
    for author in ("ada", "grace"):
        assert main(["agreement", "--load", str(sheet), "--author", author]) == 0
    found = table(capsys)
    kappa = found["raters", "ada, grace"]
    assert (kappa["value"], kappa["n"]) == (1, len(shown))
    assert main(["agreement", "--load", str(sheet), "--author", "ada"]) == 0
    assert table(capsys) == found


def seen_elsewhere(root: Path, latent: int, docs: Iterable[int]) -> Run:
    """Explanations of one latent by somebody who saw these documents."""
    inputs = {"index": find_run(root, "latest", "index").id}
    with start_run(root, "explanations", {"explainer": "other", "docs": sorted(docs)}, inputs) as run:
        said = Explanation(latent, "other", "other words", "other words", "made up", 3, frozenset(docs))
        write_part(
            run.folder, "explanations", columns([explanation_row(said, run.id)], SCHEMAS["explanations"].names), 0
        )
        run.finish({"n_explained": 1})
    return run


def test_a_sheet_shows_no_document_that_any_explainer_on_it_saw(own_root: Path):
    one = find_run(own_root, "latest", "explanations")
    latent = int(explanations_of(one).latents[0])
    sampler = Sampler(FeatureIndex(find_run(own_root, "latest", "index").folder), sample_of(one))
    windows = sampler.trial(latent, frozenset({"items"})).active
    docs = {window.doc_id for window in windows}
    assert len(docs) > 1
    seen = windows[0].doc_id
    cfg = SheetConfig(n=12, share_null=0.0, n_contexts=len(windows))
    run = make_sheet(cfg, [one, seen_elsewhere(own_root, latent, {seen})], own_root)
    shown = [row["contexts"] for row in pd.read_csv(run.folder / SHEET).to_dict("records") if row["latent"] == latent]
    n_kept = sum(window.doc_id != seen for window in windows)
    assert [len(cell.splitlines()) for cell in shown] == [n_kept, n_kept]
    assert run.results["n_left_out"] >= len(windows) - n_kept > 0
    with pytest.raises(UsageError, match=f"contexts of latent {latent} are of documents that an explainer"):
        make_sheet(cfg, [one, seen_elsewhere(own_root, latent, docs)], own_root)


def test_ratings_made_elsewhere_are_compared_with_each_scorer(own_root: Path, capsys: pytest.CaptureFixture):
    run = find_run(own_root, "latest", "scores")
    values = {
        row["latent"]: row["value"] for row in parts_of(run.folder, "scores").to_pylist() if row["arm"] == "explanation"
    }
    order = sorted(values, key=lambda latent: values[latent])[:5]
    Path("mine.json").write_text(json.dumps([{"latent": i, "rating": rank + 1} for rank, i in enumerate(order)]))
    assert main(["agreement", "--load", "mine.json", "--author", "ada"]) == 0
    spearman = table(capsys)["scorer", "embedding"]
    assert spearman["value"] == pytest.approx(1)
    assert spearman["n"] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("latent,rating\n", "no rating in 0 rows"),
        ("latent,stars\n1,2\n", "no column rating"),
        ("latent,rating\n{latent},6\n", "row 1: a rating of 6"),
        ("latent,rating\n{latent},2.5\n", "row 1: a rating of 2.5"),
        ("latent,rating\n{latent},good\n", "row 1"),
        ("latent,rating\n{latent},3\n9999,3\n", "row 2: latent 9999 is not explained"),
        ("sheet,place,latent,rating\nabcd,0,1,3\n", "row 1"),
    ],
)
def test_a_wrong_file_of_ratings_keeps_nothing(text: str, message: str, own_root: Path, capsys: pytest.CaptureFixture):
    explained = parts_of(find_run(own_root, "latest", "explanations").folder, "explanations")
    Path("ratings.csv").write_text(text.format(latent=explained.column("latent")[0].as_py()))
    assert main(["agreement", "--load", "ratings.csv"]) == 2
    assert message in capsys.readouterr().err
    assert main(["agreement"]) == 2


@pytest.mark.parametrize(
    ("command", "table"),
    [
        ("explain", EXPLAINERS),
        ("interpret", EXPLAINERS),
        ("interpret", SCORERS),
        ("score", SCORERS),
        ("score", EMBEDDERS),
        ("score", NULLS),
    ],
)
def test_help_names_all_that_may_be_chosen(command: str, table: Iterable[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = set(re.findall(r"\w+", capsys.readouterr().out))
    assert set(table) <= shown


class TestClusters:
    COMMAND = f"interpret {SAMPLE} --n-explain 9 --embedder hashed --n-null 0 --nulls shuffled".split()

    def test_members_are_explained_in_the_same_words_and_scored_each_on_its_own(self, own_root: Path):
        assert main([*self.COMMAND, "--cluster-at", "0.2", "--n-latents", "3"]) == 0
        run, scores = (find_run(own_root, "latest", kind) for kind in ("explanations", "scores"))
        members = {row["latent"]: row["medoid"] for row in parts_of(run.folder, "clusters").to_pylist()}
        texts = {row["latent"]: row["text"] for row in parts_of(run.folder, "explanations").to_pylist()}
        assert members.keys() == texts.keys()
        assert len(set(members.values())) == run.results["n_clusters"] <= 3
        assert all(texts[latent] == texts[medoid] for latent, medoid in members.items())
        judged = [row["latent"] for row in parts_of(scores.folder, "scores").to_pylist() if row["arm"] == "explanation"]
        assert sorted(judged) == sorted(members)
        near = FeatureIndex(find_run(own_root, "latest", "index").folder).sql("SELECT count(*) AS n FROM clusters")
        assert near["n"][0] == len(members)

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            (["--cluster-at", "0.999"], "lower --cluster-at"),
            (["--cluster-at", "1.5"], "is no cosine"),
            (["--cluster-at", "0.5", "--explainer", "noop"], "single latents"),
        ],
    )
    def test_what_cannot_be_clustered_is_refused(
        self, asked: list[str], message: str, own_root: Path, capsys: pytest.CaptureFixture
    ):
        assert main([*self.COMMAND, *asked]) == 2
        assert message in capsys.readouterr().err
