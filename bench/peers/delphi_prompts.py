"""delphi's detection and fuzzing prompts as a worker: its own scorers, with a client that keeps what it is sent.

Its clients and latents import vLLM and a cache of activations, which no prompt needs: stand-ins take their place.
"""

import asyncio
from typing import Any

import delphi_parts  # noqa: F401 - before delphi's own
import torch
from answers import read_job, requests, say
from delphi.clients.client import Client, Response
from delphi.latents import latents
from delphi.scorers.classifier.detection import DetectionScorer
from delphi.scorers.classifier.fuzz import FuzzingScorer

SCORERS = {"detection": DetectionScorer, "fuzzing": FuzzingScorer}
PER_PROMPT = 5
"""`num_examples_per_scorer_prompt` of its configuration."""


class Keeps(Client):
    """Remembers the prompts and says no to everything."""

    def __init__(self) -> None:
        super().__init__("none")
        self.prompts: list[list[dict[str, str]]] = []

    async def generate(self, prompt: Any, **kwargs: Any) -> Response:
        self.prompts.append(prompt)
        return Response(text=str([0] * PER_PROMPT))


def record(request: dict[str, Any]) -> latents.LatentRecord:
    """The request's contexts, each of texts of tokens and activations."""
    active, silent = (
        [
            of(
                tokens=torch.zeros(len(each["tokens"]), dtype=torch.long),
                activations=torch.tensor(each["values"]),
                str_tokens=each["tokens"],
            )
            for each in request[side]
        ]
        for side, of in (("active", latents.ActivatingExample), ("silent", latents.NonActivatingExample))
    )
    of_latent = latents.Latent("module", 0)
    return latents.LatentRecord(of_latent, test=active, not_active=silent, explanation=request["explanation"])


read_job()
say({"ready": True})
for request in requests():
    client = Keeps()
    asyncio.run(SCORERS[request["scorer"]](client, n_examples_shown=PER_PROMPT)(record(request)))
    say({"prompts": client.prompts})
