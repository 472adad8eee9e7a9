"""What crosses between the processes: lines of JSON, and results as plain data and back. Nothing is unpickled."""

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from app.inspection import Inspection
from store.errors import UsageError

if TYPE_CHECKING:
    from app.steered import Steering
    from autointerp.steer_config import SteerEdit
    from autointerp.sweep import SweepConfig

ARRAYS = ("latent", "pos", "value", "quantile", "error", "fvu_part", "loss")
"""Fields of an `Inspection` that are arrays."""


def line(message: dict[str, Any]) -> bytes:
    """A message as one line: line breaks within texts are escaped, and so is all that is not ASCII."""
    return json.dumps(message).encode("ascii") + b"\n"


def plain_steering(steering: "Steering") -> dict[str, Any]:
    """A `Steering` for `line`."""
    return asdict(steering)


def steering(plain: dict[str, Any]) -> "Steering":
    """The `Steering` that went through `plain_steering` and JSON."""
    from app.steered import Steering

    return Steering(**{**_as_tuples(plain), "edits": edits(plain["edits"])})


def edits(plain: list[dict[str, Any]]) -> "tuple[SteerEdit, ...]":
    """`SteerConfig`s and `SteerVector`s that went through `dataclasses.asdict` and JSON."""
    from autointerp.steer_config import SteerConfig, SteerVector

    return tuple((SteerVector if "vector" in each else SteerConfig)(**_as_tuples(each)) for each in plain)


def sweep_config(plain: dict[str, Any]) -> "SweepConfig":
    """A `SweepConfig` that went through `dataclasses.asdict` and JSON.

    Raises:
        UsageError: one that cannot be.
    """
    from autointerp.llm.config import LLMConfig
    from autointerp.sweep import SweepConfig

    (edit,) = edits([plain["edit"]])
    try:
        return SweepConfig(**{**_as_tuples(plain), "edit": edit, "llm": LLMConfig(**plain["llm"])})
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def plain_inspection(inspection: Inspection) -> dict[str, Any]:
    """An `Inspection` for `line`: each array with its type."""
    arrays = {name: getattr(inspection, name) for name in ARRAYS}
    return {
        **{each.name: getattr(inspection, each.name) for each in fields(Inspection) if each.name not in ARRAYS},
        **{name: {"dtype": array.dtype.str, "values": array.tolist()} for name, array in arrays.items()},
    }


def inspection(plain: dict[str, Any]) -> Inspection:
    """The `Inspection` that went through `plain_inspection` and JSON."""
    arrays = {name: np.array(plain[name]["values"], plain[name]["dtype"]) for name in ARRAYS}
    return Inspection(**{**_as_tuples(plain), **arrays})


def _as_tuples(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: _as_tuple(value) for key, value in plain.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
