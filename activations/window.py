"""One window of a harvest: its sequences through the model, its rows in the shuffled order in which they are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from activations.batching import Batch, batches
from activations.hook_point import HookPoint
from activations.lm import LanguageModel
from activations.sequences import TokenSequence
from store.errors import UsageError
from store.shards import TOKEN_CLASSES, DTypeName, Rows

TORCH_DTYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}


@dataclass(frozen=True)
class WindowPlan:
    """Which row of a window is which token."""

    offset: dict[int, int]
    """By `seq`: the place of its first token, were nothing shuffled."""
    place: np.ndarray
    """`[n_rows]`: where each of those rows is stored."""
    columns: dict[str, np.ndarray]
    """`token_id doc_id seq pos token_class`, as stored; the class as the text alone tells it."""

    def __len__(self) -> int:
        return len(self.place)


@dataclass(frozen=True, kw_only=True)
class WindowJob:
    """What is the same for every window of a harvest."""

    hook_points: tuple[HookPoint, ...]
    dtype: DTypeName
    """How vectors are stored."""
    batch_tokens: int
    """Tokens and padding in one forward pass, at most."""
    seed: int


@dataclass(frozen=True)
class WindowRows:
    """What a window gives."""

    number: int
    n_sequences: int
    n_padding: int
    """Places in all batches that held no token."""
    rows: dict[str, Rows]
    """By hook point; `token_class` is as the text alone tells it."""
    norms: dict[str, np.ndarray]
    """By hook point: `[n_rows]` float32, before the vectors were rounded."""
    shapes: dict[str, tuple[int, ...]]
    """By hook point: of one token's activations in the model, such as heads by width of a head."""

    @property
    def n_rows(self) -> int:
        """Vectors at each hook point."""
        return len(next(iter(self.norms.values())))

    def marked(self, sinks: Mapping[str, float]) -> dict[str, Rows]:
        """The rows with sinks marked; `sinks` are the norms above which a token is one, by hook point."""
        return {
            name: Rows(vectors=rows.vectors, columns=with_sinks(rows.columns, self.norms[name], sinks[name]))
            for name, rows in self.rows.items()
        }


