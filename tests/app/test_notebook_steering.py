"""Steering in a notebook: concepts chosen on one half and measured on the other; sweeps show and repeat themselves."""

import pytest

from app.notebook import open_workbench
from app.notebook_steering import FoundConcept, SweptEdit
from autointerp.steer_config import SteerConfig
from store.errors import UsageError

CONCEPT = ["The moon rose.", "A pale moon hung there.", "moon <b>moon</b>", "full moon tonight"]
OTHER = ["It rained.", "We ate.", "no", "home again"]
PROMPTS = ["At night", "Far above"]


@pytest.fixture(scope="module")
def wb(runs_root):
    return open_workbench(runs_root)


@pytest.fixture(scope="module")
def found(wb) -> FoundConcept:
    return wb.concept(CONCEPT, OTHER, n_latents=3, max_other=0.6)


@pytest.fixture(scope="module")
def sweep(found: FoundConcept) -> SweptEdit:
    return found.sweep(prompts=PROMPTS, words=["moon"], n_draws=2, n_tokens=4, n_seeds=1)


def test_what_a_concept_was_chosen_on_is_not_what_it_is_measured_on(found: FoundConcept, sweep: SweptEdit):
    held = set(found.found.concept) | set(found.found.other)
    assert len(found.found.concept) == len(found.found.other) == 2
    assert held < {*CONCEPT, *OTHER}
    assert tuple(sweep.run.config["retain"]) == found.found.other
    assert list(sweep.run.config["edit"]["latents"]) == found.latents == found.table["latent"].tolist()


def test_a_concept_and_a_sweep_show_themselves_and_load_nothing(found: FoundConcept, sweep: SweptEdit, loading):
    for shown in (found, sweep):
        assert loading(shown._repr_html_()).found == []
    assert f"<td>{found.latents[0]}</td>" in found._repr_html_()
    assert "above clean" in sweep._repr_html_()


def test_a_sweep_has_its_rows_texts_figures_and_itself_in_python(sweep: SweptEdit):
    assert set(sweep.summary["arm"]) == {"clean", "latents", "random latents", "random direction"}
    assert len(sweep.texts) == len(PROMPTS) * (1 + 1 + 2 + 2)
    assert len(list(sweep.figure().data)) == 1 + 2 + 2
    assert sweep.effects[0]["tier"] == "always"
    names: dict = {}
    exec(sweep.snippet, names)  # noqa: S102 - it is what a person would paste
    assert names["run"].id == sweep.run.id
    with pytest.raises(UsageError, match=r"no charm in tier 'always': there is .*mass"):
        sweep.figure(measure="charm")


def test_a_steered_text_is_swept_with_the_same_edit(wb):
    steered = wb.steer("Ahoy", 21, 2.0, op="add", when="token", n_tokens=2)
    sweep = steered.sweep(
        prompts=PROMPTS, retain=OTHER[:2], words=["moon"], strengths=(1.0,), tiers=("token",), n_draws=0, n_seeds=0
    )
    assert (sweep.run.config["edit"]["op"], sweep.run.config["edit"]["latents"]) == ("add", [21])
    both = wb.steer("Ahoy", [SteerConfig(latents=(21,)), SteerConfig(latents=(3,), op="ablate")], n_tokens=2)
    with pytest.raises(UsageError, match="2 edits are in place, a sweep is of one"):
        both.sweep(prompts=PROMPTS, retain=OTHER, words=["moon"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda wb: wb.concept(CONCEPT, OTHER, by="size"), "choose mean, frequency or auroc"),
        (lambda wb: wb.concept(CONCEPT, OTHER, sharply=True), "sharply"),
        (lambda wb: wb.concept(CONCEPT[:1], OTHER), "1 different texts cannot be chosen on and judged on"),
        (
            lambda wb: wb.concept(CONCEPT, [f"{text}." for text in CONCEPT], max_other=0.0, min_texts=1.0),
            "no latent fires in 100%",
        ),
    ],
)
def test_what_cannot_be_is_one_line(wb, asked, said):
    with pytest.raises(UsageError, match=said):
        asked(wb)


def test_a_setting_that_a_sweep_has_not_is_refused(found: FoundConcept):
    with pytest.raises(UsageError, match="strenghts"):
        found.sweep(prompts=PROMPTS, words=["moon"], strenghts=(1.0,))
