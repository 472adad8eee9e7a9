"""delphi's detection and fuzzing of an exported cache as a worker: its loader, sampler, scorers and analysis unchanged.

Its client is a judge that looks answers up: `answers[text]` of a latent is true, false, or absent, and what is absent
it leaves out of its list. What FAISS, sentence-transformers, plotly and scikit-learn would be needed for is not asked.
`batch_decode` of a row of tokens is a text for each token, as in transformers 4, for which delphi was written: in
transformers 5 it is one text, and delphi would take a whole context for one token.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import delphi_parts
import pandas as pd
import torch
from answers import read_job, requests, say

delphi_parts.stand_in("asyncer", asyncify=lambda function: function)
delphi_parts.stand_in("faiss")
delphi_parts.stand_in("sentence_transformers", SentenceTransformer=None)
delphi_parts.stand_in("plotly")
delphi_parts.stand_in("plotly.express")
delphi_parts.stand_in("plotly.graph_objects")
delphi_parts.stand_in("sklearn")
delphi_parts.stand_in("sklearn.metrics", roc_auc_score=None, roc_curve=None)

from delphi.clients.client import Client, Response  # noqa: E402 - after what it imports is there
from delphi.config import ConstructorConfig, SamplerConfig  # noqa: E402
from delphi.latents.latents import LatentRecord  # noqa: E402
from delphi.latents.loader import LatentDataset  # noqa: E402
from delphi.log.result_analysis import compute_classification_metrics, compute_confusion  # noqa: E402
from delphi.scorers.classifier.detection import DetectionScorer  # noqa: E402
from delphi.scorers.classifier.fuzz import FuzzingScorer  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

SCORERS = {"detection": DetectionScorer, "fuzzing": FuzzingScorer}
SHOWN = "Text examples:\n\n"
ITEM = re.compile(r"^Example \d+: ", re.MULTILINE)

Judge = Callable[[str, str], bool | None]
"""The answer to an example from its text with marks and without; None where it gives none."""


class LookedUp(Client):
    """Answers every example of a prompt with what a judge says of it; what it has no answer to, it leaves out."""

    def __init__(self, judge: Judge) -> None:
        super().__init__("none")
        self.judge = judge
        self.failed: list[str] = []
        """What went wrong here: delphi takes an exception of its client for a prompt without a reply."""

    async def generate(self, prompt: Any, **kwargs: Any) -> Response:
        shown = prompt[-1]["content"].partition(SHOWN)[2].removesuffix("\n")
        try:
            said = [self.judge(text, plain(text)) for text in texts(shown)]
        except KeyError as error:
            self.failed.append(f"not asked here: {error}")
            raise
        return Response(text=str([int(each) for each in said if each is not None]))


def texts(shown: str) -> list[str]:
    """Of each example in a prompt."""
    starts = [*ITEM.finditer(shown)]
    ends = [*(each.start() - 1 for each in starts[1:]), len(shown)]
    return [shown[each.end() : end] for each, end in zip(starts, ends, strict=True)]


def plain(text: str) -> str:
    """Without marks."""
    return text.replace("<<", "").replace(">>", "")


def looked_up(answers: Mapping[str, bool | None]) -> Judge:
    """By the text without marks."""
    return lambda _, text: answers[text]


def off_the_place(record: LatentRecord) -> Judge:
    """A judge that reads no word: yes unless the first mark is on token 24 of 32, where silent contexts have theirs."""
    place = {}
    for example in (*record.test, *record.not_active):
        pieces = example.str_tokens or []
        place[plain("".join(pieces))] = len(plain("".join(pieces[: len(pieces) - len(pieces) // 4])))
    return lambda marked, text: marked.find("<<") != place[text]


class TokenByToken:
    """The tokenizer as delphi asks it."""

    def __init__(self, folder: str) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def batch_decode(self, tokens: torch.Tensor) -> list[str]:
        return [self._tokenizer.decode([token]) for token in tokens.tolist()]


def load(job: dict[str, Any]) -> dict[int, LatentRecord]:
    """Records that delphi makes of the cache: contexts to explain from, to score on, and silent ones."""
    dataset = LatentDataset(
        job["latents"],
        SamplerConfig(n_examples_test=job["n_each"]),
        ConstructorConfig(n_non_activating=job["n_each"]),
        tokenizer=TokenByToken(job["tokenizer"]),
    )
    records: dict[int, LatentRecord] = {}
    for buffer in dataset.buffers:
        for data in buffer:
            record = dataset._process_latent(data)
            if record is not None and record.test and record.not_active:
                records[data.latent.latent_index] = record
    return records


def described(latent: int, record: LatentRecord) -> dict[str, Any]:
    """A record's contexts to score on, and how many of them are among those to explain from."""
    to_explain_from = {id(example) for example in record.train}
    return {
        "latent": latent,
        "active": [told(each) for each in record.test],
        "silent": [told(each) for each in record.not_active],
        "n_in_train": sum(id(each) in to_explain_from for each in record.test),
    }


def told(example: Any) -> dict[str, Any]:
    """One context."""
    return {
        "token_ids": example.tokens.tolist(),
        "tokens": example.str_tokens,
        "values": example.activations.float().tolist(),
    }


def score(request: dict[str, Any], records: Mapping[int, LatentRecord]) -> dict[str, Any]:
    """One scorer over latents in the order given, and delphi's own analysis of each and of all together."""
    found = asyncio.run(scored(request, records))
    rows = [row(each, latent) for latent, each_of in zip(request["latents"], found, strict=True) for each in each_of]
    return {"rows": rows, "pooled": analysed(rows)} | {
        "latents": {
            latent: analysed([row(each, latent) for each in each_of])
            for latent, each_of in zip(request["latents"], found, strict=True)
        }
    }


async def scored(request: dict[str, Any], records: Mapping[int, LatentRecord]) -> list[list[Any]]:
    """What delphi keeps of every example of each latent, all by one scorer, as in its pipeline."""
    client = LookedUp(lambda _, text: None)
    scorer = SCORERS[request["scorer"]](client, n_examples_shown=request["n_shown"])
    given, found = request.get("answers"), []
    for latent in request["latents"]:
        record = first_of(records[latent], request["n_each"])
        client.judge = off_the_place(record) if given is None else looked_up(given[str(latent)])
        # A record's explanation is all that its prompt says of it; the judge above knows which it is.
        record.explanation = f"latent {latent}"
        found.append((await scorer(record)).score)
    if client.failed:
        raise RuntimeError(client.failed[0])
    return found


def first_of(record: LatentRecord, n: int) -> LatentRecord:
    """The record with its first contexts of either side."""
    return replace(record, test=record.test[:n], not_active=record.not_active[:n])


def row(example: Any, latent: int) -> dict[str, Any]:
    """What delphi keeps of one example."""
    return {
        "latent": latent,
        "text": "".join(example.str_tokens),
        "activating": example.activating,
        "prediction": example.prediction,
    }


def analysed(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """By its own analysis."""
    confusion = compute_confusion(pd.DataFrame(rows))
    found = {**compute_classification_metrics(confusion), "failed_count": confusion["failed_count"]}
    return {name: float(value) for name, value in found.items()}


given_job = read_job()
torch.manual_seed(0)
loaded = load(given_job)
say({"records": [described(latent, record) for latent, record in loaded.items()]})
for asked in requests():
    say(score(asked, loaded))
