"""Results that the nulls of a latent share with its explanation: made once, kept while they are likely to be used."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar, final

T = TypeVar("T")

N_KEPT = 64
"""More than are worked on at once, and no more: memory does not grow with the number of latents."""


@final
class Recent(Generic[T]):
    """The last results by key; whoever asks for one that is being made waits for it."""

    def __init__(self, n: int = N_KEPT) -> None:
        """Keep `n`."""
        self.n = n
        self._kept: OrderedDict[Hashable, asyncio.Task[T]] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `make` gives, made once for `key`; what fails is not kept."""
        task = self._kept.get(key)
        if task is None:
            task = self._kept[key] = asyncio.create_task(make())
            task.add_done_callback(lambda done: self._forget(key, done))
        self._kept.move_to_end(key)
        while len(self._kept) > self.n:
            self._kept.popitem(last=False)
        # One who is cancelled does not take the result away from the others.
        return await asyncio.shield(task)

    def _forget(self, key: Hashable, done: "asyncio.Task[T]") -> None:
        if (done.cancelled() or done.exception()) and self._kept.get(key) is done:
            del self._kept[key]
