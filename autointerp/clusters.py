"""Latents whose decoder rows are nearly parallel, explained together: one feature that a wide dictionary has split."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from autointerp.latent import Evidence, Explanation, Unexplained
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.latents import Logit, Window

Explains = Callable[[Evidence], Awaitable[Explanation | Unexplained]]
"""An explainer, or the best of several."""
LARGEST = 4096
"""Latents that hang together, of which all pairs are held at once: 128 MiB."""


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Which latents are one cluster."""

    min_cosine: float = 0.6
    """Mean cosine, over pairs, at which two groups are still joined."""
    n_contexts: int = 30
    """Shown to the explainer, from all members together."""


@dataclass(frozen=True)
class Cluster:
    """Two or more latents in nearly one direction."""

    latents: tuple[int, ...]
    """Ascending."""
    medoid: int
    """The member of the highest mean cosine to the others."""
    cosine: float
    """Mean over pairs of members; a pair in which neither is among the other's listed neighbours counts as 0."""


def clusters(index: FeatureIndex, latents: Sequence[int], cfg: ClusterConfig) -> list[Cluster]:
    """The clusters among `latents`, the largest first; a latent that is near no other is in none.

    Raises:
        UsageError: so many hang together that their pairs would not fit.
    """
    near = index.arrow(NEAR, [list(latents), list(latents)])
    pairs = np.stack([near.column(name).to_numpy() for name in ("latent", "other")], axis=1)
    return grouped(pairs.astype(np.int64), near.column("cosine").to_numpy().astype(float), cfg.min_cosine)


def grouped(pairs: Int[np.ndarray, "n 2"], cosine: Float[np.ndarray, " n"], min_cosine: float) -> list[Cluster]:
    """Average-linkage clusters (Sokal & Michener 1958) of the latents in `pairs`, cut at a mean cosine.

    Groups joined at the cut have a pair at or above it, so each connected component of such pairs is clustered alone.

    Raises:
        UsageError: a component has more than `LARGEST` latents.
    """
    found = [
        cluster
        for latents, near in _components(pairs, cosine, min_cosine)
        for cluster in _linked(latents, near, min_cosine)
    ]
    return sorted(found, key=lambda cluster: (-len(cluster.latents), cluster.latents))


def _components(pairs: np.ndarray, cosine: np.ndarray, min_cosine: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Latents that hang together by pairs at or above the cut, ascending, and their `[n, n]` cosines."""
    latents, ends = np.unique(pairs, return_inverse=True)
    ends = ends.reshape(-1, 2)
    strong = ends[cosine >= min_cosine]
    graph = coo_array((np.ones(len(strong), bool), (strong[:, 0], strong[:, 1])), shape=(len(latents),) * 2)
    n_components, label = connected_components(graph, directed=False)
    sizes = np.bincount(label, minlength=n_components)
    if len(sizes) and sizes.max() > LARGEST:
        raise UsageError(
            f"{sizes.max():,} latents hang together at a cosine of {min_cosine}, and {LARGEST:,} are the most that can "
            "be clustered at once: raise --min-cosine, or choose fewer latents"
        )
    for component in np.flatnonzero(sizes > 1):
        members = np.flatnonzero(label == component)
        inside = (label[ends] == component).all(axis=1)
        first, second = np.searchsorted(members, ends[inside]).T
        near = np.eye(len(members))
        near[first, second] = near[second, first] = cosine[inside]
        yield latents[members], near


def _linked(latents: np.ndarray, near: np.ndarray, min_cosine: float) -> Iterator[Cluster]:
    tree = linkage(squareform(1 - near, checks=False), method="average")
    label = fcluster(tree, 1 - min_cosine, criterion="distance")
    for cluster in np.unique(label):
        own = np.flatnonzero(label == cluster)
        if len(own) > 1:
            inner = near[np.ix_(own, own)]
            mean = (inner.sum(axis=1) - 1) / (len(own) - 1)
            members = tuple(latents[own].tolist())
            yield Cluster(members, members[int(mean.argmax())], float(mean.mean()))


def pooled(cluster: Cluster, evidences: Sequence[Evidence], n_contexts: int) -> Evidence:
    """What an explainer may see of a cluster: as many contexts of each member, spread over its strengths.

    Values are shares of the member's strongest, so that members of different scales compare. Silent contexts and
    neighbours' are left out: they are known to be silent for one member only.

    Args:
        cluster: whose latents.
        evidences: of its members, in any order.
        n_contexts: at most, together.
    """
    shares = np.diff(np.linspace(0, n_contexts, len(evidences) + 1).astype(int))
    parts = [_spread(_scaled(each.windows), int(n)) for each, n in zip(evidences, shares, strict=True)]
    tops = [_spread(_scaled(each.top), int(n)) for each, n in zip(evidences, shares, strict=True)]
    return Evidence(
        latent=cluster.medoid,
        windows=_once(parts),
        promoted=_mean_logits([each.promoted for each in evidences]),
        suppressed=_mean_logits([each.suppressed for each in evidences]),
        top=_once(tops),
    )


def _scaled(windows: Sequence[Window]) -> list[Window]:
    most = max((window.value for window in windows), default=0.0)
    if not most:
        return list(windows)
    shares = ((window.value / most, tuple(value / most for value in window.values)) for window in windows)
    return [replace(window, value=top, values=all_) for window, (top, all_) in zip(windows, shares, strict=True)]


def _spread(windows: Sequence[Window], n: int) -> list[Window]:
    """`n` of them at even steps, the first included."""
    steps = np.linspace(0, len(windows) - 1, min(n, len(windows)))
    return [windows[at] for at in np.unique(steps.astype(int))]


def _once(parts: Sequence[Sequence[Window]]) -> tuple[Window, ...]:
    """All of them, strongest first; a place on which several members fire is shown once, as it is strongest."""
    found: dict[tuple[int, int], Window] = {}
    for window in sorted((window for part in parts for window in part), key=lambda each: -each.value):
        found.setdefault((window.seq, window.start + window.peak), window)
    return tuple(found.values())


def _mean_logits(lists: Sequence[Sequence[Logit]]) -> tuple[Logit, ...]:
    """Means over members, of which one that does not list a token counts 0; the largest first, as many as one lists."""
    sums: dict[tuple[int, str], float] = defaultdict(float)
    for logit in (logit for each in lists for logit in each):
        sums[logit.token_id, logit.token] += logit.value / len(lists)
    means = [Logit(token_id, token, value) for (token_id, token), value in sums.items()]
    n_kept = max((len(each) for each in lists), default=0)
    return tuple(sorted(means, key=lambda logit: (-abs(logit.value), logit.token_id))[:n_kept])


async def explain_cluster(
    explainer: Explains, cluster: Cluster, evidences: Sequence[Evidence], cfg: ClusterConfig
) -> Explanation | Unexplained:
    """One explanation of all members, which it names. `BestOf` chooses on the medoid's contexts."""
    found = await explainer(pooled(cluster, evidences, cfg.n_contexts))
    return replace(found, members=cluster.latents) if isinstance(found, Explanation) else found


def per_member(explanation: Explanation) -> tuple[Explanation, ...]:
    """A cluster's explanation as that of each of its members: each is scored on its own trial."""
    return tuple(replace(explanation, latent=latent) for latent in explanation.members)


NEAR = """
SELECT latent, other, cosine FROM neighbours
WHERE side = 'decoder' AND latent IN (SELECT unnest(?::INTEGER[])) AND other IN (SELECT unnest(?::INTEGER[]))
ORDER BY latent, rank
"""
