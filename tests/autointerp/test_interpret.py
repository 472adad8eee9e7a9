"""Explain and score: disjoint by document, nulls beside scores, tables whose every entry keeps its promises."""

import asyncio
import inspect
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.workbench import Workbench
from autointerp.arms import derangement
from autointerp.embedders import EMBEDDERS
from autointerp.explain.tokens import TokensExplainer
from autointerp.explaining import ExplainConfig, explain
from autointerp.latent import Evidence, Explanation, Score, Trial
from autointerp.llm import BACKENDS, Reply, Request, open_backend
from autointerp.llm.config import LLMConfig
from autointerp.sample import SampleConfig, Sampler
from autointerp.sample_where import Where
from autointerp.scorers import SCORERS
from autointerp.scoring import ScoreConfig, score
from autointerp.tools import Tools, ToolsConfig
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.latents import Logit, Window
from store.run import find_run

OUTPUT_SCORERS = {"generation", "intervention", "intervention_choice", "surprisal"}
"""They need the subject or a reader beside the contexts: test_output_scorers.py."""
CFG = SampleConfig(n_explain=10, n_score=10, min_contexts=3, min_docs=2, max_density=0.5, half_window=6)


def window(tokens: str, peak: int, doc_id: int = 0, value: float = 1.0) -> Window:
    pieces = tuple(tokens.split("|"))
    values = tuple(value if i == peak else 0.0 for i in range(len(pieces)))
    return Window("given", value, doc_id, "s", "t", "train", 0, 0, peak, pieces, tuple(range(len(pieces))), values)


CATS = tuple(window(f"the| black| cat| sat on mat {i}", 2, i) for i in range(20))
SHIPS = tuple(window(f"stormy| seas| wreck| boats {i}", 2, 100 + i) for i in range(20))
EVIDENCE = Evidence(7, CATS, (Logit(1, " purr", 2.0), Logit(2, "meow", 1.0)), ())


@pytest.fixture(scope="module")
def sampler(tiny_root: Path) -> Sampler:
    return Sampler(Workbench.open(tiny_root).index, CFG)


class TestSampler:
    def test_no_document_is_on_both_sides_of_any_two_latents(self, sampler: Sampler):
        latents = sampler.choose(8)
        seen = {w.doc_id for latent in latents for w in sampler.evidence(latent).windows}
        judged = {doc_id for latent in latents for doc_id in sampler.trial(latent).doc_ids}
        assert seen
        assert judged
        assert seen.isdisjoint(judged)

    def test_active_windows_fire_and_silent_ones_do_not(self, sampler: Sampler):
        for latent in sampler.choose(8):
            trial = sampler.trial(latent)
            assert all(w.values[w.peak] > 0 for w in trial.active)
            assert not any(any(w.values) for w in trial.silent)
            assert len({(w.seq, w.start + w.peak) for w in trial.silent}) == len(trial.silent)

    def test_active_windows_span_the_range_of_strengths(self, sampler: Sampler):
        latent = sampler.choose(1)[0]
        values = [w.value for w in sampler.evidence(latent).windows]
        assert max(values) > 1.2 * min(values)

    def test_the_draw_is_seeded_and_only_of_latents_with_enough(self, sampler: Sampler):
        assert sampler.choose(5) == sampler.choose(5)
        eligible = sampler.choose(10**6)
        assert len(eligible) == len(set(eligible))
        for latent in eligible:
            assert len(sampler.evidence(latent).windows) >= CFG.min_contexts
            assert len(sampler.trial(latent).active) >= CFG.min_contexts

    def test_no_eligible_latent_is_one_clear_line(self, sampler: Sampler):
        strict = Sampler(sampler.index, SampleConfig(min_docs=10**6))
        with pytest.raises(UsageError, match="harvest more text"):
            strict.choose(3)


@pytest.mark.parametrize("name", ["embedding"])
class TestTheEmbeddingScorer:
    def scorer(self, name: str):
        return SCORERS[name](Tools(ToolsConfig(embedder="hashed")))

    def explanation(self, text: str) -> Explanation:
        return Explanation(7, "tokens", text, text, "counts", 5, frozenset())

    def test_a_true_explanation_beats_a_false_one(self, name: str):
        trial = Trial.of(7, CATS, SHIPS)
        right = asyncio.run(self.scorer(name)(self.explanation("the black cat sat on a mat"), trial))
        wrong = asyncio.run(self.scorer(name)(self.explanation("stormy seas wreck boats"), trial))
        assert right.value is not None
        assert wrong.value is not None
        assert right.value >= 0.95
        assert wrong.value <= 0.05
        assert right.n_judged == 40

    def test_the_interval_holds_the_value_and_an_uninformed_text_gets_chance(self, name: str):
        found: Score = asyncio.run(self.scorer(name)(self.explanation("quantum"), Trial.of(7, CATS, CATS)))
        assert found.interval is not None
        assert found.value == pytest.approx(found.chance)
        assert found.interval[0] <= found.value <= found.interval[1]

    @pytest.mark.parametrize(("active", "silent"), [((), ()), (CATS, ()), ((), SHIPS), (CATS[:1], SHIPS)])
    def test_too_little_to_judge_is_none_never_zero(self, name: str, active: tuple, silent: tuple):
        found = asyncio.run(self.scorer(name)(self.explanation("cat"), Trial.of(7, active, silent)))
        assert found.value is None
        assert found.interval is None
        assert found.n_judged == 0


