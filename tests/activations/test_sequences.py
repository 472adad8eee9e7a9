"""Documents to sequences: both modes, BOS in one place, chats, the held-out split, batches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations import encode as encode_module
from activations.batching import batches
from activations.encode import encoded
from activations.sequences import MIN_TAIL_TOKENS, NumberedDocument, TokenSequence, sequences
from activations.split import Split
from activations.text import Document, Message, Source, TextConfig
from activations.tokenizer import ByteTokenizer, HFTokenizer, Tokenizer
from store.errors import UsageError
from store.shards import TOKEN_CLASSES

BYTES = ByteTokenizer()
CHAT = Document("s", "c", messages=(Message("user", " How many ships?\n"), Message("assistant", "Seven ships.")))
TEXTS = st.lists(st.text(min_size=1, max_size=200), min_size=2, max_size=8, unique=True)


def source(*documents: str | Document) -> Source:
    made = [d if isinstance(d, Document) else Document("s", str(i), d) for i, d in enumerate(documents)]
    return Source("s", 1.0, lambda seed: iter(made), "0")


def chosen(cfg: TextConfig, *documents: str | Document, tokenizer: Tokenizer = BYTES) -> list[NumberedDocument]:
    return list(Split(cfg.heldout, cfg.document_seed).numbered(encoded(tokenizer, [source(*documents)], cfg)))


def made(cfg: TextConfig, n_ctx: int, *documents: str | Document, tokenizer: Tokenizer = BYTES) -> list[TokenSequence]:
    return list(sequences(chosen(cfg, *documents, tokenizer=tokenizer), cfg, n_ctx, tokenizer.bos_id))


@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, n_ctx=st.integers(8, 40))
def test_sequential_rows_are_consecutive_pieces_of_one_document(texts: list[str], n_ctx: int):
    cfg = TextConfig()
    rows = made(cfg, n_ctx, *texts)
    for document in chosen(cfg, *texts):
        mine = [row for row in rows if row.doc_ids[0] == document.doc_id]
        assert all((row.doc_ids == document.doc_id).all() for row in mine)
        assert all(row.ids[0] == BYTES.bos_id and (row.ids == BYTES.bos_id).sum() == 1 for row in mine)
        assert all(len(row) <= n_ctx for row in mine)
        joined = [token_id for row in mine for token_id in row.ids[1:]]
        whole = list(document.tokens.ids)
        assert joined == whole[: len(joined)]
        assert len(whole) - len(joined) < MIN_TAIL_TOKENS
    assert [row.seq for row in rows] == list(range(len(rows)))


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, n_ctx=st.integers(4, 40), bos=st.sampled_from(["sequence", "document", "both", "none"]))
def test_packing_keeps_every_token_once_with_its_document_and_fills_every_row(texts: list[str], n_ctx: int, bos: str):
    cfg = TextConfig(mode="pack", bos=bos)
    rows, documents = made(cfg, n_ctx, *texts), chosen(cfg, *texts)
    added = BYTES.bos_id
    for held in (False, True):
        side = [d for d in documents if d.heldout == held]
        mine = [row for row in rows if documents[int(row.doc_ids[0])].heldout == held]
        assert all(len(row) == n_ctx for row in mine[:-1])
        kept = [(int(i), int(d)) for row in mine for i, d in zip(row.ids, row.doc_ids, strict=True) if i != added]
        expected = [(int(i), d.doc_id) for d in side for i in d.tokens.ids]
        # A last row of a single token gives the model nothing to read.
        assert kept == expected[: len(kept)]
        assert len(expected) - len(kept) <= 1
        for row in mine:
            assert len({documents[int(doc_id)].heldout for doc_id in row.doc_ids}) == 1
            places = np.flatnonzero(row.ids == added)
            begins = np.flatnonzero(np.diff(row.doc_ids, prepend=-1) != 0)
            assert (row.char_start[places] == -1).all()
            if bos == "none":
                assert len(places) == 0
            if bos == "sequence":
                assert list(places) == [0]
            if bos == "document":
                assert set(places) == {at for at in begins if row.char_start[at] == -1}
            if bos == "both":
                assert set(places) == {0, *begins}
    assert [row.seq for row in rows] == list(range(len(rows)))


def test_bos_of_documents_is_at_their_beginnings_and_of_sequences_in_every_row():
    counts = {
        bos: [int((row.ids == BYTES.bos_id).sum()) for row in made(TextConfig(bos=bos), 32, "a" * 75, "b" * 10)]
        for bos in ("sequence", "document", "both", "none")
    }
    assert counts == {"sequence": [1] * 4, "document": [1, 0, 0, 1], "both": [1] * 4, "none": [0] * 4}


@pytest.mark.parametrize(("overlong", "lengths"), [("split", [32, 32, 20, 11]), ("truncate", [32, 11]), ("skip", [11])])
def test_documents_longer_than_the_context_are_treated_as_asked(overlong: str, lengths: list[int]):
    rows = made(TextConfig(overlong=overlong), 32, "a" * 81, "b" * 10)
    assert sorted(map(len, rows), reverse=True) == lengths


def test_half_a_surrogate_pair_is_a_question_mark_to_every_tokenizer(save_model: Callable[..., Path], tmp_path: Path):
    tokenizer = HFTokenizer(save_model("gpt2", tmp_path / "m"))
    chat = Document("s", "c", messages=(Message("user", "how\ud800?"),))
    rows = made(TextConfig(chat="plain"), 64, "seven\ud800ships", chat, tokenizer=tokenizer)
    assert [tokenizer.decode(row.ids[1:].tolist()) for row in rows] == ["seven?ships", "user: how??\n"]


def test_a_tokenizer_without_bos_adds_none_and_bos_id_zero_is_a_bos(save_model: Callable[..., Path], tmp_path: Path):
    text = "Ada walked to the harbour and counted seven ships."
    for bos in (False, True):
        folder = tmp_path / str(bos)
        tokenizer = HFTokenizer(save_model("gpt2", folder, bos=bos))
        assert tokenizer.bos_id == (0 if bos else None)
        for mode in ("sequential", "pack"):
            rows = made(TextConfig(mode=mode), 16, text, text + "!", tokenizer=tokenizer)
            assert all((row.ids[0] == 0) == bos and (row.ids[1:] != 0).all() for row in rows)
            assert all((row.char_start[0] == -1) == bos for row in rows)


class TestChats:
    @pytest.fixture
    def tokenizer(self, save_model: Callable[..., Path], tmp_path: Path) -> HFTokenizer:
        return HFTokenizer(save_model("llama", tmp_path / "m", chat=True))

    def test_the_models_template_is_applied_and_every_token_has_its_class(self, tokenizer: HFTokenizer):
        (row, *_) = made(TextConfig(), 128, CHAT, "other", tokenizer=tokenizer)
        expected = "<|im_start|>user\nHow many ships?<|im_end|>\n<|im_start|>assistant\nSeven ships.<|im_end|>\n"
        assert tokenizer.decode(row.ids.tolist()) == expected
        names = {number: name for name, number in TOKEN_CLASSES.items()}
        by_class = {
            name: "".join(
                expected[start:end]
                for start, end, found in zip(row.char_start, row.char_end, row.text_class, strict=True)
                if names[int(found)] == name
            )
            for name in ("normal", "role", "special")
        }
        assert by_class["normal"] == "How many ships?Seven ships."
        assert by_class["special"] == "<|im_start|><|im_end|>" * 2
        assert by_class["role"] == "user\n\nassistant\n\n"

    @pytest.mark.parametrize("words", ["user", "assistant", "a", "I", " s ", "im_start", "\n", "user\nuser"])
    def test_words_that_the_template_uses_too_are_told_from_its_own(self, tokenizer: HFTokenizer, words: str):
        chat = Document("s", "c", messages=tuple(Message(role, words) for role in ("user", "assistant", "user")))
        (row, *_) = made(TextConfig(), 128, chat, "other", tokenizer=tokenizer)
        text = tokenizer.decode(row.ids.tolist())
        normal = [
            text[start:end]
            for start, end, found in zip(row.char_start, row.char_end, row.text_class, strict=True)
            if found == TOKEN_CLASSES["normal"]
        ]
        assert "".join(normal) == 3 * words.strip()

    @pytest.mark.parametrize("bos", ["sequence", "document", "both"])
    def test_a_chat_gets_no_bos_of_ours_however_rows_are_made(self, tokenizer: HFTokenizer, bos: str):
        for mode in ("sequential", "pack"):
            rows = made(
                TextConfig(mode=mode, bos=bos),
                128,
                CHAT,
                CHAT.messages and Document("s", "d", messages=CHAT.messages[:1]),
                tokenizer=tokenizer,
            )
            assert all(tokenizer.bos_id not in row.ids for row in rows)

    def test_the_template_decides_about_bos_and_plain_chats_get_one(self, tokenizer: HFTokenizer):
        (row, *_) = made(TextConfig(), 128, CHAT, "other", tokenizer=tokenizer)
        assert tokenizer.bos_id not in row.ids
        (row, *_) = made(TextConfig(chat="plain"), 128, CHAT, "other", tokenizer=tokenizer)
        assert row.ids[0] == tokenizer.bos_id
        assert tokenizer.decode(row.ids[1:].tolist()) == "user:  How many ships?\n\nassistant: Seven ships.\n"

    def test_a_model_without_a_template_says_the_way_out(self):
        with pytest.raises(UsageError, match="--chat plain"):
            made(TextConfig(), 64, CHAT, "other")

    def test_a_template_that_changes_the_words_is_refused(self, tokenizer: HFTokenizer):
        tokenizer._hf.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
        with pytest.raises(UsageError, match=r"turn 1 \('user'\).*--chat plain"):
            made(TextConfig(), 64, CHAT, "other", tokenizer=tokenizer)

    def test_a_template_that_raises_is_one_line(self, tokenizer: HFTokenizer):
        tokenizer._hf.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(UsageError, match="roles must alternate"):
            made(TextConfig(), 64, CHAT, "other", tokenizer=tokenizer)


class TestSplit:
    def test_the_same_text_is_never_on_both_sides(self):
        texts = [f"document number {i}" for i in range(30)]
        documents = chosen(TextConfig(heldout=0.3), *texts, *texts)
        held = {d.tokens.document.text for d in documents if d.heldout}
        assert held
        assert held.isdisjoint(d.tokens.document.text for d in documents if not d.heldout)

    @pytest.mark.parametrize("n", [2, 3, 40, 3000])
    def test_the_share_is_about_what_was_asked_and_neither_side_is_empty(self, n: int):
        documents = chosen(TextConfig(heldout=0.1), *(f"document {i}" for i in range(n)))
        held = [d.heldout for d in documents]
        assert 0 < sum(held) < n
        if n >= 40:
            assert sum(held) / n == pytest.approx(0.1, abs=0.03)

    @pytest.mark.parametrize("texts", [["only one"], ["twice", "twice"]])
    def test_one_document_cannot_be_split(self, texts: list[str]):
        with pytest.raises(UsageError, match=r"at least 2 .*--documents paragraph"):
            chosen(TextConfig(), *texts)


class TestLongTexts:
    def test_only_as_much_is_tokenized_as_is_taken(self, monkeypatch: pytest.MonkeyPatch):
        seen: list[int] = []
        original = ByteTokenizer.encode
        monkeypatch.setattr(ByteTokenizer, "encode", lambda self, text: seen.append(len(text)) or original(self, text))
        (document, _) = chosen(TextConfig(max_doc_tokens=100), "word " * 1_000_000, "b" * 500)
        assert len(document.tokens) == 100
        assert document.tokens.cut
        assert document.tokens.document.text == ("word " * 20)
        assert sum(seen) < 5000

    def test_pieces_of_a_long_text_are_its_tokens(self, save_model: Callable[..., Path], tmp_path: Path, monkeypatch):
        tokenizer = HFTokenizer(save_model("gpt2", tmp_path / "m"))
        text = "Ada walked to the harbour, and counted seven ships.\nNobody believed it. " * 30
        whole = tokenizer.encode(text)
        monkeypatch.setattr(encode_module, "PIECE_CHARS", 97)
        (document, _) = chosen(TextConfig(max_doc_tokens=None), text, "other", tokenizer=tokenizer)
        assert document.tokens.ids.tolist() == whole.ids
        assert document.tokens.char_start.tolist() == whole.char_start
        assert document.tokens.char_end.tolist() == whole.char_end

    def test_a_text_without_white_space_is_cut_all_the_same(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(encode_module, "PIECE_CHARS", 10)
        (document, _) = chosen(TextConfig(max_doc_tokens=None), "x" * 95, "other")
        assert document.tokens.ids.tolist() == [ord("x")] * 95

    def test_white_space_that_makes_few_tokens_of_many_characters_is_read_on(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(encode_module, "CHARS_PER_TOKEN", 1)
        one_per_word = lambda self, text: encode_module.Encoding(  # noqa: E731
            list(range(len(text.split()))), [0] * len(text.split()), [len(text)] * len(text.split())
        )
        monkeypatch.setattr(ByteTokenizer, "encode", one_per_word)
        (document, _) = chosen(TextConfig(max_doc_tokens=20), "abcdefghij " * 100, "other words")
        assert len(document.tokens) == 20


class TestBatches:
    def test_every_sequence_is_there_once_and_the_mask_is_exactly_the_padding(self):
        rows = made(TextConfig(), 50, *("x" * n for n in range(20, 60)))
        seen = []
        for batch in batches(rows, 350):
            assert batch.tokens.numel() <= 350
            seen += [row.seq for row in batch.sequences]
            assert batch.mask.sum(1).tolist() == [len(row) for row in batch.sequences]
            assert batch.n_padding == batch.tokens.numel() - sum(map(len, batch.sequences))
            for tokens, row in zip(batch.tokens, batch.sequences, strict=True):
                assert tokens[: len(row)].tolist() == row.ids.tolist()
        assert sorted(seen) == [row.seq for row in rows]

    def test_padding_stays_under_five_percent_for_lengths_as_in_conversations(self):
        random = np.random.default_rng(0)
        lengths = np.clip(np.exp(random.normal(4.5, 0.9, 600)), 5, 511).astype(int)
        rows = made(TextConfig(max_doc_tokens=None), 512, *(f"{i:03d}" + "x" * n for i, n in enumerate(lengths)))
        done = list(batches(rows, 16 * 512))
        n_padding = sum(batch.n_padding for batch in done)
        assert n_padding / (n_padding + sum(map(len, rows))) < 0.05
        # Short sequences go many at a time: every batch but the last is worth a forward pass.
        assert all(batch.tokens.numel() >= 16 * 512 / 8 for batch in done[:-1])


def test_byte_tokenizer_spans_cover_their_characters():
    encoding = BYTES.encode("aé🙂")
    assert encoding.ids == list("aé🙂".encode())
    pairs = zip(encoding.char_start, encoding.char_end, strict=True)
    assert ["aé🙂"[s:e] for s, e in pairs] == ["a", *"éé", *"🙂" * 4]
    assert BYTES.decode(BYTES.with_bos(encoding.ids)) == "aé🙂"
