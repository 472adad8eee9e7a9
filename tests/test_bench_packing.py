"""What the benchmark of packing computes besides asking: widths of intervals, trials of kinds of documents, counts."""

import asyncio

import pytest

from autointerp.llm import Request
from autointerp.llm.planted import Planted
from autointerp.llm.scripted import Scripted
from bench.interpret_packing import KINDS, N_EACH, Counted, Trialled, judged, mean_width, of_kinds
from bench.planted_latents import FAMILY, explained, trial


def test_widths_fall_as_the_root_of_the_number_of_contexts():
    widths = [mean_width(n) for n in (50, 200)]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.05)
    # Normal at 200: 2 * 1.96 * sqrt((.7 * .3 + .2 * .8) / 200) / 2
    assert widths[1] == pytest.approx(0.0843, rel=0.03)


def test_every_kind_of_document_has_both_sides_and_no_context_twice():
    trials = of_kinds()
    assert [each.explanation.text for each in trials] == list(KINDS.values())
    for _, given in trials:
        assert len(given.active) == len(given.silent) == N_EACH
        assert len({item.window.text for item in given.items}) == 2 * N_EACH


@pytest.mark.parametrize(("n_packed", "calls"), [(1, 24), (5, 5), (25, 1)])
def test_a_planted_judge_loses_nothing_by_packing(n_packed: int, calls: int):
    given = Trialled(explained(3), trial(3, FAMILY, N_EACH))
    alone = judged(Scripted(Planted()), "planted", [given], 1)
    row = judged(Scripted(Planted()), "planted", [given], n_packed)
    assert (row["calls"], row["contexts"], row["unparsed"]) == (calls, 2 * N_EACH, 0)
    assert row["of_each"] == alone["of_each"]
    assert row["tokens_in"] <= alone["tokens_in"]


def test_free_replies_are_asked_for_without_a_form():
    asked: list[Request] = []

    def remember(request: Request) -> str:
        asked.append(request)
        return "{}"

    request = Request.ask("a", "b", max_tokens=1, schema="{}", prompt="p")
    for free in (False, True):
        asyncio.run(Counted(Scripted(remember), free).complete(request))
    assert [each.schema for each in asked] == ["{}", None]
