"""Build the feature index of a dictionary: one pass over the activations, then the latents range by range.

Every file is whole or absent and every step makes only what is missing, so a killed index goes on where it was, and a
damaged file is mended by deleting it and asking again.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from activations.lm import LanguageModel
from activations.models import load_recorded
from activations.progress import Progress, no_progress
from activations.reader import Activations
from autointerp.index.config import IndexConfig
from autointerp.index.encode import Encoder, NearMisses
from autointerp.index.logits import logit_effects, through_heads
from autointerp.index.neighbours import directions_of, neighbours
from autointerp.index.ranges import Ranges, titles
from autointerp.index.spill import SPILL, Spill, Thinning
from autointerp.pairing import check_model, check_width, only_hook_point, own_harvest
from sae import checkpoint
from sae.base import SAE
from sae.encoder import EncoderSAE
from store.errors import UsageError
from store.feature_index import TEXT_FOLDER
from store.files import remove_partials
from store.hashing import plain
from store.index import CURRENT, part_path, publish, published_whole, write_part
from store.run import Run, find_run, locked, start_run
from store.token_map import OTHER_FILES, TEXT, TOKEN_FILES, TokenMap, write_token_map

VERSION = 2
"""Of what an index holds: a change makes another run of the same request."""


def build_index(
    cfg: IndexConfig, sae_run: Run, activations_run: Run, root: Path, progress: Progress = no_progress
) -> Run:
    """Build and publish `root/index/<hash>`, go on with one that was killed, or return the one that is there.

    Raises:
        UsageError: the SAE reads another hook point, another model or another width, or no latent fires.
    """
    activations = Activations(activations_run, only_hook_point(sae_run, "index"))
    own = own_harvest(sae_run, activations_run)
    if own is not None:
        check_model(sae_run, activations_run, own)
    inputs = {"sae": sae_run.id, "activations": activations_run.id}
    with start_run(root, "index", cfg, inputs, same={**plain(cfg), "version": VERSION}) as run:
        if not run.finished:
            run.finish(_Index(run.folder, cfg, sae_run, activations, progress).make())
        publish(run)
        return run


def repair_index(run: Run, progress: Progress = no_progress) -> list[str]:
    """Make the damaged or missing files of a finished index again, and nothing else; their names.

    Raises:
        Busy: another process is making or mending it.
        UsageError: what it is made from is not there.
    """
    if "sae" not in run.inputs:
        raise UsageError(f"index {run.id} was imported, so nothing here can make its files again: import it anew")
    asked: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in run.config.items()}
    cfg = IndexConfig(**asked)
    sae_run, activations_run = (find_run(run.root, run.inputs[kind], kind) for kind in ("sae", "activations"))
    with locked(run.folder):
        broken = run.broken_files(progress)
        if broken:
            for name in broken:
                (run.folder / name).unlink(missing_ok=True)
            activations = Activations(activations_run, only_hook_point(sae_run, "index"))
            results = _Index(run.folder, cfg, sae_run, activations, progress).make()
            if lost := [name for name in broken if not (run.folder / name).exists()]:
                raise UsageError(
                    f"{run.folder} lacks {', '.join(lost)}, which are not made any more: delete it and index anew"
                )
            run.finish(results)
        if not published_whole(run.folder):
            broken.append(CURRENT)
        if broken:
            (run.folder / CURRENT).unlink(missing_ok=True)  # what was made of damaged files is made again
        publish(run)
    return broken


@dataclass(frozen=True)
class _Index:
    """What is made of one dictionary and one harvest, in `folder`."""

    folder: Path
    cfg: IndexConfig
    sae_run: Run
    activations: Activations
    progress: Progress

    def make(self) -> dict[str, float | int]:
        """Make every file that is not there, and sum up."""
        remove_partials(self.folder)
        check_width(self.sae, self.activations)
        if not all((self.folder / TEXT_FOLDER / name).exists() for name in _TEXT_NAMES):
            write_token_map(self.folder / TEXT_FOLDER, self.activations.run.folder)
        self._once("titles", lambda: titles(self.activations.run.folder))
        work = Ranges(self.folder, self.cfg, self.tokens, self._words, self.progress)
        if not work.done():
            self._encode()
            work.write()
        self._once("neighbours", lambda: neighbours(directions_of(self.sae), self.cfg.n_neighbours, self.progress))
        self._output_side()
        shutil.rmtree(self.folder / SPILL, ignore_errors=True)
        return work.summary()

    @cached_property
    def sae(self) -> SAE:
        return checkpoint.load(self.sae_run.folder)

    @cached_property
    def tokens(self) -> TokenMap:
        return TokenMap(self.folder / TEXT_FOLDER)

    @cached_property
    def spill(self) -> Spill:
        return Spill(self.folder)

    @cached_property
    def lm(self) -> LanguageModel:
        return load_recorded(self.activations.run, device="cpu")

    @property
    def n_windows(self) -> int:
        return len(self.tokens.windows) - 1

    def _words(self) -> list[str]:
        """The text of every token."""
        tokenizer = self.lm.tokenizer
        return [tokenizer.decode([token_id]) for token_id in range(self.lm.d_vocab)]

    def _once(self, table: str, make: Callable[[], Mapping[str, Any]]) -> None:
        if not part_path(self.folder, table).exists():
            write_part(self.folder, table, make())

    def _encode(self) -> None:
        """The pass over the activations."""
        sae, d_sae = self.sae, self.sae.cfg.d_sae
        misses = NearMisses(d_sae, 2 * self.cfg.n_near) if self.cfg.n_near and isinstance(sae, EncoderSAE) else None
        thinning = Thinning(self.cfg.max_events, self.cfg.n_top, self.cfg.seed, len(self.tokens))
        seen = np.zeros(d_sae, np.int64)
        blocks: dict[int, list[Any]] = {}
        for block in self.activations.blocks:
            blocks.setdefault(block.window, []).append(block)
        for window in self.progress(range(self.n_windows), self.n_windows, "encode every token"):
            if self.spill.has(window):
                misses = self.spill.misses(window)
                (seen,) = self.spill.read(window, "seen")
                continue
            encoder = Encoder(sae, self.tokens, self.cfg.classes, misses)
            codes = encoder.window(window, blocks.get(window, []), self.activations.dtype)
            kept = thinning.kept(codes, self.tokens, int(self.tokens.windows[window]), d_sae, seen)
            seen = kept.seen
            self.spill.write(window, codes, kept, misses, d_sae)

    def _output_side(self) -> None:
        """What decoder rows do to the logits, through the heads they belong to, where the site has either."""
        hook = self.lm.hook_point(self.activations.hook_point)
        rows, W_O = self.sae.W_dec.detach(), self.lm.head_outputs(hook)
        if W_O is not None:
            heads = through_heads(rows, W_O)
            rows = heads.rows
            self._once("heads", lambda: heads.by_head)
        missing = [name for name in ("logits", "logit_effects") if not part_path(self.folder, name).exists()]
        if (W_O is None and not hook.in_residual_basis) or not missing:
            return
        found = logit_effects(rows, self.lm.unembedding().float(), self.cfg.n_logits, self.progress)
        ids = found.logits["token_id"]
        words = {int(token_id): self.lm.tokenizer.decode([int(token_id)]) for token_id in np.unique(ids)}
        tables = {"logits": {**found.logits, "token": [words[i] for i in ids.tolist()]}, "logit_effects": found.effects}
        for name in missing:
            write_part(self.folder, name, tables[name])


_TEXT_NAMES = [*(f"{name}.npy" for name in (*TOKEN_FILES, *OTHER_FILES)), TEXT]
