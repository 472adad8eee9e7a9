"""Dictionaries of saprmarks/dictionary_learning: `ae.pt` beside `config.json`, as `trainSAE` saves them.

Which class computes is `trainer.dict_class`, and all that the class needs is in its state dict. Read: PyPI
dictionary-learning 0.1.0 (`dictionary.py`, `trainers/`, `training.py`, `utils.py: load_dictionary`) and the repository
up to 60ec6bf. `norm_factor`: `trainSAE` scales biases and thresholds back before it saves, so files are for raw x.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sae.base import SAE
from sae.batch_topk import BatchTopK
from sae.convert.files import Fields, Tensors, json_in, read_fields, read_tensors
from sae.convert.foreign import Foreign, Format
from sae.convert.parts import Parts, build, log_threshold
from sae.convert.weights import held, held_at_unit_norm, l0_within, norm_setting
from sae.gated import Gated
from sae.jump import Jump
from sae.jumprelu import JumpReLU
from sae.matryoshka import Matryoshka
from sae.relu import ReLU
from sae.threshold import Threshold
from sae.topk import TopK
from store.errors import UsageError
from store.files import write_hashed, write_json

NAME = "dictionary_learning"
WEIGHTS_FILE = "ae.pt"
CONFIG_FILE = "config.json"
MAPPED = "it maps what goes into a module to what comes out, which no class of this library tells apart: not read"


class Checkpoint(NamedTuple):
    """What a class is read from."""

    tensors: Tensors
    trainer: Fields

    @property
    def path(self) -> Path:
        """Of the weights."""
        return self.tensors.path

    def linear(self, b_dec: str, b_enc: str = "encoder.bias") -> Parts:
        """Of two `nn.Linear`, which hold weights as [out, in]."""
        d_in, d_sae = self._widths()
        encoder = self.tensors.take("encoder.weight", d_sae, d_in)
        d_sae, d_in = encoder.shape
        decoder = self.tensors.take("decoder.weight", d_in, d_sae)
        return Parts(encoder.t(), self.tensors.take(b_enc, d_sae), decoder.t(), self.tensors.take(b_dec, d_in))

    def matrices(self) -> Parts:
        """Held as here."""
        d_in, d_sae = self._widths()
        encoder = self.tensors.take("W_enc", d_in, d_sae)
        d_in, d_sae = encoder.shape
        biases = self.tensors.take("b_enc", d_sae), self.tensors.take("b_dec", d_in)
        return Parts(encoder, biases[0], self.tensors.take("W_dec", d_sae, d_in), biases[1])

    def k(self) -> int:
        """Of the state dict, or of the config where that is older; both must agree, as its own loader wants."""
        told = self.trainer.take("k", int, None)
        k = int(self.tensors.take("k")) if "k" in self.tensors else told
        if k is None:
            raise UsageError(f"{self.path} has no k, and {self.trainer.path} no field 'trainer.k': set the field")
        if told is not None and told != k:
            raise self.tensors.refusal("k", f"it is {k}, but {self.trainer.path.name} says trainer.k={told}")
        return k

    def threshold(self) -> Tensor:
        """What is above it is kept at inference. −1, before it was first set, keeps all that is positive, as 0 does."""
        return self.tensors.take("threshold").clamp_min(0)

    def _widths(self) -> tuple[int | None, int | None]:
        return self.trainer.take("activation_dim", int, None), self.trainer.take("dict_size", int, None)


def recognises(source: Path) -> bool:
    """Whether there is a config that names a `dict_class`, beside or above a `.pt`."""
    config = _config_file(source)
    trainer = json_in(config).get("trainer") if config else None
    return isinstance(trainer, dict) and "dict_class" in trainer


def read(source: Path) -> Foreign:
    """The dictionary in a folder, or in a `.pt` of its `checkpoints`.

    Raises:
        UsageError: a file is missing or damaged, or holds what cannot be represented.
    """
    weights = source / WEIGHTS_FILE if source.is_dir() else source
    fields = read_fields(_config_file(source) or weights.with_name(CONFIG_FILE))
    trainer, buffer = fields.inside("trainer"), fields.inside("buffer")
    fields.nothing_left()
    buffer.must_be("io", "out", "in", why=MAPPED)
    dict_class = trainer.take("dict_class", str)
    if dict_class not in READERS:
        raise trainer.refusal("dict_class", f"no variant is the same; read are {', '.join(READERS)}")
    tensors = read_tensors(weights)
    sae = READERS[dict_class](Checkpoint(tensors, trainer))
    tensors.nothing_left()
    folded = {"b_dec not subtracted from x": True} if dict_class in SUBTRACT_NOTHING else {}
    origin = {"format": NAME, "folded": folded, "trainer": trainer.values, "buffer": buffer.values}
    return Foreign(sae, origin, trainer.take("submodule_name", str, None), trainer.take("lm_name", str, None))


def _config_file(source: Path) -> Path | None:
    """Beside the weights; a training checkpoint has it one folder up."""
    folders = [source] if source.is_dir() else [source.parent, source.parent.parent]
    found = [folder / CONFIG_FILE for folder in folders if (folder / CONFIG_FILE).is_file()]
    return found[0] if found else None


def _standard(of: Checkpoint) -> SAE:
    """AutoEncoder: ReLU(W (x − bias) + b), then D a + bias. Loaded there, norms move from D to W: x_hat is the same."""
    parts = of.linear("bias")
    return build(of.path, "relu", _norm(parts), parts, of.tensors.dtype("encoder.weight"))


def _new(of: Checkpoint) -> SAE:
    """AutoEncoderNew: ReLU(W x + b), then D a + decoder.bias; that nothing is subtracted is folded into b_enc."""
    parts = of.linear("decoder.bias")
    parts.fold_input_bias()
    return build(of.path, "relu", _norm(parts), parts, of.tensors.dtype("encoder.weight"))


def _gated(of: Checkpoint) -> SAE:
    """GatedAutoEncoder: z = W (x − decoder_bias), 1[z + gate_bias > 0] · ReLU(exp(r_mag) z + mag_bias)."""
    parts = of.linear("decoder_bias", "gate_bias")
    d_sae = len(parts.b_enc)
    own = {"r_mag": of.tensors.take("r_mag", d_sae), "b_mag": of.tensors.take("mag_bias", d_sae)}
    return build(of.path, "gated", _norm(parts), parts, of.tensors.dtype("encoder.weight"), **own)


def _top_k(of: Checkpoint) -> SAE:
    """AutoEncoderTopK: the k largest of ReLU(W (x − b_dec) + b). It has a threshold, and uses it only when asked to."""
    parts = of.linear("b_dec")
    if "threshold" in of.tensors:
        of.threshold()
    return build(of.path, "topk", {"k": of.k(), "decoder_norm": "unit"}, parts, of.tensors.dtype("encoder.weight"))


def _batch_top_k(of: Checkpoint) -> SAE:
    """BatchTopKSAE: at inference ReLU(W (x − b_dec) + b) where it is above the threshold."""
    parts = of.linear("b_dec")
    dtype = of.tensors.dtype("encoder.weight")
    return build(of.path, "batch_topk", {"k": of.k(), "decoder_norm": "unit"}, parts, dtype, threshold=of.threshold())


def _matryoshka(of: Checkpoint) -> SAE:
    """MatryoshkaBatchTopKSAE: as BatchTopKSAE at inference; a group ends where a prefix does."""
    parts = of.matrices()
    sizes = of.tensors.take("group_sizes", None).long().tolist()
    if min(sizes, default=0) < 1 or sum(sizes) != len(parts.b_enc):
        raise of.tensors.refusal("group_sizes", f"{sizes} are not sizes that sum to the {len(parts.b_enc)} latents")
    settings = {
        "k": of.k(),
        "decoder_norm": "unit",
        "prefixes": tuple(sum(sizes[:n]) for n in range(1, len(sizes) + 1)),
    }
    return build(of.path, "matryoshka", settings, parts, of.tensors.dtype("W_enc"), threshold=of.threshold())


def _jumprelu(of: Checkpoint) -> SAE:
    """JumpReluAutoEncoder: ReLU(z · 1[z > threshold]), z = x W_enc + b_enc; nothing is subtracted, as it is loaded."""
    parts = of.matrices()
    parts.fold_input_bias()
    dtype, d_sae = of.tensors.dtype("W_enc"), len(parts.b_enc)
    threshold = log_threshold(of.tensors.take("threshold", d_sae), dtype)
    settings = {**_norm(parts), "target_l0": float(l0_within(of.trainer.take("target_l0", float, None), d_sae))}
    return build(of.path, "jumprelu", settings, parts, dtype, log_threshold=threshold)


def _norm(parts: Parts) -> dict[str, Any]:
    return {"decoder_norm": norm_setting(parts.W_dec)}


READERS: dict[str, Callable[[Checkpoint], SAE]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _new,
    "AutoEncoderTopK": _top_k,
    "BatchTopKSAE": _batch_top_k,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}
"""What reads each `dict_class`: AutoEncoder is p-annealing's and the April update's too."""

SUBTRACT_NOTHING = ("AutoEncoderNew", "JumpReluAutoEncoder")


class Written(NamedTuple):
    """What a variant is to this library."""

    trainer: dict[str, Any]
    """Of config.json: the class, and what it was trained with."""
    tensors: dict[str, Tensor]
    """The class's state dict."""


