"""More of a latent as HTML: its document, what it fires on, and how it was judged; every string is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.cards import context_html, escape, number, token_html, visible, wrapped
from store.documents import Document
from store.latents import LatentPage, Window

STYLE = """<style>
.ms-doc{max-height:38rem;overflow-y:auto;padding:.2rem .6rem;border:1px solid rgba(128,128,128,.3);border-radius:6px}
.ms-doc .ms-peak{scroll-initial-target:nearest;scroll-margin:6rem}
.ms-faint{opacity:.55;white-space:pre-wrap;overflow-wrap:anywhere}
.ms table.ms-rows{border-collapse:collapse;width:100%;font-size:.85rem} .ms-rows th{font-weight:600;opacity:.75}
.ms table.ms-rows th,.ms table.ms-rows td{border:0;border-bottom:1px solid rgba(128,128,128,.22);text-align:left;
 padding:.15rem .8rem .15rem 0;vertical-align:top} .ms table.ms-rows td.t{white-space:nowrap}
.ms table.ms-rows td.x{min-width:14rem;overflow-wrap:anywhere}
.ms table.ms-rows td.n,.ms table.ms-rows th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
</style>"""
VERDICTS = {True: "✓ right", False: "✗ wrong", None: "–"}


def snippet(window: Window, around: int) -> Window:
    """The tokens of a context that are next to its peak, `around` on either side."""
    first, stop = max(window.peak - around, 0), window.peak + around + 1
    return replace(
        window,
        start=window.start + first,
        peak=window.peak - first,
        tokens=window.tokens[first:stop],
        token_ids=window.token_ids[first:stop],
        values=window.values[first:stop],
    )


def one_context_html(window: Window, max_value: float, *, breaks: bool = False) -> str:
    """One context with its style sheet, and what it stands for where that is more than itself."""
    stands = f"stands for {window.weight:,.4g} peaks" if window.weight > 1 and window.band != "silent" else ""
    same = f"{window.n_same} read the same" if window.n_same > 1 else ""
    said = " · ".join(filter(None, (stands, same)))
    more = f'<div class="ms-small">{said}</div>' if said else ""
    return wrapped(context_html(window, max_value, breaks=breaks) + more)


def document_html(document: Document, max_value: float) -> str:
    """A whole document in a box of its own, scrolled to the place that was asked for, which is underlined."""
    body = token_html(document.tokens, document.values, max_value, document.place, breaks=True)
    before = f'<p class="ms-small">{document.n_before:,} tokens before</p>' if document.n_before else ""
    after = f'<p class="ms-small">{document.n_after:,} tokens after</p>' if document.n_after else ""
    rest = ""
    if document.rest.strip() and not document.n_after:
        rest = (
            f'<p class="ms-small">The text goes on for {len(document.rest):,} characters that were not harvested:</p>'
            f'<div class="ms-faint">{escape(document.rest[:MOST_REST])}</div>'
        )
    return STYLE + wrapped(f'<div class="ms-doc" tabindex="0">{before}{body}{after}{rest}</div>')


MOST_REST = 20_000
"""Characters shown of what was not harvested."""


def document_line(document: Document, fully_kept: bool) -> str:
    """Which document it is, and how often the latent fires there."""
    n_active = sum(value > 0 for value in document.values)
    kept = "" if fully_kept else "; of this latent not every sequence's events are kept"
    return (
        f"document {document.doc_id} of {document.source}, {document.split}: {document.n_tokens:,} tokens; active on "
        f"{n_active:,} of those shown{kept}"
    )


def fires_on_html(page: LatentPage) -> str:
    """The commonest tokens and pairs of tokens on which it fires."""
    if not page.ngrams:
        return '<div class="ms-small">none stored</div>'
    rows = [
        (
            f"<code>{escape(visible(row['text']))}</code>",
            f"{row['n_fired']:,}",
            f"{row['fires']:.0%}",
            f"{row['share']:.0%}",
        )
        for row in page.ngrams
    ]
    head = ("token or pair", "times", "of its uses", "of all firings")
    return table_html(head, rows, "tnnn")


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]], kinds: str) -> str:
    """A table whose cells are HTML already; `kinds` has `n` for a column of numbers, `x` for long texts."""
    titles = "".join(f'<th class="{kind}">{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{cell}</td>' for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'{STYLE}<div class="ms-scroll"><table class="ms-rows"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def arms_html(page: LatentPage) -> str:
    """Every score beside all of its nulls."""
    lines = []
    for row in sorted(page.scores, key=_explanation_first):
        interval = "–" if row["ci_low"] is None else f"{row['ci_low']:.2f} to {row['ci_high']:.2f}"
        value = "could not be told" if row["value"] is None else f"{row['value']:.2f}"
        names = [escape(row[name]) for name in ("explainer", "scorer", "arm")]
        counts = [f"{row[name]:,}" for name in ("n_judged", "n_unparsed")]
        lines.append((*names, value, interval, number(row["chance"]), *counts))
    head = ("explainer", "scorer", "arm", "score", "95% interval", "chance", "n", "unread")
    return wrapped(table_html(head, lines, "tttnnnnn"))


def _explanation_first(row: Mapping[str, Any]) -> tuple[str, str, str, bool, str]:
    return row["explainer"], row["scorer"], row["run"], row["arm"] != "explanation", row["arm"]


def right(judged: Mapping[str, Any]) -> bool | None:
    """Whether an answer is right; None where it is no yes or no, or could not be read."""
    truth, answer = judged["truth"], judged["answer"]
    return truth == answer if truth in (0, 1) and answer in (0, 1) else None


def judgements_html(judged: Sequence[Mapping[str, Any]]) -> str:
    """Examples as they were asked about, with the truth and the answer to each.

    Args:
        judged: rows of `examples`.
    """
    rows = [
        (
            escape(row["kind"]),
            number(row["truth"]),
            "could not be read" if row["answer"] is None else number(row["answer"]),
            VERDICTS[right(row)],
            f'<span class="ms-text" dir="auto">{escape(row["text"])}</span>',
            "–" if row["doc_id"] is None else str(row["doc_id"]),
        )
        for row in judged
    ]
    return wrapped(table_html(("kind", "truth", "answer", "", "text", "document"), rows, "tnntxn"))


def shown_html(explanation: Mapping[str, Any]) -> str:
    """What the author of an explanation saw and was asked."""
    docs = explanation["doc_ids"] or []
    seen = f"Documents {', '.join(map(str, docs))}." if docs else "What its author saw is not known."
    quoted = explanation["quoted"]
    copied = "" if quoted is None else f" {quoted:.0%} of its words are copied from what it was shown."
    prompt = f" Prompt {escape(explanation['prompt'])}." if explanation["prompt"] else ""
    return wrapped(f'<div class="ms-small">{escape(explanation["explainer"])}: {seen}{copied}{prompt}</div>')
