"""A chat that a person typed, through the template of a real, small model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from activations.documents import Message
from activations.models import load_model
from autointerp.per_token import per_token
from autointerp.subject import Subject
from autointerp.typed import typed
from sae.topk import TopK, TopKConfig
from store.errors import UsageError

CHAT = "user: How many ships?\nassistant: Seven naïve ships.\nuser: Which?"
RENDERED = (
    "<|im_start|>user\nHow many ships?<|im_end|>\n<|im_start|>assistant\nSeven naïve ships.<|im_end|>\n"
    "<|im_start|>user\nWhich?<|im_end|>\n"
)


@pytest.fixture(scope="module")
def subject(save_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Subject:
    lm = load_model(str(save_model("llama", tmp_path_factory.mktemp("model") / "m", chat=True)))
    torch.manual_seed(0)
    sae = TopK(TopKConfig(d_in=lm.d_model, d_sae=40, k=6))
    return Subject(lm, sae, "blocks.0.hook_resid_post", float("inf"), np.ones(40))


def test_its_turns_go_through_the_template_and_tokens_are_its_text(subject: Subject):
    found = typed(subject, CHAT, chat=True)
    assert "".join(found.tokens) == RENDERED
    assert found.ids == subject.lm.tokenizer.encode(RENDERED).ids
    assert len(found.tokens) == len(found.ids)


def test_a_text_without_turns_is_a_message_as_steering_reads_it(subject: Subject):
    found = typed(subject, "How many ships?", chat=True)
    assert found.ids == subject.lm.tokenizer.chat("How many ships?")
    assert found.ids == subject.lm.tokenizer.chat([Message("user", "How many ships?")])


def test_losses_are_the_bridges_own(subject: Subject):
    ids = typed(subject, CHAT, chat=True).ids
    logprobs = subject.lm.logits(torch.tensor([ids])).double().log_softmax(-1)[0]
    expected = [-float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids))]
    assert per_token(subject, ids).loss[1:] == pytest.approx(expected, rel=1e-4)


def test_a_chat_that_is_too_long_says_how_long_it_is(subject: Subject):
    with pytest.raises(UsageError, match=rf"the chat has \d+ tokens, the model reads {subject.lm.n_ctx}"):
        typed(subject, "ships " * 5000, chat=True)


def test_a_template_that_refuses_is_one_line(subject: Subject, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(subject.lm.tokenizer, "_hf", _Refusing())
    with pytest.raises(UsageError, match="refuses a chat"):
        typed(subject, CHAT, chat=True)


class _Refusing:
    def apply_chat_template(self, *args: object, **kwargs: object) -> None:
        raise ValueError("roles must alternate")
