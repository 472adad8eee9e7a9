"""Steering as HTML: the equation of each edit, where it changed what, and every sample beside the clean text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from app.cards import escape, number, texts_html, token_html, visible
from sae.edits import DIRECTION_EQUATION, OPERATIONS

if TYPE_CHECKING:
    from app.steered import Steering
    from autointerp.steer_config import SteerEdit

LEFT_ALONE = "left alone: the first token and attention sinks are never edited"
LEGEND = (
    "Shaded: changed, the darker the more of its length. Underlined with dots: never edited, whatever is asked "
    "(the first token, which is BOS where the model has one, and attention sinks). Padding is never edited either."
)
FULL, BARE = "x̂(x)", "x"


def equation_html(edit: "SteerEdit", values: Sequence[float | None]) -> str:
    """What x becomes by one edit, and where, with its numbers.

    Args:
        edit: of latents, or a direction.
        values: the strengths in units of x, one for each latent or one for all; None where one has no unit.
    """
    where = {
        "always": "",
        "input": f"from the first token on with {_condition(edit)}",
        "token": f"on tokens with {_condition(edit)}",
    }[edit.when]
    lines = "".join(
        f'<div class="ms-text">x′ = {equation} <span class="ms-small">{where}</span></div>'
        for equation in _equations(edit, values)
    )
    return f"<div>{lines}</div>"


def _equations(edit: "SteerEdit", values: Sequence[float | None]) -> list[str]:
    from autointerp.steer_config import SteerVector

    if isinstance(edit, SteerVector):
        return [DIRECTION_EQUATION.format(x=BARE, v=number(values[0] if values else None))]
    every = list(values) * len(edit.latents) if len(values) == 1 else list(values)
    start = FULL if edit.decode == "full" else BARE
    return [
        OPERATIONS[edit.op].equation.format(x=start, v=number(value), i=f"<sub>{latent}</sub>")
        for latent, value in zip(edit.latents, every or [None] * len(edit.latents), strict=True)
    ]


def _condition(edit: "SteerEdit") -> str:
    from autointerp.steer_config import SteerVector

    watched = edit.condition if isinstance(edit, SteerVector) else edit.watched
    above = list(edit.above) * len(watched) if len(edit.above) == 1 else list(edit.above)
    parts = [
        f"a<sub>{latent}</sub> &gt; {f'{times:g} × q99.9' if times else '0'}"
        for latent, times in zip(watched, above, strict=True)
    ]
    return " or ".join(parts)


def mask_html(steering: "Steering") -> str:
    """The tokens that were read: those shaded that were changed, and marked that could not be."""
    tokens = (*steering.prompt_tokens, *steering.steered_tokens)[: len(steering.altered)]
    shares, darkest, pieces = iter(steering.shares), max(steering.shares, default=1.0), []
    for token, changed, touchable in zip(tokens, steering.altered, steering.touchable, strict=True):
        if changed:
            share = next(shares)
            pieces.append(
                token_html([token], [share or 1e-9], darkest, notes=[f"changed by {share:.1%} of its length"])
            )
        elif not touchable:
            pieces.append(
                f'<span style="border-bottom:2px dotted currentColor" title="{LEFT_ALONE}" '
                f'aria-label="{escape(visible(token))}: {LEFT_ALONE}">{escape(visible(token))}</span>'
            )
        else:
            pieces.append(token_html([token], [0.0], 1.0))
    return (
        f'<details open><summary>{_changed(steering)}</summary><div class="ms-text">{"".join(pieces)}</div></details>'
    )


def _changed(steering: "Steering") -> str:
    length = "" if steering.share_of_norm is None else f", by {steering.share_of_norm:.1%} of its length on average"
    return f"changed on {sum(steering.altered):,} of {len(steering.altered):,} tokens that were read{length}"


def sample_html(steering: "Steering") -> str:
    """One sample: both texts, the check that every pass was edited, and the mask."""
    same = " · the two texts are the same" if steering.clean == steering.steered else ""
    calls = f"the hook fired {steering.n_hook_calls} times, once in each forward pass of the steered text"
    return (
        f'<div class="ms-context"><div class="ms-small">seed {steering.seed} for both{same} · {calls}</div>'
        f"{texts_html(steering.clean, steering.steered)}{mask_html(steering)}</div>"
    )


def being_written_html(texts: Mapping[int, Mapping[str, str]]) -> str:
    """Samples as far as they are.

    Args:
        texts: by seed, `clean` and `steered`.
    """
    return "".join(
        f'<div class="ms-context"><div class="ms-small">seed {seed} for both</div>'
        f"{texts_html(own['clean'], own['steered'])}</div>"
        for seed, own in texts.items()
    )
