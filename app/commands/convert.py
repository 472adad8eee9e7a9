"""`monosem convert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from app.arguments import RootArgs, parse
from app.converting import convert_sae, of_run
from app.summary import print_run
from sae.checkpoint import variant_name
from sae.convert import Foreign, read, write
from sae.convert.files import fetch
from store.errors import UsageError
from store.run import MANIFEST, find_run


@dataclass(frozen=True, kw_only=True)
class Args(RootArgs):
    """Make a run of another library's sparse autoencoder, or write one for another library.

    A checkpoint is read exactly or not at all: what cannot be represented is refused by its name. docs/formats.md says
    which formats there are and what becomes of each of their fields.

    Example: monosem convert hub:OWNER/NAME/SUB/FOLDER --activations latest

    Example: monosem convert latest --to saelens --out FOLDER
    """

    source: tyro.conf.Positional[str]
    """A checkpoint's folder or file, or `hub:OWNER/NAME[/SUB/FOLDER]`. With --to also a run here: an id, the start of
    one, or `latest`."""
    from_format: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """The format it is in; by default it is recognised."""
    revision: str | None = None
    """Branch, tag or commit of a hub reference."""
    activations: str = "latest"
    """The harvest it belongs to: an id, the start of one, a folder, or `latest`."""
    hook_points: tuple[str, ...] = ()
    """Which of its hook points it reads, and for a transcoder what it predicts; by default as the checkpoint says."""
    classes: tuple[str, ...] = ("normal",)
    """Token classes (normal, special, role, sink) of the held-out rows it is measured on."""
    same_model: bool = False
    """Say that the checkpoint's model is the harvest's, though the two names differ."""
    to: str | None = None
    """Write it in this format instead of making a run."""
    out: Path | None = None
    """The folder for --to; it must be new or empty."""


def main(arguments: Sequence[str]) -> None:
    """Parse, read, and make a run or write a folder."""
    args = parse(Args, "convert", arguments)
    if args.to is not None or args.out is not None:
        _write(args)
        return
    files = fetch(args.source, args.revision)
    foreign = read(files, args.from_format)
    _tell(foreign)
    run = find_run(args.root, args.activations, "activations")
    source = args.source if args.source.startswith("hub:") else str(files.resolve())
    how = {"hook_points": args.hook_points, "classes": args.classes, "same_model": args.same_model}
    print_run(convert_sae(foreign, source, files, run, args.root, **how))


def _tell(foreign: Foreign) -> None:
    """What was read, and what was folded."""
    said = {"hook point": foreign.hook_point, "model": foreign.model}
    places = ", ".join(f"{name} {value}" for name, value in said.items() if value) or "no hook point and no model named"
    print(f"read {foreign.origin['format']}: {variant_name(foreign.sae)}, d_sae={foreign.sae.cfg.d_sae}, {places}")
    folded = foreign.origin.get("folded")
    if folded:
        print("  folded into the weights: " + ", ".join(f"{name}={value}" for name, value in folded.items()))


def _write(args: Args) -> None:
    if args.to is None or args.out is None:
        raise UsageError("--to names the format and --out the folder: give both, or neither to make a run")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UsageError(f"{args.out} is there already: name a new folder with --out")
    if _is_checkpoint(args):
        foreign = read(fetch(args.source, args.revision), args.from_format)
    else:
        foreign = of_run(find_run(args.root, args.source, "sae"))
    write(args.out, foreign, args.to)
    print(f"wrote {args.to}: {variant_name(foreign.sae)}, d_sae={foreign.sae.cfg.d_sae}, as {args.out}")
    for path in sorted(args.out.iterdir()):
        print(f"  {path.name}   {path.stat().st_size:,} bytes")


def _is_checkpoint(args: Args) -> bool:
    """Whether the source is a foreign folder or file, and not a run."""
    path = Path(args.source)
    return args.from_format is not None or ":" in args.source or (path.exists() and not (path / MANIFEST).exists())
