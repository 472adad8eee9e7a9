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
    "fvu": Metric("FVU", "Σ‖x − x̂‖² / Σ‖x − mean x‖², one mean over all rows of the class. 0 is perfect, 1 the mean."),
    "cosine": Metric("cosine", "Mean cosine of x and x̂."),
    "l2_ratio": Metric("L2 ratio", "Mean ‖x̂‖ / ‖x‖: below 1 is shrinkage."),
    "relative_bias": Metric("relative reconstruction bias", "Σ‖x̂‖² / Σ x·x̂: below 1 is shrinkage."),
    "l0": Metric("L0", "Active latents per token; the mean, or a quantile where one is named."),
    "l0_quantile": Metric("L0, quantile", "This share of tokens has no more active latents."),
    "bits_per_token": Metric("bits per token", "Entropy of the integer codes, under the codes' own frequencies."),
    "n_dead": Metric("dead latents", "Active on none of the rows that were looked at."),
    "dead_fraction": Metric("dead latents, share", "The same, over the width of the dictionary.", percent=True),
    "dense_fraction": Metric("dense latents, share", "Active on more than a tenth of the tokens.", percent=True),
    "cross_entropy": Metric("cross-entropy", "Mean next-token cross-entropy in nats."),
    "kl": Metric("KL divergence", "Of the edited model's next-token distribution from the clean one's, in nats."),
    "loss_recovered": Metric("loss recovered", "(ablated − spliced) / (ablated − clean), cross-entropy.", percent=True),
    "kl_recovered": Metric("KL recovered", "1 − KL spliced / KL ablated.", percent=True),
    "explained_variance": Metric("1 − FVU", "On the same rows as the formulas below, which differ from it."),
    "legacy_ev_saelens": Metric("legacy_ev_saelens", "mean over rows of 1 − ‖e‖² / ‖x − mean x‖²"),
    "legacy_ev_saebench": Metric("legacy_ev_saebench", "1 − E‖e‖² / (E‖x‖² − (mean_i E x_i²)²): changes with x's unit"),
    "legacy_ev_dictionary_learning": Metric(
        "legacy_ev_dictionary_learning", "1 − Σ var(e) / Σ var(x): offsets are free"
    ),
    "legacy_r2_overcomplete": Metric("legacy_r2_overcomplete", "1 − Σ e² / Σ (x − one number)²"),
    "legacy_nmse_openai": Metric("legacy_nmse_openai", "mean over rows of ‖e‖² / ‖x‖²: not centred"),
    "nearest_cosine": Metric(
        "nearest-neighbour cosine", "Of each live latent's decoder row with the nearest other one."
    ),
    "near_duplicates": Metric(
        "near duplicates", "Live latents whose nearest neighbour is nearer than that.", percent=True
    ),
    "effective_rank": Metric("effective rank", "exp of the entropy of the singular values (Roy & Vetterli 2007)."),
    "participation_ratio": Metric("participation ratio", "(Σσ²)² / Σσ⁴ of the singular values."),
    "sparse_reconstruction": Metric(
        "sparse reconstruction, R²", "1 − FVU with so many atoms, by OMP or its own encoder."
    ),
    "angle_mean": Metric("angle, mean (°)", "Between two atoms, under this inner product."),
    "angle_sd": Metric("angle, sd (°)", "Of the angles between two atoms."),
    "coherence": Metric("coherence", "Quantile of |cosine| over pairs of atoms, under this inner product."),
    "rip_bound": Metric("RIP bound", "(K − 1)·μ at the median L0 K: says something only below 1."),
    "uniqueness": Metric(
        "uniqueness ratio q*", "sup{q : μ_q < 1/(2K_q − 1)}. Never without its L0, R² and random control."
    ),
    "probe_accuracy": Metric("accuracy", "Of a logistic probe on mean-pooled latents, on the test texts."),
    "probe_balanced_accuracy": Metric("balanced accuracy", "The mean over classes, one against the rest."),
    "probe_auroc": Metric("AUROC", "The mean over classes, one against the rest."),
    "probe_balanced_accuracy_refitted": Metric(
        "balanced accuracy, refitted", "On parts of the training texts: mean, lowest and highest; no interval."
    ),
    "tpp": Metric("TPP", "Drop of a class's own probe when its latents are ablated, less the mean drop of the others."),
    "tpp_own_drop": Metric("TPP, own drop", "Accuracy that a class's probe loses."),
    "tpp_other_drop": Metric("TPP, others' drop", "Accuracy that the other classes' probes lose."),
    "tpp_of_possible": Metric("TPP, of what is possible", "TPP over what a probe can lose at all."),
    "scr": Metric(
        "SCR", "(ablated − biased) / (clean − biased): a spurious correlation undone by ablating its latents."
    ),
    "scr_biased_accuracy": Metric("SCR, biased probe", "Trained where both attributes go together; tested where not."),
    "scr_clean_accuracy": Metric("SCR, clean probe", "Trained where they do not."),
    "scr_ablated_accuracy": Metric("SCR, after ablating", "The biased probe's accuracy."),
    "spelling_accuracy": Metric("spelling", "Share of words whose first letter the model itself names.", percent=True),
    "letter_probe_f1": Metric("letter probe, F1", "Of a dense probe for the first letter: the truth absorption needs."),
    "absorption_full": Metric(
        "absorption, full", "Words whose letter's latents are silent while others carry it.", percent=True
    ),
    "absorption_main_f1": Metric("absorption, main latents' F1", "How well a letter's latents tell its words at all."),
    "planted_mcc": Metric("planted MCC", "Mean cosine of planted features with latents, matched one to one."),
    "planted_mmcs": Metric("planted MMCS", "Mean over planted features of the largest cosine."),
    "planted_n_recovered": Metric("planted features recovered", "Matched at a cosine above the one named."),
    "planted_f1": Metric("planted F1", "Of a matched latent's firing for its feature's presence."),
    "planted_l0": Metric("planted L0", "Active latents per planted row: read it beside the figures above."),
    "target_reached": Metric("target reached", "Rows whose cosine with x̂ is at least target_cos.", percent=True),
    "negative_coefficients": Metric("negative coefficients", "Of all that are not zero.", percent=True),
    "fvu_minus_random": Metric("FVU less random's", "Below 0 where choosing atoms paid."),
    "n_atoms": Metric("atoms", "Activations in the dictionary."),
    "repeated_atoms": Metric("repeated atoms", "As good as equal to an earlier one.", percent=True),
    "jaccard": Metric("Jaccard", "Tokens that both chose over tokens that either chose."),
    "jaccard_adjusted": Metric("Jaccard, chance-adjusted", "(J − J_chance) / (1 − J_chance)."),
    "jaccard_beyond_seeds": Metric("Jaccard beyond seeds", "Without the tokens that either dictionary began with."),
    "jaccard_beyond_seeds_adjusted": Metric("Jaccard beyond seeds, chance-adjusted", "The same, less chance."),
    "best_cosine": Metric("best cosine", "Mean over latents of the nearest latent of the other one."),
    "share_with_partner": Metric("share with a partner", "Latents with a partner at cosine .7 or more.", percent=True),
    "paired_cosine": Metric("paired cosine", "Mean over one-to-one pairs."),
    "paired_share": Metric("paired share", "One-to-one pairs at cosine .7 or more.", percent=True),
    "cka_debiased": Metric("CKA, debiased", "Linear centred kernel alignment, without its bias at few rows."),
    "cka": Metric("CKA", "Linear centred kernel alignment (Kornblith et al. 2019)."),
    "svcca": Metric("SVCCA", "Mean canonical correlation of the leading directions (Raghu et al. 2017)."),
    "relative_representations": Metric("relative representations", "Mean cosine over rows, by 300 anchors."),
    "linear_r2": Metric("linear regression, R²", "On held-out rows."),
    "layer_match": Metric(
        "layers matched", "Whose most similar layer in the other model is the same one.", percent=True
    ),
}
"""Metrics by name; others are shown under their own name."""

