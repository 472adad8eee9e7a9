"""Whether a dictionary and a harvest belong together; where not, both are named.

Hook point, width and model must be the same. Normalisation cannot differ: harvests hold raw vectors, and an SAE reads
raw vectors, whatever it was trained on, since scales are folded into its weights.
"""

import logging

from activations.joined import JoinedActivations
from activations.reader import Activations
from sae.base import SAE
from store.errors import UsageError
from store.run import Run, find_run

log = logging.getLogger(__name__)


def only_hook_point(sae_run: Run, command: str) -> str:
    """The one place that an SAE reads and stands for; `command` is what asks.

    Raises:
        UsageError: there are others: it cannot be spliced in where it reads, nor are its decoder rows of that place.
    """
    others = sae_run.config.get("other_hook_points")
    if others:
        raise UsageError(
            f"{sae_run.config['variant']} {sae_run.id} reads or predicts {', '.join(others)} as well: `{command}` "
            f"takes SAEs of one hook point; held-out FVU and L0 are in `monosem show {sae_run.id}`"
        )
    return sae_run.config["hook_point"]


def check_width(sae: SAE, activations: Activations) -> None:
    """Refuse a dictionary that reads vectors of another width than the harvest has."""
    if sae.cfg.d_in != activations.d_in:
        raise UsageError(
            f"the SAE reads vectors of width {sae.cfg.d_in}, {activations.hook_point} of harvest {activations.run.id} "
            f"has {activations.d_in}: choose the harvest it was trained on"
        )


def model_of(activations: Activations | JoinedActivations) -> dict[str, str]:
    """What a dictionary's results say of the model it was made for; of several, the first."""
    return _model(activations.run if isinstance(activations, Activations) else activations.members[0].run)


def _model(harvest: Run) -> dict[str, str]:
    identity = harvest.same.get("model") or {}
    return {"model": harvest.config["harvest"]["model"], "model_weights": identity.get("weights", "")}


def own_harvest(sae_run: Run, activations_run: Run) -> Run | None:
    """The harvest it was trained on, where that is another one and can still be looked at.

    Raises:
        UsageError: it cannot, and the dictionary says that it was made for another model.
    """
    trained_on = sae_run.inputs.get("activations", activations_run.id)
    if trained_on == activations_run.id:
        return None
    if not (sae_run.root / "activations" / trained_on).exists():
        said, here = sae_run.results.get("model_weights"), _model(activations_run)
        if said and said != here["model_weights"]:
            raise UsageError(
                f"SAE {sae_run.id} was made for another model ({sae_run.results['model']}, weights {said}) than "
                f"harvest {activations_run.id} is of ({here['model']}, weights {here['model_weights']}): choose a "
                "harvest of its own model"
            )
        log.warning(
            "harvest %s, which SAE %s was trained on, is gone: whether %s holds its texts out is not checked",
            trained_on,
            sae_run.id,
            activations_run.id,
        )
        return None
    return find_run(sae_run.root, trained_on, "activations")


def check_model(sae_run: Run, activations_run: Run, own: Run) -> None:
    """Refuse a harvest of another model than the one of `own`, which the SAE was trained on."""
    if own.same.get("model") != activations_run.same.get("model"):
        names = [run.config["harvest"]["model"] for run in (own, activations_run)]
        raise UsageError(
            f"SAE {sae_run.id} was trained on another model ({names[0]}, harvest {own.id}) than harvest "
            f"{activations_run.id} is of ({names[1]}): choose a harvest of its own model"
        )
