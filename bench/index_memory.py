"""Peak memory of an index of 1 M and of 10 M tokens, 32 latents on each, and what an event takes on the disk.

Run from anywhere: `python bench/index_memory.py` (`--quick` to see that it runs); 10 GB of disk for a while. What fires
where is made up (`bench/made_up.py`): no vectors and no dictionary, everything else as for `monosem index`. Each index
is made in a process of its own, whose largest resident set is the figure: mapped files, which the system may take back
at any time, count as well.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench import made_up
from bench.harness import Figure, main, write
from bench.render import REPO

D_SAE = 4608
SHORT, LONG = 1_024_000, 10_240_000
QUICK_SHORT, QUICK_LONG = 102_400, 204_800
SHORT_REPEATS = 3
"""The long one, of some minutes, is made once: peaks hardly differ."""


def measure() -> bool:
    """Short ones, and a long one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    args = parser.parse_args()
    short, long = (QUICK_SHORT, QUICK_LONG) if args.quick else (SHORT, LONG)
    found = {short: indexed(short, SHORT_REPEATS), long: indexed(long, 1)}
    peaks = {n: median(answer["peak_gb"] for answer in answers) for n, answers in found.items()}
    figures = [
        Figure("peak memory, 10 M tokens / 1 M tokens", peaks[long] / peaks[short], "ratio", "<= 1.15"),
        Figure("peak memory, 1 M tokens", peaks[short], "GB", "<= 2"),
        Figure("peak memory, 10 M tokens", peaks[long], "GB", "<= 2"),
        *(
            Figure(f"{name}, {size} tokens", median(answer[key] for answer in found[n]) / per, unit, reach)
            for n, size in ((short, "1 M"), (long, "10 M"))
            for name, key, per, unit, reach in (
                ("bytes per event on disk", "bytes_per_event", 1, "bytes", "<= 8"),
                ("latents of whose events a sample is kept", "n_sampled", 1, "", None),
                ("time", "seconds", 1, "s", None),
            )
        ),
    ]
    settings = {"d_sae": D_SAE, "k": made_up.K, "quick": args.quick}
    return write("index_memory", figures, **settings, found={str(n): answers for n, answers in found.items()})


def indexed(n_tokens: int, repeats: int) -> list[dict[str, Any]]:
    """What each of some indexes of one harvest said."""
    with tempfile.TemporaryDirectory() as scratch:
        made_up.lay_out(Path(scratch) / "harvest", n_tokens)
        return [in_own_process(Path(scratch) / "harvest") for _ in range(repeats)]


def in_own_process(harvest: Path) -> dict[str, Any]:
    """Peak, seconds and results of one index, which is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "bench.one_index", str(harvest), scratch, str(D_SAE)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPO)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(measure)
