"""Features as HTML: shaded tokens, contexts and whole cards; every string of a corpus or a model is escaped here."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from store.latents import LatentPage, Logit, Window
from store.shards import TOKEN_CLASSES

if TYPE_CHECKING:
    from app.inspection import Inspection
    from app.steered import Steering

HISTOGRAM_HEIGHT = 60
"""Of the picture, in pixels."""
BANDS: dict[str, str] = {
    "top": "strongest peaks",
    "near": "near misses: silent, and of the highest pre-activation",
    "silent": "silent on a token on which it fires elsewhere",
    "given": "asked for",
}
BAND_KINDS = {"q": "of equal counts of peaks", "v": "of equal widths of value"}


def band_label(band: str, bands: Iterable[str]) -> str:
    """What a band of contexts is, in words; `bands` are all of the latent's."""
    if band in BANDS:
        return BANDS[band]
    kind, last = band[0], max(int(name[1:]) for name in bands if name[0] == band[0] and name not in BANDS)
    end = {"1": ", the weakest", str(last): ", the strongest"}.get(band[1:], "")
    return f"band {band[1:]} of {last}{end}, {BAND_KINDS[kind]}"


METHODS: dict[str, str] = {"counts": "counted from the contexts, not written by a language model"}
"""How an explanation came to be, where the stored word alone would mislead."""

# The orange of Okabe and Ito's palette: told from grey by every common kind of colour vision. Its alpha stops where
# inherited text, dark or light, still has a contrast of 4.5 to it.
SHADE_RGB = "230,140,0"
SHADE_WEAKEST, SHADE_STRONGEST = 0.12, 0.6
NEWLINE, TAB, SPACE, NO_TEXT = "⏎", "⇥", "·", "◌"
# Characters that would reorder or hide the text around them.
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")

VERBATIM = "tex2jax_ignore mathjax_ignore"
"""Classes of what a notebook's MathJax, of either generation, must not typeset: two dollar signs of a corpus."""

STYLE = """<style>
.ms{font-size:.92rem;line-height:1.55;color:inherit}
.ms-text{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate}
.ms mark{color:inherit;border-radius:3px;position:relative;cursor:help}
.ms mark.ms-peak{box-shadow:inset 0 -2px 0 currentColor}
.ms mark:hover::after{content:attr(data-value);position:absolute;left:0;bottom:100%;z-index:9;padding:1px 6px;
 border-radius:4px;background:#222;color:#fff;font:12px/1.5 system-ui,sans-serif;white-space:nowrap;pointer-events:none}
.ms-context{padding:.4rem 0;border-bottom:1px solid rgba(128,128,128,.22)}
.ms-small{font-size:.8rem;opacity:.72}
.ms-value{font-weight:600;font-variant-numeric:tabular-nums}
.ms-card{max-width:60rem;border:1px solid rgba(128,128,128,.35);border-radius:8px;padding:.8rem 1rem;
 font-family:system-ui,sans-serif}
.ms-scroll{overflow-x:auto} .ms-table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}
.ms-table th,.ms-table td{text-align:right;padding:.1rem .7rem .1rem 0;white-space:nowrap}
.ms h3{margin:.1rem 0 .3rem;font-size:1.15rem} .ms h4{margin:.9rem 0 .2rem;font-size:.95rem}
.ms-numbers{display:flex;flex-wrap:wrap;gap:.2rem 1.4rem} .ms-quote{font-size:1.02rem;overflow-wrap:anywhere}
.ms svg.ms-histogram{display:block;width:100%;max-width:32rem;margin-top:.4rem;fill:#5b8db8}
.ms-columns{display:flex;flex-wrap:wrap;gap:0 1.5rem} .ms-columns>div{flex:1 1 12rem;min-width:0}
.ms table.ms-logits{border-collapse:collapse;width:100%;border:0}
.ms table.ms-logits td{border:0;padding:1px 4px;text-align:left}
.ms table.ms-logits td:last-child{text-align:right;font-variant-numeric:tabular-nums}
.ms code{font-family:ui-monospace,monospace;background:rgba(128,128,128,.14);border-radius:3px;padding:0 .25em;
 white-space:pre-wrap;overflow-wrap:anywhere;color:inherit}
</style>"""


def escape(text: str) -> str:
    """`text` as inert HTML, for element content and quoted attributes alike: shown, never interpreted."""
    return html.escape(INVISIBLE.sub(_named, text), quote=True)


def _named(match: re.Match[str]) -> str:
    character = match.group()
    # Unicode has a picture for each old control character.
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else f"[U+{ord(character):04X}]"


