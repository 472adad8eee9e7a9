"""What every benchmark uses: figures that say whether they hold, timings in pairs, result files of one form.

A benchmark is a file `bench/STAGE_WHAT.py` that ends in `main(measure)`; `measure` returns what `write` returned.
"""

import json
import operator
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from bench import render
from store.errors import UsageError
from store.files import write_json
from store.run import provenance

STAGES = ("harvest", "train", "convert", "evaluate", "index", "interpret", "steer", "dashboard", "scale", "demo")
"""First words of the benchmarks' file names."""
MIN_REPEATS = 5
COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}
WAIT_POLICY = "OMP_WAIT_POLICY"
"""Whether threads that wait for each other sleep (PASSIVE) or spin; read when torch is loaded."""
VERDICTS = {None: "", True: "holds", False: "MISSES"}

Work = Callable[[], float | None]
"""Something to time; where it returns a number, those are its seconds, taken by itself."""


@dataclass(frozen=True)
class Figure:
    """One number, and what it was meant to reach."""

    name: str
    value: float
    unit: str
    reach: str | None = None
    """Such as `<= 1.4`; None for a number that is only reported."""

    @property
    def holds(self) -> bool | None:
        """Whether the value reaches it; None where nothing is asked."""
        if self.reach is None:
            return None
        sign, bound = self.reach.split()
        return COMPARE[sign](self.value, float(bound))


@dataclass(frozen=True)
class Paired:
    """Seconds of two pieces of work, taken in turn so that a slow minute slows both."""

    a: tuple[float, ...]
    b: tuple[float, ...]

    @property
    def median_a(self) -> float:
        """Seconds of the first."""
        return median(self.a)

    @property
    def median_b(self) -> float:
        """Seconds of the second."""
        return median(self.b)

    @property
    def ratios(self) -> tuple[float, ...]:
        """First over second, pair by pair."""
        return tuple(a / b for a, b in zip(self.a, self.b, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios."""
        return median(self.ratios)


def paired(a: Work, b: Work, repeats: int = MIN_REPEATS, warmup: int = 1) -> Paired:
    """Time `a` and `b` in the order a, b, a, b, …, after `warmup` pairs that are not counted.

    Raises:
        ValueError: fewer than five pairs, whose median says little.
    """
    if repeats < MIN_REPEATS:
        raise ValueError(f"repeats={repeats} is too few for a median: take at least {MIN_REPEATS}")
    times = [(seconds(a), seconds(b)) for _ in range(warmup + repeats)][warmup:]
    return Paired(tuple(pair[0] for pair in times), tuple(pair[1] for pair in times))


def seconds(work: Work) -> float:
    """Wall seconds of `work`, or those that it measured itself."""
    started = time.perf_counter()
    own = work()
    return time.perf_counter() - started if own is None else own


def write(name: str, figures: Sequence[Figure], **settings: Any) -> bool:
    """Print the figures and write `bench/results/NAME.json`; whether all of them hold.

    `settings` says how it was measured; a `Paired` among them is kept with all its times, and printed.
    """
    made_by = provenance()
    document = {
        "machine": made_by["machine"],
        "versions": {"python": made_by["python"], **made_by["packages"]},
        "commit": made_by["commit"],
        "settings": {key: _plain(value) for key, value in settings.items()} | surroundings(),
        "figures": [asdict(figure) | {"holds": figure.holds} for figure in figures],
    }
    write_json(render.RESULTS / f"{name}.json", document)
    print(table(figures, {key: value for key, value in settings.items() if isinstance(value, Paired)}))
    return all(figure.holds is not False for figure in figures)


def surroundings() -> dict[str, Any]:
    """What else tells how far times can be trusted."""
    return {"load_after": os.getloadavg()[2], WAIT_POLICY: os.environ.get(WAIT_POLICY)}


def table(figures: Sequence[Figure], pairs: dict[str, Paired]) -> str:
    """Figures with their verdicts, then the medians and ratios they came from."""
    lines = [f"{f.name:56} {f.value:12,.4g} {f.unit:10} {VERDICTS[f.holds]} {f.reach or ''}".rstrip() for f in figures]
    lines += [
        f"  {name:54} {pair.median_a:9.4g} s / {pair.median_b:9.4g} s = {pair.ratio:.3f}"
        f" ({min(pair.ratios):.3f} to {max(pair.ratios):.3f}, {len(pair.a)} pairs)"
        for name, pair in pairs.items()
    ]
    return "\n".join(lines)


def main(measure: Callable[[], bool]) -> NoReturn:
    """Run a benchmark as a script: documents follow its figures; a figure that misses makes the status 1."""
    if WAIT_POLICY not in os.environ:
        # Threads that spin may end up on one core together and stay there: for the same training steps, alone on a
        # virtual machine of two cores, one process took 1.3 s and the next 7 s. With threads that sleep: always 1.4 s.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, WAIT_POLICY: "PASSIVE"})
    try:
        holds = measure()
    except UsageError as error:
        sys.exit(f"error: {error}")
    for document in render.update():
        print(f"rendered {document}")
    sys.exit(0 if holds else 1)


def benchmarks(folder: Path = Path(__file__).parent) -> list[Path]:
    """The benchmark files of every stage."""
    return sorted(path for path in folder.glob("*.py") if path.stem.split("_")[0] in STAGES)


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Paired) else json.loads(json.dumps(value, default=str))
