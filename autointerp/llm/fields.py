"""Fields of a request that a server may not take: it is asked once, and what it refuses is left out from then on."""

import logging
from collections.abc import Mapping
from typing import Any

from autointerp.llm.failures import Failure

log = logging.getLogger(__name__)


class Fields:
    """Remembers, for one server and model, the fields to leave out and what stands in for them.

    `optional` maps a field to the one that takes its place (None: nothing does); `words` to further names by which a
    server's complaint may call it.
    """

    def __init__(self, optional: Mapping[str, str | None], words: Mapping[str, tuple[str, ...]]) -> None:
        self._optional, self._words = optional, words
        self._refused: set[tuple[str, str]] = set()

    def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        """`body` without what was refused before."""
        kept = {name: value for name, value in body.items() if not self._known(name, value)}
        for name, other in self._optional.items():
            if other and name in body and name not in kept:
                kept[other] = body[name]
        return kept

    def learn(self, failure: Failure, body: dict[str, Any]) -> bool:
        """Whether `failure` is about an optional field of the `body` sent, which is now remembered."""
        if failure.status not in (400, 422):
            return False
        name = next((name for name in self._optional if name in body and self._blames(failure, name)), None)
        if name is None:
            return False
        if self._mark(name, body[name]) not in self._refused:
            log.warning("the server does not take %s (%s): going on without", name, failure.text[:200])
        self._refused.add(self._mark(name, body[name]))
        return True

    def _blames(self, failure: Failure, name: str) -> bool:
        if failure.param:
            return failure.param.split(".")[0] == name
        return any(word in failure.text.lower() for word in (name, *self._words.get(name, ())))

    def _known(self, name: str, value: Any) -> bool:
        return self._mark(name, value) in self._refused

    @staticmethod
    def _mark(name: str, value: Any) -> tuple[str, str]:
        # A schema may be refused for what it says while another is taken; of numbers and flags the kind is refused.
        return (name, repr(value) if isinstance(value, dict) else "")
