"""One harvest without a forward pass, in a process of its own: `python -m bench.one_harvest N_TOKENS`."""

import json
import re
import sys
import tempfile
from pathlib import Path

import torch

from bench import words
from bench.sides import N_THREADS, STUB_HOOK, StubLM, config, harvested, save_stub


def main(n_tokens: int) -> None:
    """One harvest, and a line of JSON that says what it took."""
    torch.set_num_threads(N_THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_stub(folder / "stub")
        documents, _ = words.save_text(folder / "text", n_tokens)
        cfg = config(folder / "stub", (STUB_HOOK,), documents, n_tokens)
        lm = StubLM(folder / "stub")
        before = peak_gb()
        spent, _ = harvested(cfg, lm, folder / "runs")
        print(json.dumps({"peak_gb": peak_gb(), "before_gb": before, "seconds": spent}))


def peak_gb() -> float:
    """The largest resident set of this process so far: of its own, unlike `getrusage`, which starts at its parent's."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (kilobytes,) = re.findall(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(kilobytes) * 1024 / 1e9


if __name__ == "__main__":
    main(int(sys.argv[1]))
