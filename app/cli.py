"""The `monosem` command: a table of commands, each imported only when it is asked for."""

import argparse
import atexit
import difflib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from store.errors import UsageError

PACKAGES = ("sae", "activations", "autointerp", "app", "store", "studies")
COMMANDS: dict[str, str] = {
    "demo": "the whole path on a real model, then the dashboard",
    "harvest": "run a model over text and keep its activations",
    "train": "train a sparse autoencoder on harvested activations",
    "convert": "read another library's sparse autoencoder, or write one for it",
    "evaluate": "measure a sparse autoencoder on held-out documents",
    "index": "compute every statistic and context of every latent",
    "plane": "lay latents out on a plane by their directions (UMAP)",
    "match": "lay two dictionaries side by side: shared, unmatched and split latents",
    "align": "pair latents of several dictionaries, and tell nearby layers from far ones",
    "explain": "say in words what latents respond to",
    "interpret": "explain latents and score what was said, next to nulls",
    "score": "score explanations against a shuffled null",
    "compare": "compare two runs of scores latent by latent, with interval and p-value",
    "agreement": "have people rate explanations blind, and tell how they and the scorers agree",
    "report": "show what explanations are worth, as plots on one page that opens offline",
    "steer": "continue a prompt with latents edited, and without",
    "serve": "open the dashboard on 127.0.0.1",
    "show": "list runs, or print what a run is, what made it and what it scored",
    "verify": "check every byte of a run against its checksums",
    "search": "find latents by text they fire on, token, explanation or meaning",
    "notes": "label, rate and list latents, and print what was written",
    "export": "write latents of an index for other tools, or as a page that opens offline",
    "import": "read explanations, or what fires where, from other tools",
    "sql": "query a published index, or all that was harvested, with SQL",
    "study": "run a published protocol with its controls",
}
"""Command names, in the order of the path, and one line each; `app.commands.<name>` does the work."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status.

    Returns:
        0 when done, 2 for what the person can fix (one line on stderr), 130 when interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin while they wait may share a core with those they wait for, and make a step several times as slow
    # on a small machine. Read when torch is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _check_packages()
        name = choose("monosem", "The workbench for looking inside language models.", COMMANDS, arguments)
        if name is None:
            return 0
        _run(name, arguments[1:])
    except UsageError as error:
        from app.log import fail

        fail(str(error))
        return 2
    except BrokenPipeError:
        # The reader (`| head`) has gone: there is nobody left to tell, not even at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("stopped: run the same command again, and it goes on from what is finished", file=sys.stderr)
        return 130
    return 0


def script() -> NoReturn:
    """`main` as a process of its own, which ends once it has returned."""
    leave(main())


def leave(status: int) -> NoReturn:
    """End this process; what could not be printed is an error."""
    # What was to be done at the end is done, and the interpreter is not taken apart: the extension of DuckDB 2 would
    # print forty lines about what it finds alive then, below what was asked for.
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        print(f"error: what was to be printed is lost ({error}): make room, or print elsewhere", file=sys.stderr)
        status = 2
    sys.stderr.flush()
    os._exit(status)


def choose(prog: str, description: str, table: Mapping[str, str], arguments: Sequence[str]) -> str | None:
    """The name in `table` that the arguments begin with, or None after help or version was printed.

    Raises:
        UsageError: there is no such name.
    """
    width = max(map(len, table))
    listing = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in table.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [-h] NAME …",
        description=description,
        epilog=f"{listing}\n\n`{prog} NAME --help` says more about each, with an example.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if not arguments or arguments[0] in ("-h", "--help"):
        parser.print_help()
        return None
    if arguments[0] == "--version":
        print(f"monosem {importlib.metadata.version('monosem')}")
        return None
    if arguments[0] not in table:
        near = difflib.get_close_matches(arguments[0], table, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose one of {', '.join(table)}"
        raise UsageError(f"{prog} has no '{arguments[0]}': {hint}")
    return arguments[0]


def _run(name: str, arguments: list[str]) -> None:
    from app.log import quiet_libraries

    quiet_libraries()
    module = importlib.import_module(f"app.commands.{name}")
    module.main(arguments)


def _check_packages() -> None:
    """Flat package names are generic: refuse to run on a mixture of ours and somebody else's."""
    home = Path(__file__).resolve().parent.parent
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        folders = [Path(place).resolve().parent for place in (spec.submodule_search_locations or [])] if spec else []
        if folders != [home]:
            found = folders[0] if folders else "nowhere"
            raise UsageError(
                f"package '{package}' comes from {found}, not from {home}: uninstall the other one, or run elsewhere"
            )
