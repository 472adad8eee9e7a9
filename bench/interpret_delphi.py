"""delphi's own detection and fuzzing beside ours, on the same latents, contexts and answers of a judge.

Run from anywhere: `python bench/interpret_delphi.py [--out RUNS] [--n-latents 60]`, after `sh bench/peers/build.sh`.
The demo takes minutes unless RUNS has it, the rest one. No judge is run: the demo's index is exported as delphi's
cache, delphi's loader and sampler make records of it, and both sides score these contexts with the answers of a planted
judge, who says yes to 70% of active and to 20% of silent ones, by latent and text alone. Loader, sampler, scorers and
analysis are delphi 0.1.3's own files; stand-ins take the place of what they import and scoring does not use: vLLM and
other clients, FAISS, sentence-transformers, plotly, scikit-learn. The figures of a latent are equal unless a defect
acts; where one does, ours are computed again from the answers that delphi kept, and must be equal then. The defects:

D1   contexts to score on are among those shown to the explainer
D2   `center_examples` calls the pooler that does not centre
D4   the marks of silent contexts are drawn anew from one seed: all are alike, and always on token 24 of 32
D10  an answer that is missing takes its whole batch with it, and `failed_count` is 0
D11  a last batch that is short cannot be read; which contexts it has depends on the latents scored before
D14  silent contexts are drawn with replacement, by one seed for all latents
"""

import argparse
import asyncio
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from activations.models import find_model
from autointerp.exchange.delphi_write import EXAMPLE_CTX, write_delphi
from autointerp.exchange.export import Export, ExportConfig
from autointerp.latent import ACTIVE, Explanation, Item, Judged, Trial
from autointerp.llm import Request
from autointerp.llm.planted import BLOCK, ITEM
from autointerp.llm.scripted import Scripted
from autointerp.prompts import quote
from autointerp.sample_silent import fires_at, marks
from autointerp.scorers.detection import DetectionScorer, FuzzingScorer
from autointerp.statistics.metrics import METRICS
from autointerp.statistics.score import answers as as_arrays
from bench.harness import Figure, main, write
from bench.peers.worker import worker
from bench.smollm2_runs import smollm2_runs
from store.feature_index import FeatureIndex
from store.latents import Window
from store.run import find_run

NAME, MODEL = "interpret_delphi", "wheel:smollm2-135m-instruct"
SCORERS = {"detection": DetectionScorer, "fuzzing": FuzzingScorer}
N_LATENTS, N_EACH = 60, 50
PER_PROMPT = 5
"""`num_examples_per_scorer_prompt` of delphi's configuration."""
TPR, FPR = 0.7, 0.2
MIN_FIRED = 600
"""Tokens on which a latent must fire: delphi leaves out what is active in fewer than 200 of its contexts."""
NAMES = {
    "balanced_accuracy": "accuracy",
    "recall": "true_positive_rate",
    "fpr": "false_positive_rate",
    "precision": "precision",
    "f1": "f1_score",
}
"""Ours, and what delphi calls it."""
EQUAL = "<= 1e-09"

Answers = Mapping[str, bool | None]
"""A judge's answers on one latent's contexts by their text; None where it leaves one out."""


class Compared(NamedTuple):
    """One latent's figures on both sides."""

    difference: float
    """The largest of any metric, ours less theirs, absolute."""
    unexplained: float
    """The same, with ours from those answers alone that theirs kept."""
    n_dropped: int
    """Answers without which theirs was computed, though the judge gave them."""


@dataclass(frozen=True)
class Case:
    """How both sides score once."""

    n_each: int = N_EACH
    """Contexts of either side."""
    absent: float = 0.0
    """Share of contexts that the judge leaves out of its replies."""
    backwards: bool = False
    """Whether the latents are scored in the opposite order."""


PLAIN, SHORT, BACKWARDS, ABSENT = Case(), Case(n_each=49), Case(n_each=49, backwards=True), Case(absent=0.04)
DEFECTS = {"D11, 49 + 49 contexts": SHORT, "D10, 4% of answers left out": ABSENT}


