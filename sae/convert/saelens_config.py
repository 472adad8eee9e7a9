"""What `cfg.json` of a SAELens checkpoint says, of version 6 or older, brought to one form.

Version 6 has a config class for each architecture and keeps what it knows of the model in `metadata`; older ones mix
both with the settings of the training run, under other names. What changes the reconstruction is taken or refused; what
only tells how it was trained is kept as it is, for `Foreign.origin`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae.convert.files import Fields, read_fields
from store.errors import UsageError

CONFIG_FILE = "cfg.json"

TRAINING_FIELDS = (
    "aux_loss_coefficient",
    "decoder_init_norm",
    "jumprelu_bandwidth",
    "jumprelu_init_threshold",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_ste_to_input",
    "jumprelu_tanh_scale",
    "l0_coefficient",
    "l0_warm_up_steps",
    "l1_coefficient",
    "l1_warm_up_steps",
    "lp_norm",
    "matryoshka_widths",
    "pre_act_loss_coefficient",
    "target_l0",
    "topk_threshold_lr",
    "use_matryoshka_aux_loss",
    "use_sparse_activations",
)
"""Of version 6's training configs: they say how a loss was made, and nothing about x_hat."""

NOT_HERE = {
    "abstopk": "latents have signs, and no variant here keeps the largest by magnitude",
    "matching_pursuit": "the pursuit stops at a residual, and no variant here does",
    "temporal": "a row's code depends on the rows before it, and no variant here reads several",
}
"""Architectures that SAELens has and no variant can represent."""

TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
BATCHED = ("batchtopk", "matryoshka_batchtopk")
ARCHITECTURES = ("standard", "topk", *BATCHED, "jumprelu", "gated", *TRANSCODERS)
"""Those that are read."""

OF_ONE_ROW = {
    "constant_norm_rescale": "every row is brought to one norm, so that no weights on raw x do the same",
    "layer_norm": "every row is normalised by itself, so that no weights on raw x do the same",
}
"""Normalisations that differ from row to row."""
OF_ALL_ROWS = ("expected_average_only_in", "covariance_whitening")
"""Normalisations by constants, which can be folded where the checkpoint has them."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is needed to compute x_hat, and what is told besides."""

    path: Path
    architecture: str
    """One of `ARCHITECTURES`."""
    d_in: int
    d_sae: int
    d_out: int
    apply_b_dec_to_input: bool
    """Whether b_dec is subtracted from x before the encoder."""
    normalize_activations: str
    """`none`, or one of `OF_ALL_ROWS`."""
    k: float | None
    """Latents kept, of TopK and BatchTopK; a fraction is possible in BatchTopK."""
    rescale_acts_by_decoder_norm: bool
    """Whether latents compete by their value times their decoder row's norm."""
    finetuning_scaling_factor: bool
    """Whether latents are multiplied by a factor of their own before they are decoded."""
    metadata: dict[str, Any]
    """Where it reads, in which model, and whatever else it says of itself."""
    told: dict[str, Any]
    """Settings of the training, as they are."""

    @property
    def training(self) -> tuple[str, dict[str, Any]]:
        """The architecture it was trained as, with that training's settings: a BatchTopK is saved as a JumpReLU."""
        name = self.metadata.get("training_architecture") or self.architecture
        details = self.metadata.get("training_architecture_details")
        return name, {**self.told, **(details if isinstance(details, dict) else {})}


def read_config(folder: Path) -> Config:
    """The config in a folder.

    Raises:
        UsageError: no such file, not SAELens', or a field whose value no variant can represent.
    """
    fields = read_fields(folder / CONFIG_FILE)
    config = _of_version_6(fields) if _major(fields) >= 6 else _of_older(fields)
    head = config.metadata.get("hook_head_index")
    if head is not None:
        raise UsageError(
            f"{config.path} has hook_head_index={head}: it reads one attention head, and a hook point here is all heads"
        )
    return config


def _major(fields: Fields) -> int:
    """The library's version as the library itself finds it; what says nothing is older than 6."""
    inside = fields.values.get("metadata")
    said = fields.values.get("sae_lens_version") or (inside or {}).get("sae_lens_version") or "0"
    first = str(said).split(".")[0]
    return int(first) if first.isdigit() else 0


