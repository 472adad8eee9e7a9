"""Figures, their intervals and what is not known, as text."""

NOT_KNOWN = "–"


def figure(value: float | None, *, digits: int = 3, signed: bool = False) -> str:
    """A figure with so many decimals; a dash where it could not be told."""
    if value is None:
        return NOT_KNOWN
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def interval(ends: tuple[float, float] | None) -> str:
    """Its ends in brackets."""
    return "" if ends is None else f"[{ends[0]:.3f}, {ends[1]:.3f}]"