def measure() -> bool:
    """Every case by both scorers of both sides."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the demo's runs; by default they are made and thrown away")
    parser.add_argument("--n-latents", type=int, default=N_LATENTS)
    args = parser.parse_args()
    with smollm2_runs(args.out) as root, tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "latents"
        exported(FeatureIndex(find_run(root, "latest", "index").folder), cache, args.n_latents)
        job = {"n_threads": 1, "latents": str(cache), "tokenizer": str(find_model(MODEL).folder), "n_each": N_EACH}
        with worker("delphi_scorers.py", job, Path(scratch) / "log") as peer:
            records = peer.greeting["records"]
            sides = {name: Sides(name, records, peer.ask) for name in SCORERS}
            figures = [figure for side in sides.values() for figure in side.figures()]
            rows = [row for side in sides.values() for row in side.rows]
    settings = {"n_latents": len(records), "n_each": N_EACH, "tpr": TPR, "fpr": FPR, "delphi": "0.1.3"}
    return write(NAME, [*figures, *of_contexts(records)], **settings, delphi_per_prompt=PER_PROMPT, rows=rows)


def exported(index: FeatureIndex, out: Path, n: int) -> None:
    """Some latents that fire often enough, as delphi's cache, with rows that leave no example of padding alone."""
    asked = f"SELECT latent FROM latents WHERE event_share = 1 AND NOT dense AND n_fired >= {MIN_FIRED}"
    latents = index.arrow(asked).column("latent").to_numpy().astype(np.int64)
    chosen = np.sort(np.random.default_rng(0).permutation(latents)[:n])
    write_delphi(out, Export(index, chosen, ExportConfig(ctx=EXAMPLE_CTX)))


