"""The steering lab under Streamlit's AppTest, on the small workbench and with the tiny model."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from streamlit.runtime.caching import clear_session_resource_cache
from streamlit.testing.v1 import AppTest

from app.generator import Stopped
from app.log import printable
from app.steering_settings import SteeringSettings
from app.web import state
from app.workbench import Workbench
from autointerp.steer_config import SteerConfig, SteerVector
from store.notes import Notes

TIMEOUT = 60
ASKED = {"n_tokens": 8, "temperature": 0.7, "chat": False}
PROMPT = {"prompt": "Ahoy", "chat": "false", "tokens": "8"}


@pytest.fixture(scope="module", autouse=True)
def _one_worker():
    # One thread, as here: sums of another number of threads differ in the last bit.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    state._worker.clear()


@pytest.fixture(scope="module")
def runs_root(runs_root, tmp_path_factory) -> Path:
    """Runs of this module's own: what is steered is kept beside them."""
    return shutil.copytree(runs_root, tmp_path_factory.mktemp("steering") / "runs")


@pytest.fixture
def own_root(runs_root, tmp_path):
    """Runs of one test's own, in which nothing was steered yet."""
    shutil.copytree(runs_root, tmp_path / "runs", ignore=shutil.ignore_patterns("notes.sqlite*"))
    yield tmp_path / "runs"
    state._worker.clear()


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def captions(at: AppTest) -> str:
    return "\n".join(caption.value for caption in at.caption)


def told(element) -> str:
    """The words of a Markdown text as they are read."""
    return element.value.replace("\\", "").replace("\u2060", "")


def click(at: AppTest, label: str) -> AppTest:
    return next(button for button in at.button if button.label == label).click().run()


def until(at: AppTest, condition) -> AppTest:
    deadline = time.monotonic() + TIMEOUT
    while not condition(at):
        assert time.monotonic() < deadline, html(at)
        assert not at.exception
        time.sleep(0.02)
        at.run()
    return at


def is_written(at: AppTest) -> bool:
    return not [button for button in at.button if button.label == "Stop"]


def generate(at: AppTest) -> AppTest:
    return until(click(at, "Generate both"), is_written)


def test_it_says_what_to_do_where_nothing_is_named(dashboard):
    at = dashboard("steering")
    assert not at.exception
    assert at.title[0].value == "Steering lab"
    assert "Name at least one latent" in told(at.info[0])
    assert next(button for button in at.button if button.label == "Generate both").disabled


def test_a_url_of_another_page_opens_it_filled_in(dashboard):
    at = dashboard("steering", latents="12,3", prompt="Ahoy")
    assert not at.exception
    assert not at.error
    assert at.text_area(key="prompt").value == "Ahoy"
    assert not at.markdown, "Streamlit shows values that stand alone in a page's code"
    assert [at.selectbox(key=f"op{latent}").value for latent in (12, 3)] == ["clamp", "clamp"]


def test_the_whole_state_is_in_the_url(dashboard):
    query = {
        "latents": "12,3",
        "op12": "scale",
        "strength12": "2.5",
        "decode12": "full",
        "when3": "token",
        "condition3": "4,5",
        "above3": "0.5",
        "tokens": "9",
        "temperature": "0.0",
        "seed": "7",
        "samples": "2",
        "chat": "false",
        "prompt": "Ahoy",
    }
    at = dashboard("steering", **query)
    assert not at.error
    asked = generate(at).session_state["steered"].settings
    assert asked.edits == (
        SteerConfig(latents=(12,), op="scale", strength=(2.5,), decode="full"),
        SteerConfig(latents=(3,), when="token", condition=(4, 5), above=(0.5,)),
    )
    assert (asked.n_tokens, asked.temperature, asked.seed, asked.n_samples, asked.chat) == (9, 0.0, 7, 2, False)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"latents": "abc"}, "latent abc is none: choose 0 to 29"),
        ({"latents": "999"}, "latent 999 is none"),
        ({"latents": "-1"}, "is none: choose 0 to 29"),
        ({"latents": "3,3"}, "names one twice"),
        ({"latents": "<b>"}, "is none"),
        ({"latents": ",".join(map(str, range(20)))}, "choose at most 16"),
        ({"latents": "3", "op3": "nudge"}, "op3=nudge is not known: choose one of clamp, add"),
        ({"latents": "3", "when3": "never"}, "when3=never is not known"),
        ({"latents": "3", "strength3": "much"}, "strength3=much is no number"),
        ({"latents": "3", "strength3": "nan"}, "is no number"),
        ({"latents": "3", "tokens": "9999"}, "tokens=9999 is out of range: choose 1 to 200"),
        ({"latents": "3", "samples": "0"}, "samples=0 is out of range: choose 1 to 8"),
        ({"latents": "3", "above3": "-1", "when3": "token"}, "above3=-1 is out of range: choose 0 or more"),
        ({"latents": "3", "tokens": "many"}, "tokens=many is no number"),
        ({"latents": "3", "when3": "token", "condition3": "x"}, "condition: latent x is none"),
    ],
)
def test_what_a_url_cannot_mean_is_one_line(dashboard, query, said):
    at = dashboard("steering", **query)
    assert not at.exception
    assert len(at.error) == 1
    assert said in told(at.error[0])


