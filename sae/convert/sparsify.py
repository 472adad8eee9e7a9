"""Sparse coders of EleutherAI/sparsify: `sae.safetensors` beside `cfg.json`, as `SparseCoder.save_to_disk` writes them.

a = TopK_k(ReLU(W_e (x − b_dec) + b_e)), y_hat = Σ_i a_i W_dec[i] + b_dec + W_skip x; with `transcode` nothing is
subtracted from x. Read: PyPI eai-sparsify 1.3.3 (`sparse_coder.py`, `fused_encoder.py`, `config.py`), the repository
up to 069227e for `embed_skip` and `gram_lookup`, and EleutherAI/sae for `signed`.
"""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors
from torch import Tensor

from sae.base import SAE
from sae.convert.files import Fields, Tensors, json_in, read_fields, read_tensors
from sae.convert.foreign import Foreign, Format
from sae.convert.parts import Parts, build
from sae.convert.weights import held, held_at_unit_norm, transcoder
from sae.topk import MULTI, TopK
from sae.transcoder import SkipTranscoder, Transcoder
from store.errors import UsageError
from store.files import write_hashed, write_json

NAME = "sparsify"
WEIGHTS_FILE = "sae.safetensors"
CONFIG_FILE = "cfg.json"
RUN_FILE = "config.json"
"""In the folder above, of the run that trained it."""
MULTI_WEIGHT = 1 / 8
"""Of the Multi-TopK term in its trainer."""
HOOK_POINT = re.compile(r"(.*\.)?(layers|h|blocks)\.\d+(\..+)?|embed.*")
"""Names of folders that are names of modules: a coder lies in a folder of its module's name."""


def recognises(source: Path) -> bool:
    """Whether cfg.json says how wide a sparse coder is, in this library's words."""
    told = json_in(source / CONFIG_FILE)
    return {"d_in", "k", "expansion_factor"} <= told.keys() and "d_sae" not in told


def read(source: Path) -> Foreign:
    """The sparse coder in a folder.

    Raises:
        UsageError: a file is missing or damaged, or holds what cannot be represented.
    """
    fields, tensors = read_fields(source / CONFIG_FILE), read_tensors(source / WEIGHTS_FILE)
    _refuse_others(fields)
    k = fields.take("k", int)
    transcode, skips = fields.take("transcode", bool, False), fields.take("skip_connection", bool, False)
    parts = _parts(fields, tensors)
    if transcode or skips:
        sae = _transcoder(fields, tensors, parts, k, transcode=transcode, skips=skips)
    else:
        sae = _autoencoder(fields, tensors, parts, k)
    fields.nothing_left()
    tensors.nothing_left()
    hook_point = source.name if HOOK_POINT.fullmatch(source.name) else None
    folded = {"skip of x, not of x − b_dec": True} if skips and not transcode else {}
    model = json_in(source.parent / RUN_FILE).get("model")
    origin = {"format": NAME, "folded": folded, "config": fields.values}
    return Foreign(sae, origin, hook_point, model if isinstance(model, str) else None)


def _refuse_others(fields: Fields) -> None:
    fields.must_be("activation", "topk", why="it keeps the largest of each of k groups, which no variant does")
    fields.must_be("signed", False, why="it keeps the k largest magnitudes with their signs, which no variant does")
    fields.must_be("embed_skip", False, why="it adds a map of the model's embeddings, which an SAE does not read")
    fields.must_be("gram_lookup", False, why="it subtracts a mean looked up by token, which an SAE does not read")
    fields.told("lookup_max_order", "gram_table_hash")  # of gram_lookup


def _parts(fields: Fields, tensors: Tensors) -> Parts:
    d_in = fields.take("d_in", int)
    d_sae = fields.take("num_latents", int, 0) or d_in * fields.take("expansion_factor", int, 32)
    fields.told("expansion_factor")
    if "W_dec" not in tensors:
        raise UsageError(f"{tensors.path} has no tensor 'W_dec': it was saved without its decoder")
    encoder, b_enc = tensors.take("encoder.weight", d_sae, d_in), tensors.take("encoder.bias", d_sae)
    return Parts(encoder.t(), b_enc, tensors.take("W_dec", d_sae, d_in), tensors.take("b_dec", d_in))


