"""One static HTML file for a latent or a list of them: it opens offline, runs no script and fetches nothing."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from activations.progress import Progress, no_progress
from app import cards
from app.exporting.histogram import histogram_svg
from autointerp.exchange.export import Export
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.files import whole_file
from store.latents import LatentPage, Window, latent_page, windows

MOST_LATENTS = 1000
"""A page of more is slow to open: some 40 KB each."""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Whatever a text may hold, the browser runs no script and fetches nothing."""
STYLE = """<style>
body{margin:0 auto;padding:1rem clamp(.6rem,3vw,2rem) 4rem;max-width:64rem;font:1rem/1.5 system-ui,sans-serif}
section{border-top:2px solid rgba(128,128,128,.35);padding-top:.6rem;margin-top:1.6rem}
h1{font-size:1.35rem;margin:.4rem 0 .2rem;overflow-wrap:anywhere} h2{font-size:1.2rem;margin:.2rem 0 .4rem}
a{color:inherit;text-decoration-color:rgba(128,128,128,.7)} a:focus-visible{outline:2px solid currentColor}
.ms-wide{overflow-x:auto} table.ms-list{border-collapse:collapse;width:100%;font-size:.9rem}
.ms-list th,.ms-list td{text-align:left;padding:.15rem .6rem .15rem 0;vertical-align:top;border-bottom:1px solid
 rgba(128,128,128,.22);overflow-wrap:anywhere} .ms-list td.n,.ms-list th.n{text-align:right;white-space:nowrap;
 font-variant-numeric:tabular-nums} .ms-list td.t{min-width:9rem}
.ms-columns>div{overflow-x:auto} svg.ms-bars{width:100%;max-width:34rem;height:auto;display:block;color:inherit}
details>summary{cursor:pointer;font-weight:600;font-size:.95rem;margin:.9rem 0 .2rem}
.ms-text{-webkit-hyphens:none;hyphens:none} .ms mark:hover::after{max-width:12rem}
</style>"""
SHOWN = {"top": 10, "q": 3, "v": 3, "near": 5, "silent": 5}
"""Contexts of each kind of band."""
OPEN = ("top",)
"""Kinds that are not folded up."""
KINDS = {
    "top": "Strongest peaks",
    "q": "Peaks drawn from bands of equal count",
    "v": "Peaks drawn from bands of equal width in value",
    "near": "Near misses: silent here, though little was missing",
    "silent": "Silent on a token on which it fires elsewhere",
}
NOTE = "Shaded tokens are those on which the latent fires; point at one for its activation. The peak is underlined."


def write_page(out: Path, export: Export, progress: Progress = no_progress) -> dict[str, int]:
    """Write the page into the file `out`, one latent in memory at a time; returns how many it has.

    Raises:
        UsageError: more latents than a browser opens with pleasure.
    """
    latents = export.latents.tolist()
    if len(latents) > MOST_LATENTS:
        raise UsageError(
            f"{len(latents):,} latents on one page are more than a browser opens: choose {MOST_LATENTS:,} at most with "
            "--latents or --where"
        )
    with whole_file(out) as scratch, scratch.open("w", encoding="utf-8") as file:
        head, foot = cards.static_page(_title(export), "\0", POLICY).split("\0")
        file.write(head + STYLE + cards.STYLE)
        file.write(f"<main class='ms'>{_heading(export)}")
        for latent in progress(latents, len(latents), "write the page"):
            file.writelines(_section(export.index, latent, set(latents)))
        file.write("</main>" + foot)
    return {"n_latents": len(latents)}


def _title(export: Export) -> str:
    latents = export.latents.tolist()
    what = f"Latent {latents[0]}" if len(latents) == 1 else f"{len(latents)} latents"
    return f"{what} of {export.origin.model} at {export.origin.hook_point}"


