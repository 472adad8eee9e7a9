"""Text token by token: the same with a cache and without, alone and in a batch, padded on either side; and stopped."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from activations.generation import NotFinite, generate_batch, stream
from activations.lm import LanguageModel
from activations.reading import Reading, left_padded
from store.errors import UsageError

PROMPTS = ([0, *range(40, 58)], [0, 41, 99, 7, 120, 33], [0, 77])
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def lm(any_lm: LanguageModel) -> LanguageModel:
    """A real one too."""
    return any_lm


class Pushed:
    """Adds a vector where it may, and remembers where that was."""

    def __init__(self, lm: LanguageModel, length: float = 3.0) -> None:
        self.by = length * torch.randn(lm.d_model, generator=torch.Generator().manual_seed(1))
        self.touched: list[Tensor] = []
        self.continued: list[bool] = []

    def __call__(self, x: Tensor, touch: Tensor, continues: bool) -> Tensor:
        self.touched.append(touch)
        self.continued.append(continues)
        return x + self.by


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_cache_changes_nothing(lm: LanguageModel, temperature: float):
    for edit in (Pushed(lm, 0.0), Pushed(lm)):
        with lm.splice(lm.hook_point(HOOK), edit):
            cached, whole = (list(stream(lm, PROMPTS[0], 12, temperature, 3, cached=c)) for c in (True, False))
        assert cached == whole
        assert cached


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_is_each_alone(lm: LanguageModel, temperature: float):
    seeds = (5, 6, 7)
    with lm.splice(lm.hook_point(HOOK), Pushed(lm)):
        alone = [lm.generate(ids, 10, temperature, seed) for ids, seed in zip(PROMPTS, seeds, strict=True)]
        together = generate_batch(lm, PROMPTS, 10, temperature, seeds)
    assert together == alone


def test_padding_on_the_left_and_on_the_right_agree(lm: LanguageModel, rounding: float):
    left, real = left_padded([list(ids) for ids in PROMPTS], fill=3)
    right = torch.full_like(left, 3)
    for row, ids in zip(right, PROMPTS, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    with lm.splice(lm.hook_point(HOOK), Pushed(lm)):
        of_left, of_right = lm.logits(left, real), lm.logits(right)
        for i, ids in enumerate(PROMPTS):
            alone = lm.logits(torch.tensor([ids]))[0]
            torch.testing.assert_close(of_left[i, -len(ids) :], alone, atol=rounding, rtol=1e-4)
            torch.testing.assert_close(of_right[i, : len(ids)], alone, atol=rounding, rtol=1e-4)


def test_edits_are_told_where_text_is_in_prefill_and_decoding(lm: LanguageModel):
    edit = Pushed(lm)
    with lm.splice(lm.hook_point(HOOK), edit) as splice:
        written = generate_batch(lm, PROMPTS, 4, 0.0, [0, 0, 0])
    n_steps = max(map(len, written))
    assert splice.n_calls == len(edit.touched) == n_steps
    _, real = left_padded([list(ids) for ids in PROMPTS])
    expected = real & (real.cumsum(1) > 1)
    cached = edit.continued[-1]
    for number, touch in enumerate(edit.touched):
        whole = torch.cat([expected, torch.ones(3, number, dtype=torch.bool)], dim=1)
        assert torch.equal(touch.cpu(), whole[:, -1:] if cached and number else whole)
    assert edit.continued == [cached and number > 0 for number in range(n_steps)]


def test_padding_comes_back_untouched(lm: LanguageModel):
    tokens, real = left_padded([list(ids) for ids in PROMPTS])
    hook, seen = lm.hook_point(HOOK), {}
    with lm.splice(hook, lambda x, *_: seen.setdefault("clean", x)):
        lm.logits(tokens, real)
    with lm.splice(hook, lambda x, *_: x + 5), lm.hooked(hook, lambda x: seen.setdefault("edited", x)):
        lm.logits(tokens, real)
    same = (seen["edited"] == seen["clean"]).all(dim=-1)
    assert torch.equal(same, ~(real & (real.cumsum(1) > 1)))


def test_stopped_in_the_middle_no_edit_is_left(lm: LanguageModel):
    clean = lm.generate(PROMPTS[0], 6, 0.0, 0)
    with lm.splice(lm.hook_point(HOOK), Pushed(lm, 50.0)):
        assert len(list(islice(stream(lm, PROMPTS[0], 6, 0.0, 0), 2))) == 2
    assert lm.reading is None
    assert lm.generate(PROMPTS[0], 6, 0.0, 0) == clean


def test_an_error_in_an_edit_leaves_a_model_that_works(lm: LanguageModel):
    clean = lm.generate(PROMPTS[0], 6, 0.0, 0)

    def fail(x: Tensor, touch: Tensor, continues: bool) -> Tensor:
        if continues or len(touch[0]) > len(PROMPTS[0]):
            raise RuntimeError("in the middle")
        return x

    with pytest.raises(RuntimeError, match="in the middle"), lm.splice(lm.hook_point(HOOK), fail):
        lm.generate(PROMPTS[0], 6, 0.0, 0)
    assert lm.reading is None
    assert lm.generate(PROMPTS[0], 6, 0.0, 0) == clean


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_logits_that_are_not_finite_stop_it_and_are_named(lm: LanguageModel, value: float):
    with (
        pytest.raises(NotFinite, match="not finite after 0 new tokens: what is edited is too strong, choose less"),
        lm.splice(lm.hook_point(HOOK), lambda x, *_: (x + value) * value),
    ):
        lm.generate(PROMPTS[0], 4, 0.0, 0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [((0, 0.0, 0), "writes nothing"), ((2, -1.0, 0), "temperature=-1.0 is none"), ((2, float("nan"), 0), "is none"),
     ((2, 1e-45, 0), "is none"), ((2, 1.0, 2**64), "out of range"), ((2, 1.0, -1), "out of range")],
)  # fmt: skip
def test_settings_that_no_text_can_be_drawn_with_are_one_line(lm: LanguageModel, asked: tuple, said: str):
    with pytest.raises(UsageError, match=said):
        lm.generate(PROMPTS[0], *asked)


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_read(lm: LanguageModel):
    with pytest.raises(UsageError, match=rf"have {lm.n_ctx} \+ 1 tokens, the model reads {lm.n_ctx}: shorten"):
        lm.generate([0] * lm.n_ctx, 1, 0.0, 0)
    # A context of thousands takes minutes on one thread.
    if lm.n_ctx < 1000:
        assert len(lm.generate([0] * (lm.n_ctx - 1), 1, 0.0, 0)) <= 1


def test_reading_counts_first_positions_over_the_whole_sequence():
    _, real = left_padded([[1, 2, 3], [1]])
    assert Reading.of(real, 3).first.tolist() == [[True, False, False], [False, False, True]]
    more = torch.cat([real, torch.ones(2, 1, dtype=torch.bool)], dim=1)
    assert not Reading.of(more, 1, continues=True).first.any()