def _of_version_6(fields: Fields) -> Config:
    fields.told("dtype", "device", "sae_lens_version")
    architecture = _architecture(fields, fields.take("architecture", str))
    told = fields.told(*TRAINING_FIELDS)
    kept = ("topk", *BATCHED)
    config = Config(
        **_common(fields, architecture),
        apply_b_dec_to_input=fields.take("apply_b_dec_to_input", bool, architecture not in TRANSCODERS),
        normalize_activations=_normalisation(fields, fields.take("normalize_activations", str, "none")),
        k=fields.take("k", float) if architecture in kept else None,
        rescale_acts_by_decoder_norm=(
            fields.take("rescale_acts_by_decoder_norm", bool, architecture in BATCHED)
            if architecture in kept
            else fields.must_be("rescale_acts_by_decoder_norm", False, why=f"{architecture} has no such setting")
        ),
        finetuning_scaling_factor=fields.take("finetuning_scaling_factor", bool, False),
        metadata=fields.take("metadata", dict, {}),
        told=told,
    )
    fields.must_be("reshape_activations", "none", "hook_z", why="only heads side by side are known here")
    fields.nothing_left()
    return config


def _of_older(fields: Fields) -> Config:
    """As SAELens brings an old config up to date, but what it drops without a word is refused if it matters."""
    architecture = _architecture(fields, fields.take("architecture", str, "standard"))
    architecture, k = _older_topk(fields, architecture)
    normalisation = fields.values.get("normalize_activations") or "none"
    fields.told("normalize_activations")
    fields.must_be("reshape_activations", "none", "hook_z", why="only heads side by side are known here")
    common = _common(fields, architecture)
    apply_b_dec = fields.take("apply_b_dec_to_input", bool, True)
    scaled = fields.take("finetuning_scaling_factor", bool, False)
    rescaled = fields.take("rescale_acts_by_decoder_norm", bool, False) if architecture == "topk" else False
    rest = {**fields.take("metadata", dict, {}), **fields.told(*fields.left)}
    metadata = {"hook_name": rest.get("hook_point"), "hook_head_index": rest.get("hook_point_head_index")} | rest
    return Config(
        **common,
        apply_b_dec_to_input=apply_b_dec,
        normalize_activations=_normalisation(
            fields, "expected_average_only_in" if normalisation is True else normalisation
        ),
        k=k,
        rescale_acts_by_decoder_norm=rescaled,
        finetuning_scaling_factor=scaled,
        metadata={name: value for name, value in metadata.items() if value is not None},
        told={},
    )


def _older_topk(fields: Fields, architecture: str) -> tuple[str, float | None]:
    """TopK was an activation before it was an architecture; k stood with one or the other."""
    said = fields.told("activation_fn", "activation_fn_str")
    field, name = next(iter(said.items()), ("activation_fn", "relu"))
    kwargs = fields.inside("activation_fn_kwargs")
    topk = name == "topk" and architecture in ("standard", "topk")
    if name != "relu" and not topk:
        raise UsageError(
            f"{fields.path} has {field}={name!r} with architecture={architecture!r}: only relu, or topk in a topk or "
            "standard SAE, are known here"
        )
    if not topk and architecture != "topk":
        return architecture, None
    k = (kwargs if "k" in kwargs else fields).take("k", float)
    kwargs.nothing_left()
    return "topk", k


def _common(fields: Fields, architecture: str) -> dict[str, Any]:
    d_in, d_sae = fields.take("d_in", int), fields.take("d_sae", int)
    d_out = fields.take("d_out", int) if architecture in TRANSCODERS else d_in
    return {"path": fields.path, "architecture": architecture, "d_in": d_in, "d_sae": d_sae, "d_out": d_out}


def _architecture(fields: Fields, name: str) -> str:
    if name in NOT_HERE:
        raise fields.refusal("architecture", NOT_HERE[name])
    if name not in ARCHITECTURES:
        raise UsageError(
            f"{fields.path} has architecture={name!r}, which is not known here: known are {', '.join(ARCHITECTURES)}"
        )
    return name


def _normalisation(fields: Fields, mode: Any) -> str:
    if mode in OF_ONE_ROW:
        raise fields.refusal("normalize_activations", OF_ONE_ROW[mode])
    if mode not in ("none", *OF_ALL_ROWS):
        raise fields.refusal("normalize_activations", f"known are none, {', '.join(OF_ALL_ROWS)}")
    return mode
