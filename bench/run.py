"""Run benchmarks one after the other, each in a process of its own; one that fails does not stop the others.

python bench/run.py                       all but the slow ones
python bench/run.py 'harvest*' train_step by name
python bench/run.py --list                what there is
"""

import argparse
import fnmatch
import subprocess
import sys
from pathlib import Path

from bench.harness import benchmarks

SLOW = frozenset(
    {
        "dashboard_pages",
        "dashboard_soak",
        "demo",
        "evaluate_demo",
        "evaluate_full",
        "interpret_delphi",
        "interpret_local",
        "interpret_memory",
        "interpret_packing",
        "steer_concept",
        "steer_speed",
        "train_quality",
    }
)
"""Only run when named: many minutes each."""


def main() -> None:
    """Run what was asked; status 1 if a benchmark failed or missed a figure, 2 if a pattern matches none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help="file names without .py, with * and ?")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    args = parser.parse_args()
    known = [path.stem for path in benchmarks()]
    unmatched = [pattern for pattern in args.patterns if not fnmatch.filter(known, pattern)]
    if unmatched:
        print(f"no benchmark matches {', '.join(unmatched)}: there is {', '.join(known)}", file=sys.stderr)
        sys.exit(2)
    if args.list:
        print("\n".join(f"{name}{' (slow)' if name in SLOW else ''}" for name in chosen(known, args.patterns or ["*"])))
        return
    failed = [name for name in chosen(known, args.patterns) if not succeeds(name)]
    print(f"\nfailed or missed: {', '.join(failed) or 'none'}")
    sys.exit(bool(failed))


def chosen(known: list[str], patterns: list[str]) -> list[str]:
    """The names that match; without a pattern, all that are not slow."""
    if not patterns:
        return [name for name in known if name not in SLOW]
    return [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def succeeds(name: str) -> bool:
    """Run one benchmark; whether it ended well and all its figures hold."""
    print(f"\n== {name}", flush=True)
    return subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py")], check=False).returncode == 0


if __name__ == "__main__":
    main()
