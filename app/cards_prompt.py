"""A prompt as HTML: its tokens shaded by a latent, by what the SAE misses or by surprise, and what a latent does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from app.cards import escape, number, token_html, visible, wrapped

if TYPE_CHECKING:
    from app.inspection import Inspection
    from autointerp.prompt_findings import Change, Effects, Moved


@dataclass(frozen=True)
class Shade:
    """A figure of every token that may shade a text."""

    label: str
    unit: str
    about: str
    of: "Callable[[Inspection], np.ndarray]"
    """`[n_tokens]`; NaN where there is none."""
    normal_only: bool
    """Whether the strongest shade is of the normal tokens: sinks are rebuilt as nothing else is."""


SHADES: Mapping[str, Shade] = {
    "loss": Shade(
        "loss",
        "nats",
        "Loss of a token: − log of the probability that the model gave it, after those before it. The first has none.",
        lambda inspection: inspection.loss,
        normal_only=False,
    ),
    "error": Shade(
        "error",
        "of the activation",
        "Relative squared error ‖x − x̂‖² / ‖x‖²: the part of the activation that the dictionary does not rebuild.",
        lambda inspection: inspection.error,
        normal_only=True,
    ),
    "FVU part": Shade(
        "FVU part",
        "of the variance",
        "Squared error over the variance of this text's normal tokens. Its mean over those is the FVU of the text.",
        lambda inspection: inspection.fvu_part,
        normal_only=True,
    ),
}
"""By their names on the page; a latent's activation may shade a text, too."""


def scale(inspection: "Inspection", shade: Shade) -> float:
    """The value in the strongest shade: the highest on this text; 0 where there is none."""
    values = shade.of(inspection)
    counted = values[inspection.normal] if shade.normal_only and inspection.normal.any() else values
    return float(np.nanmax(counted, initial=0.0, where=~np.isnan(counted)))


def shaded_html(inspection: "Inspection", shade: Shade) -> str:
    """The text shaded by one of `SHADES`; each token says its figure."""
    values = np.nan_to_num(shade.of(inspection))
    notes = [f"{number(value)} {shade.unit}" for value in values.tolist()]
    return wrapped(token_html(inspection.tokens, values, scale(inspection, shade), notes=notes))


def effects_html(effects: "Effects") -> str:
    """Both effects side by side, each with what it is."""
    where = "on every token" if effects.everywhere else f"on token {effects.pos} alone"
    full = _effect_html(
        "Full ablation effect",
        f"The model run with latent {effects.latent} set to 0 {where}, and the rest of it as it follows.",
        effects.full,
        f"{effects.n_altered} token{'s' * (effects.n_altered != 1)} changed",
    )
    about = "Its decoder direction times its activation on this token alone, through the final norm as it is and the "
    about += "unembedding; no later layer reads it."
    if effects.direct is None:
        direct = f'<h4>Direct effect</h4><div class="ms-small">{escape(effects.no_direct)}</div>'
    else:
        assert effects.logit is not None
        said = f"adds {effects.logit:+.3f} to the logit, over the mean of all tokens"
        direct = _effect_html("Direct effect", about, effects.direct, said)
    return wrapped(f'{_head(effects)}<div class="ms-columns"><div>{full}</div><div>{direct}</div></div>')


def _head(effects: "Effects") -> str:
    token = f"<code>{escape(visible(effects.target))}</code>"
    probability = np.exp(-effects.clean_loss)
    silent = "" if effects.activation else " It is silent there, so there is nothing to take away on this token."
    return (
        f'<div class="ms-small">Next token looked at: {token}, which the model gives {probability:.2%} (loss '
        f"{number(effects.clean_loss)} nats). Activation on token {effects.pos}: {number(effects.activation)}.{silent} "
        "Both effects are of taking the latent away.</div>"
    )


def _effect_html(title: str, about: str, change: "Change", said: str) -> str:
    sign = "likelier" if change.loss > 0 else "less likely"
    meaning = f": the latent makes it {sign}" if change.loss else ""
    columns = (("More probable without it", change.up), ("Less probable without it", change.down))
    tables = "".join(f"<div><h4>{name}</h4>{_moved_html(moved)}</div>" for name, moved in columns)
    return (
        f'<h4>{title}</h4><div class="ms-small">{about}</div><div class="ms-numbers">'
        f'<span>loss <span class="ms-value">{change.loss:+.4f}</span> nats{meaning}</span>'
        f'<span>KL(clean ‖ without) <span class="ms-value">{number(change.kl)}</span> nats</span>'
        f"<span>{said}</span></div>"
        f'<div class="ms-columns">{tables}</div>'
    )


def _moved_html(moved: "Sequence[Moved]") -> str:
    if not moved:
        return '<div class="ms-small">none</div>'
    rows = "".join(
        f"<tr><td><code>{escape(visible(each.token))}</code></td>"
        f"<td>{_share(each.clean)} → {_share(each.without)}</td></tr>"
        for each in moved
    )
    return f'<table class="ms-logits"><tbody>{rows}</tbody></table>'


def _share(probability: float) -> str:
    return f"{probability:.2%}" if probability >= 0.0001 else "&lt;0.01%"
