"""A dry run sends nothing and says what the job then asks for; what is kept, done or capped is told."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from app.cli import main
from autointerp.explaining import ExplainConfig, explain
from autointerp.forecast import N_REHEARSED, Count, Forecast, forecast, forecast_score
from autointerp.interpret import InterpretConfig, interpret, score_configs
from autointerp.llm.config import LLMConfig
from autointerp.llm.scripted import Scripted
from autointerp.sample import SampleConfig
from autointerp.tools import ToolsConfig
from store.errors import UsageError
from store.index import parts_of
from store.ledger import Ledger
from store.replies import replies_file
from store.run import Run, find_run

SAMPLE = SampleConfig(n_explain=6, n_score=6, min_contexts=3, min_docs=2, max_density=0.9, half_window=6)
CFG = InterpretConfig(
    explain=ExplainConfig(explainer="default", n_latents=6, sample=SAMPLE, tools=ToolsConfig(per_prompt=4)),
    scorers=("detection", "embedding"),
    nulls=("shuffled", "generic"),
    n_null=3,
)


@pytest.fixture
def root(tiny_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_root, tmp_path / "runs", ignore=shutil.ignore_patterns("explanations", "scores"))


@pytest.fixture(autouse=True)
def _hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    from autointerp.embedders import EMBEDDERS

    monkeypatch.setitem(EMBEDDERS, "minilm", EMBEDDERS["hashed"])


def told(root: Path, cfg: InterpretConfig = CFG) -> Forecast:
    return forecast(cfg, find_run(root, "latest", "index"), root)


def with_llm(cfg: InterpretConfig, **llm: float) -> InterpretConfig:
    tools = replace(cfg.explain.tools, llm=LLMConfig(**llm))  # pyright: ignore[reportArgumentType]
    return replace(cfg, explain=replace(cfg.explain, tools=tools))


def test_it_sends_nothing_and_counts_what_the_job_then_asks(root: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr(Scripted, "complete", pytest.fail)
        found = told(root)
    assert not list(root.glob("explanations/*"))
    assert {name: stage.n_latents for name, stage in zip("eds", found.stages, strict=True)} == dict.fromkeys("eds", 6)
    runs = interpret(CFG, find_run(root, "latest", "index"), root)
    ledger = Ledger(replies_file(root))
    spent = [ledger.spent(run.id).n_calls for run in (runs[0], *runs[1])]
    explain, detection, embedding = (stage.count.n_calls for stage in found.stages)
    assert (explain, embedding) == (spent[0], spent[2]) == (6, 0)
    # The nulls of half of the latents are taken for half of those of all.
    assert detection == pytest.approx(spent[1], rel=0.2)


def test_what_is_kept_is_not_counted_as_calls_and_what_is_there_not_at_all(root: Path):
    index = find_run(root, "latest", "index")
    interpret(replace(CFG, scorers=("detection",)), index, root)
    assert all(stage.name.endswith("(is there)") and stage.count == Count() for stage in told(root).stages[:2])
    for kind in ("explanations", "scores"):
        shutil.rmtree(root / kind)
    found = told(root).stages[:2]
    assert [stage.count.n_calls for stage in found] == [0, pytest.approx(0, abs=12)]
    assert found[0].count.n_kept == 6
    assert found[1].count.n_kept > 12
    assert told(root).seconds_per_call is not None


def test_a_price_and_caps_tell_money_and_where_it_would_stop(root: Path):
    prices = {"usd_per_million_in": 1.0, "usd_per_million_out": 2.0}
    found = told(root, with_llm(CFG, max_calls_per_job=7, max_usd_per_day=1e-6, **prices))
    total = found.total
    assert found.usd(total) == pytest.approx((total.n_tokens_in + 2 * total.n_tokens_out) / 1e6, rel=1e-2)
    assert [(name.partition(",")[0], cap.unit) for name, cap, _ in found.crossed()] == [
        ("score with detection", "calls"),
        ("all of it", "usd"),
    ]
    assert told(root, with_llm(CFG, max_calls_per_job=100)).crossed() == []


def test_many_latents_are_counted_on_a_few(root: Path):
    many = replace(CFG, explain=replace(CFG.explain, n_latents=40))
    stage = told(root, many).stages[0]
    assert (stage.n_latents, stage.n_rehearsed) == (40, N_REHEARSED)
    assert stage.count.n_calls == pytest.approx(40)


def test_random_directions_are_explained_and_judged_too(root: Path):
    plain = told(root)
    found = told(root, replace(CFG, nulls=(*CFG.nulls, "random")))
    random = found.stages[1]
    assert (random.name, random.n_latents, random.count.n_calls) == ("explain random directions with default", 3, 3)
    assert found.stages[2].count.n_calls > plain.stages[1].count.n_calls


def test_a_score_alone_is_counted_on_the_explanations_that_are_there(root: Path):
    index = find_run(root, "latest", "index")
    explanations, _ = interpret(replace(CFG, scorers=("embedding",)), index, root)
    cfg = score_configs(CFG)[0]
    (stage,) = forecast_score(cfg, explanations, index, root).stages
    assert (stage.name, stage.n_latents) == ("score with detection", 6)
    assert stage.count.n_calls == pytest.approx(told(root).stages[1].count.n_calls)


def test_what_the_job_would_refuse_is_refused(root: Path):
    with pytest.raises(UsageError, match="tells no log-probabilities"):
        told(root, replace(CFG, scorers=("surprisal",)))


def test_the_command_prints_it_and_makes_no_run(root: Path, capsys: pytest.CaptureFixture[str]):
    sample = ["--n-explain=6", "--n-score=6", "--min-contexts=3", "--min-docs=2", "--max-density=0.9", "--n-latents=6"]
    asked = ["--explainer", "default", "--scorers", "detection", "--root", str(root), *sample]
    assert main(["interpret", *asked, "--dry-run", "--max-calls-per-job", "7"]) == 0
    said = capsys.readouterr().out
    assert "dry run with scripted: nothing was sent" in said
    assert "score with detection takes about" in said
    assert "max_calls_per_job allows 7 calls" in said
    assert not list(root.glob("explanations/*"))
    assert main(["interpret", *asked]) == 0
    said = capsys.readouterr().out
    assert "6 explained by default" in said
    assert "above shuffled" in said
    assert "calls" in said.splitlines()[-2]
    assert main(["score", "--scorer", "fuzzing", "--root", str(root), "--dry-run"]) == 0
    assert "score with fuzzing" in capsys.readouterr().out


class TestSameness:
    """Two commands are one run if they mean the same now."""

    def explained(self, root: Path, **given: object) -> Run:
        cfg = replace(CFG.explain, **{"explainer": "tokens", **given})  # pyright: ignore[reportArgumentType]
        return explain(cfg, find_run(root, "latest", "index"), root)

    def latents(self, run: Run) -> list[int]:
        return parts_of(run.folder, "explanations").column("latent").to_pylist()

    def test_a_selection_is_the_latents_that_it_has_now(self, root: Path):
        new = (
            "SELECT latent FROM features WHERE latent NOT IN (SELECT latent FROM explanations) ORDER BY latent LIMIT 2"
        )
        first, second = (self.explained(root, select=new) for _ in range(2))
        assert (self.latents(first), self.latents(second)) == ([0, 1], [2, 3])
        backwards = "SELECT latent FROM features WHERE latent < 2 ORDER BY latent DESC"
        assert self.explained(root, select=backwards).id == first.id

    def test_what_is_loaded_is_its_contents(self, root: Path, tmp_path: Path):
        path = tmp_path / "words.json"

        def loaded(text: str) -> Run:
            path.write_text(json.dumps({"0": text}))
            tools = replace(CFG.explain.tools, load=str(path))
            return self.explained(root, explainer="noop", latents=(0,), tools=tools)

        first = loaded("first words")
        assert loaded("second words").id != first.id
        assert loaded("first words").id == first.id

    def test_nothing_to_explain_is_refused_and_nothing_explained_is_said(
        self, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        with pytest.raises(UsageError, match="n_latents=0: choose 1 or more"):
            self.explained(root, n_latents=0)
        path = tmp_path / "words.json"
        path.write_text(json.dumps({"63": "words of another"}))
        asked = ["--explainer", "noop", "--load", str(path), "--latents", "0", "--root", str(root)]
        assert main(["interpret", *asked]) == 0
        assert "nothing to score" in capsys.readouterr().out
