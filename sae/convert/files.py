"""Reading foreign files so that nothing in them is executed, nothing in them is overlooked, and every number is finite.

Tensors come from safetensors, from `.pt` through torch's unpickler of weights only, or from `.npz` without objects.
`Fields` and `Tensors` know what was taken of them, so that a reader can refuse, by name, what it did not understand.
"""

import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# raised by torch.load for what it will not run; the module it comes from may not be imported
from torch._weights_only_unpickler import UnpicklingError  # pyright: ignore[reportPrivateImportUsage]

from sae.checkpoint import check_finite
from store.assets import resolve
from store.errors import UsageError

TORCH_SUFFIXES = (".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES, ".npz")
WANTED = ("*.safetensors", "*.json", "*.pt", "*.pth", "*.bin", "*.npz")
"""What is fetched of a hub folder. A `.pt` is only ever read as weights: code in it is refused, not run."""
EXAMPLES = "examples.safetensors"
"""Not fetched: Gemma Scope 2 keeps texts beside its weights, and they are larger."""

T = TypeVar("T")


DAMAGED = (EOFError, OSError, RuntimeError, ValueError, KeyError, AttributeError)
DAMAGED += (IndexError, TypeError, OverflowError, struct.error)
"""What reading a damaged file raises, somewhere inside."""
NUMBERS = frozenset(
    {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64, torch.bool, torch.uint8}
)
"""Types of tensors that are read: others would be rounded, or lose a part."""


def fetch(reference: str, revision: str | None = None) -> Path:
    """The local folder or file that a reference names, fetched from the hub if need be.

    Args:
        reference: a local path, or `hub:OWNER/NAME[/SUB/FOLDER]`.
        revision: branch, tag or commit of a hub reference.

    Raises:
        UsageError: nothing there, or it cannot be fetched.
    """
    scheme, _, name = reference.partition(":")
    if scheme != "hub":
        path = Path(reference).expanduser()
        if not path.exists():
            raise UsageError(f"{reference} does not exist: give a checkpoint's folder, or hub:OWNER/NAME[/SUB/FOLDER]")
        return path
    owner, _, rest = name.strip("/").partition("/")
    repository, _, inside = rest.partition("/")
    if not owner or not repository:
        raise UsageError(f"{reference} does not name a folder of the hub: write hub:OWNER/NAME[/SUB/FOLDER]")
    if (inside and not set(inside.split("/")).isdisjoint({"", ".", ".."})) or set(inside) & set("*?["):
        raise UsageError(
            f"{reference} has '{inside}', which is no folder of a repository: write hub:OWNER/NAME/SUB/FOLDER"
        )
    wanted = [f"{inside}/{pattern}" if inside else pattern for pattern in WANTED]
    if inside.endswith(SUFFIXES):
        wanted = [inside]
    # without a folder only what lies on top: some repositories hold thousands of checkpoints in theirs
    unwanted = (f"{inside}/{EXAMPLES}",) if inside else ("*/*",)
    folder = resolve(f"hub:{owner}/{repository}", revision, wanted, unwanted) / inside
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(
            f"the hub's {owner}/{repository} has no checkpoint in '{inside or '.'}': name one of its folders, "
            "hub:OWNER/NAME/SUB/FOLDER"
        )
    return folder


def json_in(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; an empty one where there is none: for recognising a format."""
    try:
        found = _loads(path)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _loads(path: Path) -> Any:
    """JSON, in which the NaN and Infinity that Python writes are null: nobody could tell."""
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)


def read_fields(path: Path) -> "Fields":
    """The JSON object in `path`, to be taken field by field.

    Raises:
        UsageError: no such file, not JSON, or JSON of something else.
    """
    try:
        found = _loads(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} is missing: give the folder that holds the checkpoint's files") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not JSON ({error}): the checkpoint is damaged, copy it again") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds a {type(found).__name__}, not an object with fields: this is no checkpoint")
    return Fields(path, found)


def read_tensors(path: Path) -> "Tensors":
    """All tensors of a file by name, on CPU, all finite: `.safetensors`, `.pt .pth .bin` or `.npz`.

    Raises:
        UsageError: no such file, another format, code in it, anything that is no tensor, or a number that is not
            finite.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path} is no file of tensors known here: give one of {', '.join(SUFFIXES)}")
    if path.suffix in TORCH_SUFFIXES:
        found = read_object(path)
        if not isinstance(found, Mapping):
            raise UsageError(f"{path} holds a {type(found).__name__}, not tensors by name: save its state_dict()")
        return Tensors.of(path, found)
    return Tensors.of(path, (_safetensors if path.suffix == ".safetensors" else _npz)(path))


def read_object(path: Path) -> Any:
    """What a `.pt` holds, read as weights only: tensors, numbers, strings, and lists and dicts of them.

    Raises:
        UsageError: no such file, damaged, or it would have to run code to be read.
    """
    _must_exist(path)
    try:
        with warnings.catch_warnings():
            # of what is refused in one line below, or read after all
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UsageError(
            f"{path} is a pickle that holds more than weights, and reading it could run code: it is refused. Where you "
            "trust it, save its state_dict() with safetensors in the library that wrote it, and convert that"
        ) from error
    except DAMAGED as error:
        raise UsageError(
            f"{path} is not a file that torch.save wrote ({_first_sentence(error)}): copy it again"
        ) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    _must_exist(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UsageError(f"{path} is not a safetensors file ({error}): copy it again") from error


def _npz(path: Path) -> dict[str, Tensor]:
    _must_exist(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in arrays.files}
    except zlib.error as error:
        raise UsageError(f"{path} is damaged ({error}): copy it again") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} holds objects, not only arrays of numbers ({error}): they could run code and are refused. Save "
            "the arrays alone"
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, OSError, EOFError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} is not a file that numpy.savez wrote ({error}): copy it again") from error


