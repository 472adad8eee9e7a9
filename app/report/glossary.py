"""What the report calls each metric and plot, and what it says of them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is shown."""

    label: str
    help: str
    percent: bool = False


@dataclass(frozen=True, kw_only=True)
class Plot:
    """How a plot is shown."""

    title: str
    x: str
    y: str
    bars: bool = False
    log_x: bool = False
    log_y: bool = False


METRICS: dict[str, Metric] = {
    "fvu": Metric(
        "FVU", "Σ‖x − x̂‖² / Σ‖x − mean x‖² with one mean over all rows of the class. 0 is perfect, 1 the mean."
    ),
    "cosine": Metric("cosine", "Mean cosine of x and x̂."),
    "l2_ratio": Metric("L2 ratio", "Mean ‖x̂‖ / ‖x‖: below 1 is shrinkage."),
    "relative_bias": Metric("relative reconstruction bias", "Σ‖x̂‖² / Σ x·x̂: below 1 is shrinkage."),
    "l0": Metric("L0", "Mean number of active latents per token."),
    "l0_quantile": Metric("L0, quantile", "This share of tokens has no more active latents."),
    "bits_per_token": Metric("bits per token", "Entropy of the integer codes, under the codes' own frequencies."),
    "n_dead": Metric("dead latents", "Active on none of the rows that were looked at."),
    "dead_fraction": Metric("dead latents, share", "The same, over the width of the dictionary.", percent=True),
    "dense_fraction": Metric("dense latents, share", "Active on more than a tenth of the tokens.", percent=True),
    "cross_entropy": Metric("cross-entropy", "Mean next-token cross-entropy in nats."),
    "kl": Metric("KL divergence", "Of the edited model's next-token distribution from the clean one's, in nats."),
    "loss_recovered": Metric(
        "loss recovered", "(ablated − spliced) / (ablated − clean), in cross-entropy.", percent=True
    ),
    "kl_recovered": Metric("KL recovered", "1 − KL spliced / KL ablated.", percent=True),
    "explained_variance": Metric("1 − FVU", "On the same rows as the formulas below, which differ from it."),
}
"""Metrics by name; others are shown under their own name."""

PLOTS: dict[str, Plot] = {
    "density": Plot(title="Density of latents", x="log₁₀ share of tokens", y="latents", bars=True),
    "l0": Plot(title="Active latents per token", x="L0", y="tokens", bars=True),
}
"""Plots by name; others are drawn as lines under their own name."""


def metric(name: str) -> Metric:
    """How a metric is shown."""
    return METRICS.get(name, Metric(name.replace("_", " "), ""))


def plot(name: str) -> Plot:
    """How a plot is shown."""
    return PLOTS.get(name, Plot(title=name.replace("_", " "), x="", y=""))
