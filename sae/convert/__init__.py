"""Other libraries' checkpoints, read into the variants here and written from them: the only place with foreign names.

What a variant cannot represent exactly is refused by the field's name, never approximated. docs/formats.md has a table
for every format: which fields map, which are folded, which are refused.
"""

from itertools import islice
from pathlib import Path

from sae.convert import dictionary_learning, gemma_scope, llama_scope, monosem, openai, saelens, sparsify
from sae.convert.foreign import Foreign, Format
from store.errors import UsageError

FORMATS: dict[str, Format] = {
    format_.name: format_
    for format_ in (
        monosem.FORMAT,
        saelens.FORMAT,
        dictionary_learning.FORMAT,
        sparsify.FORMAT,
        openai.FORMAT,
        gemma_scope.FORMAT,
        llama_scope.FORMAT,
    )
}
"""Every format by name; `read` tries them in this order."""
MOST_LOOKED_AT = 2000
"""Files and folders below one that is no checkpoint, among which some are looked for."""


def read(source: Path, name: str | None = None) -> Foreign:
    """The dictionary in a folder or file, whichever format it is in.

    Args:
        source: a local folder, or a file where the format is one; `sae.convert.files.fetch` gets it from the hub.
        name: in `FORMATS`; None recognises it.

    Raises:
        UsageError: nothing there, no format or several recognise it, or it cannot be represented exactly.
    """
    return format_of(source, name).read(source)


def format_of(source: Path, name: str | None = None) -> Format:
    """The format that `source` is in, or the one named.

    Raises:
        UsageError: nothing there, no such format, or none or several recognise it.
    """
    if name is not None and name not in FORMATS:
        raise UsageError(f"no format '{name}': choose one of {', '.join(FORMATS)}")
    if not source.exists():
        raise UsageError(f"{source} does not exist: give the folder of a checkpoint, or hub:OWNER/NAME[/SUB/FOLDER]")
    if name is not None:
        return FORMATS[name]
    found = [format_ for format_ in FORMATS.values() if format_.recognises(source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{source} may be {' or '.join(f.name for f in found)}: say which with --from")
    if source.is_file() and any(format_.recognises(source.parent) for format_ in FORMATS.values()):
        raise UsageError(f"{source} is one file of a checkpoint: give its folder, {source.parent}")
    if inside := _inside(source):
        raise UsageError(f"{source} is no checkpoint itself, but holds some: name one, such as {', '.join(inside)}")
    looked = "; ".join(f"{format_.name}: {format_.looks_for}" for format_ in FORMATS.values())
    raise UsageError(f"{source} is no checkpoint of a known format. Looked for {looked}")


def _inside(source: Path) -> list[str]:
    """A few folders below that are checkpoints."""
    if not source.is_dir():
        return []
    folders = (path for path in islice(source.rglob("*"), MOST_LOOKED_AT) if path.is_dir())
    known = (str(path) for path in folders if any(format_.recognises(path) for format_ in FORMATS.values()))
    return list(islice(known, 3))


def write(folder: Path, foreign: Foreign, name: str) -> None:
    """Write a dictionary as another library's checkpoint.

    Raises:
        UsageError: no such format, one that is only read, or one that cannot hold this variant exactly.
    """
    if name not in FORMATS:
        raise UsageError(f"no format '{name}': choose one of {', '.join(writable())}")
    to = FORMATS[name].write
    if to is None:
        raise UsageError(f"{name} checkpoints are read, not written: choose one of {', '.join(writable())}")
    to(folder, foreign)


def writable() -> list[str]:
    """Names of the formats that can be written."""
    return [name for name, format_ in FORMATS.items() if format_.write]


__all__ = ["FORMATS", "Foreign", "Format", "format_of", "read", "writable", "write"]
