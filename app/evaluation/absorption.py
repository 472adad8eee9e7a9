"""Feature absorption on first letters: words of the tokenizer's vocabulary, read after a few spelled examples."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from scipy import sparse

from activations.lm import LanguageModel
from activations.progress import Progress, no_progress
from app.evaluation.subject import NotApplicable, Subject
from sae.absorption import (
    MIN_F1,
    MIN_LETTERS,
    MIN_MAIN_F1,
    Absorption,
    Decoder,
    Letter,
    Words,
    f1_score,
    fit_letters,
    mean_main_f1,
    measure,
    probe_directions,
    qualified,
)
from sae.itda import ITDA
from sae.probe_scores import Told
from store.errors import UsageError
from store.figures import Figure, Measured

LETTERS = string.ascii_lowercase
EXAMPLES = ("river", "stone", "cloud", "apple")
STEM = 4
"""First letters that make two words one stem."""
MIN_LENGTH = 3
MIN_VOCABULARY = 500
SILENT_NOTE = "share of words on which all main latents are silent; no control: it depends on no direction"
TEST_SHARE = 0.35
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class AbsorptionConfig:
    """How many words."""

    per_letter: int = 250
    """Words of each letter, training and test together; all of them if there are fewer."""
    n_spelled: int = 200
    """Test words whose first letter the model itself is asked for."""
    n_draws: int = 3
    """Random directions for each letter."""
    seed: int = 0
    """Of words, folds, random directions and intervals."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("per_letter", "n_spelled", "n_draws"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} is not positive: choose at least 1")

    @classmethod
    def quick(cls) -> "AbsorptionConfig":
        """Fewer words: still twenty test words of most letters."""
        return cls(per_letter=120, n_spelled=50)


@dataclass(frozen=True)
class Word:
    """One token that is a word."""

    token_id: int
    text: str
    is_test: bool


def measure_absorption(cfg: AbsorptionConfig, subject: Subject, progress: Progress = no_progress) -> Measured:
    """Absorption rates with controls, or the sentence why there are none.

    Raises:
        NotApplicable: the tokenizer has too few single-token words, or latents have signs.
    """
    if isinstance(subject.sae, ITDA):
        raise NotApplicable(
            f"absorption reads latents as more or less of a thing, and those of {subject.name} have signs"
        )
    words = vocabulary_words(subject.lm, cfg)
    whole = _read(subject, words, progress)
    is_test = np.array([word.is_test for word in words])
    train, test = (whole.take(np.flatnonzero(side)) for side in (~is_test, is_test))
    sae = subject.sae
    decoder = Decoder(*(each.detach().double().cpu().numpy() for each in (sae.W_dec, sae.b_dec)))
    letters = fit_letters(train, decoder, cfg.seed)
    able = qualified(letters, test)
    figures = [_spelling(subject.lm, [word for word in words if word.is_test], cfg)]
    figures += [_probe_figure(one, test) for one in letters]
    if len(able) < MIN_LETTERS:
        return Measured([_withheld(letters, able, len(train.letters)), *figures])
    return Measured([*absorption_figures(able, test, decoder, cfg), *figures])


def absorption_figures(able: tuple[Letter, ...], test: Words, decoder: Decoder, cfg: AbsorptionConfig) -> list[Figure]:
    """Rates of every arm, withheld where the main latents tell too few words, and how well those do."""
    f1 = mean_main_f1(able)
    arms = [_own(able, test, decoder, cfg), *_controls(able, test, decoder, cfg)]
    if f1 < MIN_MAIN_F1:
        arms = [replace(one, full=Told(None), fraction=Told(None)) for one in arms]
    own = [_main_f1_figure(able, f1), _figure(arms[0], "absorption_main_silent", arms[0].main_silent, SILENT_NOTE)]
    return [*(figure for one in arms for figure in _figures(one, _verdict(one, arms, f1))), *own]


