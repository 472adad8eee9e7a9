"""What a person asks of steering, in units of the model: one unit of strength, and a line for what cannot be."""

import numpy as np
import pytest

from autointerp.steer_config import SteerConfig, edits_of, intervention, told
from sae import TopK, TopKConfig
from store.errors import UsageError

UNITS = np.array([2.0, 0.0, 4.0, 1.0])


@pytest.fixture
def sae() -> TopK:
    return TopK(TopKConfig(d_in=3, d_sae=4, k=2))


def absolute(sae: TopK, **settings: object):
    [cfg] = intervention([SteerConfig(**{"latents": (0, 2), **settings})], sae, UNITS).configs  # pyright: ignore
    return cfg


def test_strength_is_in_multiples_of_each_latents_own_unit(sae: TopK):
    assert absolute(sae, strength=(1.5,)).values == (3.0, 6.0)
    assert absolute(sae, op="add", strength=(1.0, -0.5)).values == (2.0, -2.0)
    assert absolute(sae, op="scale", strength=(3.0,)).values == (3.0,)
    assert absolute(sae, op="ablate").values == absolute(sae, op="project_out").values == ()


def test_so_is_what_a_condition_has_to_be_above(sae: TopK):
    assert absolute(sae, when="token", above=(0.5,)).above == (1.0, 2.0)
    assert absolute(sae, when="input", condition=(3, 0), above=(0.5, 0.1)).above == (0.5, 0.2)
    assert absolute(sae, when="token").above == (0.0,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latents": (1,)}, "latent 1 never fired on the harvested text, so there is no unit of strength"),
        ({"condition": (1,), "when": "token", "above": (1.0,)}, "latent 1 never fired"),
        ({"latents": (4,)}, "there is no latent 4: choose 0 to 3"),
        ({"condition": (9,), "when": "token"}, "there is no latent 9: choose 0 to 3"),
        ({"strength": (1.0, 2.0, 3.0)}, "strength has 3 numbers for 2 latents: give one, or one for each"),
        ({"condition": (0,)}, "a condition does nothing on every position: choose when=input or when=token"),
        ({"above": (0.5,)}, "a condition does nothing on every position"),
        ({"op": "ablate", "strength": (3.0,)}, "ablate takes no strength"),
        ({"causal": False}, "causal=False is about when=input, not always"),
        ({"op": "nudge"}, "op='nudge' is not known: choose one of clamp"),
        ({"when": "maybe"}, "when='maybe' is not known"),
        ({"strength": (float("nan"),)}, "choose finite numbers"),
    ],
)
def test_what_cannot_be_is_one_line(sae: TopK, settings: dict, said: str):
    with pytest.raises(UsageError, match=said) as raised:
        absolute(sae, **settings)
    assert "\n" not in str(raised.value)


def test_a_latent_that_never_fired_may_be_ablated(sae: TopK):
    assert absolute(sae, latents=(1,), op="ablate").latents == (1,)


def test_the_shortest_way_to_say_it(sae: TopK):
    assert edits_of(3, 2) == (SteerConfig(latents=(3,), strength=(2.0,)),)
    assert edits_of(np.int64(3)) == edits_of([3]) == (SteerConfig(latents=(3,)),)
    assert edits_of([3, 4], [1, 2], op="add") == (SteerConfig(latents=(3, 4), strength=(1.0, 2.0), op="add"),)
    mine = (SteerConfig(latents=(1,)), SteerConfig(latents=(2,), op="ablate"))
    assert edits_of(mine) == mine
    with pytest.raises(UsageError, match="not both"):
        edits_of(mine, op="add")
    with pytest.raises(UsageError, match="SteerConfig has op, when"):
        edits_of(1, sharply=True)


def test_an_edit_is_told_in_words():
    assert (
        told(SteerConfig(latents=(3,), strength=(2.0,)))
        == "latent 3 clamped to 2 × q99.9, on every token but the first"
    )
    said = told(SteerConfig(latents=(3, 5), op="ablate", when="token", above=(0.25,), decode="full"))
    assert said == (
        "latents 3, 5 set to 0, on tokens that one of 3, 5 fires on above 0.25 × q99.9, the reconstruction in place of "
        "the activation"
    )