PLOTS: dict[str, Plot] = {
    "density": Plot(title="Density of latents", x="log₁₀ share of tokens", y="latents", bars=True),
    "l0": Plot(title="Active latents per token", x="L0", y="tokens", bars=True),
    "nearest_cosine": Plot(title="Nearest-neighbour cosine", x="cosine", y="share of latents"),
    "singular_spectrum": Plot(title="Singular values of the decoder", x="number", y="σ / σ₁"),
    "sparse_reconstruction": Plot(title="Reconstruction by few atoms (OMP)", x="atoms", y="R²", log_x=True),
    "coherence": Plot(title="Coherence, and the bound for uniqueness", x="q", y="μ_q"),
    "probing": Plot(title="Sparse probing", x="latents", y="balanced accuracy"),
    "tpp": Plot(title="Targeted probe perturbation", x="ablated latents", y="TPP"),
    "scr": Plot(title="Spurious correlation removal", x="ablated latents", y="SCR"),
}
"""Plots by name; others are drawn as lines under their own name."""


def metric(name: str) -> Metric:
    """How a metric is shown."""
    return METRICS.get(name, Metric(name.replace("_", " "), ""))


def plot(name: str) -> Plot:
    """How a plot is shown."""
    return PLOTS.get(name, Plot(title=name.replace("_", " "), x="", y=""))
