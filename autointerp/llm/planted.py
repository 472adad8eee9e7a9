"""A judge whose true- and false-positive rates are known: what scores are worth is checked against it.

It holds a description true of a text that has one of the description's quoted words in it, and says so with the chances
that were planted. Its luck is a hash of the question, so that equal questions have equal answers, however they are
packed and in whatever order they come.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autointerp.llm import Request

BLOCK = re.compile(r"<data>\n(.*?)\n</data>", re.DOTALL)
ITEM = re.compile(r"^(\d+): <data>\n(.*?)\n</data>$", re.DOTALL | re.MULTILINE)
TOKEN = re.compile(r"^(\d+): \[(.*)\]$", re.MULTILINE)
GROUP = re.compile(r"^(\d+): \n(.*?)(?=^\d+: \n|\Z)", re.DOTALL | re.MULTILINE)
MODEL = re.compile(r"^Model ([A-Z])$", re.MULTILINE)
QUOTED = re.compile(r"[“\"]([^”\"\n]+)[”\"]")
MARKED = re.compile(r"«(.*?)»", re.DOTALL)
WORD = re.compile(r"\w+")
SHORTEST = 4
"""Letters of a word that counts where a description quotes none."""


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Answers for `Scripted`: yes with probability `tpr` where the description holds, and `fpr` where it does not."""

    tpr: float = 0.9
    """Also how often it finds the right one of several."""
    fpr: float = 0.1
    unreadable: float = 0.0
    """Share of replies that are no JSON."""
    seed: int = 0

    def __call__(self, request: Request) -> str:
        """What the request's prompt asks for, or the shape of its schema filled in."""
        text = request.messages[-1].text if request.messages else ""
        if self._luck("unreadable", text) < self.unreadable:
            return "I am sorry, I cannot say."
        said = KINDS.get(request.prompt.partition("/")[0], _filled)(self, text, request)
        return json.dumps(said, ensure_ascii=False)

    def _luck(self, *of: str) -> float:
        digest = hashlib.sha256("\0".join((str(self.seed), *of)).encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8]) / 2**64

    def _says(self, description: str, text: str, holds: bool) -> bool:
        return self._luck(description, text) < (self.tpr if holds else self.fpr)

    def _picks(self, text: str, right: int, n: int) -> int:
        if self._luck("pick", text) < self.tpr:
            return right
        return 1 + int(self._luck("other", text) * n)


def keywords(description: str) -> set[str]:
    """What a text must have one of: the quoted words of a description, or its long ones where it quotes none."""
    quoted = [word.strip().casefold() for word in QUOTED.findall(description)]
    return {word for word in quoted if word} or {
        word.casefold() for word in WORD.findall(description) if len(word) >= SHORTEST
    }


def n_found(wanted: Iterable[str], text: str) -> int:
    """How many of the wanted words are whole words of `text`."""
    return sum(bool(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.casefold())) for word in wanted)


def _judge(self: Planted, text: str, request: Request) -> dict[str, bool]:
    del request
    description, wanted = _description(text)
    return {name: self._says(description, said, n_found(wanted, said) > 0) for name, said in ITEM.findall(text)}


def _rate_concept(self: Planted, text: str, request: Request) -> dict[str, int]:
    return {name: 2 * holds for name, holds in _judge(self, text, request).items()}


def _rate_fluency(self: Planted, text: str, request: Request) -> dict[str, int]:
    """Broken is what says one word again and again."""
    del request
    words = {name: WORD.findall(said.casefold()) for name, said in ITEM.findall(text)}
    return {name: 2 * self._says("fluent", " ".join(own), 2 * len(set(own)) > len(own)) for name, own in words.items()}


def _judge_marked(self: Planted, text: str, request: Request) -> dict[str, bool]:
    del request
    description, wanted = _description(text)
    return {
        name: self._says(description, said, n_found(wanted, "\n".join(MARKED.findall(said))) > 0)
        for name, said in ITEM.findall(text)
    }