def _heading(export: Export) -> str:
    index = cards.escape(export.index.run.id)
    rows = export.index.arrow(
        "SELECT latent, density, explanation, score, null_score FROM features "
        "WHERE latent IN (SELECT unnest(?::INTEGER[])) ORDER BY latent",
        [export.latents.tolist()],
    ).to_pylist()
    table = _table(("latent", "density", "score", "its null", "explanation"), [_listed(row) for row in rows], "nnnnt")
    return (
        f"<h1>{cards.escape(_title(export))}</h1><p class='ms-small'>monosem index {index}. {NOTE}</p>"
        f"{table if len(rows) > 1 else ''}"
    )


def _listed(row: Mapping[str, Any]) -> list[str]:
    figures = [cards.number(row[name]) for name in ("density", "score", "null_score")]
    return [_link(row["latent"]), *figures, cards.escape(row["explanation"] or "not explained")]


def _link(latent: int) -> str:
    return f"<a href='#latent-{latent}'>{latent}</a>"


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], kinds: str) -> str:
    """Cells are HTML already; `kinds` has `n` for a column of numbers."""
    head = "".join(f"<th class='{kind}'>{name}</th>" for name, kind in zip(names, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td class='{kind}'>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f"<div class='ms-wide'><table class='ms-list'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _section(index: FeatureIndex, latent: int, here: set[int]) -> Iterator[str]:
    """All that is stored of one latent."""
    page = latent_page(index, latent)
    yield f"<section id='latent-{latent}'><h2>Latent {latent}</h2>"
    if page.alive:
        yield cards.statistics_line(page) + histogram_svg(page)
    else:
        yield "<div>Never fired on this text.</div>"
    yield f"<h4>Explanation</h4>{cards.explanations_html(page)}"
    if page.promoted or page.suppressed:
        yield cards.logits_html(page)
    yield _relations(page, here)
    yield from _contexts(windows(index, latent), page)
    yield "</section>"


def _relations(page: LatentPage, here: set[int]) -> str:
    columns = []
    if page.ngrams:
        rows = [
            [f"<code>{cards.escape(cards.visible(row['text']))}</code>", f"{row['n_fired']:,}", f"{row['fires']:.0%}"]
            for row in page.ngrams
        ]
        columns.append(("Fires on", _table(("token or pair", "times", "of its uses"), rows, "tnn")))
    if page.neighbours:
        rows = [[row["side"], _other(row["other"], here), f"{row['cosine']:.3f}"] for row in page.neighbours]
        columns.append(("Nearest latents", _table(("side", "latent", "cosine"), rows, "tnn")))
    if page.coactivations:
        rows = [
            [_other(row["other"], here), f"{row['n_both']:,}", f"{row['phi']:.3f}", f"{row['implies']:.0%}"]
            for row in page.coactivations
        ]
        columns.append(("Fires together with", _table(("latent", "tokens", "φ", "implies"), rows, "nnnn")))
    shown = "".join(f"<details><summary>{name}</summary>{table}</details>" for name, table in columns)
    return f"<div class='ms-columns'>{''.join(f'<div>{part}</div>' for part in [shown] if part)}</div>"


def _other(latent: int, here: set[int]) -> str:
    return _link(latent) if latent in here else str(latent)


def _contexts(found: Sequence[Window], page: LatentPage) -> Iterator[str]:
    """Every kind of band from strong to weak, all but the first folded up."""
    for kind, title in KINDS.items():
        bands = list(dict.fromkeys(each.band for each in found if each.band.rstrip("0123456789") == kind))
        if bands:
            yield f"<details{' open' if kind in OPEN else ''}><summary>{title}</summary>"
            for band in bands:
                chosen = [each for each in found if each.band == band][: SHOWN[kind]]
                heading = f"<h4>{_band(band, chosen)}</h4>" if len(bands) > 1 else ""
                yield heading + "".join(cards.context_html(each, float(page.statistics["max"])) for each in chosen)
            yield "</details>"


def _band(band: str, chosen: Sequence[Window]) -> str:
    values = np.array([each.value for each in chosen])
    each = cards.number(float(np.mean([each.weight for each in chosen])))
    span = f"{cards.number(float(values.min()))} to {cards.number(float(values.max()))}"
    return f"{cards.escape(band)}: {span}, each for {each} peaks"
