"""One torch thread, fixed seeds, shapes checked where they are asked for; a tiny finished run for whoever asks."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# What people run has no such checks, and errors of its own: both ways are tested.
if os.environ.get("MONOSEM_CHECK_SHAPES") == "1":
    from jaxtyping import install_import_hook

    # Before anything of ours is imported: only then does the hook see the modules.
    install_import_hook(["sae", "activations", "autointerp"], "beartype.beartype")


from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of every kind, made by the demo's tiny recipe. Treat it as read-only."""
    from app.commands.demo import run_demo

    root = tmp_path_factory.mktemp("tiny") / "runs"
    run_demo("tiny", root)
    return root