def markdown_text(text: str) -> str:
    """`text` on one line with every character that Markdown may interpret behind a backslash."""
    # Streamlit looks for :emoji: and :icon: after Markdown is parsed, where a backslash no longer protects.
    return MARKDOWN.sub(r"\\\1", " ".join(INVISIBLE.sub(_named, text).split())).replace("\\:", "\\:\u2060")


def visible(token: str) -> str:
    """A token as it is shown: line breaks and tabs as signs, and spaces as dots where there is nothing else."""
    if not token:
        return NO_TEXT
    shown = token.replace("\r\n", NEWLINE).replace("\n", NEWLINE).replace("\t", TAB)
    return shown.replace(" ", SPACE) if not token.strip() else shown


def number(value: float | None) -> str:
    """Four significant digits, or a dash where there is no number."""
    return "–" if value is None or value != value else f"{value:.4g}"


def token_html(
    tokens: Sequence[str],
    values: Iterable[float],
    max_value: float,
    peak: int | None = None,
    *,
    breaks: bool = False,
    notes: Sequence[str] | None = None,
) -> str:
    """Tokens shaded by activation; the others are plain text, which keeps a page of contexts small.

    Args:
        tokens: their texts.
        values: one activation for each.
        max_value: the activation shown in the strongest shade.
        peak: index of the token to underline.
        breaks: start a new line after each sign for a line break.
        notes: what each shaded token says of itself, in place of its activation.
    """
    pieces = [
        _active(token, float(value), max_value, position == peak, notes[position] if notes else number(value))
        if value > 0
        else _silent(token)
        for position, (token, value) in enumerate(zip(tokens, values, strict=True))
    ]
    joined = "".join(pieces)
    return f'<span class="ms-text" dir="auto">{joined.replace(NEWLINE, NEWLINE + "<br>") if breaks else joined}</span>'


def _silent(token: str) -> str:
    # A lone space between words needs no sign, and a token without characters of its own no place.
    return token if token in ("", " ") else escape(visible(token))


def _active(token: str, value: float, max_value: float, is_peak: bool, note: str) -> str:
    share = min(value / max_value, 1.0) if max_value > 0 else 1.0
    alpha = SHADE_WEAKEST + (SHADE_STRONGEST - SHADE_WEAKEST) * share
    shown, figure = escape(visible(token)), escape(note)
    name = shown.replace(NEWLINE, "line break").strip()
    css_class = ' class="ms-peak"' if is_peak else ""
    return (
        f'<mark{css_class} style="background:rgba({SHADE_RGB},{alpha:.2f})" data-value="{figure}" '
        f'title="{figure}, {share:.0%} of max" aria-label="{name}: {figure}">{shown}</mark>'
    )


def context_html(window: Window, max_value: float, *, breaks: bool = False) -> str:
    """One context below a line saying which document it is from, and where in it."""
    title = f"{escape(window.source)} · <b>{escape(window.title or 'untitled')}</b>"
    place = f"document {window.doc_id} · {escape(window.split)} · token {window.start + window.peak}"
    text = token_html(window.tokens, window.values, max_value, window.peak, breaks=breaks)
    return (
        f'<div class="ms-context"><div class="ms-small"><span class="ms-value">{number(window.value)}</span> · '
        f"{title} · {place}</div>{text}</div>"
    )


def contexts_html(contexts: Sequence[Window], max_value: float, *, breaks: bool = False) -> str:
    """Contexts one below the other."""
    return wrapped("".join(context_html(window, max_value, breaks=breaks) for window in contexts))


def wrapped(body: str, css_class: str = "") -> str:
    """`body` with the style sheet it needs, so that it can stand anywhere."""
    return f'{STYLE}<div class="{f"ms {VERBATIM} {css_class}".strip()}">{body}</div>'


def logits_html(page: LatentPage) -> str:
    """Promoted and suppressed tokens side by side."""
    sides = (("Promoted tokens", page.promoted), ("Suppressed tokens", page.suppressed))
    columns = "".join(f"<div><h4>{name}</h4>{_logits_table(logits)}</div>" for name, logits in sides)
    return f'<div class="ms-columns">{columns}</div>'


def _logits_table(logits: Sequence[Logit]) -> str:
    if not logits:
        return '<div class="ms-small">none stored</div>'
    rows = "".join(
        f"<tr><td><code>{escape(visible(logit.token))}</code></td><td>{logit.value:+.3f}</td></tr>" for logit in logits
    )
    return f'<table class="ms-logits"><tbody>{rows}</tbody></table>'


def explanations_html(page: LatentPage) -> str:
    """Each explanation with who made it and its scores; says so where there is none."""
    if not page.explanations:
        return '<div class="ms-small">Not explained yet.</div>'
    return "".join(_explanation(page, explanation) for explanation in page.explanations)


