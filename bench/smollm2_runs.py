"""The demo's runs on SmolLM2, for benchmarks that measure on them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.commands.demo import run_demo


@contextmanager
def smollm2_runs(out: Path | None) -> Iterator[Path]:
    """Where the demo has been run: in `out`, once for all benchmarks, or in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        root = out or Path(scratch) / "runs"
        run_demo("smollm2", root)
        yield root
