"""The mathematics of sparse autoencoders: variants, losses, metrics, training and interventions."""

from sae.argmax_codes import ArgmaxCodes, ArgmaxCodesConfig
from sae.base import SAE, SAEConfig, SAEOutput
from sae.batch_topk import BatchTopK, BatchTopKConfig
from sae.crosscoder import Crosscoder, CrosscoderConfig
from sae.discrete import Discrete, DiscreteConfig
from sae.encoder import EncoderConfig, EncoderSAE
from sae.gated import Gated, GatedConfig
from sae.jumprelu import JumpReLU, JumpReLUConfig
from sae.loss import Loss, Phase
from sae.matryoshka import Matryoshka, MatryoshkaConfig
from sae.relu import ReLU, ReLUConfig
from sae.sparse import Pattern, SparseLatents
from sae.threshold import Threshold, ThresholdConfig
from sae.topk import TopK, TopKConfig
from sae.transcoder import SkipTranscoder, SkipTranscoderConfig, Transcoder, TranscoderConfig

VARIANTS: dict[str, type[SAE]] = {
    "argmax_codes": ArgmaxCodes,
    "batch_topk": BatchTopK,
    "crosscoder": Crosscoder,
    "discrete": Discrete,
    "gated": Gated,
    "jumprelu": JumpReLU,
    "matryoshka": Matryoshka,
    "relu": ReLU,
    "skip_transcoder": SkipTranscoder,
    "threshold": Threshold,
    "topk": TopK,
    "transcoder": Transcoder,
}
"""Every variant by the name used on the command line and in checkpoints."""

__all__ = [
    "SAE",
    "VARIANTS",
    "ArgmaxCodes",
    "ArgmaxCodesConfig",
    "BatchTopK",
    "BatchTopKConfig",
    "Crosscoder",
    "CrosscoderConfig",
    "Discrete",
    "DiscreteConfig",
    "EncoderConfig",
    "EncoderSAE",
    "Gated",
    "GatedConfig",
    "JumpReLU",
    "JumpReLUConfig",
    "Loss",
    "Matryoshka",
    "MatryoshkaConfig",
    "Pattern",
    "Phase",
    "ReLU",
    "ReLUConfig",
    "SAEConfig",
    "SAEOutput",
    "SkipTranscoder",
    "SkipTranscoderConfig",
    "SparseLatents",
    "Threshold",
    "ThresholdConfig",
    "TopK",
    "TopKConfig",
    "Transcoder",
    "TranscoderConfig",
]
