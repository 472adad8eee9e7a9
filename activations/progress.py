"""How a long loop reports itself without printing: the caller passes a wrapper in."""

from collections.abc import Iterable
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Progress(Protocol):
    """Wraps a loop of known length with a labelled bar."""

    def __call__(self, items: Iterable[T], total: int, label: str) -> Iterable[T]:
        """`items`, shown as they go by."""
        ...


def no_progress(items: Iterable[T], total: int, label: str) -> Iterable[T]:
    """Shows nothing."""
    return items
