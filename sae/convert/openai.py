"""Autoencoders of openai/sparse_autoencoder: one `.pt`, the state dict with its activation's name.

a = ReLU(W_e (x − pre_bias) + latent_bias), x_hat = W_d a + pre_bias. Read: `sparse_autoencoder/model.py` and `paths.py`
at 764586a. Its loader normalises every row (to mean 0 and deviation 1, and back) wherever the activation is TopK, which
is not in the file: that is no linear map of x, so no fold stands for it.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sae.base import SAE
from sae.convert.files import Tensors, read_object
from sae.convert.foreign import Foreign, Format
from sae.convert.parts import Parts, build
from sae.convert.weights import norm_setting
from store.errors import UsageError

NAME = "openai"
SUFFIXES = (".pt", ".pth")
OF_ACTIVATION = ("activation", "activation_state_dict")
STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
"""What training counted: nothing is computed from it."""
TIED = "decoder.linear.weight"
"""The decoder's weight where it is the encoder's."""


def recognises(source: Path) -> bool:
    """Whether it is a `.pt`, or a folder with one, whose names of tensors are this library's."""
    file = _file(source)
    return file is not None and _mentions(file, b"latent_bias")


def read(source: Path) -> Foreign:
    """The autoencoder in a `.pt`, or in the only one of a folder.

    Raises:
        UsageError: the file is missing or damaged, or holds what cannot be represented.
    """
    file = _file(source)
    if file is None:
        raise UsageError(f"{source} is not one .pt, nor a folder with one: give the autoencoder's file")
    state = read_object(file)
    if not isinstance(state, Mapping):
        raise UsageError(f"{file} holds a {type(state).__name__}, not an autoencoder's state_dict()")
    activation = str(state.get("activation", "ReLU"))
    _refuse_activation(file, activation, state.get("activation_state_dict") or {})
    tensors = Tensors.of(file, {name: state[name] for name in state if name not in OF_ACTIVATION})
    sae = _relu(tensors)
    tensors.nothing_left()
    return Foreign(sae, {"format": NAME, "activation": activation, "file": file.name})


def _file(source: Path) -> Path | None:
    if source.is_file():
        return source if source.suffix in SUFFIXES else None
    found = [path for path in source.glob("*") if path.suffix in SUFFIXES]
    return found[0] if len(found) == 1 else None


def _mentions(file: Path, name: bytes) -> bool:
    """Whether the file's description of its tensors holds a name; nothing of it is interpreted."""
    try:
        with zipfile.ZipFile(file) as archive:
            listed = [entry for entry in archive.namelist() if entry.endswith("data.pkl")]
            return any(name in archive.read(entry) for entry in listed)
    except (OSError, zipfile.BadZipFile):
        return False


def _refuse_activation(file: Path, activation: str, settings: Mapping[str, Any]) -> None:
    if activation == "TopK":
        raise UsageError(
            f"{file} has activation='TopK', with which its library sets normalize=True: every row is brought to mean 0 "
            f"and deviation 1 by itself, which no variant does (k={settings.get('k')})"
        )
    if activation != "ReLU":
        raise UsageError(f"{file} has activation={activation!r}: no variant has it, read is ReLU")
    if settings:
        raise UsageError(f"{file} has activation_state_dict with {', '.join(map(str, settings))}: ReLU has no settings")


def _relu(tensors: Tensors) -> SAE:
    encoder = tensors.take("encoder.weight", None, None)
    d_sae, d_in = encoder.shape
    decoder = _decoder(tensors, encoder)
    for name in STATISTICS:
        if name in tensors:
            tensors.take(name, d_sae)
    parts = Parts(encoder.t(), tensors.take("latent_bias", d_sae), decoder.t(), tensors.take("pre_bias", d_in))
    settings = {"decoder_norm": norm_setting(parts.W_dec)}
    return build(tensors.path, "relu", settings, parts, tensors.dtype("encoder.weight"))


def _decoder(tensors: Tensors, encoder: Tensor) -> Tensor:
    """[d_in, d_sae]: its own, or the encoder's transposed where the two are tied."""
    if TIED not in tensors:
        return tensors.take("decoder.weight", *encoder.t().shape)
    if not tensors.take(TIED, *encoder.shape).equal(encoder):
        raise tensors.refusal(TIED, "it is tied to encoder.weight, and is not the same: the checkpoint is damaged")
    return encoder.t()


FORMAT = Format(
    name=NAME,
    summary="openai/sparse_autoencoder: ReLU autoencoders, tied or not",
    looks_for="a .pt with pre_bias and latent_bias",
    recognises=recognises,
    read=read,
)