def vocabulary_words(lm: LanguageModel, cfg: AbsorptionConfig) -> list[Word]:
    """Tokens that are a space and a lower-case word, up to `per_letter` of each letter; stems are on one side only.

    Raises:
        NotApplicable: there are too few.
    """
    texts = lm.tokenizer.token_texts(range(lm.d_vocab))
    found = [
        (token_id, text[1:])
        for token_id, text in enumerate(texts)
        if text[:1] == " "
        and len(text) > MIN_LENGTH
        and text[1:].isascii()
        and text[1:].isalpha()
        and text[1:].islower()
    ]
    if len(found) < MIN_VOCABULARY:
        raise NotApplicable(
            f"absorption needs words that are single tokens, and {lm.name}'s tokenizer has {len(found)}: "
            f"at least {MIN_VOCABULARY}"
        )
    random, out = np.random.default_rng(cfg.seed), []
    for letter in LETTERS:
        same = [one for one in found if one[1][0] == letter and one[1] not in EXAMPLES]
        chosen = sorted(random.permutation(len(same))[: cfg.per_letter])
        out += [Word(same[i][0], same[i][1], _is_test(same[i][1][:STEM])) for i in chosen]
    return out


def _is_test(stem: str) -> bool:
    return int.from_bytes(sha256(stem.encode()).digest()[:8], "big") / 2**64 < TEST_SHARE


def _prompt(lm: LanguageModel, word: Word) -> list[int]:
    """A few words with their first letters, and then the word."""
    before = "".join(f" {example} begins with {example[0].upper()}\n" for example in EXAMPLES)
    return [*lm.tokenizer.with_bos(lm.tokenizer.encode(before).ids), word.token_id]


@torch.no_grad()
def _read(subject: Subject, words: Sequence[Word], progress: Progress) -> Words:
    """Activations and latents at each word's token, the last of its prompt."""
    start, sae, hook = _prompt(subject.lm, words[0])[:-1], subject.sae, subject.hook_point
    jobs = [words[i : i + BATCH] for i in range(0, len(words), BATCH)]
    xs, parts = [], []
    for some in progress(jobs, len(jobs), "read words"):
        tokens = torch.tensor([[*start, word.token_id] for word in some])
        x = subject.lm.capture(tokens, [hook])[hook.name].flatten(2)[:, -1].float()
        latents = sae.encode(x.to(sae.W_dec))
        place = (latents.rows.cpu().numpy(), latents.indices.cpu().numpy())
        parts.append(sparse.csr_array((latents.values.double().cpu().numpy(), place), shape=(len(x), sae.cfg.d_sae)))
        xs.append(x.double().cpu().numpy())
    stems = np.unique([word.text[:STEM] for word in words], return_inverse=True)[1]
    letters = np.array([LETTERS.index(word.text[0]) for word in words])
    return Words(np.concatenate(xs), sparse.csr_array(sparse.vstack(parts)), letters, stems)


@torch.no_grad()
def _spelling(lm: LanguageModel, words: Sequence[Word], cfg: AbsorptionConfig) -> Figure:
    """How often the model itself names the first letter, among the 26."""
    order = np.random.default_rng(cfg.seed).permutation(len(words))[: cfg.n_spelled]
    chosen, after = [words[i] for i in order], lm.tokenizer.encode(" begins with").ids
    ids = [lm.tokenizer.encode(f" {letter.upper()}").ids[0] for letter in LETTERS]
    right = 0
    for i in range(0, len(chosen), BATCH):
        some = chosen[i : i + BATCH]
        tokens = torch.tensor([[*_prompt(lm, word), *after] for word in some])
        said = lm.logits(tokens)[:, -1, ids].argmax(dim=1).cpu().tolist()
        right += sum(LETTERS[letter] == word.text[0] for letter, word in zip(said, some, strict=True))
    return Figure(
        metric="spelling_accuracy",
        value=right / len(chosen) if chosen else None,
        n=len(chosen),
        n_of="words",
        arm="model",
        note="the letter that the model itself finds most likely of 26, after the same examples",
    )


def _own(able: tuple[Letter, ...], test: Words, decoder: Decoder, cfg: AbsorptionConfig) -> Absorption:
    return measure(able, test, decoder, probe_directions(able), "sae", cfg.seed)


