"""Steering: zero strength is the clean model, strength is found by its effect, and the error term stays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from planted_subject import HOOK, LETTER, PLANTED, planted_subject

from app.workbench import Workbench
from autointerp.sample import SampleConfig, Sampler
from autointerp.steering import Steerable, strengths_at
from autointerp.subject import Subject, divergence
from autointerp.tools import Tools
from store.errors import UsageError
from store.run import find_run

PROMPTS = ["the black cat", "a stormy sea", "once upon a time there was", "x", "12 + 30 ="]


@pytest.fixture(scope="module")
def subject() -> Subject:
    return planted_subject()


@pytest.fixture(scope="module")
def tools(tiny_root: Path) -> Tools:
    return Tools(sampler=Sampler(Workbench.open(tiny_root).index, SampleConfig(min_contexts=3, min_docs=2)))


@pytest.fixture(scope="module")
def opened(tools: Tools) -> Subject:
    assert isinstance(tools.subject, Subject)
    return tools.subject


class TestStrength:
    @settings(max_examples=100, deadline=None)
    @example([881.0], 0.5, 2.0)
    @given(
        st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
        st.floats(0.5, 3.0),
        st.floats(0.05, 2.0),
    )
    def test_every_entry_reaches_the_wanted_effect_within_tolerance(self, scale, power, wanted):
        scales = np.array(scale)
        found = strengths_at(lambda s, which: (s / scales[which]) ** power, wanted, np.ones(len(scale)))
        assert (abs((found.strengths / scales) ** power - wanted) <= 0.1 * wanted + 1e-12).all()
        np.testing.assert_allclose(found.kl, (found.strengths / scales) ** power)

    def test_an_effect_that_saturates_below_is_not_found_and_others_still_are(self):
        most, n_asked = np.array([0.3, 3.0]), [0, 0]

        def kl_at(strengths: np.ndarray, which: np.ndarray) -> np.ndarray:
            for i in which:
                n_asked[i] += 1
            return most[which] * strengths / (1 + strengths)

        found = strengths_at(kl_at, 0.5, np.ones(2))
        assert np.isnan(found.strengths[0])
        assert np.isnan(found.kl[0])
        assert found.kl[1] == pytest.approx(0.5, rel=0.1)
        assert n_asked[0] <= 12
        assert n_asked[1] <= 6

    def test_a_model_that_breaks_counts_as_too_much(self):
        found = strengths_at(lambda s, _: np.where(s > 3, np.nan, s / 4), 0.5, np.full(1, 1000.0))
        assert found.strengths[0] / 4 == pytest.approx(0.5, rel=0.1)

    def test_no_effect_is_refused(self):
        with pytest.raises(ValueError, match="more than 0 nats"):
            strengths_at(lambda s, _: s, 0.0, np.ones(1))


class TestSteer:
    def test_zero_strength_is_the_clean_model_exactly(self, subject: Subject):
        clean = subject.next_logprobs(PROMPTS)
        zero = subject.next_logprobs(PROMPTS, [PLANTED] * 5, [0.0] * 5)
        assert np.array_equal(clean, zero)
        for i, said in enumerate(subject.steer(PLANTED, PROMPTS, strength=0.0, seed=4)):
            ids = subject.lm.generate(subject.ids(PROMPTS[i]), 16, 1.0, 4 + i)
            assert said is not None
            assert said.text == subject.lm.tokenizer.decode(ids)
            assert said.kl == 0

    def test_a_kl_is_reached_for_latents_and_random_directions_alike(self, subject: Subject):
        rows = [PLANTED, 3, subject.random_direction(PLANTED, 1), subject.random_direction(PLANTED, 2), 5]
        clean = subject.next_logprobs(PROMPTS)
        said = subject.steer(rows, PROMPTS, kl=0.5, n_tokens=1)
        reached = subject.next_logprobs(PROMPTS, rows, [s.strength for s in said if s])
        assert np.allclose(divergence(clean, reached), [s.kl for s in said if s])
        assert all(s and s.kl == pytest.approx(0.5, rel=0.1) for s in said)

    def test_log_probabilities_do_not_depend_on_what_else_is_in_the_batch(self, subject: Subject):
        together = subject.next_logprobs(PROMPTS * 8, [PLANTED] * 40, [2.0] * 40)
        alone = np.concatenate([subject.next_logprobs([prompt], [PLANTED], [2.0]) for prompt in PROMPTS])
        np.testing.assert_allclose(together[-5:], alone, atol=1e-5)

    def test_the_decoder_row_is_added_and_the_error_term_stays(self, subject: Subject):
        before = subject.rows(subject.ids("the cat"))
        strength = 3.0
        with subject._pushed([PLANTED], [strength]):
            after = subject.rows(subject.ids("the cat"))
        moved = (after - before)[1:]
        torch.testing.assert_close(moved, strength * subject.sae.W_dec[PLANTED].detach().expand_as(moved))
        assert torch.equal(after[0], before[0])

    def test_steering_towards_a_letter_writes_it(self, subject: Subject):
        clean, steered = (subject.steer(PLANTED, PROMPTS, strength=s, n_tokens=30) for s in (0.0, 60.0))
        assert sum(LETTER in s.text for s in clean if s) < 5
        # Its logit is 5.6 at most, of 258 whose others are about 1: more than a quarter, where chance is 1 in 258.
        assert sum(s.text.count(LETTER) for s in steered if s) > 0.25 * 150

    def test_a_random_direction_has_the_row_s_norm_and_its_own_seed(self, subject: Subject):
        one, same, other = (subject.random_direction(PLANTED, seed) for seed in (1, 1, 2))
        assert np.linalg.norm(one) == pytest.approx(1.0)
        assert np.array_equal(one, same)
        assert abs(one @ other) < 0.9

    def test_strength_and_kl_together_or_neither_are_refused(self, subject: Subject):
        for strength, kl in ((None, None), (1.0, 0.5)):
            with pytest.raises(UsageError, match="one of the two"):
                subject.steer(PLANTED, PROMPTS, strength=strength, kl=kl)

    def test_edits_are_gone_after_an_error(self, subject: Subject):
        clean = subject.next_logprobs(PROMPTS)
        with pytest.raises(UsageError, match="no latent 999"):
            subject.steer(999, PROMPTS, strength=1.0)
        with pytest.raises(UsageError, match="the model reads 512"):
            subject.steer(PLANTED, ["a" * 505], strength=1.0, n_tokens=16)
        assert np.array_equal(subject.next_logprobs(PROMPTS), clean)


class TestTokenChange:
    def test_clamping_a_latent_that_writes_a_letter_promotes_it_most(self, subject: Subject):
        change = subject.token_change(PLANTED, ["the black cat", "a sea"])
        assert change.promoted[0].token == LETTER
        assert change.promoted[0].value > 0 > change.suppressed[0].value
        assert change.n_positions == 13 + 5

    def test_padding_changes_nothing(self, subject: Subject):
        together = subject.token_change(3, PROMPTS, n=258)
        total = np.zeros(258)
        for prompt in PROMPTS:
            alone = subject.token_change(3, [prompt], n=258)
            for logit in alone.promoted:
                total[logit.token_id] += logit.value * alone.n_positions / together.n_positions
        found = np.array([logit.value for logit in sorted(together.promoted, key=lambda x: x.token_id)])
        np.testing.assert_allclose(found, total, atol=1e-4)

    def test_a_latent_that_never_fired_has_no_value_to_hold(self, subject: Subject):
        dead = Subject(subject.lm, subject.sae, HOOK, 1e9, np.zeros(40))
        with pytest.raises(UsageError, match="never fired"):
            dead.token_change(PLANTED, PROMPTS)


class TestOpened:
    def test_windows_of_the_index_fire_as_the_index_says(self, opened: Subject, tools: Tools):
        assert tools.sampler is not None
        assert isinstance(opened, Steerable)
        for latent in tools.sampler.choose(4):
            trial = tools.sampler.trial(latent)
            # The tiny model reads each window alone, without what precedes it: most, not all, still fire.
            assert opened.fires(latent, trial.active).mean() > opened.fires(latent, trial.silent).mean()

    def test_activations_agree_with_inspect(self, opened: Subject, tiny_root: Path):
        bench = Workbench.open(tiny_root)
        seen = bench.inspect("The quick brown fox")
        latent = int(seen.top(1)["latent"].iloc[0])
        normal = np.array(seen.token_class) == 0
        (values,) = opened.activations(latent, ["The quick brown fox"])
        np.testing.assert_allclose(values, seen.values(latent) * normal, rtol=1e-5)

    def test_what_fired_in_the_harvest_is_alive(self, opened: Subject, tiny_root: Path):
        counts = Workbench.open(tiny_root).index.sql("SELECT count(*) AS n FROM latents WHERE q999 > 0")
        assert len(opened.alive) == counts["n"].iloc[0] > 0

    def test_cutting_keeps_the_first_tokens(self, opened: Subject):
        text = "añb and more"
        for n in range(2, 12):
            assert opened.n_tokens([opened.cut(text, n)])[0] <= n
        assert opened.cut(text, 100) == text

    def test_no_index_and_an_imported_index_are_one_clear_line(self, tiny_root: Path):
        with pytest.raises(UsageError, match="no model to steer"):
            _ = Tools().subject
        run = find_run(tiny_root, "latest", "index")
        run.inputs.pop("sae")
        with pytest.raises(UsageError, match="was imported"):
            Subject.open(run, tiny_root)
