"""delphi's detection and fuzzing prompts as a worker: its own scorers, with a client that keeps what it is sent.

Its clients and latents import vLLM and a cache of activations, which no prompt needs: stand-ins take their place.
"""

import asyncio
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from answers import read_job, requests, say


def stand_in(name: str, **members: Any) -> None:
    """An empty module, or a package of delphi's without what its `__init__` imports."""
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


def package(name: str) -> None:
    """A package of delphi's whose modules can be imported, though its `__init__` cannot."""
    spec = find_spec("delphi")
    assert isinstance(spec, ModuleSpec)
    assert spec.submodule_search_locations is not None
    below = name.split(".")[1:]
    stand_in(name, __path__=["/".join([each, *below]) for each in spec.submodule_search_locations])


for missing in ("blobfile", "orjson"):
    stand_in(missing)
for each in ("clients", "latents", "scorers", "scorers.classifier"):
    package(f"delphi.{each}")

from delphi.latents import latents  # noqa: E402 - after what it imports is there

vars(sys.modules["delphi.latents"]).update(vars(latents))

from delphi.clients.client import Client, Response  # noqa: E402
from delphi.scorers.classifier.detection import DetectionScorer  # noqa: E402
from delphi.scorers.classifier.fuzz import FuzzingScorer  # noqa: E402

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
