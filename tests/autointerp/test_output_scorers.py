"""Scorers that read likelihoods, steer, or have texts written: planted truths are found, and nulls are at chance."""

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_subject import D_SAE, LETTER, PLANTED, planted_subject

from autointerp.latent import Explanation, Score, Trial
from autointerp.llm import Request
from autointerp.llm.scripted import Scripted
from autointerp.prompts.output_generation import GENERIC as GENERAL_TEXTS
from autointerp.prompts.output_surprisal import GENERIC
from autointerp.sample import TRIAL
from autointerp.scorers import SCORERS, Scorer
from autointerp.scorers.continuations import STEERED, InterventionConfig, continuations, up_to_first_active
from autointerp.scorers.generation import GenerationConfig, GenerationScorer, of_equal_lengths
from autointerp.scorers.intervention import InterventionScorer
from autointerp.scorers.intervention_choice import InterventionChoiceScorer, questions
from autointerp.scorers.surprisal import SurprisalScorer
from autointerp.steering import Direction, Steered, Text
from autointerp.subject import Subject
from autointerp.tools import Tools
from store.errors import UsageError
from store.latents import Window


class FakeReader:
    """A token a word, each likely after a prefix that has it, and a log of what was read."""

    name = "fake"

    def __init__(self, nats: Callable[[str, str], float] | None = None) -> None:
        self.nats = nats or (lambda prefix, word: -1.0 if word in prefix.rsplit("Shared:", 1)[-1] else -5.0)
        self.read: list[tuple[str, tuple[str, ...]]] = []

    async def logprobs(self, prefix: str, texts: Sequence[str]) -> list[np.ndarray]:
        self.read.append((prefix, tuple(texts)))
        return [np.array([self.nats(prefix, word) for word in text.split()]) for text in texts]

    async def choices(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        raise NotImplementedError


def window(text: str, peak: int, doc_id: int, value: float = 1.0) -> Window:
    """Bytes for tokens, as the tiny model has them; `peak` counts them."""
    ids = tuple(text.encode())
    values = tuple(value if i == peak else 0.0 for i in range(len(ids)))
    return Window("given", value, doc_id, "s", "t", "train", 0, 0, peak, tuple(map(chr, ids)), ids, values)


def trial(latent: int = PLANTED, n: int = 12, seed: int = 5) -> Trial:
    active = [window(f"the black cat {i} sat", 10, i) for i in range(n)]
    silent = [window(f"stormy seas wreck {i}", 3, 100 + i, 0.0) for i in range(n)]
    return replace(Trial.of(latent, active, silent), seed=seed)


def explanation(text: str, latent: int = PLANTED) -> Explanation:
    return Explanation(latent, "test", text, text, "by hand", 0, frozenset())


def score(scorer: Scorer, text: str, on: Trial | None = None) -> Score:
    return asyncio.run(scorer(explanation(text), on or trial()))


class Remembering:
    """A subject that counts how often it is asked to steer, and steers once for each different question."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.alive, self.n_steered = subject, subject.alive, 0
        self.said: dict[str, list[Steered | None]] = {}
        self.peaks, self.n_tokens, self.cut = subject.peaks, subject.n_tokens, subject.cut
        self.random_direction, self.token_change = subject.random_direction, subject.token_change

    def fires(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        return self.subject.fires(latent, texts)

    def steer(
        self,
        direction: Direction | Sequence[Direction],
        prompts: Sequence[Text],
        *,
        strength: float | None = None,
        kl: float | None = None,
        n_tokens: int = 16,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Steered | None]:
        self.n_steered += 1
        how = {"strength": strength, "kl": kl, "n_tokens": n_tokens, "temperature": temperature, "seed": seed}
        key = repr((direction, prompts, how))
        if key not in self.said:
            self.said[key] = self.subject.steer(direction, prompts, **how)  # pyright: ignore[reportArgumentType]
        return self.said[key]


@pytest.fixture(scope="module")
def subject() -> Remembering:
    return Remembering(planted_subject())


class TestSurprisal:
    def test_words_of_active_contexts_are_told_from_silent_ones_and_silent_words_the_other_way(self):
        scorer = SurprisalScorer(FakeReader())
        assert score(scorer, "a black cat").value == 1
        assert score(scorer, "stormy seas").value == 0

    def test_an_explanation_that_says_nothing_is_at_chance(self):
        for text in (GENERIC, "", "colourless green ideas"):
            assert score(SurprisalScorer(FakeReader()), text).value == pytest.approx(0.5)

    def test_the_answer_is_the_decrease_in_nats_per_token(self):
        found = score(SurprisalScorer(FakeReader()), "cat")
        active = [row.answer for row in found.examples if row.truth]
        assert active == pytest.approx([4 / 5] * 12)
        assert found.n_judged == 24
        assert found.chance == 0.5
        assert found.prompt.startswith("surprisal/1/")

    def test_every_text_is_read_after_its_prefix_alone_whatever_is_read_beside_it(self):
        """D7 of the reference: a cache that grows in place, and a last batch that is short."""
        one, other = trial(), trial(n=7)
        answers = {r.window: r.answer for r in score(SurprisalScorer(FakeReader()), "black cat", one).examples}
        shuffled = replace(other, items=tuple(reversed(other.items)))
        for row in score(SurprisalScorer(FakeReader()), "black cat", shuffled).examples:
            assert row.answer == answers[row.window]

    def test_the_generic_reading_is_shared_by_the_nulls_of_a_latent(self):
        reader = FakeReader()

        async def three() -> None:
            scorer = SurprisalScorer(reader)
            await asyncio.gather(*(scorer(explanation(text), trial()) for text in ("cat", "seas", "")))

        asyncio.run(three())
        assert sum(GENERIC in prefix for prefix, _ in reader.read) == 1
        assert len(reader.read) == 4

    def test_what_has_no_tokens_or_no_finite_likelihood_is_counted(self):
        broken = trial(n=3)
        items = list(broken.items)
        items[0] = replace(items[0], window=replace(items[0].window, tokens=(" ",), token_ids=(32,), values=(1.0,)))
        items[1] = replace(items[1], window=window("inf inf", 1, 9))
        reader = FakeReader(lambda _, word: -np.inf if word == "inf" else -2.0)
        found = score(SurprisalScorer(reader), "cat", replace(broken, items=tuple(items)))
        assert (found.n_judged, found.n_unparsed) == (4, 2)

    def test_no_context_gives_no_value(self):
        assert score(SurprisalScorer(FakeReader()), "cat", trial(n=0)).value is None


def tells_letters(prefix: str, _: str) -> float:
    """An explanation is likelier the more of the letter was written."""
    written = prefix.rsplit("Written:", 1)[-1].removesuffix("Nudged towards:")
    return -10.0 + written.count(LETTER)


class TestContinuations:
    def test_all_arms_have_the_same_effect_on_the_same_prompts_and_differ(self, subject: Remembering):
        written = asyncio.run(continuations(subject, trial(), InterventionConfig()))
        assert set(written.arms) == {STEERED, "random_direction", "other_latent"}
        for said in written.arms.values():
            assert len(said) == 12
            assert all(s and s.kl == pytest.approx(0.5, rel=0.1) for s in said)
        texts = {arm: tuple(s.text for s in said if s) for arm, said in written.arms.items()}
        assert len({*texts.values(), tuple(s.text for s in written.clean)}) == 4

    def test_they_are_a_function_of_the_trial(self, subject: Remembering):
        cfg = InterventionConfig(n_prompts=3)
        one, same, other = (asyncio.run(continuations(subject, trial(seed=s), cfg)) for s in (1, 1, 2))
        assert one == same
        assert one.arms["random_direction"] != other.arms["random_direction"]

    def test_prompts_end_with_the_first_active_token(self):
        cut = up_to_first_active(window("the black cat sat", 6, 1))
        assert cut.text == "the bla"
        assert cut.peak == 6
        assert cut.values[-1] == 1


class TestIntervention:
    def test_a_latent_that_writes_a_letter_is_found_by_the_explanation_that_says_so(self, subject: Remembering):
        found = score(InterventionScorer(subject, FakeReader(tells_letters)), f"the letter {LETTER}")
        assert found.value is not None
        assert found.value > 0.95
        assert found.interval is not None
        assert found.interval[0] > 0.8
        assert found.chance == 0.5
        assert {row.kind for row in found.examples} == {STEERED, "random_direction", "other_latent"}

    def test_latents_that_write_other_things_are_at_chance(self, subject: Remembering):
        scorer = InterventionScorer(subject, FakeReader(tells_letters), InterventionConfig(n_prompts=10, n_tokens=6))
        others = [n for n in range(0, D_SAE, 6) if n != PLANTED]
        values = [score(scorer, f"the letter {LETTER}", trial(latent=latent)).value for latent in others]
        assert np.mean([v for v in values if v is not None]) == pytest.approx(0.5, abs=0.1)

    def test_every_row_keeps_its_prompt_and_what_was_written(self, subject: Remembering):
        found = score(InterventionScorer(subject, FakeReader(tells_letters)), "x")
        written = asyncio.run(continuations(subject, trial(), InterventionConfig()))
        expected = [said.text for said in written.arms[STEERED] if said]
        assert [row.text for row in found.examples if row.kind == STEERED] == expected
        assert all(row.window in trial().active for row in found.examples)

    def test_the_answer_is_the_gain_over_the_clean_continuation(self, subject: Remembering):
        found = score(InterventionScorer(subject, FakeReader(tells_letters)), "z")
        written = asyncio.run(continuations(subject, trial(), InterventionConfig()))
        gains = [
            s.text.count(LETTER) - c.text.count(LETTER)
            for s, c in zip(written.arms[STEERED], written.clean, strict=True)
            if s
        ]
        assert [row.answer for row in found.examples if row.kind == STEERED] == gains

    def test_an_empty_explanation_is_at_chance(self, subject: Remembering):
        found = score(InterventionScorer(subject, FakeReader(tells_letters)), "")
        assert found.value == 0.5
        assert found.n_unparsed == 0

    def test_an_effect_that_no_strength_has_is_counted_and_never_zero(self, subject: Remembering):
        unreachable = InterventionConfig(n_prompts=4, kl=1e6)
        found = score(InterventionScorer(subject, FakeReader(tells_letters), unreachable), "z")
        assert found.value is None
        assert (found.n_judged, found.n_unparsed) == (0, 12)

    def test_nulls_of_a_latent_steer_nothing_anew(self, subject: Remembering):
        before = subject.n_steered

        async def three() -> None:
            scorer = InterventionScorer(subject, FakeReader(tells_letters))
            await asyncio.gather(*(scorer(explanation(text), trial(n=2)) for text in ("z", "x", "")))

        asyncio.run(three())
        assert subject.n_steered - before == 4

    def test_a_trial_without_active_contexts_gives_no_value(self, subject: Remembering):
        assert score(InterventionScorer(subject, FakeReader(tells_letters)), "z", trial(n=0)).value is None


def picks_most_letters(request: Request) -> str:
    """A judge that names the model which wrote most of the letter."""
    models = re.split(r"^Model ", request.messages[1].text, flags=re.MULTILINE)[1:]
    return json.dumps({"model": max(models, key=lambda m: m.count(LETTER))[0]})


class TestInterventionChoice:
    def test_a_judge_that_sees_the_letter_finds_the_planted_latent(self, subject: Remembering):
        found = score(InterventionChoiceScorer(subject, Scripted(picks_most_letters)), f"the letter {LETTER}")
        assert found.value == 1
        assert found.n_judged == 4
        assert found.chance == pytest.approx(1 / 3)

    def test_a_judge_that_always_says_the_same_is_at_chance(self, subject: Remembering):
        written = asyncio.run(continuations(subject, trial(), InterventionConfig()))
        second = [q.arms[1] == STEERED for s in range(300) for q in questions(written, trial(seed=s)) if q]
        assert len(second) == 1200
        assert np.mean(second) == pytest.approx(1 / 3, abs=0.04)

    def test_a_judge_at_chance_has_no_figure_that_says_otherwise(self, subject: Remembering):
        # Every answer is about the same side: of those taken for yes, all are true, whoever judges.
        found = score(InterventionChoiceScorer(subject, Scripted(lambda _: '{"model": "B"}')), "x")
        assert found.metrics == {"accuracy": found.value}

    def test_the_place_of_the_latent_varies(self, subject: Remembering):
        written = asyncio.run(continuations(subject, trial(), InterventionConfig()))
        places = {q.arms.index(STEERED) for s in range(6) for q in questions(written, trial(seed=s)) if q}
        assert places == {0, 1, 2}

    def test_an_unreadable_reply_is_asked_once_more_and_then_counted(self, subject: Remembering):
        judge = Scripted(lambda _: "I cannot say: A or B")
        found = score(InterventionChoiceScorer(subject, judge), "x")
        assert (found.value, found.n_judged, found.n_unparsed) == (None, 0, 4)
        assert all(row.n_asked == 2 for row in found.examples)
        assert len(judge.requests) == 8

    def test_two_letters_are_no_answer_and_prose_around_one_is(self, subject: Remembering):
        for reply, n_judged in (('{"model": "A"} or {"model": "B"}', 0), ('Sure! {"model": "C"} it is', 4)):
            found = score(InterventionChoiceScorer(subject, Scripted(lambda _, said=reply: said)), "x")
            assert found.n_judged == n_judged


def writer(fitting: Callable[[int], str], general: Callable[[int], str], n: int = 10) -> Scripted:
    def answer(request: Request) -> str:
        write = general if GENERAL_TEXTS in request.messages[1].text else fitting
        return json.dumps({"texts": [write(i) for i in range(n)]})

    return Scripted(answer)


class TestGeneration:
    def test_texts_that_fire_against_texts_that_do_not(self):
        scorer = GenerationScorer(FiresOn("zebra"), writer(lambda i: f"a zebra {i}", lambda i: f"rain falls {i}"))
        found = score(scorer, "zebras")
        assert found.value == 1
        assert found.n_judged == 20
        assert found.chance == 0.5

    def test_the_value_is_one_and_the_difference_of_shares_halved(self):
        fitting, general = (
            (lambda i, n=n, word=word: ("zebra" if i < n else word) + f" {i}")
            for n, word in ((7, "lions"), (2, "rainy"))
        )
        found = score(GenerationScorer(FiresOn("zebra"), writer(fitting, general)), "zebras")
        assert found.value == pytest.approx((1 + 0.7 - 0.2) / 2)

    def test_texts_that_do_not_come_are_counted(self):
        scripted = writer(lambda i: f"a zebra {i}", lambda i: f"rain fall {i}", n=6)
        found = score(GenerationScorer(FiresOn("zebra"), scripted), "zebras")
        assert (found.value, found.n_judged, found.n_unparsed) == (1, 12, 8)

    def test_a_refusal_is_asked_once_more_and_then_counted(self):
        scripted = Scripted(lambda _: "I cannot help with that.")
        found = score(GenerationScorer(FiresOn("zebra"), scripted), "zebras")
        assert (found.value, found.n_judged, found.n_unparsed) == (None, 0, 20)
        assert len(scripted.requests) == 4

    def test_the_shape_that_was_asked_for_sent_back_is_no_text(self):
        found = score(GenerationScorer(FiresOn("zebra"), Scripted(lambda _: '{"texts": ["...", "..."]}')), "zebras")
        assert (found.n_judged, found.n_unparsed) == (0, 20)

    def test_the_same_text_twice_is_one_text(self):
        scripted = writer(lambda _: "a zebra", lambda i: f"rain {i}")
        found = score(GenerationScorer(FiresOn("zebra"), scripted), "zebras")
        assert (found.n_judged, found.n_unparsed) == (11, 9)

    def test_both_kinds_of_texts_are_of_the_same_lengths(self, subject: Remembering):
        long, short = ["word " * n for n in (9, 2, 30)], ["hm" * n for n in (3, 1, 2)]
        one, other = of_equal_lengths(subject, long, short)
        assert subject.n_tokens(one) == subject.n_tokens(other) == [3, 5, 7]

    def test_a_longer_text_alone_is_no_evidence(self):
        """A latent that fires on every tenth letter fires in long texts; cut to equal lengths, it fires in as many."""
        scorer = GenerationScorer(FiresOn("e"), writer(lambda i: f"{i} abcd efgh" * 9, lambda i: f"{i} abcd"))
        assert score(scorer, "long texts").value == 0.5

    def test_general_texts_are_written_once_for_all_nulls_of_a_latent(self):
        scripted = writer(lambda i: f"a zebra {i}", lambda i: f"rain {i}")

        async def two() -> None:
            scorer = GenerationScorer(FiresOn("zebra"), scripted, GenerationConfig(n_texts=3))
            await asyncio.gather(*(scorer(explanation(text), trial()) for text in ("zebras", "lions")))

        asyncio.run(two())
        assert len(scripted.requests) == 3


class FiresOn(Remembering):
    """A latent that fires where a word is."""

    def __init__(self, word: str) -> None:
        super().__init__(planted_subject())
        self.word = word

    def fires(self, latent: int, texts: Sequence[Text]) -> np.ndarray:
        return np.array([self.word in str(text) for text in texts])


def test_importing_the_scorers_loads_no_model_library():
    import subprocess
    import sys

    code = "import sys, autointerp.scorers; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "kind"),
    {
        "generation": GenerationScorer,
        "intervention": InterventionScorer,
        "intervention_choice": InterventionChoiceScorer,
        "surprisal": SurprisalScorer,
    }.items(),
)
def test_every_output_scorer_is_in_the_table_and_wants_what_trials_have(name: str, kind: type[Scorer]):
    assert SCORERS[name] == kind.open  # pyright: ignore[reportAttributeAccessIssue]
    assert kind.reads_explanation
    assert kind.wants <= TRIAL


@pytest.mark.parametrize("name", ["generation", "intervention", "intervention_choice", "surprisal"])
def test_a_tool_that_is_missing_is_one_clear_line(name: str):
    with pytest.raises(UsageError, match=r"no model to steer|no log-probabilities"):
        SCORERS[name](Tools())
