"""What ten kills at random moments cost: calls of the language model, and rows that differ.

Run from anywhere: `python bench/interpret_kills.py` (`--quick` for two kills, nothing written); no GPU, three minutes.
`monosem interpret` explains and scores latents of the tiny demo with a mock service that counts what it is asked. It
is killed with SIGKILL when that number reaches ten random values; each time the same command goes on. A job that nobody
killed stands beside it.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.commands.demo import run_demo
from bench.harness import Figure, main, write
from bench.mock_llm import service, told
from store.index import parts_of
from store.replies import replies_file
from store.run import list_runs

N_KILLS, N_QUICK = 10, 2
LATENCY_S, SLOTS = 0.02, 16
ANSWERS = {'explanation\\"': json.dumps({"explanation": "a word"}), "": json.dumps({"1": 1, "2": 0})}
"""The schema of an explainer's reply names its explanation."""
SETTINGS = (
    "--explainer default --scorers detection fuzzing --nulls shuffled generic --n-latents 40 --per-prompt 2 "
    "--n-explain 6 --n-score 10 --min-contexts 3 --min-docs 2 --max-density 0.9 --half-window 6"
)
TABLES = {"explanations": ("explanations",), "scores": ("scores", "score_metrics", "examples")}
MADE_BY = {"run", "call", "calls"}


def measure() -> bool:
    """Write `bench/results/interpret_kills.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two kills, and nothing written")
    args = parser.parse_args()
    n_kills = N_QUICK if args.quick else N_KILLS
    with tempfile.TemporaryDirectory() as folder, service(LATENCY_S, ANSWERS) as url:
        whole, killed = Path(folder) / "whole", Path(folder) / "killed"
        run_demo("tiny", whole)
        for kind in TABLES:
            shutil.rmtree(whole / kind)
        shutil.copytree(whole, killed)
        finish(begin(url, whole))
        n_unique = told(url)["n_different"]
        moments = sorted(random.Random(0).sample(range(1, n_unique), n_kills))
        n_in_flight = [kill_at(url, killed, n_unique + moment) for moment in moments]
        finish(begin(url, killed))
        n_calls = told(url)["n_asked"] - n_unique
        differing = sum(rows(whole)[name] != found for name, found in rows(killed).items())
        for kind in TABLES:
            shutil.rmtree(killed / kind)
        finish(begin(url, killed))
        n_again = told(url)["n_asked"] - n_unique - n_calls
        differing += sum(rows(whole)[name] != found for name, found in rows(killed).items())
    beyond = n_calls - n_unique - sum(n_in_flight)
    figures = [
        Figure("unique prompts", n_unique, "calls"),
        Figure("calls of the killed job", n_calls, "calls"),
        Figure("of them beyond unique prompts and those in flight at a kill", beyond, "calls", "<= 0"),
        Figure("most calls in flight at a kill", max(n_in_flight), "calls", f"<= {SLOTS}"),
        Figure("calls when the finished job is run again without its tables", n_again, "calls", "== 0"),
        Figure("tables that differ from those of a job that nobody killed", differing, "tables", "== 0"),
    ]
    if args.quick:
        print(*figures, sep="\n")
        return all(figure.holds is not False for figure in figures)
    return write("interpret_kills", figures, kills_at=moments, in_flight=n_in_flight, slots=SLOTS, latency_s=LATENCY_S)


def begin(url: str, root: Path) -> "subprocess.Popen[bytes]":
    """The command, under way."""
    asked = f"--backend openai_compatible --model mock --base-url {url}/v1 --concurrency {SLOTS} --root {root}".split()
    command = [Path(sys.executable).with_name("monosem"), "interpret", *SETTINGS.split(), *asked]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Wait for its end, which must be a good one."""
    if process.wait(timeout=300):
        sys.exit(f"error: {process.args} ended with {process.returncode}: run it by hand")


def kill_at(url: str, root: Path, n_asked: int) -> int:
    """Kill it when the service was asked so often; how many calls had no reply kept."""
    n_before, n_kept = told(url)["n_asked"], kept(root)
    process = begin(url, root)
    while told(url)["n_asked"] < n_asked:
        if process.poll() is not None:
            sys.exit("error: the job ended before it could be killed: a kill more than calls are left")
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(5 * LATENCY_S)
    return told(url)["n_asked"] - n_before - (kept(root) - n_kept)


def kept(root: Path) -> int:
    """Replies in the store."""
    ((n,),) = replies_file(root).rows("SELECT count(*) FROM replies")
    return n


def rows(root: Path) -> dict[str, list[str]]:
    """What the runs found, without what tells when and by which calls."""
    found = {}
    for run in (run for kind in TABLES for run in list_runs(root, kind)):
        for table in TABLES[run.kind]:
            kept_rows = [json.dumps(without(row), default=str) for row in parts_of(run.folder, table).to_pylist()]
            found[f"{run.kind} {run.config.get('scorer', '')} {table}"] = sorted(kept_rows)
    return found


def without(row: dict[str, Any]) -> dict[str, Any]:
    """A row less what tells when and by which calls it was made."""
    return {name: value for name, value in row.items() if name not in MADE_BY}


if __name__ == "__main__":
    main(measure)
