"""A question to the `features` view, as people write it: a condition, ORDER BY, LIMIT and OFFSET in one string."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import duckdb

from store.errors import UsageError

CLAUSES = ("order by", "limit", "offset")
"""What may follow the condition."""
ORDER_BY, LIMIT, OFFSET = "density DESC", "100", "0"
"""Where nothing else is asked for."""


class Question(NamedTuple):
    """A question taken apart."""

    condition: str
    """`true` where none is given."""
    clauses: dict[str, str]
    """What stands in each of `CLAUSES` that is there."""


class Word(NamedTuple):
    """A keyword and where it stands, in bytes."""

    text: str
    start: int
    stop: int


def features_query(where: str, order_by: str | None, limit: int | None, offset: int | None) -> str:
    """The SELECT for the latents asked for, ties in the order of their numbers.

    Args:
        where: a condition, and after it ORDER BY, LIMIT and OFFSET; each may be missing.
        order_by: columns to sort by, if they are not in `where`.
        limit: rows at most, if not in `where`.
        offset: rows to leave out before them, if not in `where`.

    Raises:
        UsageError: a clause stands twice, in the string or beside it, or the string is a whole query.
    """
    condition, found = question(where)
    for name, value in zip(CLAUSES, (order_by, limit, offset), strict=True):
        if value is not None and name in found:
            raise UsageError(
                f"{name.upper()} {found[name]} stands in the string and {name.replace(' ', '_')}={value!r} beside it: "
                "leave one out"
            )
    order, most, skipped = (
        found.get(name, default if value is None else str(value))
        for name, value, default in zip(CLAUSES, (order_by, limit, offset), (ORDER_BY, LIMIT, OFFSET), strict=True)
    )
    # Lines of their own: what a person wrote may end in a comment.
    return f"SELECT * FROM features WHERE {condition}\nORDER BY {order}\n, latent LIMIT {most}\nOFFSET {skipped}\n"


def question(where: str) -> Question:
    """The condition, and what stands in each clause after it.

    Raises:
        UsageError: a clause stands twice, or it is a whole query.
    """
    text = where.strip().rstrip("; ").encode()
    words = list(_words(text))
    if words and words[0].text in ("select", "with", "from"):
        raise UsageError(f"{where!r} is a whole query: ask `sql`, or give what follows its WHERE alone")
    first = words[0].stop if words and words[0].text == "where" else 0
    clauses = list(_clauses(words))
    ends = [*(clause.start for clause in clauses), len(text)]
    found = {}
    for clause, end in zip(clauses, ends[1:], strict=True):
        if clause.text in found:
            raise UsageError(f"{clause.text.upper()} stands twice in {where!r}: leave one out")
        found[clause.text] = text[clause.stop : end].decode().strip()
    return Question(text[first : ends[0]].decode().strip() or "true", found)


def _clauses(words: Sequence[Word]) -> Iterator[Word]:
    """The clauses of a question, in order; what stands in brackets is none."""
    depth = 0
    for word, after in zip(words, [*words, None][1:], strict=True):
        depth += {"(": 1, ")": -1}.get(word.text, 0)
        if depth:
            continue
        if word.text in ("limit", "offset"):
            yield word
        elif word.text == "order" and after is not None and after.text == "by":
            yield Word("order by", word.start, after.stop)


def _words(text: bytes) -> Iterator[Word]:
    """Keywords and brackets as DuckDB reads the text; of all else, quotes and names among it, only the place."""
    # Its places count bytes, and say where a token begins, not where it ends.
    tokens = duckdb.tokenize(text.decode())
    starts = [start for start, _ in tokens]
    for (start, kind), end in zip(tokens, [*starts, len(text)][1:], strict=True):
        if kind == duckdb.token_type.comment:
            continue
        # DuckDB 1 does not list comments: one may follow.
        written = text[start:end].decode().split()[0].split("/*")[0].lower()
        plain = kind in (duckdb.token_type.keyword, duckdb.token_type.operator)
        yield Word(written if plain else "", start, start + len(written.encode()))
