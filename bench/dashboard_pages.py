"""What a person waits for at the dashboard of 65,536 latents and 100 M events, in headless Chromium.

Run from anywhere: `python bench/dashboard_pages.py` (`--quick` to see that it runs; `--keep FOLDER` to make the index
in a folder, or to ask the one that is there, as `bench/index_queries.py` does). The first view is timed from the start
of the server's process, a click until the page has been drawn in full: the server has ended its run, nothing of the
last page is left, and no grey box stands for what is still to come.
"""

import argparse
import contextlib
import re
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page

from bench.chromium import ROWS, browser, first_visit, milliseconds, served, wait_changed, wait_drawn
from bench.harness import Figure, main, write
from bench.index_queries import FULL, QUICK, made
from store.feature_index import FeatureIndex
from store.run import list_runs

N_STARTS, N_FEATURES, N_LISTS, WARM_UP = 5, 60, 24, 3
SORTS = ("density", "documents", "latent")
NEXT = re.compile(r"^Next\b")
ABOUT = "SELECT count(*) AS latents, sum(n_events) AS events FROM latents"
SIZE = {"width": 1280, "height": 900}


def measure() -> bool:
    """Serve, open, click."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: figures mean nothing")
    parser.add_argument("--keep", type=Path, help="folder to make the index in, or that holds it")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = next(iter(list_runs(root, "index")), None) or made(root, **(QUICK if args.quick else FULL))
        opened = stack.enter_context(browser())
        starts = [_first_view(opened, root, run.id) for _ in range(N_STARTS)]
        url, _, _ = stack.enter_context(served(root, run.id))
        page = opened.new_page(viewport=SIZE)  # pyright: ignore[reportArgumentType]
        first_visit(page, url, "Home")
        next_feature = _next_features(page, url)
        lists = _lists(page, url)
    about = FeatureIndex(run.folder).arrow(ABOUT).to_pylist()[0]
    figures = [
        Figure("first view, from the start of the server, median", float(np.median(starts)) / 1000, "s", "<= 3"),
        Figure("first view, the longest", max(starts) / 1000, "s"),
        *_percentiles("next feature, fully drawn", next_feature),
        *_percentiles("list filtered or sorted, fully drawn", lists),
        Figure("latents", about["latents"], ""),
        Figure("events", int(about["events"]), ""),
    ]
    times = {"starts": starts, "next_feature": next_feature, "lists": lists}
    return write("dashboard_pages", figures, quick=args.quick, milliseconds=times)


def _percentiles(name: str, times: list[float]) -> list[Figure]:
    return [
        Figure(f"{name}, p{q}", float(np.percentile(times, q)), "ms", "<= 700" if q == 95 else None) for q in (50, 95)
    ]


def _first_view(opened: Browser, root: Path, index: str) -> float:
    """In a browser that has seen nothing of it yet."""
    context = opened.new_context(viewport=SIZE)  # pyright: ignore[reportArgumentType]
    page = context.new_page()
    try:
        with served(root, index) as (url, _, started):
            first_visit(page, url, "Home")
            return 1000 * (time.perf_counter() - started)
    finally:
        context.close()


def _next_features(page: Page, url: str) -> list[float]:
    """Each by the button that leads to the next one."""
    first = 100
    page.goto(f"{url}/feature?latent={first}")
    wait_drawn(page, f"Latent {first}")
    times = []
    for latent in range(first + 1, first + 1 + WARM_UP + N_FEATURES):
        button = page.get_by_role("button", name=NEXT)
        times.append(milliseconds(button.click, partial(wait_drawn, page, f"Latent {latent}")))
    return times[WARM_UP:]


def _lists(page: Page, url: str) -> list[float]:
    """By turns a filter typed and a column to sort by."""
    page.goto(f"{url}/features")
    wait_drawn(page, "Features")
    box = page.get_by_role("textbox", name="Search", exact=True)
    times = []
    for number in range(WARM_UP + N_LISTS):
        before = page.evaluate(ROWS)
        if number % 2:
            act = partial(_choose, page, SORTS[number // 2 % len(SORTS)])
        else:
            box.fill(f"w{number}")
            act = partial(box.press, "Enter")
        times.append(milliseconds(act, partial(_listed, page, before)))
    return times[WARM_UP:]


def _listed(page: Page, before: str) -> None:
    wait_changed(page, before)
    wait_drawn(page, "Features")


def _choose(page: Page, column: str) -> None:
    page.get_by_role("combobox", name="Sort by").click()
    page.get_by_role("option", name=column, exact=True).click()


if __name__ == "__main__":
    main(measure)
