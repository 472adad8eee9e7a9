"""Per-token figures of a text, and texts that a person typed, on the tiny model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from activations.documents import Message
from app.workbench import Workbench
from autointerp.per_token import per_token
from autointerp.subject import Subject
from autointerp.typed import turns, typed
from store.errors import UsageError

TEXT = "The quick brown fox, naïve as ever, jumps."


@pytest.fixture(scope="module")
def subject(tiny_root: Path) -> Subject:
    return Workbench.open(tiny_root)._subject


@pytest.fixture(scope="module")
def ids(subject: Subject) -> list[int]:
    return typed(subject, TEXT).ids


def test_the_loss_of_a_token_is_what_the_model_gave_it_from_those_before(subject: Subject, ids: list[int]):
    found = per_token(subject, ids).loss
    logprobs = subject.lm.logits(torch.tensor([ids])).log_softmax(-1)[0]
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx([-float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids))], rel=1e-5)


def test_errors_are_relative_and_their_parts_have_the_fvu_for_mean(subject: Subject, ids: list[int]):
    found, x = per_token(subject, ids), subject.rows(ids)
    x_hat = subject.sae(x).x_hat.detach()
    squared = (x - x_hat).square().sum(1)
    assert found.error == pytest.approx((squared / x.square().sum(1)).numpy(), rel=1e-4)
    normal = found.token_class == 0
    assert 1 < normal.sum() < len(ids)
    rows = x[torch.from_numpy(normal)]
    fvu = float(squared[torch.from_numpy(normal)].sum() / (rows - rows.mean(0)).square().sum())
    assert found.fvu == pytest.approx(fvu, rel=1e-4)
    assert found.fvu_part[normal].mean() == pytest.approx(found.fvu, rel=1e-9)


def test_without_losses_all_else_is_the_same(subject: Subject, ids: list[int]):
    whole, part = per_token(subject, ids), per_token(subject, ids, losses=False)
    assert np.isnan(part.loss).all()
    assert np.array_equal(whole.latent, part.latent)
    assert part.error == pytest.approx(whole.error, rel=1e-5)


def test_one_normal_token_has_no_fvu_and_no_part_of_it(subject: Subject):
    found = per_token(subject, typed(subject, "A").ids)
    assert found.fvu is None
    assert np.isnan(found.fvu_part).all()


def test_tokens_are_cut_from_the_text(subject: Subject):
    found = typed(subject, "naïve <b>")
    assert "".join(found.tokens[1:]) == "naïve <b>"
    assert len(found.tokens) == len(found.ids)


def test_a_model_without_a_template_says_so(subject: Subject):
    with pytest.raises(UsageError, match="no chat template: read the text as it is"):
        typed(subject, "Ahoy", chat=True)


@pytest.mark.parametrize("chat", [False, True])
def test_nothing_typed_is_one_line(subject: Subject, chat: bool):
    with pytest.raises(UsageError, match="there is no text to read"):
        typed(subject, "", chat=chat)


def test_a_long_text_says_how_many_tokens_it_has_and_how_many_fit(subject: Subject):
    with pytest.raises(UsageError, match=r"has 1001 tokens, the model reads 512"):
        typed(subject, "a" * 1000)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ahoy: there", [("user", "Ahoy: there")]),
        (
            "user: Ahoy\nassistant: Aye,\naye\nUser:more",
            [("user", "Ahoy"), ("assistant", "Aye,\naye"), ("user", "more")],
        ),
        ("  \nsystem: Be brief.\nuser: Ahoy", [("system", "Be brief."), ("user", "Ahoy")]),
        ("He said\nuser: Ahoy", [("user", "He said\nuser: Ahoy")]),
    ],
)
def test_a_chat_is_its_turns_and_anything_else_a_message(text: str, found: list[tuple[str, str]]):
    assert turns(text) == [Message(*each) for each in found]
