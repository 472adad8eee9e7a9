"""Whole numbers as people and addresses write them."""

MOST_DIGITS = 9
"""`int` refuses thousands of them, and no latent or token has as many."""


def whole(text: str, last: int) -> int | None:
    """The number from 0 to `last` that a text is; None where it is none.

    >>> whole("12", 20), whole("21", 20), whole("-1", 20), whole("٣", 20), whole("9" * 5000, 20)
    (12, None, None, None, None)
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS):
        return None
    return number if (number := int(text)) <= last else None