class Sides:
    """One scorer of ours and of delphi's, on the same records."""

    def __init__(self, name: str, records: Sequence[dict[str, Any]], ask: Callable[..., dict[str, Any]]) -> None:
        """Score `records` by the scorer `name`; `ask` reaches delphi's."""
        self.name, self.records, self._ask = name, records, ask
        self.rows: list[dict[str, Any]] = []
        """Every latent of every case, for those who read the file."""

    def figures(self) -> list[Figure]:
        """All that is measured of this scorer."""
        found = self._equal()
        for defect, case in DEFECTS.items():
            found += self._explained(defect, case)
        found += self._order()
        return [*found, *self._place()] if self.name == "fuzzing" else found

    def _equal(self) -> list[Figure]:
        compared, ours, theirs = self._both("none", PLAIN)
        mean = float(np.mean([own["balanced_accuracy"] for own in map(figures_of, ours.values())]))
        return [
            Figure(f"{self.name}: largest difference of a latent, no defect", largest(compared), "", EQUAL),
            Figure(f"{self.name}: mean balanced accuracy, ours", mean, ""),
            Figure(f"{self.name}: pooled balanced accuracy, delphi", theirs["pooled"]["accuracy"], ""),
        ]

    def _explained(self, defect: str, case: Case) -> list[Figure]:
        compared, ours, theirs = self._both(defect, case)
        called = f"{self.name}, {defect}"
        n_asked = 2 * case.n_each * len(ours)
        dropped = sum(each.n_dropped for each in compared.values())
        n_unread = sum(judged.answer is None for each in ours.values() for judged in each)
        return [
            Figure(f"{called}: largest difference of a latent", largest(compared), ""),
            Figure(f"{called}: what is not explained of it", max(c.unexplained for c in compared.values()), "", EQUAL),
            Figure(f"{called}: share of given answers that delphi drops", dropped / (n_asked - n_unread), ""),
            Figure(f"{called}: share of given answers that ours drops", self._dropped(ours, case), "", "== 0"),
            Figure(f"{called}: answers that delphi counts as failed", theirs["pooled"]["failed_count"], ""),
        ]

    def _dropped(self, ours: Mapping[int, Sequence[Judged]], case: Case) -> float:
        """Of what the judge answered, the share that our examples have no answer of."""
        given = {trial.latent: answered(trial, case.absent) for trial in self._trials(case)}
        pairs = [(each, given[latent][text_of(each)]) for latent, judged in ours.items() for each in judged]
        told = [each.answer is None for each, said in pairs if said is not None]
        return sum(told) / len(told)

    def _order(self) -> list[Figure]:
        (_, mine, theirs), (_, mine_again, theirs_again) = self._both("", SHORT), self._both("", BACKWARDS)
        ours = [
            abs(a["balanced_accuracy"] - figures_of(mine_again[latent])["balanced_accuracy"])
            for latent, a in ((latent, figures_of(judged)) for latent, judged in mine.items())
        ]
        delphi = [
            abs(each["accuracy"] - theirs_again["latents"][latent]["accuracy"])
            for latent, each in theirs["latents"].items()
        ]
        called = f"{self.name}, D11, latents in opposite order: largest change of balanced accuracy"
        return [Figure(f"{called}, delphi", max(delphi), ""), Figure(f"{called}, ours", max(ours), "", "== 0")]

    def _place(self) -> list[Figure]:
        """A judge that looks at nothing but where the first mark is."""
        trials = self._trials(PLAIN)
        ours = self._ours(trials, {trial.latent: off_the_place(trial) for trial in trials})
        theirs = self._theirs(PLAIN, None)
        mean = float(np.mean([figures_of(judged)["balanced_accuracy"] for judged in ours.values()]))
        called = "fuzzing, D4, a judge that sees the place of the first mark alone: balanced accuracy"
        delphi = theirs["pooled"]["accuracy"]
        return [Figure(f"{called}, delphi", delphi, ""), Figure(f"{called}, ours", mean, "", "<= 0.55")]

    def _both(self, defect: str, case: Case) -> tuple[dict[int, Compared], dict[int, Sequence[Judged]], dict[str, Any]]:
        trials = self._trials(case)
        said = {trial.latent: answered(trial, case.absent) for trial in trials}
        ours, theirs = self._ours(trials, said), self._theirs(case, said)
        found = {}
        for latent, judged in ours.items():
            rows = [row for row in theirs["rows"] if row["latent"] == latent]
            found[latent] = compared(judged, rows, theirs["latents"][str(latent)])
            if defect:
                self.rows.append(self._row(defect, latent, judged, theirs["latents"][str(latent)], found[latent]))
        return found, ours, theirs

    def _row(
        self, defect: str, latent: int, judged: Sequence[Judged], theirs: Mapping[str, float], found: Compared
    ) -> dict[str, Any]:
        own, delphi = figures_of(judged)["balanced_accuracy"], theirs["accuracy"]
        named = {"scorer": self.name, "defect": defect, "latent": latent, "ours": own, "delphi": delphi}
        return {**named, **found._asdict()}

    def _trials(self, case: Case) -> list[Trial]:
        found = [trial_of(record, case.n_each) for record in self.records]
        return found[::-1] if case.backwards else found

    def _ours(self, trials: Sequence[Trial], said: Mapping[int, Answers]) -> dict[int, Sequence[Judged]]:
        shown: dict[tuple[int, str], str] = {}
        by = SCORERS[self.name](llm=Scripted(partial(reply, shown, said)))
        for trial in trials:
            shown |= {(trial.latent, quote(by.shown(item))): item.window.text for item in trial.items}
        return {trial.latent: asyncio.run(by(named(trial.latent), trial)).examples for trial in trials}

    def _theirs(self, case: Case, answers: Mapping[int, Answers] | None) -> dict[str, Any]:
        latents = [record["latent"] for record in self.records]
        asked: dict[str, Any] = {"scorer": self.name, "n_shown": PER_PROMPT, "n_each": case.n_each}
        asked["latents"] = latents[::-1] if case.backwards else latents
        if answers is not None:
            asked["answers"] = {
                latent: {plain(text): said for text, said in of.items()} for latent, of in answers.items()
            }
        return self._ask(asked)


def named(latent: int) -> Explanation:
    """Of which the judge knows what it is of, and nothing else."""
    text = f"latent {latent}"
    return Explanation(latent, "given", text, text, "given", None, None)


def reply(shown: Mapping[tuple[int, str], str], answers: Mapping[int, Answers], request: Request) -> str:
    """What the judge says to our prompt: the answers of the latent that the explanation is of."""
    asked = request.messages[-1].text
    explanation = BLOCK.search(asked)
    assert explanation is not None
    latent = int(explanation[1].removeprefix("latent "))
    said = {name: answers[latent][shown[latent, quote(text)]] for name, text in ITEM.findall(asked)}
    return json.dumps({name: each for name, each in said.items() if each is not None})


def trial_of(record: Mapping[str, Any], n_each: int) -> Trial:
    """delphi's contexts as ours, marked as ours are: silent ones peak where active ones do, dealt out at random."""
    latent = record["latent"]
    random = np.random.default_rng(latent)
    active = [window_of(each) for each in record["active"][:n_each]]
    peaks = random.permutation([window.peak for window in active]).tolist()
    silent = [window_of(each, peak) for each, peak in zip(record["silent"][:n_each], peaks, strict=True)]
    items = [Item(window, ACTIVE, fires_at(window)) for window in active]
    items += [Item(*each) for each in zip(silent, ["random"] * len(silent), marks(silent, active, random), strict=True)]
    return Trial(latent, tuple(items[i] for i in random.permutation(len(items))), seed=latent)


