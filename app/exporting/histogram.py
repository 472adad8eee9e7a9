"""A latent's histogram as inline SVG: numbers only, in the text's own colour."""

import numpy as np

from app.cards import number
from store.latents import LatentPage

WIDTH, HEIGHT, FOOT, HEAD = 400, 120, 18, 14


def histogram_svg(page: LatentPage) -> str:
    """Active values in bins of equal width; bars as high as the logarithm of their counts."""
    counts = page.histogram.astype(np.float64)
    most = int(counts.max(initial=0))
    if not most:
        return ""
    low, high = min(0.0, float(page.statistics["min"])), float(page.statistics["max"])
    share = np.log1p(counts) / np.log1p(most)
    step, room = WIDTH / len(counts), HEIGHT - FOOT - HEAD
    edges = np.linspace(low, high, len(counts) + 1)
    bars = "".join(
        f'<rect x="{i * step:.2f}" y="{HEAD + room * (1 - share[i]):.2f}" width="{step * 0.9:.2f}" '
        f'height="{room * share[i]:.2f}"><title>{number(edges[i])} to {number(edges[i + 1])}: {int(counts[i]):,} tokens'
        f"</title></rect>"
        for i in np.flatnonzero(counts).tolist()
    )
    line = HEIGHT - FOOT
    return (
        f'<svg class="ms-bars" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Histogram of activations from '
        f'{number(low)} to {number(high)}, at most {most:,} tokens in a bin">'
        f'<g fill="currentColor" fill-opacity=".6">{bars}</g>'
        f'<path d="M0 {line}H{WIDTH}" stroke="currentColor" stroke-opacity=".4"/>'
        f'<g fill="currentColor" font-size="11" font-family="system-ui,sans-serif" opacity=".8">'
        f'<text x="0" y="{HEIGHT - 4}">{number(low)}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">activation (bars: log of tokens)</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{number(high)}</text>'
        f'<text x="{WIDTH}" y="10" text-anchor="end">tallest: {most:,}</text></g></svg>'
    )