def test_texts_are_those_of_the_workbench_for_every_seed(dashboard, runs_root):
    at = dashboard("steering", latents="3,12", strength3="3", op12="ablate", samples="2", seed="4", **PROMPT)
    generate(at)
    assert not at.exception
    edits = [SteerConfig(latents=(3,), strength=(3.0,)), SteerConfig(latents=(12,), op="ablate")]
    bench, shown = Workbench.open(runs_root), [job.result() for job in at.session_state["steered"].jobs]
    assert shown == [bench.steer("Ahoy", edits, seed=seed, **ASKED) for seed in (4, 5)]
    for found in shown:
        assert f"seed {found.seed} for both" in html(at)
        assert f"the hook fired {found.n_hook_calls} times, once in each forward pass" in html(at)


def test_where_it_was_changed_and_what_is_never_touched_is_shown(dashboard):
    at = generate(dashboard("steering", latents="3", strength3="3", **PROMPT))
    found = at.session_state["steered"].jobs[0].result()
    assert f"changed on {sum(found.altered)} of {len(found.altered)} tokens" in html(at)
    assert html(at).count("border-bottom:2px dotted") == found.touchable.count(False) == 1
    assert "of its length" in html(at)
    assert "never edited, whatever is asked" in told(at.caption[0])


@pytest.mark.parametrize(
    ("op", "equation"),
    [
        ("clamp", "x′ = x + ({v} − a<sub>3</sub>) d<sub>3</sub>"),
        ("add", "x′ = x + {v} d<sub>3</sub>"),
        ("scale", "x′ = x + (2 − 1) a<sub>3</sub> d<sub>3</sub>"),
        ("ablate", "x′ = x − a<sub>3</sub> d<sub>3</sub>"),
        ("project_out", "x′ = x − (x · d<sub>3</sub>) d<sub>3</sub> / |d<sub>3</sub>|²"),
    ],
)
def test_the_equation_is_shown_with_its_numbers(dashboard, runs_root, op, equation):
    unit = float(Workbench.open(runs_root).page(3).statistics["q999"])
    at = dashboard("steering", latents="3", op3=op, strength3="2")
    assert equation.format(v=f"{2 * unit:.4g}") in html(at)
    assert at.number_input(key="strength3").disabled == (op in ("ablate", "project_out"))


def test_a_condition_and_a_dropped_error_term_stand_in_the_equation(dashboard):
    at = dashboard("steering", latents="3", op3="ablate", decode3="full", when3="token", condition3="4", above3="0.5")
    assert "x′ = x̂(x) − a<sub>3</sub> d<sub>3</sub>" in html(at)
    assert "on tokens with a<sub>4</sub> &gt; 0.5 × q99.9" in html(at)