def _explanation(page: LatentPage, explanation: Mapping[str, Any]) -> str:
    method = METHODS.get(explanation["method"], explanation["method"])
    author = f"{explanation['explainer']}: {method}"
    seen = f"from {explanation['n_contexts']} contexts of {explanation['n_docs']} documents"
    if explanation["n_contexts"] is None:
        seen = "what its author saw is not known"
    return (
        f'<div class="ms-quote">“{escape(explanation["text"])}”</div>'
        f'<div class="ms-small">{escape(author)} · {seen}</div>'
        f"{scores_html(page, explanation['explainer'])}"
    )


def scores_html(page: LatentPage, explainer: str) -> str:
    """The explainer's scores, each with interval, count, chance and its null on one line."""
    rows = [row for row in page.scores if row["explainer"] == explainer]

    def key(row: Mapping[str, Any]) -> tuple[str, str]:
        return row["run"], row["scorer"]

    lines = [_score_line({row["arm"]: row for row in group}) for _, group in groupby(sorted(rows, key=key), key)]
    return "".join(lines) or '<div class="ms-small">Not scored.</div>'


def _score_line(arms: Mapping[str, Mapping[str, Any]]) -> str:
    score, null = arms.get("explanation"), arms.get("shuffled")
    if score is None:
        return '<div class="ms-small">Not scored: only the shuffled null is stored.</div>'
    return (
        f'<div class="ms-numbers"><span>{escape(score["scorer"])} score {_estimate(score)}</span>'
        f"<span>chance {number(score['chance'])}</span>"
        f"<span>shuffled null {_estimate(null) if null else 'not measured'}</span></div>"
        f'<div class="ms-small">{_score_basis(score)}</div>'
    )