# Those of a service are put to a fake one in tests/autointerp/llm.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "local" else ())
        for name in sorted(BACKENDS)
        if not name.startswith(("anthropic_", "openai_"))
    ],
)
def test_every_backend_answers_with_text_and_token_counts(name: str):
    backend = open_backend(name)
    assert inspect.iscoroutinefunction(backend.complete)
    reply = asyncio.run(backend.complete(Request.ask("Answer in one word.", "first\nlast line")))
    assert isinstance(reply, Reply)
    assert reply.text
    assert min(reply.n_tokens_in, reply.n_tokens_out) > 0


def test_an_unknown_backend_lists_the_known():
    with pytest.raises(UsageError, match="scripted"):
        open_backend("gpt")


def test_the_tokens_explainer_counts_what_can_be_recounted():
    found = asyncio.run(TokensExplainer()(EVIDENCE))
    text = found.text
    assert found.input_text == "Fires on “cat” (20 of 20 contexts). Comes after “black” (20 of 20)."
    assert text == "Fires on “cat” (20 of 20 contexts). Comes after “black” (20 of 20). Promotes “purr”, “meow”."
    mixed = (*CATS[:3], *SHIPS[:1], window("a| newt", 1))
    assert "“cat” (3 of 5 contexts)" in asyncio.run(TokensExplainer()(Evidence(0, mixed, (), ()))).text


@pytest.mark.parametrize(
    ("tokens", "peak", "word", "before"),
    [
        ("(|Che|ers|,| appl|ause|.)", 4, "applause", ","),
        ("the| Cas|tle| fell", 2, "castle", "the"),
        ("one|\n|\n|two", 2, "newline", "newline"),
        ("it|'s| late", 1, "'s", "it"),
        ("start", 0, "start", ""),
    ],
)
def test_a_piece_of_a_word_is_counted_as_the_word(tokens: str, peak: int, word: str, before: str):
    found = asyncio.run(TokensExplainer()(Evidence(0, (window(tokens, peak),) * 4, (), ()))).text
    expected = f"Fires on “{word}” (4 of 4 contexts)." + (f" Comes after “{before}” (4 of 4)." if before else "")
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 60), seed=st.integers(0, 100))
def test_a_derangement_moves_everything(n: int, seed: int):
    order = derangement(n, seed)
    if n < 2:
        assert order == [None] * n
    else:
        assert sorted(order) == list(range(n))
        assert all(i != j for i, j in enumerate(order))


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.integers(0, 8), max_size=40), seed=st.integers(0, 100))
def test_a_derangement_of_groups_moves_everything_into_another_group(groups: list[int], seed: int):
    order = derangement(len(groups), seed, groups)
    moved = [j for j in order if j is not None]
    assert all(j is None or groups[i] != groups[j] for i, j in enumerate(order))
    assert len(set(moved)) == len(moved)
    largest = max(map(groups.count, groups), default=0)
    assert len(groups) - len(moved) == max(0, 2 * largest - len(groups))


