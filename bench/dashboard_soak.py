"""Five people click through the dashboard while its index is published again and again and a job writes beside it.

Run from anywhere: `python bench/dashboard_soak.py` (`--minutes 1` to see that it runs). On the tiny model and its
index: every twenty seconds explanations and scores of a new version are published, and `monosem interpret` asks a
scripted language model without end. Each of five browser sessions goes to pages at random, filters, and has texts run
through the model. Counted are errors on pages, pages that are a mixture of versions or older than what was published
before they were asked for, and how the memory of the server and of its worker grows from the first part to the last.
"""

import argparse
import asyncio
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from playwright.async_api import Browser, Page, async_playwright

from app.commands.demo import run_demo
from bench.chromium import CHROMIUM, FLAGS, LONGEST_MS, served, wait_up
from bench.harness import Figure, main, write
from store.feature_index import FeatureIndex
from store.index import publish, write_part
from store.index_tables import SCHEMAS
from store.run import Run, find_run, start_run

N_SESSIONS, MINUTES, PUBLISHED_EVERY_S, SAMPLED_EVERY_S = 5, 10.0, 20.0, 5.0
PAUSE_S = (0.2, 1.5)
"""What a person looks before the next click."""
SETTLED = """() => {
  const app = document.querySelector('[data-testid=stApp]');
  return app && app.dataset.testScriptState !== 'running' && document.querySelector('h1')
    && !document.querySelector('[data-testid=stSkeleton]');
}"""
NEXT = re.compile(r"^Next\b")
VERSION = re.compile(r"made-up version (\d+) of latent (\d+)")


@dataclass
class Seen:
    """What all sessions met."""

    n_latents: int
    published: int = 0
    """Versions that were published until now."""
    stop: bool = False
    pages: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    n_jobs: int = 0


def measure() -> bool:
    """Serve, publish, click, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    args = parser.parse_args()
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        run_demo("tiny", root)
        index = find_run(root, "latest", "index")
        seen = Seen(FeatureIndex(index.folder).n_latents)
        with served(root, index.id) as (url, server, _):
            wait_up(url)
            others = [
                threading.Thread(target=_publish, args=(root, index, seen)),
                threading.Thread(target=_interpret, args=(root, seen)),
                threading.Thread(target=_sample, args=(server.pid, memory, seen)),
            ]
            for each in others:
                each.start()
            try:
                asyncio.run(_click(url, seen, args.minutes))
            finally:
                seen.stop = True
                for each in others:
                    each.join()
    part = max(len(memory) // 5, 1)
    before, after = float(np.median(memory[part : 2 * part])), float(np.median(memory[-part:]))
    figures = [
        Figure("pages seen", sum(seen.pages.values()), ""),
        Figure("versions published meanwhile", seen.published, ""),
        Figure("interpretations finished meanwhile", seen.n_jobs, ""),
        Figure("pages with an error", len(seen.errors), "", "== 0"),
        Figure("pages that mix versions", len(seen.mixed), "", "== 0"),
        Figure("pages older than what was published before", len(seen.stale), "", "== 0"),
        Figure("memory of server and worker in the second fifth", before, "MB"),
        Figure("memory in the last fifth over that", after / before, "x", "<= 1.1"),
    ]
    told = {"errors": seen.errors[:10], "mixed": seen.mixed[:10], "stale": seen.stale[:10]}
    return write(
        "dashboard_soak",
        figures,
        minutes=args.minutes,
        n_sessions=N_SESSIONS,
        pages=dict(seen.pages),
        memory=memory,
        **told,
    )


def _publish(root: Path, index: Run, seen: Seen) -> None:
    """A new version of explanations and scores, now and then; both carry its number."""
    latents = list(range(seen.n_latents))
    while not seen.stop:
        number = seen.published + 1
        shared = {"latent": latents, "explainer": [f"made up {number}"] * len(latents)}
        texts = [f"made-up version {number} of latent {latent}" for latent in latents]
        with start_run(root, "explanations", {"made up": number}, {"index": index.id}) as said:
            _write(said, "explanations", {**shared, "text": texts, "input_text": texts})
        inputs = {"index": index.id, "explanations": said.id}
        with start_run(root, "scores", {"made up": number}, inputs) as scored:
            score = {"scorer": "embedding", "arm": "explanation", "chance": 0.5, "value": number / 1000, "n_judged": 9}
            columns = {name: [value] * len(latents) for name, value in score.items()}
            _write(scored, "scores", {**shared, **columns})
        publish(index)
        seen.published = number
        _wait(PUBLISHED_EVERY_S, seen)


def _write(run: Run, table: str, columns: dict[str, list]) -> None:
    n = len(columns["latent"])
    full = {name: columns.get(name, [None] * n) for name in SCHEMAS[table].names}
    write_part(run.folder, table, full | {"run": [run.id] * n})
    run.finish({})


def _interpret(root: Path, seen: Seen) -> None:
    """Explanations and scores by a scripted language model, again and again."""
    while not seen.stop:
        asked = ["--scorers", "detection", "--nulls", "shuffled", "--backend", "scripted", "--n-latents", "12"]
        job = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from app.cli import script; script()",
                "interpret",
                "--root",
                str(root),
                "--seed",
                str(seen.n_jobs),
                *asked,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while job.poll() is None:
            if seen.stop:
                job.terminate()
            time.sleep(0.5)
        assert job.stderr is not None
        with closing(job.stderr):
            if job.returncode and not seen.stop:
                seen.errors.append(f"interpret: {job.stderr.read()[-300:]}")
                return
        seen.n_jobs += not job.returncode


def _sample(pid: int, memory: list[float], seen: Seen) -> None:
    """Megabytes of a process and its children, now and then."""
    while not seen.stop:
        memory.append(sum(map(_megabytes, _family(pid))))
        _wait(SAMPLED_EVERY_S, seen)


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        # Threads have children, too.
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(each for child in set(children) for each in _family(int(child)))]


def _megabytes(pid: int) -> float:
    """Of its own, and what it shares in parts."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def _wait(seconds: float, seen: Seen) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not seen.stop:
        time.sleep(0.2)