def _estimate(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return f"could not be told ({row['n_judged']} judged, {row['n_unparsed']} unreadable)"
    low, high = row["ci_low"], row["ci_high"]
    interval = "no interval" if low is None or high is None else f"95% interval {low:.2f} to {high:.2f}"
    return f"<b>{row['value']:.2f}</b> ({interval}, n = {row['n_judged']})"


def _score_basis(score: Mapping[str, Any]) -> str:
    shared = score["n_docs_shared"]
    apart = "none of them seen by the explainer" if not shared else f"{shared} of them also seen by the explainer"
    if shared is None:
        apart = "whether its author saw any of them is not known"
    return f"Judged on {score['n_docs']} documents, {apart}; {score['n_unparsed']} answers unreadable."


def statistics_line(page: LatentPage) -> str:
    """The main figures of a latent."""
    figures = page.statistics
    named = {
        "density": number(figures["density"]),
        "tokens": f"{figures['n_fired']:,}",
        "documents": f"{figures['n_docs']:,}",
        "max": number(figures["max"]),
        "q99.9": number(figures["q999"]),
        "median": number(figures["q50"]),
    }
    spans = "".join(f'<span>{name} <span class="ms-value">{figure}</span></span>' for name, figure in named.items())
    return f'<div class="ms-numbers">{spans}</div>'


def histogram_svg(page: LatentPage) -> str:
    """Active values as a picture within the page: counts on a log axis, each bar with its numbers."""
    counts = page.histogram
    if not counts.any():
        return ""
    edges = np.linspace(min(page.statistics["min"], 0), page.statistics["max"], len(counts) + 1)
    # From below 1, so that a bin with a single token has a bar.
    heights = HISTOGRAM_HEIGHT * (np.log10(np.maximum(counts, 0.5)) + 0.3) / (np.log10(counts.max()) + 0.3)
    bars = "".join(
        f'<rect x="{i + 0.03}" y="{HISTOGRAM_HEIGHT - heights[i]:.1f}" width="0.94" height="{heights[i]:.1f}">'
        f"<title>{number(edges[i])} to {number(edges[i + 1])}: {counts[i]:,} tokens</title></rect>"
        for i in np.flatnonzero(counts)
    )
    return (
        # In the tag: style sheets of notebooks, which rank above ours, make the height of a picture follow its width.
        f'<svg class="ms-histogram" style="height:{HISTOGRAM_HEIGHT}px" role="img" '
        'aria-label="Histogram of active values" preserveAspectRatio="none" '
        f'viewBox="0 0 {len(counts)} {HISTOGRAM_HEIGHT}">{bars}</svg>'
        f'<div class="ms-small">active values from {number(edges[0])} to {number(edges[-1])}; the tallest bar has '
        f"{counts.max():,} tokens, log scale</div>"
    )


def feature_card_html(page: LatentPage, contexts: Sequence[Window], *, per_band: int = 5) -> str:
    """One latent on one self-contained card: no script and nothing fetched.

    Args:
        page: what is stored of it.
        contexts: its contexts, of any bands.
        per_band: contexts shown of each band.
    """
    if not page.alive:
        body = f"<h3>Latent {page.latent}</h3><div>Never fired on this text.</div>{explanations_html(page)}"
        return wrapped(body, "ms-card")
    return wrapped(
        f"<h3>Latent {page.latent}</h3>{statistics_line(page)}{histogram_svg(page)}"
        f"<h4>Explanation</h4>{explanations_html(page)}{logits_html(page)}"
        f"{bands_html(page, contexts, {window.band for window in contexts}, per_band)}",
        "ms-card",
    )


def bands_html(page: LatentPage, contexts: Sequence[Window], bands: Iterable[str], per_band: int | None = None) -> str:
    """Contexts below the names of their bands.

    Args:
        page: what is stored of their latent.
        contexts: of any bands.
        bands: all that the latent has, of which a name tells the place.
        per_band: contexts shown of each band; None for all.
    """
    known, chosen = list(bands), dict[str, list[Window]]()
    for window in contexts:
        chosen.setdefault(window.band, []).append(window)
    return "".join(
        f"<h4>{band} – {band_label(band, known)}</h4>"
        + "".join(context_html(window, page.statistics["max"]) for window in of_band[:per_band])
        for band, of_band in chosen.items()
    )


def largest_on(inspection: "Inspection", latent: int) -> float:
    """A latent's highest value on a text's normal tokens: the dictionary never saw the first and the special ones."""
    normal = np.asarray(inspection.token_class) == TOKEN_CLASSES["normal"]
    return float(inspection.values(latent)[normal].max(initial=0.0))


def shade_scale(page: LatentPage, inspection: "Inspection") -> float:
    """The activation for the strongest shade: the latent's maximum, or what it reaches on this text if that is more."""
    return max(float(page.statistics["max"]), largest_on(inspection, page.latent))


def strongest_html(inspection: "Inspection", scales: Mapping[int, float]) -> str:
    """A text's normal tokens, each shaded by the latent that comes nearest to its maximum there, which it names.

    Args:
        inspection: the text.
        scales: the activation for the strongest shade, of every latent that fires on a normal token.
    """
    values, notes = [0.0] * len(inspection.tokens), [""] * len(inspection.tokens)
    for latent, pos, value in zip(inspection.latent, inspection.pos, inspection.value, strict=True):
        if inspection.token_class[pos] != TOKEN_CLASSES["normal"]:
            continue
        share = float(value) / scales[latent]
        if share > values[pos]:
            values[pos], notes[pos] = share, f"latent {latent}: {number(float(value))}"
    return token_html(inspection.tokens, values, 1.0, notes=notes)


def steering_html(steering: "Steering") -> str:
    """Clean and steered text side by side, what was edited, and on which tokens."""
    same = " The two texts are the same." if steering.clean == steering.steered else ""
    return (
        f'<div class="ms-small">Prompt: {escape(steering.prompt)}</div>{texts_html(steering.clean, steering.steered)}'
        f'<div class="ms-small">{escape(steering.told)}; the same seed, {steering.seed}, for both.{same}</div>'
        f"{_altered_html(steering)}"
    )


def texts_html(clean: str, steered: str) -> str:
    """Two continuations side by side, as they are or as far as they are written."""
    columns = (("Clean", clean), ("Steered", steered))
    body = "".join(f'<div><h4>{name}</h4><div class="ms-text">{escape(text)}</div></div>' for name, text in columns)
    return f'<div class="ms-columns">{body}</div>'


def _altered_html(steering: "Steering") -> str:
    """The tokens that were read, those shaded on which the activation was changed."""
    altered, tokens = steering.altered, (*steering.prompt_tokens, *steering.steered_tokens)
    length = "" if steering.share_of_norm is None else f", by {steering.share_of_norm:.0%} of its length on average"
    return (
        f"<details><summary>changed on {sum(altered):,} of {len(altered):,} tokens that were read{length}</summary>"
        f"{token_html(tokens[: len(altered)], [float(each) for each in altered], 1.0)}</details>"
    )


def static_page(title: str, body: str, policy: str = "") -> str:
    """`body` as a whole HTML document that opens anywhere, in the reader's light or dark scheme.

    Args:
        title: of the document.
        body: HTML.
        policy: what it may load and run, as a Content-Security-Policy; by default whatever it asks for.
    """
    allowed = f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">' if policy else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"{allowed}<title>{escape(title)}</title></head><body>{body}</body></html>"
    )
