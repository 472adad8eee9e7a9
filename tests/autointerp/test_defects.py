"""Fourteen defects that were found in other systems, D1 to D14: each is a promise that this one keeps."""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from explaining import EVIDENCE
from judging import Changing, explained, judge, perfect, tools, trial
from small_chat import save_chat_model

from app.workbench import Workbench
from autointerp.explain import EXPLAINERS
from autointerp.explaining import ExplainConfig, explain
from autointerp.latent import Explanation
from autointerp.llm import Request
from autointerp.llm.local import Local
from autointerp.sample import SampleConfig, Sampler
from autointerp.sample_silent import marks
from autointerp.scorers import SCORERS
from autointerp.scorers.example_embedding import ExampleEmbeddingScorer
from autointerp.scoring import ScoreConfig, score
from autointerp.tools import ToolsConfig
from store.latents import Window
from store.run import find_run

CFG = SampleConfig(n_explain=50, n_score=50, min_contexts=3, min_docs=2, max_density=0.5, half_window=4)


@pytest.fixture(scope="module")
def sampler(tiny_root: Path) -> Sampler:
    return Sampler(Workbench.open(tiny_root).index, CFG)


@pytest.fixture(scope="module")
def latents(sampler: Sampler) -> list[int]:
    return sampler.choose(10)


def events(sampler: Sampler, latent: int, window: Window) -> dict[int, float]:
    """The index's own events of a latent within a window, by index of the token."""
    query = "SELECT pos, value FROM events WHERE latent = ? AND seq = ? AND pos >= ? AND pos < ?"
    bounds = [window.start, window.start + len(window.tokens)]
    rows = sampler.index.arrow(query, [latent, window.seq, *bounds]).to_pylist()
    return {row["pos"] - window.start: row["value"] for row in rows}


def test_d1_nothing_that_an_explainer_sees_is_scored_on(sampler: Sampler, latents: list[int]):
    seen = {w.doc_id for latent in latents for w in sampler.evidence(latent).shown}
    scored_on = {doc_id for latent in latents for doc_id in sampler.trial(latent).doc_ids}
    assert seen
    assert scored_on
    assert not seen & scored_on


def test_d2_a_peak_is_in_the_middle_wherever_its_document_allows(sampler: Sampler, latents: list[int]):
    full = 2 * CFG.half_window + 1
    windows = [w for latent in latents for w in sampler.trial(latent).active]
    whole = [w for w in windows if len(w.tokens) == full]
    assert len(whole) > 10
    assert {w.peak for w in whole} == {CFG.half_window}
    assert all(w.peak <= CFG.half_window and len(w.tokens) - w.peak - 1 <= CFG.half_window for w in windows)


def test_d3_every_activation_shown_is_one_of_that_latent_at_that_token(sampler: Sampler, latents: list[int]):
    for latent in latents:
        given = sampler.trial(latent)
        shown = [(latent, w) for w in (*given.active, *given.silent)]
        shown += [(each.latent, w) for each in given.neighbours for w in each.windows]
        for of, window in shown:
            fired = {i: value for i, value in enumerate(window.values) if value}
            assert fired == pytest.approx(events(sampler, of, window))


def test_d4_marks_of_silent_contexts_are_where_marks_of_active_ones_are():
    patterns = list(combinations(range(5), 2)) * 2
    active = [_firing(at) for at in patterns]
    silent = [replace(_firing(()), peak=window.peak) for window in active]
    found = Counter(marks(silent, active, np.random.default_rng(0)))
    assert found == Counter(patterns)
    assert len(found) == 10


def _firing(at: Sequence[int]) -> Window:
    values = tuple(float(i in at) for i in range(5))
    return Window("given", 1.0, 0, "s", "t", "train", 0, 0, 2, ("a",) * 5, (0,) * 5, values)


def test_d4_the_order_is_the_latents_own_whatever_is_drawn_before_it(sampler: Sampler, latents: list[int]):
    first = {latent: sampler.trial(latent) for latent in latents}
    assert {latent: sampler.trial(latent) for latent in reversed(latents)} == first
    assert len({given.seed for given in first.values()}) == len(latents)
    assert len({tuple(item.active for item in given.items) for given in first.values()}) > 1