def test_a_strength_stands_beside_its_share_of_the_activations_length(dashboard, runs_root):
    bench = Workbench.open(runs_root)
    unit, norm = float(bench.page(3).statistics["q999"]), float(bench._subject.sae.W_dec[3].detach().norm())
    at = dashboard("steering", latents="3", strength3="2")
    assert f"{2 * unit * norm / 5.5:.1%} of the mean length of activations, 5.5" in html(at)


def test_a_latent_that_never_fired_has_no_unit_and_says_so(dashboard, fixture_index):
    dead = fixture_index.DEAD[0]
    at = dashboard("steering", latents=str(dead), **PROMPT)
    assert "It never fired on the harvested text: there is no unit of strength. Choose scale" in html(at)
    generate(at)
    assert "there is no unit of strength" in told(at.error[0])
    at.selectbox(key=f"op{dead}").set_value("scale").run()
    assert "This operation needs none" in html(at)
    assert not generate(at).error


def test_a_strength_that_breaks_the_model_is_stopped_and_named(dashboard):
    at = generate(dashboard("steering", latents="3", strength3="1e39", samples="2", **PROMPT))
    assert not at.exception
    assert len(at.error) == 1
    assert "what is edited is too strong" in told(at.error[0])


def test_all_samples_are_stopped_and_what_was_written_stays(dashboard):
    at = dashboard("steering", latents="3", samples="3", **PROMPT)
    state.worker().inspect("Ahoy").result(TIMEOUT)
    pid = state.worker().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    click(at, "Generate both")
    assert "Waiting for its turn" in captions(at)
    jobs = at.session_state["steered"].jobs
    jobs[0].take({"kind": "started"})
    jobs[0].take({"kind": "token", "side": "steered", "text": " <b>*a*"})
    at.run()
    assert "1 tokens of both texts, sample 1 of 3" in captions(at)
    click(at, "Stop")
    assert "Stopping: the model finishes its token" in captions(at)
    os.kill(pid, signal.SIGCONT)
    until(at, lambda at: "Stopping" not in captions(at))
    assert [isinstance(job._error, Stopped) for job in jobs] == [True] * 3
    assert "stopped after 0 clean and 1 steered tokens" in told(at.info[-1])
    assert " &lt;b&gt;*a*" in html(at)
    assert state.worker().pid == pid


def test_a_worker_that_hangs_is_named_and_ended_by_stop(dashboard, monkeypatch):
    monkeypatch.setattr("app.generator.worker.STOP_SECONDS", 0.5)
    monkeypatch.setattr("app.web.panels.steering.SILENT_SECONDS", 0.1)
    at = dashboard("steering", latents="3", **PROMPT)
    state.worker().inspect("Ahoy").result(TIMEOUT)
    pid = state.worker().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    click(at, "Generate both")
    job = at.session_state["steered"].jobs[0]
    job.take({"kind": "started"})
    job.take({"kind": "token", "side": "steered", "text": " a"})
    time.sleep(0.2)
    assert "Nothing was heard of the model for" in captions(at.run())
    click(at, "Stop")
    until(at, lambda at: any("did not answer a Stop" in told(info) for info in at.info))
    assert not generate(at).error
    assert "did not answer a Stop within 0.5 seconds and was killed" in told(at.info[0])
    assert state.worker().pid != pid


def test_a_closed_tab_ends_what_it_asked_for(dashboard):
    at = dashboard("steering", latents="3", samples="3", **PROMPT)
    state.worker().inspect("Ahoy").result(TIMEOUT)
    pid = state.worker().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    click(at, "Generate both")
    jobs = at.session_state["steered"].jobs
    assert not any(job.done for job in jobs)
    clear_session_resource_cache("test session id")
    os.kill(pid, signal.SIGCONT)
    assert all(isinstance(job._error, Stopped) for job in jobs)


