"""What was found of a pair, before it is known how the pair is called."""

from dataclasses import dataclass, replace
from typing import Literal

from store.figures import SAE_ARM, Figure

Way = Literal["both", "forth", "back"]
"""Whether a value is of a pair, or of its first member seen from the second, or the other way round."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One value of a pair; the fields are a figure's."""

    metric: str
    value: float | None
    n: int
    n_of: str
    arm: str = SAE_ARM
    way: Way = "both"
    token_class: str = ""
    low: float | None = None
    high: float | None = None
    note: str = ""

    def of_class(self, token_class: str) -> "Told":
        """The same, of rows of these classes."""
        return replace(self, token_class=token_class)

    def figure(self, names: dict[Way, str]) -> Figure:
        """With the pair's name for each way."""
        return Figure(
            metric=self.metric,
            value=self.value,
            n=self.n,
            n_of=self.n_of,
            arm=self.arm,
            token_class=self.token_class,
            setting=names[self.way],
            low=self.low,
            high=self.high,
            note=self.note,
        )
