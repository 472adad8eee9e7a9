"""What a sweep is asked for."""

from dataclasses import dataclass, field, replace
from typing import Any

from activations.generation import refuse_sampling
from autointerp.llm.config import LLMConfig
from autointerp.steer_config import SteerConfig
from sae.edits import OPERATIONS, WHEN


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Which edits are measured, on what, and beside which controls."""

    edit: SteerConfig
    """What is done; its strength and tier are those below, one after the other."""
    strengths: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Of clamp and add: multiples of each latent's q99.9. Of scale: factors. What takes none is measured once."""
    tiers: tuple[str, ...] = ("always",)
    """always (every position), input (from the first on at which the condition is met), token (only there)."""
    prompts: tuple[str, ...] = ()
    """Texts that are continued, and after each of which the concept's words are weighed."""
    retain: tuple[str, ...] = ()
    """Texts that steering should leave alone: its cost is the model's KL and loss on them."""
    words: tuple[str, ...] = ()
    """The concept's: the effect is the probability that the next token begins one."""
    concept_texts: tuple[str, ...] = ()
    """Texts with the concept: the control `mean difference` takes its direction from them and a probe is trained on
    them, against `retain`; none for neither."""
    instruction: str = ""
    """Put before the prompts in the control of that name, in which nothing is edited; empty for no such control."""
    concept: str = ""
    """In words, for a language model that rates what was written; empty for no such judge."""
    llm: LLMConfig = field(default_factory=LLMConfig)
    """The judge, and what may be spent on it."""
    n_draws: int = 5
    """Of each random control: directions, and sets of latents that fire as often."""
    n_seeds: int = 2
    """Continuations of each prompt; 0 for the effect and the cost on given texts alone, which is many times as fast."""
    n_tokens: int = 24
    """Of a continuation."""
    temperature: float = 1.0
    """Of sampling; at 0 all seeds are one."""
    seed: int = 0
    """Of the controls and of the first continuation."""

    def __post_init__(self) -> None:
        for name in ("prompts", "retain", "words", "strengths", "tiers"):
            if not getattr(self, name):
                raise ValueError(f"{name}=() leaves nothing to measure: give at least one")
        for tier in self.tiers:
            if tier not in WHEN:
                raise ValueError(f"tier '{tier}' is not known: choose one of {', '.join(WHEN)}")
        if self.edit.op not in OPERATIONS:
            raise ValueError(f"op='{self.edit.op}' is not known: choose one of {', '.join(OPERATIONS)}")
        if not self.concept and self.llm != LLMConfig():
            raise ValueError("a language model is named and nothing it could rate texts for: give concept, in words")
        if self.concept and not self.n_seeds:
            raise ValueError("n_seeds=0 leaves a judge no texts: choose 1 or more, or no concept")
        refuse_sampling(self.n_tokens, self.temperature, self.seed)
        if self.n_draws < 0 or self.n_seeds < 0 or self.n_tokens < 1:
            raise ValueError(
                f"n_draws={self.n_draws}, n_seeds={self.n_seeds}, n_tokens={self.n_tokens}: choose 0, 0 and 1 or more"
            )

    @property
    def identity(self) -> "SweepConfig":
        """What the results depend on."""
        return replace(self, llm=self.llm.identity if self.concept else LLMConfig())

    @property
    def tried(self) -> tuple[float, ...]:
        """The strengths that make a difference to the operation."""
        return self.strengths if OPERATIONS[self.edit.op].takes_value else (1.0,)


@dataclass(frozen=True)
class Cell:
    """One arm at one strength in one tier."""

    arm: str
    draw: int
    """Of a random control; 0 elsewhere."""
    tier: str
    strength: float

    edit: SteerConfig | None = field(compare=False, default=None)
    """None where nothing is edited."""

    @property
    def place(self) -> dict[str, Any]:
        """The columns of its rows that say which it is."""
        return {"arm": self.arm, "draw": self.draw, "tier": self.tier, "strength": self.strength}