def write(folder: Path, foreign: Foreign) -> None:
    """`ae.pt` and `config.json` that `load_dictionary` reads.

    Raises:
        UsageError: no class of the library is the same as the variant.
    """
    sae, writer = foreign.sae, WRITERS.get(type(foreign.sae))
    if writer is None:
        names = ", ".join(cls.__name__ for cls in WRITERS)
        raise UsageError(f"{type(sae).__name__} has no equal in {NAME}: it holds {names}")
    written = writer(sae)
    tensors = {
        name: tensor.detach().cpu().to(sae.W_dec.dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in written.tensors.items()
    }
    file = io.BytesIO()
    torch.save(tensors, file)
    write_hashed(folder / WEIGHTS_FILE, [file.getbuffer()])
    trainer = {**written.trainer, "activation_dim": sae.cfg.d_in, "dict_size": sae.cfg.d_sae}
    # what its own code reads of every config
    trainer |= {"layer": _layer(foreign), "lm_name": foreign.model, "submodule_name": foreign.hook_point}
    write_json(folder / CONFIG_FILE, {"trainer": trainer, "buffer": {}})


def _layer(foreign: Foreign) -> Any:
    """As the checkpoint said, where it came from this library."""
    trainer = foreign.origin.get("trainer") if foreign.origin.get("format") == NAME else None
    return trainer.get("layer") if isinstance(trainer, dict) else None


def _linear(parts: Parts, b_dec: str, b_enc: str = "encoder.bias") -> dict[str, Tensor]:
    weights = {"encoder.weight": parts.W_enc.t(), "decoder.weight": parts.W_dec.t()}
    return {**weights, b_enc: parts.b_enc, b_dec: parts.b_dec}


def _matrices(parts: Parts) -> dict[str, Tensor]:
    return {"W_enc": parts.W_enc, "b_enc": parts.b_enc, "W_dec": parts.W_dec, "b_dec": parts.b_dec}


def _write_relu(sae: ReLU) -> Written:
    parts = held(sae)
    if not parts.W_dec.any(dim=1).all():
        raise UsageError(f"a row of W_dec is all 0, and {NAME} divides by its norm where it loads an AutoEncoder")
    trainer = "StandardTrainer" if norm_setting(parts.W_dec) == "unit" else "StandardTrainerAprilUpdate"
    return Written({"trainer_class": trainer, "dict_class": "AutoEncoder"}, _linear(parts, "bias"))


def _write_gated(sae: Gated) -> Written:
    tensors = {**_linear(held(sae), "decoder_bias", "gate_bias"), "r_mag": sae.r_mag, "mag_bias": sae.b_mag}
    return Written({"trainer_class": "GatedSAETrainer", "dict_class": "GatedAutoEncoder"}, tensors)


def _write_top_k(sae: TopK) -> Written:
    never = torch.tensor(-1.0)
    tensors = {**_linear(held_at_unit_norm(sae), "b_dec"), **_budget(sae, never)}
    return Written({"trainer_class": "TopKTrainer", "dict_class": "AutoEncoderTopK", "k": sae.cfg.k}, tensors)


def _write_batch_top_k(sae: BatchTopK) -> Written:
    tensors = {**_linear(held_at_unit_norm(sae), "b_dec"), **_budget(sae, sae.threshold)}
    return Written({"trainer_class": "BatchTopKTrainer", "dict_class": "BatchTopKSAE", "k": sae.cfg.k}, tensors)


def _write_matryoshka(sae: Matryoshka) -> Written:
    if sae.cfg.keep != "batch":
        raise UsageError(f"keep={sae.cfg.keep} has no equal in {NAME}, whose Matryoshka keeps the largest of a batch")
    ends = (sae.cfg.d_sae,) if sae.cfg.n_sampled else sae.cfg.fixed
    sizes = [end - start for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    tensors = {**_matrices(held_at_unit_norm(sae)), **_budget(sae, sae.threshold), "group_sizes": torch.tensor(sizes)}
    names = {"trainer_class": "MatryoshkaBatchTopKTrainer", "dict_class": "MatryoshkaBatchTopKSAE"}
    return Written({**names, "k": sae.cfg.k, "group_sizes": sizes}, tensors)


def _write_jump(sae: Jump) -> Written:
    parts = held(sae)
    parts.unfold_input_bias()
    threshold = sae.log_threshold.detach().double().exp() * sae.unit
    names = {"trainer_class": "JumpReluTrainer", "dict_class": "JumpReluAutoEncoder"}
    return Written({**names, "target_l0": sae.cfg.target_l0}, {**_matrices(parts), "threshold": threshold})


def _budget(sae: Any, threshold: Tensor) -> dict[str, Tensor]:
    return {"k": torch.tensor(sae.cfg.k, dtype=torch.int), "threshold": threshold}


WRITERS: dict[type[SAE], Callable[[Any], Written]] = {
    BatchTopK: _write_batch_top_k,
    Gated: _write_gated,
    JumpReLU: _write_jump,
    Matryoshka: _write_matryoshka,
    ReLU: _write_relu,
    Threshold: _write_jump,
    TopK: _write_top_k,
}
"""What writes each variant."""

FORMAT = Format(
    name=NAME,
    summary="saprmarks/dictionary_learning: standard, p-anneal, gated, TopK, BatchTopK, Matryoshka, JumpReLU",
    looks_for=f"{CONFIG_FILE} with trainer.dict_class, and {WEIGHTS_FILE}",
    recognises=recognises,
    read=read,
    write=write,
)