def _first_sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]


def _must_exist(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"{path} is missing: give the folder that holds the checkpoint's files")


REQUIRED: Any = object()


class Fields:
    """A JSON object that knows which of its fields were taken."""

    def __init__(self, path: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self.path, self.values, self.prefix = path, dict(values), prefix
        self._left = set(values)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    @overload
    def take(self, name: str, kind: type[T]) -> T: ...
    @overload
    def take(self, name: str, kind: type[T], default: None) -> T | None: ...
    @overload
    def take(self, name: str, kind: type[T], default: T) -> T: ...

    def take(self, name: str, kind: type[T], default: Any = REQUIRED) -> T | None:
        """The field's value, checked to be a `kind`; whole numbers pass as float.

        Raises:
            UsageError: it is missing and there is no default, or it is something else.
        """
        self._left.discard(name)
        value = self.values.get(name)
        if name not in self.values or (value is None and default is not REQUIRED):
            if default is REQUIRED:
                raise UsageError(f"{self.path} has no field '{self.prefix}{name}': this checkpoint is not complete")
            return default
        wanted: Any = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            raise self.refusal(name, f"a {kind.__name__} is expected")
        return kind(value) if kind is float else value  # type: ignore[call-arg]

    def inside(self, name: str) -> "Fields":
        """The object in a field; an empty one where the field is missing or null."""
        return Fields(self.path, self.take(name, dict, {}), f"{self.prefix}{name}.")

    def told(self, *names: str) -> dict[str, Any]:
        """Those of the fields that are there and say something, taken as they are: for `Foreign.origin`."""
        self._left.difference_update(names)
        return {name: self.values[name] for name in names if self.values.get(name) is not None}

    def must_be(self, name: str, *allowed: Any, why: str) -> Any:
        """The field's value, which is one of `allowed`; the first of them where it is missing.

        Raises:
            UsageError: it is another; `why` says what that would mean.
        """
        self._left.discard(name)
        value = self.values.get(name, allowed[0])
        if value not in allowed or any(isinstance(value, bool) != isinstance(a, bool) for a in allowed if a == value):
            raise self.refusal(name, why)
        return value

    @property
    def left(self) -> list[str]:
        """Names of the fields that nobody took yet."""
        return sorted(self._left)

    def refusal(self, name: str, why: str) -> UsageError:
        """The error for a field that cannot be represented."""
        return UsageError(f"{self.path} has {self.prefix}{name}={self.values.get(name)!r}: {why}")

    def nothing_left(self) -> None:
        """Refuse the fields that nobody took: they may change what the dictionary computes.

        Raises:
            UsageError: there are such.
        """
        for name in self.left:
            if self.values[name] is not None:
                raise self.refusal(name, "this field is not known here, and may change what the dictionary computes")


class Tensors:
    """Tensors by name that know which of them were taken."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self.path, self.tensors = path, dict(tensors)
        self._left = set(tensors)

    @classmethod
    def of(cls, path: Path, found: Mapping[str, Any]) -> "Tensors":
        """Tensors that were read from `path`, checked.

        Raises:
            UsageError: one is no tensor, or holds numbers that are not finite.
        """
        for name, tensor in found.items():
            if not isinstance(tensor, Tensor):
                raise UsageError(f"{path} holds '{name}', a {type(tensor).__name__}, where only tensors are expected")
            if not isinstance(name, str):
                raise UsageError(f"{path} holds a tensor under {name!r}, which is no name: save a state_dict()")
            if tensor.dtype not in NUMBERS or tensor.layout != torch.strided or tensor.device.type != "cpu":
                kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device.type}"
                raise UsageError(f"{path} holds {name} as {kind}: save it as plain 16, 32 or 64 bit numbers")
            check_finite(path, name, tensor)
        return cls(path, found)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            UsageError: it is not there.
        """
        return tuple(self._named(name).shape)

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor, in float64 so that folding does not round twice.

        Args:
            name: as the file calls it.
            shape: of each axis, None for any.

        Raises:
            UsageError: it is not there, or has another shape.
        """
        tensor = self._named(name)
        self._left.discard(name)
        fits = len(tensor.shape) == len(shape)
        if not fits or any(want not in (None, have) for have, want in zip(tensor.shape, shape, strict=True)):
            wanted = [*("any" if size is None else size for size in shape)]
            raise UsageError(f"{self.path} holds {name} of shape {[*tensor.shape]}, its config asks for {wanted}")
        return tensor.double()

    def dtype(self, name: str) -> torch.dtype:
        """What a dictionary made from this tensor computes in: at least float32, which holds 16-bit numbers exactly.

        Raises:
            UsageError: it is not there.
        """
        return torch.float64 if self._named(name).dtype == torch.float64 else torch.float32

    def refusal(self, name: str, why: str) -> UsageError:
        """The error for a tensor that cannot be represented."""
        return UsageError(f"{self.path} holds {name}: {why}")

    def nothing_left(self) -> None:
        """Refuse the tensors that nobody took.

        Raises:
            UsageError: there are such.
        """
        for name in sorted(self._left):
            raise self.refusal(name, "this tensor is not known here, and may change what the dictionary computes")

    def _named(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise UsageError(
                f"{self.path} has no tensor '{name}', it holds {', '.join(sorted(self.tensors)) or 'none'}"
            )
        return self.tensors[name]
