"""Settings of a steering: kept and read back, put together only where that changes nothing; edits from JSON."""

import json

import pytest

from app.commands.steer import _also
from app.steering_settings import SteeringSettings, together
from app.workbench import Workbench
from autointerp.steer_config import SteerConfig, SteerVector
from store.errors import UsageError

ASKED = {"n_tokens": 8, "seed": 3, "chat": False}


def one(latent: int, strength: float = 1.0, **settings) -> SteerConfig:
    return SteerConfig(latents=(latent,), strength=(strength,), **settings)


def test_what_is_kept_is_read_back():
    edits = (one(3, 2.0, when="token", condition=(4,), above=(0.5,)), SteerVector(vector=(1.0, 2.0), name="v"))
    settings = SteeringSettings(prompt="Ahoy <b>", edits=edits, n_samples=3, seed=5)
    assert SteeringSettings.of_plain(json.loads(json.dumps(settings.plain()))) == settings
    assert list(settings.seeds) == [5, 6, 7]


@pytest.mark.parametrize("plain", [{}, {"prompt": "a"}, {"prompt": "a", "edits": [{"latent": 3}]}, {"edits": None}])
def test_what_is_of_another_form_is_refused(plain):
    with pytest.raises(UsageError, match="cannot be read"):
        SteeringSettings.of_plain(plain)


@pytest.mark.parametrize(
    ("edits", "n"),
    [
        ([one(3), one(12, 2.0)], 1),
        ([one(3), one(12, op="add")], 2),
        ([one(3, decode="full"), one(12)], 2),
        ([one(3), one(3, 2.0)], 2),
        ([one(3, when="token"), one(12, when="token")], 2),
        ([one(3, when="token", condition=(4,)), one(12, when="token", condition=(4,))], 1),
        ([one(3, op="project_out"), one(12, op="project_out")], 1),
    ],
)
def test_edits_that_are_put_together_write_the_same(runs_root, edits, n):
    found, bench = together(edits), Workbench.open(runs_root)
    assert len(found) == n
    assert bench.steer("Ahoy", found, **ASKED).steered == bench.steer("Ahoy", edits, **ASKED).steered


def test_an_edit_from_json():
    assert _also('{"latents": [35], "op": "ablate"}') == SteerConfig(latents=(35,), op="ablate")


@pytest.mark.parametrize("given", ["", "3", "[]", '{"latent": 3}', '{"latents": 3}', '{"vector": [1.0]}', '"latents"'])
def test_what_is_no_edit_is_one_line(given):
    with pytest.raises(UsageError, match="--also"):
        _also(given)