class WindowBuilder:
    """Takes a window's batches one by one; complete when all were added."""

    def __init__(
        self,
        lm: LanguageModel,
        number: int,
        sequences: Sequence[TokenSequence],
        job: WindowJob,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
            lm: the model.
            number: of the window.
            sequences: its.
            job: what is the same for every window.
            memory: kept from one window to the next, since the first touch of fresh memory costs as much as a copy.
                What lies in it is overwritten: whoever reuses it must be done with the window before.
        """
        self.number, self.job, self._lm, self._n_sequences = number, job, lm, len(sequences)
        self.batches = tuple(batches(sequences, job.batch_tokens))
        self._plan = plan_window(number, sequences, job.seed)
        self._vectors: dict[str, Tensor] = {}
        self._norms = {hook.name: np.empty(len(self._plan), np.float32) for hook in job.hook_points}
        self._memory = {} if memory is None else memory
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._n_added = 0

    @property
    def complete(self) -> bool:
        """Whether every batch was added."""
        return self._n_added == len(self.batches)

    def add(self, batch: Batch) -> None:
        """Run the next batch through the model and put its rows where they are stored.

        Raises:
            UsageError: a value is not finite, or too large for the stored dtype: which, and where.
        """
        where = self._plan.place[_unshuffled(batch, self._plan)]
        dtype = TORCH_DTYPES[self.job.dtype]
        for name, x in self._lm.capture(batch.tokens, self.job.hook_points).items():
            self._shapes[name] = tuple(x.shape[2:])
            rows = _tokens_only(x.flatten(2), batch)
            norms = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
            _check(rows, norms, self.job.dtype, name, self._plan, where)
            self._norms[name][where] = norms.cpu().numpy()
            if name not in self._vectors:
                self._vectors[name] = self._room(name, rows.shape[1], dtype)
            self._vectors[name].index_copy_(0, torch.from_numpy(where), rows.to(dtype).cpu())
        self._n_added += 1

    def _room(self, name: str, d_in: int, dtype: torch.dtype) -> Tensor:
        n = len(self._plan)
        if name not in self._memory or len(self._memory[name]) < n:
            self._memory[name] = torch.empty(n, d_in, dtype=dtype)
        return self._memory[name][:n]

    def result(self) -> WindowRows:
        """All rows, once complete."""
        columns = self._plan.columns
        rows = {name: Rows(vectors=stored_form(x), columns=dict(columns)) for name, x in self._vectors.items()}
        n_padding = sum(batch.n_padding for batch in self.batches)
        return WindowRows(self.number, self._n_sequences, n_padding, rows, self._norms, self._shapes)


def compute_window(lm: LanguageModel, number: int, sequences: Sequence[TokenSequence], job: WindowJob) -> WindowRows:
    """Run a window's sequences through the model.

    Raises:
        UsageError: as `WindowBuilder.add`.
    """
    builder = WindowBuilder(lm, number, sequences, job)
    for batch in builder.batches:
        builder.add(batch)
    return builder.result()


def plan_window(number: int, sequences: Sequence[TokenSequence], seed: int) -> WindowPlan:
    """Where each token's row goes: the same for a seed and a window, whatever was computed before."""
    lengths = np.array([len(sequence) for sequence in sequences])
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    n_rows = int(lengths.sum())
    order = np.random.default_rng([seed, number]).permutation(n_rows)
    place = np.empty(n_rows, np.int64)
    place[order] = np.arange(n_rows)
    in_order = {
        "token_id": np.concatenate([sequence.ids for sequence in sequences]),
        "doc_id": np.concatenate([sequence.doc_ids for sequence in sequences]),
        "seq": np.repeat(np.array([sequence.seq for sequence in sequences], np.int32), lengths),
        "pos": (np.arange(n_rows) - np.repeat(starts, lengths)).astype(np.int32),
        "token_class": np.concatenate([sequence.text_class for sequence in sequences]),
    }
    offset = {sequence.seq: int(start) for sequence, start in zip(sequences, starts, strict=True)}
    return WindowPlan(offset, place, {name: column[order] for name, column in in_order.items()})


def with_sinks(columns: Mapping[str, np.ndarray], norms: np.ndarray | float, sink_norm: float) -> dict[str, np.ndarray]:
    """The columns with sinks marked: a sequence's first position, and any vector longer than `sink_norm`."""
    sink = (columns["pos"] == 0) | (norms > sink_norm)
    classes = np.where(sink, TOKEN_CLASSES["sink"], columns["token_class"]).astype(np.int8)
    return {**columns, "token_class": classes}


def sink_norms(window: WindowRows, ratio: float) -> dict[str, float]:
    """By hook point: the norm above which a token is a sink, `ratio` medians of the later positions."""
    return {
        name: float(ratio * np.median(norms[window.rows[name].columns["pos"] > 0]))
        for name, norms in window.norms.items()
    }


def stored_form(x: Tensor) -> np.ndarray:
    """The tensor's memory as NumPy holds it: bfloat16, which NumPy lacks, as its sixteen bits."""
    return x.view(torch.int16).numpy().view("<u2") if x.dtype == torch.bfloat16 else x.numpy()


def _unshuffled(batch: Batch, plan: WindowPlan) -> np.ndarray:
    """Rows of a batch's tokens, were nothing shuffled, in the order in which its mask picks them."""
    ranges = [plan.offset[sequence.seq] + np.arange(len(sequence)) for sequence in batch.sequences]
    return np.concatenate(ranges)


def _tokens_only(x: Tensor, batch: Batch) -> Tensor:
    """`[batch, pos, d_in]` to `[n_tokens, d_in]`, without a copy where nothing is padding."""
    return x[batch.mask.to(x.device)] if batch.n_padding else x.flatten(0, 1)


def _check(rows: Tensor, norms: Tensor, dtype: DTypeName, name: str, plan: WindowPlan, where: np.ndarray) -> None:
    limit = float(torch.finfo(TORCH_DTYPES[dtype]).max)
    # No value is larger than its row's norm. Not `>`: a NaN must fail as well.
    if float(norms.max()) <= limit:
        return
    worst = rows.abs().amax(dim=1)
    if bool((worst <= limit).all()):
        return
    row = int((~(worst <= limit)).nonzero()[0])
    at = {column: int(plan.columns[column][where[row]]) for column in ("doc_id", "seq", "pos")}
    place = f"{name}, document {at['doc_id']}, sequence {at['seq']}, position {at['pos']}"
    if worst[row].isfinite():
        raise UsageError(
            f"{float(worst[row]):.6g} at {place} exceeds {dtype}'s {limit:.6g}: use --dtype bfloat16 or float32"
        )
    raise UsageError(
        f"a value at {place} is not finite: nothing of this window is written. The model overflows there: load it with "
        "--model-dtype float32 or bfloat16, or leave that document out"
    )