def window_of(context: Mapping[str, Any], peak: int | None = None) -> Window:
    """A context as delphi has it; the peak is its strongest token unless it is given."""
    values = tuple(context["values"])
    at = int(np.argmax(values)) if peak is None else peak
    return Window(
        "given", values[at], 0, "", "", "train", 0, 0, at, tuple(context["tokens"]), tuple(context["token_ids"]), values
    )


def answered(trial: Trial, absent: float) -> Answers:
    """The planted judge's: what is true of a text is whether the latent fires in it anywhere in the trial."""
    active = {window.text for window in trial.active}
    texts = {item.window.text for item in trial.items}
    return {text: _answer(str(trial.latent), text, text in active, absent) for text in texts}


def _answer(latent: str, text: str, true: bool, absent: float) -> bool | None:
    if _luck("absent", latent, text) < absent:
        return None
    return _luck("answer", latent, text) < (TPR if true else FPR)


def _luck(*of: str) -> float:
    return int.from_bytes(hashlib.sha256("\0".join(of).encode()).digest()[:8]) / 2**64


def off_the_place(trial: Trial) -> Answers:
    """Yes unless the first mark is where delphi's silent contexts have theirs."""
    return {
        item.window.text: item.marked[0] != len(item.window.tokens) - len(item.window.tokens) // 4
        for item in trial.items
    }


def plain(text: str) -> str:
    """As the worker knows it, which takes delphi's marks away."""
    return text.replace("<<", "").replace(">>", "")


def text_of(judged: Judged) -> str:
    """Of the context that it is about."""
    assert judged.window is not None
    return judged.window.text


def compared(ours: Sequence[Judged], rows: Iterable[Mapping[str, Any]], theirs: Mapping[str, float]) -> Compared:
    """One latent's answers on our side, delphi's row for each of its own, and what delphi's analysis makes of them."""
    left = kept(ours, rows)
    n_read = sum(judged.answer is not None for judged in ours)
    return Compared(apart(figures_of(ours), theirs), apart(figures_of(left), theirs), n_read - len(left))


def kept(ours: Sequence[Judged], rows: Iterable[Mapping[str, Any]]) -> list[Judged]:
    """Ours without the contexts that delphi has no prediction of; of equal contexts, as many as it has."""
    wanted = Counter((row["text"], row["activating"]) for row in rows if row["prediction"] is not None)
    found = []
    for judged in ours:
        key = (text_of(judged), judged.truth == 1)
        if wanted[key]:
            wanted[key] -= 1
            found.append(judged)
    return found


def figures_of(judged: Sequence[Judged]) -> dict[str, float]:
    """Our metrics of the answers that could be read; 0 where one is undefined, as delphi has it."""
    given = as_arrays([each for each in judged if each.answer is not None])
    return {name: METRICS[name](given) or 0.0 for name in NAMES}


def apart(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """The largest difference of a metric."""
    return max(abs(ours[name] - theirs[other]) for name, other in NAMES.items())


def largest(found: Mapping[int, Compared]) -> float:
    """Difference of a latent."""
    return max(each.difference for each in found.values())


def of_contexts(records: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """What delphi's contexts are like, which no score shows."""
    n_shown = sum(record["n_in_train"] for record in records)
    n_active = sum(len(record["active"]) for record in records)
    at_place = sum(np.argmax(e["values"]) == len(e["values"]) * 3 // 4 for r in records for e in r["active"])
    n_silent = sum(len(record["silent"]) for record in records)
    own = [{tuple(each["token_ids"]) for each in record["silent"]} for record in records]
    n_own = sum(map(len, own))
    n_shared = sum(times for times in Counter(each for texts in own for each in texts).values() if times > 1)
    return [
        Figure("D1: share of scored active contexts that delphi's explainer was shown", n_shown / n_active, ""),
        Figure("D2: share of `centred` active contexts with the peak on token 24", float(at_place / n_active), ""),
        Figure("D14: share of delphi's silent contexts that repeat one of the latent's", 1 - n_own / n_silent, ""),
        Figure("D14: share of them that another of the latents is scored on too", n_shared / n_own, ""),
    ]


if __name__ == "__main__":
    main(measure)
