"""Which language model, how hard it may be driven and what may be spent; `open_llm` puts it together."""

import dataclasses
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autointerp.llm import LLM, Reader, open_backend
from autointerp.llm.budget import Price
from autointerp.llm.cached import Cached, CachedReader
from autointerp.llm.excused import Excused
from autointerp.llm.limited import Limited
from autointerp.llm.metered import Metered
from autointerp.llm.retrying import Retrying
from store.errors import UsageError
from store.ledger import NANO, Cap, Ledger, Spend
from store.replies import Replies, replies_file


@dataclass(frozen=True, kw_only=True)
class LLMConfig:
    """A language model and its limits; the key is not here: it is read from the environment.

    Raises:
        UsageError: a limit is no limit, or money is capped at an unknown price.
    """

    backend: str = "scripted"
    """A name in `BACKENDS`."""
    model: str = ""
    """As the backend calls it; empty for the backend's own choice where it has one."""
    base_url: str = ""
    """Where the service is; empty for the backend's own choice."""
    concurrency: int = 16
    """Most calls under way at once; fewer when the service refuses. With batches, all are."""
    timeout_s: float = 120.0
    """Longest that a service may take for one call."""
    tries: int = 10
    """Most times that one request is sent while the service refuses it."""
    max_calls_per_job: int | None = None
    """Most calls of a job, over all times it is run; None for any number. The same holds for those below."""
    max_tokens_per_job: int | None = None
    """Most tokens of a job, in and out."""
    max_usd_per_job: float | None = None
    """Most dollars of a job."""
    max_calls_per_day: int | None = None
    """Most calls of all jobs on a day of UTC."""
    max_tokens_per_day: int | None = None
    """Most tokens of all jobs on a day of UTC."""
    max_usd_per_day: float | None = None
    """Most dollars of all jobs on a day of UTC."""
    usd_per_million_in: float | None = None
    """Price of a million tokens in; a cap on dollars needs it."""
    usd_per_million_out: float | None = None
    """Price of a million tokens out; a cap on dollars needs it."""

    def __post_init__(self) -> None:
        for name in ("concurrency", "timeout_s", "tries"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}: choose more than 0")
        for name in (*CAPS, "usd_per_million_in", "usd_per_million_out"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UsageError(f"{name} is {value}: choose 0 or more")
        if (self.max_usd_per_job, self.max_usd_per_day) != (None, None) and self.price.nano_usd(1, 1) is None:
            raise UsageError(
                "dollars are capped and the price is not known: give usd_per_million_in and usd_per_million_out"
            )

    @property
    def identity(self) -> "LLMConfig":
        """What its replies depend on: not how hard it is driven, nor what may be spent."""
        return LLMConfig(backend=self.backend, model=self.model, base_url=self.base_url)

    @property
    def price(self) -> Price:
        """Of a token; nothing for a backend on this machine, where none is given."""
        free = 0.0 if self.backend in FREE else None
        usd_in, usd_out = self.usd_per_million_in, self.usd_per_million_out
        return Price(usd_in=free if usd_in is None else usd_in, usd_out=free if usd_out is None else usd_out)

    @property
    def caps(self) -> tuple[Cap, ...]:
        """Those that are set."""
        values = {name: getattr(self, name) for name in CAPS}
        return tuple(
            dataclasses.replace(CAPS[name], most=round(value * NANO) if CAPS[name].unit == "usd" else value)
            for name, value in values.items()
            if value is not None
        )


CAPS = {
    f"max_{unit}_per_{scope}": Cap(scope=scope, unit=unit, most=0)
    for scope in ("job", "day")
    for unit in ("calls", "tokens", "usd")
}
"""Each cap by its name in the config."""
FREE = frozenset({"local", "scripted"})
"""Backends that nobody charges for."""
BATCHED = frozenset({"anthropic_batch", "openai_batch"})
"""Backends that send many requests at once and wait for hours: slots say nothing of them."""
BATCHES = "batches"
"""Folder, beside the replies, where batches are written down."""
UPLOAD_S = 600.0
"""Least time that sending a batch, or fetching what came of it, may take."""
AT_ONCE, AT_ONCE_BATCHED = 16, 8192
"""Least items that a job works on at the same time; with batches, what one pass sends together."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "anthropic_api": ("model", "base_url", "timeout_s"),
    "anthropic_batch": ("model", "base_url"),
    "local": ("model",),
    "openai_batch": ("model", "base_url"),
    "openai_compatible": ("model", "base_url", "timeout_s"),
    "scripted": (),
}
"""What each backend is told of the config, where it is set."""
FIXED: dict[str, dict[str, Any]] = {"scripted": {"remembers": False}}
"""What a backend is told whatever the config."""


def at_once(cfg: LLMConfig) -> int:
    """Items that a job works on at the same time: enough to fill the slots while some items are between two calls."""
    return AT_ONCE_BATCHED if cfg.backend in BATCHED else max(AT_ONCE, 2 * cfg.concurrency)


def backend_of(cfg: LLMConfig, root: Path | None = None) -> LLM:
    """The backend alone, without limits, ledger or store; `root` is where those with batches write them down.

    Raises:
        UsageError: there is none of that name, or it does not take what is set, or needs a root.
    """
    takes = SETTINGS.get(cfg.backend, ("model", "base_url"))
    for name in ("model", "base_url"):
        if getattr(cfg, name) and name not in takes:
            raise UsageError(
                f"{name} is '{getattr(cfg, name)}', and the backend {cfg.backend} takes none: leave it out"
            )
    given: dict[str, Any] = {name: getattr(cfg, name) for name in takes if getattr(cfg, name)}
    given |= FIXED.get(cfg.backend, {})
    if cfg.backend in BATCHED:
        if root is None:
            raise UsageError(f"{cfg.backend} writes down what it sends: give a root, or use a backend without batches")
        given |= {"folder": root / BATCHES, "timeout_s": max(cfg.timeout_s, UPLOAD_S)}
    return open_backend(cfg.backend, **given)


def open_llm(cfg: LLMConfig, root: Path, job: str = "", *, on_spend: Callable[[Spend], None] | None = None) -> LLM:
    """The model of `cfg` with its replies and its ledger in `root`; a `Reader` where the backend is one.

    `job` names what is charged: caps per job count over all openings with the same name, and an empty one is a job of
    its own. `on_spend` is called after each call with what the job has spent.

    Raises:
        UsageError: there is no such backend, or it lacks something.
    """
    backend = backend_of(cfg, root)
    return stacked(backend, cfg, root, job, on_spend=on_spend)


def stacked(
    backend: LLM, cfg: LLMConfig, root: Path, job: str = "", *, on_spend: Callable[[Spend], None] | None = None
) -> LLM:
    """`backend` with all that `cfg` asks for around it, as `open_llm` gives it."""
    file = replies_file(root)
    job = job or uuid.uuid4().hex[:12]
    # Inside out: every try is metered, a try that waits holds no slot, and what is stored is not tried.
    batched = cfg.backend in BATCHED
    ledger = Ledger(file)
    metered = Metered(backend, ledger, job, caps=cfg.caps, price=cfg.price, again=batched, on_spend=on_spend)
    asked = Excused(Retrying(metered if batched else Limited(metered, cfg.concurrency), cfg.tries))
    replies = Replies(file)
    return CachedReader(asked, replies, backend) if isinstance(backend, Reader) else Cached(asked, replies)
