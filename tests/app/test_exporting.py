"""Exported pages and answers: hostile texts are shown and never run, and files are whole or absent."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from app.cli import main
from app.exporting import FORMATS, page
from app.exporting.histogram import histogram_svg
from autointerp.exchange.export import Export, ExportConfig, choose
from store import answers
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.latents import LatentPage, latent_page, windows
from store.run import find_run

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts"
HOSTILE = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\" onmouseover=\"window.pwned=1"


@pytest.fixture(scope="module")
def index(tiny_root: Path) -> FeatureIndex:
    return FeatureIndex(find_run(tiny_root, "latest", "index").folder)


@pytest.fixture
def hostile(index: FeatureIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a corpus, a model or an explainer says is an attack."""
    import dataclasses

    def spoiled_page(index: FeatureIndex, latent: int) -> LatentPage:
        found = latent_page(index, latent)
        logits = tuple(dataclasses.replace(each, token=HOSTILE) for each in found.promoted)
        explanation = {"explainer": HOSTILE, "text": HOSTILE, "method": HOSTILE, "n_contexts": 1, "n_docs": 1}
        score = {"explainer": HOSTILE, "scorer": HOSTILE, "arm": "explanation", "value": 0.8, "ci_low": 0.7}
        score |= {"ci_high": 0.9, "chance": 0.5, "n_judged": 4, "n_unparsed": 0, "n_docs": 2, "n_docs_shared": 0}
        scores = tuple({**score, "run": "r", "arm": arm} for arm in ("explanation", "shuffled"))
        ngrams = tuple({**row, "text": HOSTILE} for row in found.ngrams)
        return dataclasses.replace(found, promoted=logits, explanations=(explanation,), scores=scores, ngrams=ngrams)

    def spoiled_windows(index: FeatureIndex, latent: int) -> list:
        return [
            dataclasses.replace(each, tokens=tuple(HOSTILE for _ in each.tokens), title=HOSTILE, source=HOSTILE)
            for each in windows(index, latent)
        ]

    monkeypatch.setattr(page, "latent_page", spoiled_page)
    monkeypatch.setattr(page, "windows", spoiled_windows)


class Parsed(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def write(index: FeatureIndex, out: Path, latents: str) -> str:
    FORMATS["html"].write(out, Export(index, choose(index, latents), ExportConfig()), page.no_progress)
    return out.read_text(encoding="utf-8")


@pytest.mark.usefixtures("hostile")
def test_hostile_texts_are_shown_and_never_interpreted(index: FeatureIndex, tmp_path: Path):
    found = Parsed(write(index, tmp_path / "page.html", "3,5"))
    assert not {"script", "img", "iframe", "link", "object", "base"} & found.tags
    assert not [name for name in found.attributes if name.startswith("on") or name in ("src", "srcset", "srcdoc")]
    assert found.text.count(HOSTILE) > 20


def test_a_page_has_all_that_is_known_and_links_only_within_itself(index: FeatureIndex, tmp_path: Path):
    scored = int(index.sql("select latent from scores limit 1")["latent"][0])
    text = write(index, tmp_path / "page.html", f"{scored},3")
    explanation = index.sql(f"select text from explanations where latent = {scored}")["text"][0].split(" Promotes")[0]
    seen = Parsed(text).text
    for part in (explanation, "shuffled null", "95% interval", "Promoted tokens", "Nearest latents", "Fires together"):
        assert part in seen
    assert "<svg" in text
    links = re.findall(r"href='([^']*)'", text)
    assert set(links) <= {"#latent-3", f"#latent-{scored}"}
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src &#x27;none&#x27;" in text


def test_a_histogram_has_a_bar_for_every_bin_that_holds_any(index: FeatureIndex):
    found = latent_page(index, 3)
    drawn = histogram_svg(found)
    assert drawn.count("<rect") == int((found.histogram > 0).sum())
    assert (
        sum(int(n.replace(",", "")) for n in re.findall(r": ([\d,]+) tokens</title>", drawn)) == found.histogram.sum()
    )


def test_too_many_latents_for_one_page_are_refused(index: FeatureIndex, tmp_path: Path):
    with pytest.raises(UsageError, match="1,001 latents on one page"):
        page.write_page(tmp_path / "page.html", Export(index, np.arange(1001), ExportConfig()))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("hostile")
def test_a_browser_runs_nothing_of_a_page_and_it_fits_wide_and_narrow(index: FeatureIndex, tmp_path: Path, browser):
    browser.require_chromium()
    write(index, tmp_path / "page.html", "3,5")
    browser.open_offline(tmp_path / "page.html", ARTIFACTS)


class TestCommands:
    @pytest.mark.parametrize(
        ("name", "out"), [("delphi", "d"), ("html", "p.html"), ("neuronpedia", "n"), ("saelens", "l.json")]
    )
    def test_every_format_is_written(self, tiny_root: Path, tmp_path: Path, name: str, out: str):
        arguments = ["export", name, "--latents", "1,2", "--out", str(tmp_path / out), "--root", str(tiny_root)]
        assert main(arguments) == 0
        assert [path.name for path in tmp_path.iterdir()] == [out]

    def test_a_latent_out_of_range_is_one_line(self, tiny_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
        arguments = ["export", "html", "--latents", "64", "--out", str(tmp_path / "p.html"), "--root", str(tiny_root)]
        assert main(arguments) == 2
        assert (
            capsys.readouterr().err
            == "error: latent 64 is out of range: this index has latents 0 to 63, choose those\n"
        )
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
    def test_any_query_is_written_as_a_file(
        self, tiny_root: Path, tmp_path: Path, index: FeatureIndex, suffix: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(answers, "ROWS", 100)
        query = (
            "select latent, seq, value, case when seq % 2 = 0 then pos end as p, [seq, pos] as both from events "
            "where latent in (3, 5) order by latent, seq, pos"
        )
        out = tmp_path / f"rows.{suffix}"
        assert main(["sql", query, "--out", str(out), "--root", str(tiny_root)]) == 0
        found = {
            "csv": lambda: pd.read_csv(out, dtype={"p": "Int64"}),
            "parquet": lambda: pq.read_table(out).to_pandas(),
        }.get(suffix, lambda: pd.read_json(out, lines=True))()
        expected = index.sql(query)
        assert found["latent"].tolist() == expected["latent"].tolist()
        assert np.allclose(found["value"], expected["value"], rtol=1e-6)
        assert found["p"].isna().tolist() == expected["p"].isna().tolist()
        if suffix == "csv":
            assert ".0," not in out.read_text().splitlines()[1]
            assert found["both"][0] == str(expected["both"][0].tolist())

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["select 1", "--out", "rows.txt"], "ends in no format"),
            (["select 1", "--format", "table", "--out", "rows.csv"], "nor is 'table' one of a file"),
            (["select 1", "--format", "parquet"], "name a file with --out"),
            (["select x from nothing", "--out", "rows.csv"], "cannot be answered"),
            (["select error('stop') from latents", "--out", "rows.csv"], "cannot be answered"),
        ],
    )
    def test_what_cannot_be_written_leaves_no_file(
        self, tiny_root: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
    ):
        monkeypatch.chdir(tmp_path)
        assert main(["sql", *arguments, "--root", str(tiny_root)]) == 2
        assert said in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
