"""How a long loop reports itself without printing: the caller passes a wrapper in."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Progress(Protocol):
    """Wraps a loop with a labelled bar."""

    def __call__(
        self,
        items: Iterable[T],
        total: int,
        label: str,
        *,
        weigh: Callable[[Any], int] = ...,
        note: Callable[[], str] = ...,
    ) -> Iterable[T]:
        """`items`, shown as they go by.

        Args:
            items: what the loop is over.
            total: what the items' weights add up to.
            label: what is being done.
            weigh: how far an item brings the bar; each by one where it is left out.
            note: words to show behind the bar, asked for after each item.
        """
        ...


def one(item: Any) -> int:
    """Each item weighs the same."""
    return 1


def nothing() -> str:
    """No words."""
    return ""


def no_progress(
    items: Iterable[T],
    total: int,
    label: str,
    *,
    weigh: Callable[[Any], int] = one,
    note: Callable[[], str] = nothing,
) -> Iterable[T]:
    """Shows nothing."""
    return items
