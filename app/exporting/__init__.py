"""Exports of a feature index: a table of formats, each one function in a file of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from activations.progress import Progress
from app.exporting.page import write_page
from autointerp.exchange.delphi_write import write_delphi
from autointerp.exchange.export import Export
from autointerp.exchange.feature_list import write_list
from autointerp.exchange.neuronpedia_write import write_neuronpedia


class Format(NamedTuple):
    """A format that an index can be written in."""

    write: Callable[[Path, Export, Progress], dict[str, int]]
    """Writes at a path, whole or not at all; returns what it wrote, in numbers."""
    about: str


FORMATS: dict[str, Format] = {
    "delphi": Format(write_delphi, "a folder: the latent cache of EleutherAI's delphi"),
    "html": Format(write_page, "a file: a page of its own that opens offline"),
    "neuronpedia": Format(
        write_neuronpedia, "a folder: features, activations and explanations as Neuronpedia imports them"
    ),
    "saelens": Format(write_list, "a file: a list of features with Neuronpedia's and SAELens' ids"),
}