def _simulate(self: Planted, text: str, request: Request) -> dict[str, int]:
    del request
    description, wanted = _description(text)
    _, told = BLOCK.findall(text)[:2]
    return {
        name: 9 * self._says(description, f"{told}\0{name}", n_found(wanted, token) > 0)
        for name, token in TOKEN.findall(text)
    }


def _intruder(self: Planted, text: str, request: Request) -> dict[str, int]:
    del request
    return {name: self._picks(group, _least_like(BLOCK.findall(group)), 5) for name, group in GROUP.findall(text)}


def _least_like(texts: list[str]) -> int:
    """The text whose marked words, or other words, the others have least: position from 1."""
    words = [set(WORD.findall(" ".join(MARKED.findall(text)).casefold())) for text in texts]
    shared = [sum(len(own & other) for other in words) for own in words]
    return 1 + min(range(len(texts)), key=shared.__getitem__) if texts else 1


def _discriminate(self: Planted, text: str, request: Request) -> dict[str, int]:
    del request
    _, wanted = _description(text)
    found = {}
    for name, group in GROUP.findall(text):
        units = re.split(r"^Unit \d+:\n", group, flags=re.MULTILINE)[1:]
        hits = [n_found(wanted, "\n".join(MARKED.findall(unit))) for unit in units]
        found[name] = self._picks(group, 1 + hits.index(max(hits)), len(units))
    return found


def _choose(self: Planted, text: str, request: Request) -> dict[str, str]:
    """The model whose continuations have most of the description's words."""
    del request
    _, wanted = _description(text)
    _, *parts = MODEL.split(text)
    letters, shown = parts[::2], parts[1::2]
    hits = [sum(n_found(wanted, said) > 0 for said in BLOCK.findall(each)) for each in shown]
    return {"model": letters[self._picks(text, 1 + hits.index(max(hits)), len(letters)) - 1]}


def _explain(self: Planted, text: str, request: Request) -> dict[str, Any]:
    """The marked word that is commonest, in quotes."""
    marks = Counter(" ".join(word.split()).casefold() for word in MARKED.findall(text))
    words = marks or Counter(word.casefold() for word in WORD.findall(text) if len(word) >= SHORTEST)
    said = f"the word “{words.most_common(1)[0][0]}”" if words else "nothing in particular"
    parts = json.loads(request.schema or "{}").get("required", ["explanation"])
    return dict.fromkeys(parts, said)


def _write(self: Planted, text: str, request: Request) -> dict[str, list[str]]:
    """Ten texts around the description's words."""
    del request
    about = " ".join(sorted(keywords(text.partition("\n")[2]))[:3]) or "it"
    return {"texts": [f"And then, for the {i}th time, there was {about}, and nothing more to say." for i in range(10)]}


def _description(text: str) -> tuple[str, set[str]]:
    found = BLOCK.search(text)
    description = found[1] if found else ""
    return description, keywords(description)


def _filled(self: Planted, text: str, request: Request) -> Any:
    """The schema's shape, for prompts that are not known here."""
    del self, text
    return _of_shape(json.loads(request.schema)) if request.schema else {}


def _of_shape(schema: Mapping[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: _of_shape(each) for name, each in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [_of_shape(schema.get("items", {}))] * schema.get("minItems", 1)
    return {"boolean": False, "integer": schema.get("minimum", 0), "number": 0.0}.get(schema.get("type", ""), "nothing")


KINDS: dict[str, Callable[[Planted, str, Request], Any]] = {
    "detection": _judge,
    "fuzzing": _judge_marked,
    "simulation": _simulate,
    "steered_concept": _rate_concept,
    "steered_fluency": _rate_fluency,
    "intruder": _intruder,
    "discrimination": _discriminate,
    "generation": _write,
    "intervention_choice": _choose,
    **dict.fromkeys(
        ("explain_default", "explain_top", "explain_contrastive", "explain_single_token", "explain_ensemble"), _explain
    ),
    "explain_output": _explain,
}
"""By the prompt's id."""