async def _click(url: str, seen: Seen, minutes: float) -> None:
    until = time.monotonic() + 60 * minutes
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            await asyncio.gather(*(_session(browser, url, seen, until, i) for i in range(N_SESSIONS)))
        finally:
            await browser.close()


async def _session(browser: Browser, url: str, seen: Seen, until: float, number: int) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    rng = random.Random(number)
    while time.monotonic() < until:
        name = rng.choice(list(VISITS))
        # A latent's page that was reached by a click is of what was published before that click.
        known = 0 if name == "on" else seen.published
        if name == "menu" and page.url == "about:blank":
            continue
        try:
            await VISITS[name](page, url, seen.n_latents, rng)
            await page.wait_for_function(SETTLED, timeout=LONGEST_MS)
            await _look(page, name, known, seen)
        except Exception as error:
            seen.errors.append(f"{name}: {str(error).splitlines()[0][:200]}")
        seen.pages[name] += 1
        await asyncio.sleep(rng.uniform(*PAUSE_S))
    await context.close()


async def _look(page: Page, name: str, known: int, seen: Seen) -> None:
    """Note what is wrong with a page, given how many versions had been published before it was asked for."""
    for kind in ("stException", "stAlertContentError"):
        for each in await page.get_by_test_id(kind).all():
            seen.errors.append(f"{name}: {(await each.inner_text())[:300]}")
    if name not in ("feature", "on"):
        return
    text = await page.locator("body").inner_text()
    versions = {int(version) for version, _ in VERSION.findall(text)}
    latents = {int(latent) for _, latent in VERSION.findall(text)}
    if len(latents) > 1 or versions != set(range(1, max(versions, default=0) + 1)):
        seen.mixed.append(f"latents {latents}, versions {sorted(versions)}")
    if max(versions, default=0) < known:
        seen.stale.append(f"{max(versions, default=0)} of {known}")


async def _on(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    """Several latents one after the other, in one session that lives through what is published."""
    await page.goto(f"{url}/feature?latent={rng.randrange(n_latents - 3)}")
    for _ in range(3):
        await page.wait_for_function(SETTLED, timeout=LONGEST_MS)
        await page.get_by_role("button", name=NEXT).click()
        await page.wait_for_timeout(300)


async def _menu(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    """By the menu, within the session; back on a latent's page."""
    for name in rng.sample(["Features", "Home", "Interpret", "Prompt lab"], 2):
        await page.get_by_role("link", name=name, exact=True).first.click()
        await page.get_by_role("heading", name=name, exact=True, level=1).wait_for(timeout=LONGEST_MS)
        await page.wait_for_function(SETTLED, timeout=LONGEST_MS)


async def _prompt(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    await page.goto(f"{url}/prompt?text=A+text+of+number+{rng.randrange(10**6)}")


async def _steer(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    asked = f"latents={rng.randrange(n_latents)}&prompt=A+text&tokens=6&chat=false&seed={rng.randrange(99)}"
    await page.goto(f"{url}/steering?{asked}")
    await page.wait_for_function(SETTLED, timeout=LONGEST_MS)
    button = page.get_by_role("button", name="Generate both")
    if await button.is_enabled():
        await button.click()
        await page.get_by_text("the hook fired").first.wait_for(timeout=LONGEST_MS)


async def _home(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    await page.goto(url)


async def _features(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    await page.goto(f"{url}/features?q={rng.choice(['version', 'latent 1', 'nothing', ''])}")


async def _feature(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    await page.goto(f"{url}/feature?latent={rng.randrange(n_latents)}")


async def _other(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    await page.goto(f"{url}/{rng.choice(['interpret', 'training', 'compare'])}")


async def _text(page: Page, url: str, n_latents: int, rng: random.Random) -> None:
    await page.goto(f"{url}/feature?latent={rng.randrange(n_latents)}")
    await page.wait_for_function(SETTLED, timeout=LONGEST_MS)
    await page.get_by_label("Text to run through the model").fill(f"A text of number {rng.randrange(10**6)}.")
    await page.get_by_role("button", name="Run", exact=True).click()
    await page.get_by_text("Active on").first.wait_for(timeout=LONGEST_MS)


VISITS = {
    "home": _home,
    "features": _features,
    "feature": _feature,
    "on": _on,
    "menu": _menu,
    "text": _text,
    "prompt": _prompt,
    "steer": _steer,
    "other": _other,
}
"""What a session does next, all as often."""

if __name__ == "__main__":
    main(measure)