def _autoencoder(fields: Fields, tensors: Tensors, parts: Parts, k: int) -> SAE:
    fields.told("normalize_decoder")  # only acts in training; latents compete by value whatever the norms are
    many = fields.take("multi_topk", bool, False) and MULTI * k <= len(parts.b_enc)
    settings = {"k": k, "decoder_norm": "unit", "multi_topk": MULTI_WEIGHT if many else 0.0}
    return build(tensors.path, "topk", settings, parts, tensors.dtype("encoder.weight"))


def _transcoder(fields: Fields, tensors: Tensors, parts: Parts, k: int, *, transcode: bool, skips: bool) -> SAE:
    """With a skip but without `transcode`, b_dec is subtracted before the encoder, but not before the skip."""
    fields.told("normalize_decoder", "multi_topk")  # both only ever act in training
    W_skip = tensors.take("W_skip", len(parts.b_dec), len(parts.b_dec)).t() if skips else None
    x_mean = None
    if not transcode:
        assert W_skip is not None
        x_mean = parts.b_dec
        parts.b_dec = parts.b_dec + x_mean @ W_skip
    dtype = tensors.dtype("encoder.weight")
    return transcoder(tensors.path, parts, k, dtype, W_skip=W_skip, x_mean=x_mean)


def write(folder: Path, foreign: Foreign) -> None:
    """`sae.safetensors` and `cfg.json` that `SparseCoder.load_from_disk` reads.

    Raises:
        UsageError: a sparse coder cannot be the same as the variant.
    """
    sae = foreign.sae
    if isinstance(sae, TopK):
        tensors, settings = _of_top_k(sae)
    elif isinstance(sae, Transcoder | SkipTranscoder):
        tensors, settings = _of_transcoder(sae)
    else:
        raise UsageError(f"{type(sae).__name__} has no equal in {NAME}: it holds TopK, Transcoder, SkipTranscoder")
    made = {name: tensor.to(sae.W_dec.dtype).cpu().contiguous() for name, tensor in tensors.items()}
    write_hashed(folder / WEIGHTS_FILE, [save_tensors(made, {"format": "pt"})])
    widths = {"d_in": sae.cfg.d_in, "num_latents": sae.cfg.d_sae, "expansion_factor": sae.cfg.d_sae // sae.cfg.d_in}
    write_json(folder / CONFIG_FILE, {"activation": "topk", **settings, **widths, "k": sae.cfg.k})


def _of_top_k(sae: TopK) -> tuple[dict[str, Tensor], dict[str, Any]]:
    settings = {"normalize_decoder": True, "multi_topk": sae.cfg.multi_topk > 0}
    return _tensors(held_at_unit_norm(sae)), {**settings, "transcode": False, "skip_connection": False}


def _of_transcoder(sae: Transcoder | SkipTranscoder) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """x_mean goes into b_enc and, through the skip, into b_dec; y_scale into all that makes y."""
    if sae.cfg.keep != "row":
        raise UsageError(f"keep={sae.cfg.keep} has no equal in {NAME}, which keeps the k largest of each row")
    if sae.cfg.d_out != sae.cfg.d_in:
        raise UsageError(f"d_out={sae.cfg.d_out} is not d_in={sae.cfg.d_in}, and {NAME} has one width for both")
    parts, x_mean, y_scale = held(sae), sae.x_mean.double(), sae.y_scale.double()
    skips = isinstance(sae, SkipTranscoder)
    parts.b_enc = parts.b_enc - x_mean @ parts.W_enc
    parts.W_dec, parts.b_dec = y_scale * parts.W_dec, y_scale * parts.b_dec
    tensors = _tensors(parts)
    if skips:
        W_skip = y_scale * sae.W_skip.detach().double()
        tensors |= {"W_skip": W_skip.t(), "b_dec": parts.b_dec - x_mean @ W_skip}
    settings = {"normalize_decoder": False, "multi_topk": False, "transcode": True, "skip_connection": skips}
    return tensors, settings


def _tensors(parts: Parts) -> dict[str, Tensor]:
    names = {"encoder.weight": parts.W_enc.t(), "encoder.bias": parts.b_enc}
    return {**names, "W_dec": parts.W_dec, "b_dec": parts.b_dec}


FORMAT = Format(
    name=NAME,
    summary="EleutherAI sparsify: SAEs, transcoders and skip transcoders with TopK",
    looks_for=f"{CONFIG_FILE} with d_in, k and expansion_factor, and {WEIGHTS_FILE}",
    recognises=recognises,
    read=read,
    write=write,
)