def test_what_was_steered_is_kept_once_and_a_click_brings_it_back(dashboard, own_root):
    query = {"latents": "3,12", "op3": "add", "strength3": "2", "when12": "input", "condition12": "4", "above12": "0.5"}
    at = dashboard("steering", own_root, **query, **PROMPT, seed="9")
    asked = generate(at).session_state["steered"].settings
    at.run()
    bench = Workbench.open(own_root)
    (kept,) = Notes(own_root).steerings(bench.sae_run.id)
    (job,) = at.session_state["steered"].jobs
    found = job.result()
    assert kept.result["texts"] == [{"seed": 9, "clean": found.clean, "steered": found.steered}]
    assert kept.result["n_hook_calls"] == [found.n_hook_calls]
    fresh = dashboard("steering", own_root)
    table = fresh.dataframe[-1]
    assert table.value["prompt"].tolist() == ["Ahoy"]
    assert "2 × q99.9 of latent 3 added" in table.value["edits"].iloc[0]
    fresh.session_state[table.proto.id.split("-", 2)[2]] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    fresh.run()
    assert fresh.text_input(key="latents").value == "3, 12"
    again = generate(fresh).session_state["steered"].settings
    assert again == asked


def test_read_only_steers_and_keeps_nothing(dashboard, own_root, monkeypatch):
    monkeypatch.setenv("MONOSEM_READ_ONLY", "1")
    at = generate(dashboard("steering", own_root, latents="3", **PROMPT))
    assert "seed 0 for both" in html(at)
    assert not Notes(own_root).path.exists()
    assert not [button for button in at.button if button.label == "Measure"]
    assert "none can be started" in captions(at)


@pytest.mark.parametrize("with_vector", [False, True])
def test_the_python_that_is_shown_writes_the_same_texts(
    dashboard, runs_root, capsys, tmp_path, monkeypatch, with_vector
):
    at = dashboard("steering", latents="3,12", strength3="3", op12="ablate", when12="token", samples="2", **PROMPT)
    if with_vector:
        (tmp_path / "mine 'x'.safetensors").write_bytes(save({"v": torch.arange(32.0)}))
        monkeypatch.chdir(tmp_path)
        at.session_state["own vector"] = ("mine 'x'.safetensors", tuple(map(float, range(32))))
        at.run()
    generate(at)
    names: dict = {}
    exec(at.code[0].value, names)  # noqa: S102 - it is what a person would paste
    assert names["found"] == [job.result() for job in at.session_state["steered"].jobs]
    assert "seed 1\nclean: " in capsys.readouterr().out


def test_the_command_that_is_shown_writes_the_same_texts(dashboard, capsys):
    import shlex

    from app.commands import steer

    at = dashboard(
        "steering",
        latents="3,4,12",
        strength3="-2",
        strength4="1.5",
        op12="ablate",
        when12="token",
        samples="2",
        **PROMPT,
    )
    generate(at)
    lines = at.code[1].value.splitlines()
    jobs = at.session_state["steered"].jobs
    assert len(lines) == len(jobs)
    for line, job in zip(lines, jobs, strict=True):
        steer.main(shlex.split(line)[2:])
        shown = capsys.readouterr().out
        found = job.result()
        assert f"seed {found.seed}\n" in shown
        for text in (found.clean, found.steered):
            assert printable(text) in shown


