"""A list of features as JSON: the numbers, SAELens' `neuronpedia_id`, and Neuronpedia's quick list with its address."""

import json
from pathlib import Path
from urllib.parse import urlencode

from activations.progress import Progress, no_progress
from autointerp.exchange.export import Export
from store.files import write_json

QUICK_LIST = "https://www.neuronpedia.org/quick-list/"
LONGEST_URL = 8000
"""Characters that servers take as an address; a list whose address would be longer has none."""


def write_list(out: Path, export: Export, progress: Progress = no_progress) -> dict[str, int]:
    """Write the list into the file `out`; returns how many features it has."""
    model, sae, latents = export.model_id, export.sae_id, export.latents.tolist()
    quick = [{"modelId": model, "layer": sae, "index": str(latent)} for latent in latents]
    url = QUICK_LIST + "?" + urlencode({"name": export.cfg.name, "features": json.dumps(quick, separators=(",", ":"))})
    write_json(
        out,
        {
            "name": export.cfg.name,
            "model": model,
            "sae_id": sae,
            "neuronpedia_id": f"{model}/{sae}",
            "hook_name": export.origin.hook_point,
            "features": latents,
            "quick_list": quick,
            "url": url if len(url) <= LONGEST_URL else None,
        },
    )
    return {"n_latents": len(latents)}