class TestJobs:
    def test_scores_come_with_nulls_intervals_and_no_shared_document(self, tiny_root: Path):
        rows = Workbench.open(tiny_root).index.arrow("SELECT * FROM scores").to_pylist()
        arms = ("explanation", "shuffled", "generic", "empty", "unigram")
        assert {row["arm"] for row in rows} == set(arms)
        assert all(row["n_docs_shared"] == 0 for row in rows)
        for row in rows:
            assert row["value"] is None or row["ci_low"] <= row["value"] <= row["ci_high"]
        by_arm = [sorted(r["latent"] for r in rows if r["arm"] == arm) for arm in arms]
        assert all(latents == by_arm[0] for latents in by_arm)

    def test_the_summary_is_the_mean_of_the_rows(self, tiny_root: Path):
        run = find_run(tiny_root, "latest", "scores")
        rows = Workbench.open(tiny_root).index.sql(
            "SELECT arm, avg(value) AS mean, count(value) AS n FROM scores GROUP BY arm"
        )
        for row in rows.to_dict("records"):
            assert run.results[row["arm"]]["mean"] == pytest.approx(row["mean"])
            assert run.results[row["arm"]]["n_scored"] == row["n"]

    def test_a_leak_is_refused(self, tiny_root: Path, monkeypatch: pytest.MonkeyPatch):
        from autointerp import explained

        everything = frozenset(range(1000))
        original = explained.explanation_of
        monkeypatch.setattr(explained, "explanation_of", lambda row: replace(original(row), doc_ids=everything))
        run = find_run(tiny_root, "latest", "explanations")
        with pytest.raises(UsageError, match="were shown to the explainer"):
            score(ScoreConfig(tools=ToolsConfig(embedder="hashed"), seed=99), run, tiny_root)

    def test_chosen_latents_are_explained_and_a_silent_one_is_refused(self, tiny_root: Path, tmp_path: Path):
        shutil.copytree(tiny_root, tmp_path / "runs")
        index = find_run(tmp_path / "runs", "latest", "index")
        run = explain(ExplainConfig(latents=(3, 5), sample=CFG), index, tmp_path / "runs")
        assert run.results["n_explained"] == 2
        with pytest.raises(UsageError, match="there is no latent 64"):
            explain(ExplainConfig(latents=(64,), sample=CFG), index, tmp_path / "runs")

    def test_unknown_names_list_the_known_before_anything_is_begun(self, tiny_root: Path):
        explanations, before = find_run(tiny_root, "latest", "explanations"), sorted(tiny_root.rglob("*"))
        with pytest.raises(UsageError, match=r"no scorer 'x': choose one of .*detection"):
            ScoreConfig(scorer="x")
        with pytest.raises(UsageError, match=r"no null 'x': choose one of shuffled, generic"):
            ScoreConfig(nulls=("x",))
        with pytest.raises(UsageError, match=r"no explainer 'x': choose one of .*tokens"):
            ExplainConfig(explainer="x")
        for tools in (ToolsConfig(embedder="x"), ToolsConfig(llm=LLMConfig(backend="x"))):
            with pytest.raises(UsageError, match=r"no (LLM backend|embedder) 'x': choose one of"):
                score(ScoreConfig(tools=tools), explanations, tiny_root)
        assert sorted(tiny_root.rglob("*")) == before

    def test_random_directions_are_explained_and_scored_as_the_latents_were(self, tiny_root: Path, tmp_path: Path):
        root = Path(shutil.copytree(tiny_root, tmp_path / "runs"))
        cfg = ScoreConfig(nulls=("shuffled", "random"), n_null=3, tools=ToolsConfig(embedder="hashed"))
        run = score(cfg, find_run(root, "latest", "explanations"), root)
        rows = FeatureIndex(find_run(root, "latest", "index").folder).arrow(
            "SELECT latent, arm, n_docs_shared FROM scores WHERE run = ?", [run.id]
        )
        own = {row["latent"] for row in rows.to_pylist() if row["arm"] == "explanation"}
        random = [row for row in rows.to_pylist() if row["arm"] == "random"]
        assert len(random) == 3
        assert {row["latent"] for row in random} <= own
        assert all(row["n_docs_shared"] == 0 for row in random)
        assert run.results["above"]["random"]["n_latents"] <= 3

    def test_every_latent_of_the_dictionary_is_counted_once(self, tiny_root: Path):
        told = dict(find_run(tiny_root, "latest", "scores").results["denominators"])
        assert told.pop("width") == sum(told.values())

    def test_a_latent_of_unknown_silence_is_skipped_and_named_and_counted(
        self, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ):
        root = Path(shutil.copytree(tiny_root, tmp_path / "runs"))
        of = find_run(root, "latest", "explanations")
        index = FeatureIndex(find_run(root, "latest", "index").folder)
        [often] = index.sql("SELECT latent FROM explanations WHERE run = ? LIMIT 1", [of.id])["latent"]
        of_all = Where.of
        monkeypatch.setattr(
            Where,
            "of",
            lambda self, latent: (found := of_all(self, latent)) and found._replace(complete=latent != often),
        )
        run = score(ScoreConfig(seed=3, tools=ToolsConfig(embedder="hashed")), of, root)
        told = run.results["denominators"]
        assert (told["skipped"], told["unparsed"]) == (1, 0)
        assert told["scored"] == of.results["n_explained"] - 1
        assert f"latent {often} fires so often" in caplog.text

    def test_examples_and_other_figures_are_asked_for_beside_the_scores(self, tiny_root: Path):
        index = Workbench.open(tiny_root).index
        counted = index.sql(
            "SELECT any_value(n_judged + n_unparsed) AS told, count(*) AS n FROM scores JOIN examples"
            " USING (run, latent, arm, scorer) GROUP BY run, latent, arm, scorer"
        )
        assert len(counted) > 0
        assert (counted["told"] == counted["n"]).all()
        metrics = index.sql(
            "SELECT s.value AS told, m.value AS same FROM scores s JOIN score_metrics m"
            " USING (run, latent, arm, scorer) WHERE metric = 'auroc'"
        )
        assert (metrics["told"].fillna(-1) == metrics["same"].fillna(-1)).all()


@pytest.mark.parametrize("name", [name for name in EMBEDDERS if name != "minilm"])
def test_embedders_give_unit_rows_in_the_order_of_the_texts(name: str):
    embed = EMBEDDERS[name]()
    texts = ["a cat", "a much longer text about several ships", "a cat"]
    vectors = embed(texts)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[0], vectors[2])
    assert vectors[0] @ vectors[1] < 0.9