def test_d5_the_contrastive_explainer_explains():
    explainer = EXPLAINERS["contrastive"](tools(perfect()))
    found = asyncio.run(explainer(EVIDENCE))
    assert isinstance(found, Explanation)
    assert "cat" in found.input_text


def test_d6_the_intruder_scorer_is_built_from_the_table_and_finds_intruders():
    assert judge("intruder", perfect()).value == 1.0


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Local:
    return Local(str(save_chat_model(tmp_path_factory.mktemp("model") / "chat")))


def test_d7_a_text_is_as_likely_whatever_is_read_before_and_beside_it(reader: Local):
    texts = [f"the cat sat on mat {i} " * (1 + i % 3) for i in range(15)]
    together = asyncio.run(reader.logprobs("About cats: ", texts))
    alone = [asyncio.run(reader.logprobs("About cats: ", [text]))[0] for text in texts]
    assert len(together) == 15
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("made", [np.asarray, lambda rows: np.asarray(rows, np.float32)], ids=["float64", "float32"])
def test_d8_example_embedding_takes_the_arrays_that_embedders_give(made: type):
    class Says:
        name = "says"

        def __call__(self, texts: Sequence[str]) -> np.ndarray:
            return made([[1.0, 0.0] if "cat" in text else [0.0, 1.0] for text in texts])

    found = asyncio.run(ExampleEmbeddingScorer(Says())(explained("cat"), trial()))
    assert found.value == 1.0
    assert found.n_judged == 75


def test_d9_no_latent_is_given_another_latents_silent_contexts(sampler: Sampler, latents: list[int]):
    for latent in latents:
        silent = sampler.trial(latent).silent
        assert silent
        assert not any(events(sampler, latent, window) for window in silent)


def test_d10_unread_answers_are_counted_and_kept():
    def half(n: int, text: str, request: Request) -> str:
        return json.dumps({name: said for name, said in json.loads(text).items() if name in {"1", "2"}})

    found = judge("detection", Changing(half), given=trial(n=2), per_prompt=4)
    assert (found.n_judged, found.n_unparsed, len(found.examples)) == (2, 2, 4)
    assert found.bounds is not None


def test_d11_ninety_eight_items_five_at_a_time_lose_none():
    found = judge("detection", perfect(), given=trial(n=49), per_prompt=5)
    assert (found.n_judged, found.n_unparsed, found.value) == (98, 0, 1.0)


def test_d12_what_is_finished_is_neither_explained_nor_scored_again(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = shutil.copytree(tiny_root, tmp_path / "runs")
    index = find_run(root, "latest", "index")
    how = ExplainConfig(explainer="tokens", n_latents=2, sample=replace(CFG, n_explain=5, n_score=5))
    judged_by = ScoreConfig(tools=ToolsConfig(embedder="hashed"), seed=12)
    before = explain(how, index, root)
    scores = score(judged_by, before, root)
    for table, name in ((EXPLAINERS, "tokens"), (SCORERS, "embedding")):
        monkeypatch.setitem(table, name, lambda tools: pytest.fail("opened again"))
    again = explain(how, index, root)
    assert again.id == before.id
    assert score(judged_by, again, root).id == scores.id


def test_d13_firing_is_counted_from_the_tokens_there_are(sampler: Sampler, latents: list[int]):
    n_tokens = sampler.index.arrow("SELECT count(*) AS n FROM events").to_pylist()[0]["n"]
    assert n_tokens > 0
    counted = "SELECT latent, count(*) AS n FROM events WHERE latent IN (SELECT unnest(?::BIGINT[])) GROUP BY latent"
    ratios = [row["n"] / sampler.density(row["latent"]) for row in sampler.index.arrow(counted, [latents]).to_pylist()]
    assert ratios == pytest.approx([ratios[0]] * len(latents))
    assert sampler.status().width == sampler.index.n_latents


def test_d14_silent_contexts_are_drawn_without_replacement_and_anew_for_each_latent(
    sampler: Sampler, latents: list[int]
):
    drawn = []
    for latent in latents:
        places = [(w.seq, w.start + w.peak) for w in sampler.trial(latent).silent]
        assert len(set(places)) == len(places) > 0
        drawn.append(frozenset(places))
    assert len(set(drawn)) == len(latents)
