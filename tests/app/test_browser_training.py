"""The page Training as served, in real Chromium, without any index."""

import json
import os
import platform
import shutil
import time
from pathlib import Path

import pytest

from store.run import list_runs, locked, unfinished_runs

ARTIFACTS = Path(__file__).parents[2] / "test-artifacts" / "training"


@pytest.mark.slow
def test_a_person_can_follow_trainings(beside, browser, trained_root, tmp_path):
    browser.require_chromium()
    root = shutil.copytree(trained_root, tmp_path / "runs")
    (run,) = unfinished_runs(root, "sae")
    told = {**run.manifest, "process": f"{os.getpid()} on {platform.node()}"}
    (run.folder / "manifest.json").write_text(json.dumps(told))
    log, beats = run.folder / "log.jsonl", run.folder / "progress.jsonl"
    first, second, *_ = log.read_text().splitlines()
    log.write_text(first + "\n")
    beats.write_text("".join(json.dumps({"time": time.time() - 9 + n, "step": n}) + "\n" for n in range(1, 11)))

    def go_on() -> None:
        with log.open("a") as file:
            file.write(second + "\n")

    ids = [*(one.id for one in list_runs(root, "sae")), run.id]
    with browser.served(root) as base_url:
        with locked(run.folder):
            beside("browser_training").drive(browser, base_url, ARTIFACTS, ids, go_on)
        beside("browser_training").killed(browser, base_url, ARTIFACTS, run.id)