class TestVectors:
    def upload(self, at: AppTest, data: bytes) -> AppTest:
        at.file_uploader[0].upload("mine <b>.safetensors", data, "application/octet-stream")
        return at.run()

    def test_an_uploaded_one_is_added(self, dashboard, runs_root):
        at = self.upload(dashboard("steering", strengthvector="0.5", **PROMPT), save({"v": torch.arange(32.0)}))
        assert not at.exception
        assert "x′ = x + 2.75 u" in html(at)
        assert "mine &lt;b&gt;.safetensors" in html(at)
        generate(at)
        (job,) = at.session_state["steered"].jobs
        assert job.result().values == ((2.75,),)
        assert "takes no vectors" in captions(at)

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (save({"v": torch.ones(31)}), "give a vector of 32"),
            (save({"v": torch.full((32,), float("nan"))}), "NaN or infinite"),
            (b"\x80\x04K\x01.", "no safetensors"),
        ],
    )
    def test_what_is_none_is_one_line(self, dashboard, data, said):
        at = self.upload(dashboard("steering", latents="3"), data)
        assert not at.exception
        assert len(at.error) == 1
        assert said in told(at.error[0])

    @pytest.mark.parametrize("row", [0, 1])
    def test_a_click_brings_back_what_the_row_had_and_no_other(self, dashboard, own_root, row):
        kept = SteerVector(vector=tuple(map(float, range(32, 0, -1))), name="kept")
        tried = ((kept,), (SteerConfig(latents=(3,)),))
        for edits in tried[::-1]:
            settings = SteeringSettings(prompt="Ahoy", edits=edits, **ASKED)
            Notes(own_root).record_steering(Workbench.open(own_root).dictionary, settings.plain(), {}, "ada")
        at = self.upload(dashboard("steering", own_root), save({"v": torch.arange(32.0)}))
        assert at.session_state["own vector"][0] == "mine <b>.safetensors"
        key = at.dataframe[-1].proto.id.split("-", 2)[2]
        at.session_state[key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
        for _ in range(2):
            at.run()
            assert not at.exception
            assert not [info for info in at.info if "The vector is not in it" in told(info)]
            assert ("own vector" in at.session_state) == (row == 0)
            assert row or at.session_state["own vector"] == (kept.name, kept.vector)

    def test_a_url_of_a_page_with_one_says_that_it_is_not_in_it(self, dashboard):
        at = dashboard("steering", latents="3", strengthvector="0.5")
        assert "The vector is not in it" in told(at.info[0])


QUERY = {
    "latents": "3",
    "words": "moon, sun",
    "sweep_prompts": "At night\nFar above",
    "retain": "It rained.\nWe ate.",
    "strengths": "0.5, 1",
    "sw_n_draws": "2",
    "sw_n_tokens": "4",
    "sw_n_seeds": "1",
    **PROMPT,
}


class TestSweep:
    def test_it_is_measured_by_the_worker_and_read(self, dashboard, own_root):
        at = dashboard("steering", own_root, **QUERY)
        command = next(code.value for code in at.code if "steer sweep" in code.value)
        click(at, "Measure")
        until(at, lambda at: "sweeping" not in at.session_state and at.query_params.get("sweep"))
        assert not at.exception
        assert not at.error
        measures = at.dataframe[0].value
        assert measures["strength"].tolist() == [0.5, 1.0]
        assert measures["kl"].gt(0).all()
        assert any("suggested strengths, always:" in told(line) for line in at.markdown)
        self.is_what_the_command_makes(command, at.query_params["sweep"], own_root)

    def is_what_the_command_makes(self, command: str, id: str, root: Path) -> None:
        import shlex

        from app.commands import steer

        before = sorted(path.name for path in (root / "steering").iterdir())
        page = root / "page.html"
        steer.main([*shlex.split(command)[2:], "--out", str(page)])
        assert sorted(path.name for path in (root / "steering").iterdir()) == before
        assert id in page.read_text(encoding="utf-8")

    def test_it_can_be_stopped_and_gone_on_with(self, dashboard, own_root):
        at = dashboard("steering", own_root, **QUERY)
        state.worker().inspect("Ahoy").result(TIMEOUT)
        pid = state.worker().pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        click(at, "Measure")
        job = at.session_state["sweeping"].job
        job.take({"kind": "started"})
        job.take({"kind": "progress", "done": 3, "of": 11})
        at.run()
        assert "3 of 11 cells" in at.get("progress")[0].proto.text
        click(at, "Stop")
        os.kill(pid, signal.SIGCONT)
        at.run()
        assert "stopped after 3 of 11 cells" in told(at.info[-1])
        assert "it goes on from there" in told(at.info[-1])

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ({"strengths": "much"}, "give numbers, such as"),
            ({"words": ""}, "words=() leaves nothing to measure"),
            ({"retain": ""}, "retain=() leaves nothing"),
        ],
    )
    def test_what_cannot_be_measured_is_one_line(self, dashboard, query, said):
        at = click(dashboard("steering", **{**QUERY, **query}), "Measure")
        assert not at.exception
        assert said in told(at.error[0])

    def test_a_sweep_that_there_is_not_is_one_line(self, dashboard):
        at = dashboard("steering", latents="3", sweep="<b>none")
        assert not at.exception
        assert "There is no finished sweep" in at.warning[0].value
