"""A tiny model with a dictionary in which one latent writes a known letter."""

import numpy as np
import torch

from activations.tiny import TinyLM
from autointerp.subject import Subject
from sae import TopK, TopKConfig

HOOK = "blocks.1.hook_resid_post"
PLANTED = 7
LETTER = "z"
D_SAE = 40


def planted_subject() -> Subject:
    """Latent `PLANTED` has the unembedding of `LETTER` for its decoder row, and fires on it where others do not."""
    lm = TinyLM()
    sae = TopK(TopKConfig(d_in=lm.d_model, d_sae=D_SAE, k=4))
    rows = torch.randn(D_SAE, lm.d_model, generator=torch.Generator().manual_seed(3))
    rows[PLANTED] = lm.unembedding()[:, ord(LETTER)]
    rows /= rows.norm(dim=1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.T)
    return Subject(lm, sae, HOOK, sink_norm=1e9, units=np.full(D_SAE, 5.0))
