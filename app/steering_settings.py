"""What a steering was asked for, as it is kept and as code that asks for it again."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.generator.plain import edits as edits_of_plain
from autointerp.steer_config import SteerConfig, SteerEdit, SteerVector
from store.errors import UsageError

if TYPE_CHECKING:
    from app.steered import Steering

LISTS = ("latents", "strength", "condition", "above")
"""Settings of the command line that take several values."""


@dataclass(frozen=True, kw_only=True)
class SteeringSettings:
    """One prompt, its edits, and how often it is continued."""

    prompt: str
    edits: tuple[SteerEdit, ...]
    n_tokens: int = 40
    temperature: float = 0.7
    seed: int = 0
    """Of the first sample; each further one has the next."""
    n_samples: int = 1
    chat: bool = True

    @property
    def seeds(self) -> range:
        """Of the samples."""
        return range(self.seed, self.seed + self.n_samples)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def of_plain(cls, plain: dict[str, Any]) -> "SteeringSettings":
        """What went through `plain` and JSON.

        Raises:
            UsageError: it is of another form: of another version, or by another hand.
        """
        try:
            return cls(**{**plain, "edits": edits_of_plain(plain["edits"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"these settings cannot be read ({error}): steer anew") from error


def result_of(found: Sequence["Steering"]) -> dict[str, Any]:
    """What came of it, for the history."""
    return {
        "texts": [{"seed": each.seed, "clean": each.clean, "steered": each.steered} for each in found],
        "share_of_norm": [each.share_of_norm for each in found],
        "n_hook_calls": [each.n_hook_calls for each in found],
    }


def snippet(settings: SteeringSettings, root: Path, index: str) -> str:
    """Python that writes the same texts; a vector is read from a file of its name where it is run."""
    names = sorted({type(edit).__name__ for edit in settings.edits})
    vectors = [edit for edit in settings.edits if isinstance(edit, SteerVector)]
    imports = ["from app.workbench import Workbench", f"from autointerp.steer_config import {', '.join(names)}"]
    imports += ["from autointerp.steer_vector import read_vector"] if vectors else []
    edits = "".join(f"    {_edit_code(edit)},\n" for edit in settings.edits)
    sampling = f"n_tokens={settings.n_tokens}, temperature={settings.temperature!r}, chat={settings.chat}"
    return (
        "from pathlib import Path\n\n" + "\n".join(imports) + "\n\n"
        f"bench = Workbench.open(Path({str(root)!r}), {index!r})\n"
        f"edits = [\n{edits}]\n"
        f"prompt = {settings.prompt!r}\n"
        f"seeds = range({settings.seeds.start}, {settings.seeds.stop})\n"
        f"found = [bench.steer(prompt, edits, seed=seed, {sampling}) for seed in seeds]\n"
        "for each in found:\n"
        '    print(f"seed {each.seed}\\nclean: {each.clean}\\nsteered: {each.steered}\\n")\n'
    )


def _edit_code(edit: SteerEdit) -> str:
    given = {name: repr(value) for name, value in _given(edit).items()}
    if isinstance(edit, SteerVector):
        given["vector"] = f"read_vector(Path({edit.name!r}).read_bytes(), {len(edit.vector)})"
    return f"{type(edit).__name__}({', '.join(f'{name}={code}' for name, code in given.items())})"


def _given(edit: SteerEdit) -> dict[str, Any]:
    """The settings that are not as they are by default."""
    return {
        each.name: getattr(edit, each.name)
        for each in fields(edit)
        if each.default is MISSING or getattr(edit, each.name) != each.default
    }


def command(settings: SteeringSettings, root: Path, index: str) -> str:
    """The command line that writes the same texts, a line for each sample.

    Raises:
        UsageError: a vector is among the edits, which the command line does not take.
    """
    if any(isinstance(edit, SteerVector) for edit in settings.edits):
        raise UsageError("the command line takes no vectors of one's own: use the Python above")
    first, *others = together([edit for edit in settings.edits if isinstance(edit, SteerConfig)])
    words = ["monosem", "steer", settings.prompt]
    for name, value in _given(first).items():
        several = value if name in LISTS else (value,)
        words += [f"--{name}", *(str(each) for each in several)]
    if others:
        words += ["--also", *(json.dumps(_given(other)) for other in others)]
    words += ["--n-tokens", str(settings.n_tokens), "--temperature", repr(settings.temperature)]
    words += ["--chat"] if settings.chat else []
    words += ["--root", str(root), "--index-run", index]
    return "\n".join(shlex.join([*words, "--seed", str(seed)]) for seed in settings.seeds)


def together(edits: Sequence[SteerConfig]) -> list[SteerConfig]:
    """The same edits, neighbours that differ in latent and strength alone as one."""
    out: list[SteerConfig] = []
    for edit in edits:
        if out and _alike(out[-1], edit):
            latents, strength = out[-1].latents + edit.latents, _each(out[-1]) + _each(edit)
            out[-1] = replace(edit, latents=latents, strength=strength if len(set(strength)) > 1 else strength[:1])
        else:
            out.append(edit)
    return out


def _each(edit: SteerConfig) -> tuple[float, ...]:
    return edit.strength * len(edit.latents) if len(edit.strength) == 1 else edit.strength


def _alike(one: SteerConfig, other: SteerConfig) -> bool:
    """Whether two edits are one of both their latents. Without a condition of its own each is conditioned on itself."""
    same = replace(one, latents=(), strength=()) == replace(other, latents=(), strength=())
    separate = not set(one.latents) & set(other.latents)
    return same and separate and (one.when == "always" or bool(one.condition))
