"""Where every latent of a dictionary went: none is lost between the width and the number in a report."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Denominators:
    """Latents by what became of them; a latent is in one of these."""

    dead: int
    """Never fire in the index."""
    skipped: int
    """Fire, but were not scored: not selected, or without enough contexts."""
    unparsed: int
    """Asked about, and nothing of it could be read."""
    scored: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"{name}={value}: a number of latents is 0 or more")

    @property
    def width(self) -> int:
        """All of them."""
        return self.dead + self.skipped + self.unparsed + self.scored

    @classmethod
    def of(cls, width: int, *, dead: int, unparsed: int, scored: int) -> "Denominators":
        """What is left of `width` was skipped.

        Raises:
            ValueError: the others are more than `width`.
        """
        return cls(dead=dead, skipped=width - dead - unparsed - scored, unparsed=unparsed, scored=scored)

    def check(self, width: int) -> None:
        """Be sure that they are the latents of a dictionary of `width`.

        Raises:
            ValueError: they are not.
        """
        if self.width != width:
            raise ValueError(
                f"{self.dead} dead + {self.skipped} skipped + {self.unparsed} unparsed + {self.scored} scored"
                f" = {self.width} latents of {width}: count every latent once"
            )
