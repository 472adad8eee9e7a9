"""What the Prompt lab asks of the worker is what the workbench finds, and is refused in its words."""

import numpy as np
import pytest

from app.generator import Worker, plain_prompt
from app.workbench import Workbench
from store.errors import UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

SECONDS = 120
A, B = ["Ahoy there", "The harbour", "A mast", "The tide"], ["def f(x)", "return x", "for x in y", "import os"]


def test_a_text_comes_with_all_its_figures(worker: Worker, bench: Workbench):
    found, direct = worker.inspect("Ahoy <b>\n").result(SECONDS), bench.inspect("Ahoy <b>\n")
    for name in ("quantile", "loss", "error", "fvu_part"):
        np.testing.assert_array_equal(getattr(found, name), getattr(direct, name))
    assert found.token_ids == direct.token_ids
    assert np.isnan(worker.inspect("Ahoy", losses=False).result(SECONDS).loss).all()


@pytest.mark.parametrize("settings", [{}, {"everywhere": True, "target": "z"}])
def test_effects_are_those_of_the_workbench(worker: Worker, bench: Workbench, settings: dict):
    latent = bench.inspect("Ahoy there").at(4, 1)["latent"].tolist()[0]
    asked = {"text": "Ahoy there", "latent": latent, "pos": 4, **settings}
    found, direct = worker.ask("effects", plain_prompt.effects, **asked).result(SECONDS), bench.effects(**asked)
    np.testing.assert_array_equal(found.loss_change, direct.loss_change)
    for name in ("full", "direct", "logit", "activation", "clean_loss", "target", "n_altered", "no_direct"):
        assert getattr(found, name) == getattr(direct, name), name


def test_contrasts_are_those_of_the_workbench_and_say_how_far_they_are(worker: Worker, bench: Workbench):
    job = worker.ask("contrast", plain_prompt.contrasted, a=A, b=B)
    found, direct = job.result(SECONDS), bench.contrast(A, B)
    assert found.rows.equals(direct.rows)
    assert (found.n_texts, found.n_tokens, found.n_held) == (direct.n_texts, direct.n_tokens, direct.n_held)
    assert job.progress == (4, 8)


@pytest.mark.parametrize(
    ("do", "asked", "said"),
    [
        ("effects", {"text": "Ahoy", "latent": 3, "pos": 77}, "there is no token 77"),
        ("effects", {"text": "Ahoy", "latent": 3, "pos": 2, "chat": True}, "no chat template"),
        ("contrast", {"a": A, "b": []}, "B has no text"),
    ],
)
def test_what_is_refused_is_one_line(worker: Worker, do: str, asked: dict, said: str):
    decode = {"effects": plain_prompt.effects, "contrast": plain_prompt.contrasted}[do]
    with pytest.raises(UsageError, match=said):
        worker.ask(do, decode, **asked).result(SECONDS)