def _controls(able: tuple[Letter, ...], test: Words, decoder: Decoder, cfg: AbsorptionConfig) -> list[Absorption]:
    """The same words and main latents with another letter's probe, and with random directions."""
    own, random = probe_directions(able), np.random.default_rng(cfg.seed)
    draws = [
        measure(able, test, decoder, random.standard_normal(own.shape), "random_direction", cfg.seed)
        for _ in range(cfg.n_draws)
    ]
    other = measure(able, test, decoder, np.roll(own, 1, axis=0), "other_letter", cfg.seed)
    return [other, _mean(draws)]


def _mean(draws: Sequence[Absorption]) -> Absorption:
    """The mean of several draws; the interval is that of their spread."""
    first = draws[0]

    def over(name: str) -> Told:
        values = [getattr(one, name).value for one in draws]
        known = [value for value in values if value is not None]
        return Told(float(np.mean(known)), min(known), max(known)) if known else Told(None)

    return Absorption(first.arm, first.n_letters, first.n_words, over("full"), over("fraction"), over("main_silent"))


def _verdict(one: Absorption, arms: Sequence[Absorption], main_f1: float) -> str:
    """What the dictionary's full rate is beside the controls': small projections make large shares of any direction."""
    if main_f1 < MIN_MAIN_F1:
        return (
            f"; withheld: the main latents tell their letters with a mean F1 of {main_f1:.2f}, under {MIN_MAIN_F1}: "
            "too few words for their silence to mean anything"
        )
    own, *controls = (arm.full.value for arm in arms)
    highest = max((value for value in controls if value is not None), default=None)
    if one is not arms[0] or own is None or highest is None:
        return ""
    return "" if own > highest else f"; no more than a control's {highest:.3f}, so no sign of absorption"


def _figures(one: Absorption, verdict: str) -> list[Figure]:
    withheld = verdict if one.fraction.value is None else ""
    full = f"share of words that one latent absorbs, mean over letters{verdict}"
    fraction = f"mean absorption fraction, mean over letters{withheld}"
    return [
        _figure(one, "absorption_full", one.full, full),
        _figure(one, "absorption_fraction", one.fraction, fraction),
    ]


def _figure(one: Absorption, metric: str, told: Told, note: str) -> Figure:
    interval = "lowest and highest draw" if one.arm == "random_direction" else "bootstrap over words' stems"
    return Figure(
        metric=metric,
        value=told.value,
        n=one.n_words,
        n_of="words",
        arm=one.arm,
        setting=f"{one.n_letters} letters",
        low=told.low,
        high=told.high,
        note=note if told.value is None else f"{note}; {interval}",
    )


def _main_f1_figure(able: tuple[Letter, ...], f1: float) -> Figure:
    return Figure(
        metric="absorption_main_f1",
        value=f1,
        n=len(able),
        n_of="letters",
        setting=f"{len(able)} letters",
        note="of the k-sparse probe on a letter's main latents, across folds of the training words, which also decide "
        f"how many those are; mean over letters, the lowest {min(one.main_f1 for one in able):.2f}",
    )


def _probe_figure(one: Letter, test: Words) -> Figure:
    wanted = test.letters == one.letter
    return Figure(
        metric="letter_probe_f1",
        value=f1_score(one.probe.scores(test.x) > 0, wanted) if wanted.any() else None,
        n=int(wanted.sum()),
        n_of="words",
        arm="dense",
        setting=LETTERS[one.letter],
        note=f"on test words; {one.f1:.2f} across folds of the training words, which decides; "
        f"{len(one.main)} main latents",
    )


def _withheld(letters: Sequence[Letter], able: Sequence[Letter], n_train: int) -> Figure:
    known = ", ".join(f"{LETTERS[one.letter]} {one.f1:.2f}" for one in letters)
    return Figure(
        metric="absorption_full",
        value=None,
        n=len(able),
        n_of="letters",
        note=f"withheld: the model is not able enough, or there are too few words for its probes. {len(able)} letters "
        f"have a probe with F1 above {MIN_F1} and enough words, at least {MIN_LETTERS} are needed. "
        f"F1 of each, from {n_train} training words: {known}",
    )
