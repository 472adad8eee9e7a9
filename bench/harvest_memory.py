"""Peak memory of a short and of a long harvest: it must not grow with the text.

Run from anywhere: `python bench/harvest_memory.py`. Each harvest runs in a process of its own, with a model whose
forward pass costs nothing and is as wide as GPT-2 small; its 2 M tokens take 3 GB of disk for a while.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from bench.harness import Figure, main, write

SHORT, LONG = 102_400, 2_048_000
REPEATS = 5
"""Processes of each length: peaks hardly differ."""


def measure() -> bool:
    """Short and long in turn."""
    found: dict[int, list[dict[str, float]]] = {SHORT: [], LONG: []}
    for _ in range(REPEATS):
        for n_tokens, answers in found.items():
            answers.append(in_own_process(n_tokens))
    short_gb, long_gb = (median(answer["peak_gb"] for answer in found[n]) for n in (SHORT, LONG))
    short_rate, long_rate = (median(n / answer["seconds"] for answer in found[n]) for n in (SHORT, LONG))
    figures = [
        Figure("peak memory, 2 M tokens / 100 k tokens", long_gb / short_gb, "ratio", "<= 1.1"),
        Figure("tokens per second, 2 M tokens / 100 k tokens", long_rate / short_rate, "ratio", ">= 0.9"),
        Figure("peak memory, 100 k tokens", short_gb, "GB"),
        Figure("peak memory, 2 M tokens", long_gb, "GB"),
        Figure("harvest without a forward pass, 100 k tokens", short_rate, "tokens/s"),
        Figure("harvest without a forward pass, 2 M tokens", long_rate, "tokens/s"),
    ]
    return write("harvest_memory", figures, found={str(n): answers for n, answers in found.items()})


def in_own_process(n_tokens: int) -> dict[str, float]:
    """Peak and seconds of one harvest."""
    command = [sys.executable, "-m", "bench.one_harvest", str(n_tokens)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main(measure)
