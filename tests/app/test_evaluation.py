"""An evaluation of one dictionary: what is measured on what, against oracles on the rows themselves; bad inputs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from activations.prepare import heldout_sequences
from activations.reader import Activations
from app.cli import main
from app.evaluation.comparable import ALL_PREDICTIONS
from app.evaluation.evaluated import Evaluated, evaluations_of
from app.evaluation.job import evaluate_dictionary, evaluate_part, requests
from app.evaluation.parts import PARTS, TABLE, Part
from app.evaluation.reconstruction import ALL_BUT_FIRST, ReconstructionConfig
from app.evaluation.subject import NotApplicable, Subject
from store.errors import UsageError
from store.figures import Curve, Figure, Measured, find, read_measured, write_measured
from store.run import Run, find_run, list_runs, start_run

CORE = ("reconstruction", "loss")


@pytest.fixture(scope="module")
def runs(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny demo's harvest and dictionary, evaluated; tests may add evaluations."""
    root = tmp_path_factory.mktemp("evaluation") / "runs"
    for kind in ("activations", "sae"):
        shutil.copytree(tiny_root / kind, root / kind)
    return root


@pytest.fixture(scope="module")
def inputs(runs: Path) -> tuple[Run, Run]:
    return find_run(runs, "latest", "sae"), find_run(runs, "latest", "activations")


@pytest.fixture(scope="module")
def evaluated(runs: Path, inputs: tuple[Run, Run]) -> Evaluated:
    return evaluate_dictionary(requests(CORE), *inputs, runs)


def heldout(activations: Activations, *classes: str) -> torch.Tensor:
    return torch.cat(list(activations.rows("heldout", classes).in_order()))


def test_figures_over_rows_equal_an_oracle_on_those_rows(evaluated: Evaluated, inputs: tuple[Run, Run]):
    subject = Subject(*inputs)
    x = heldout(subject.activations, "normal").double()
    with torch.no_grad():
        out = subject.sae.double()(x)
    error, total = (x - out.x_hat).square().sum(), (x - x.mean(0)).square().sum()
    figures = evaluated.measured("reconstruction").figures
    expected = {
        "fvu": error / total,
        "l0": out.latents.dense().ne(0).double().sum(1).mean(),
        "cosine": torch.cosine_similarity(x, out.x_hat).mean(),
        "l2_ratio": (out.x_hat.norm(dim=1) / x.norm(dim=1)).mean(),
        "relative_bias": out.x_hat.square().sum() / (x * out.x_hat).sum(),
    }
    for name, value in expected.items():
        found = find(figures, name, token_class="normal")
        assert found is not None
        assert found.n == len(x)
        assert found.value == pytest.approx(value.item(), rel=1e-6), name
        assert found.low is not None
        assert found.low <= found.value <= found.high, name


def test_dead_latents_are_counted_over_all_rows_or_the_held_out_ones(runs: Path, inputs: tuple[Run, Run]):
    subject = Subject(*inputs)
    fired = {
        split: torch.cat([subject.sae(x).latents.indices for x in subject.activations.rows(split).in_order()]).unique()
        for split in ("all", "heldout")
    }
    for split, latents in fired.items():
        (request,) = requests(["reconstruction"], given={"reconstruction": {"dead_over": split}})
        figures = read_measured(evaluate_part(request, subject, runs)).figures
        assert find(figures, "n_dead").value == subject.sae.cfg.d_sae - len(latents)


def test_losses_equal_an_oracle_run_sequence_by_sequence(evaluated: Evaluated, inputs: tuple[Run, Run]):
    """The tiny model's text is all normal tokens but for BOS, so every later position is edited."""
    subject = Subject(*inputs)
    lm, hook_point = subject.lm, subject.hook_point
    losses: dict[str, list[torch.Tensor]] = {"clean": [], "sae": [], "zero": [], "kl": [], "kl zero": []}
    for sequence in heldout_sequences(subject.activations.run.folder, 160, 0):
        tokens = torch.from_numpy(sequence.ids.astype("int64"))[None]
        x = lm.capture(tokens, [hook_point])[hook_point.name]
        edits = {"sae": subject.sae(x[0]).x_hat[None], "zero": torch.zeros_like(x)}
        log_p = lm.logits(tokens).double().log_softmax(-1)[0, :-1]
        losses["clean"].append(-log_p.gather(1, tokens[0, 1:, None])[:, 0])
        for name, edited in edits.items():
            whole = torch.cat([x[:, :1], edited[:, 1:]], dim=1)
            with lm.hooked(hook_point, lambda _, whole=whole: whole):
                log_q = lm.logits(tokens).double().log_softmax(-1)[0, :-1]
            losses[name].append(-log_q.gather(1, tokens[0, 1:, None])[:, 0])
            losses["kl" if name == "sae" else "kl zero"].append((log_p.exp() * (log_p - log_q)).sum(1))
    means = {name: torch.cat(parts).mean().item() for name, parts in losses.items()}
    figures = evaluated.measured("loss").figures

    def value(metric: str, **where: str) -> float:
        found = find(figures, metric, token_class=ALL_PREDICTIONS, **where)
        assert found is not None
        assert found.value is not None
        return found.value

    assert value("cross_entropy", arm="clean model") == pytest.approx(means["clean"], rel=1e-6)
    assert value("cross_entropy") == pytest.approx(means["sae"], rel=1e-6)
    assert value("kl") == pytest.approx(means["kl"], rel=1e-5)
    kl_recovered = 1 - means["kl"] / means["kl zero"]
    assert value("kl_recovered", setting="against zero ablation") == pytest.approx(kl_recovered, rel=1e-5)


def test_no_figure_is_silently_over_several_token_classes(evaluated: Evaluated):
    rows = {f.token_class for f in evaluated.measured("reconstruction").figures if f.n_of == "rows"}
    assert rows == {"normal", "special", "role", "sink", ALL_BUT_FIRST}
    assert ALL_PREDICTIONS in {f.token_class for f in evaluated.measured("loss").figures}


def test_a_figure_over_too_few_rows_is_withheld_and_says_so(evaluated: Evaluated):
    found = find(evaluated.measured("reconstruction").figures, "fvu", token_class="role")
    assert found is not None
    assert found.value is None
    assert "fewer than 100" in found.note


def test_the_density_plot_shows_every_latent_that_fired(evaluated: Evaluated, inputs: tuple[Run, Run]):
    (density,) = [c for c in evaluated.measured("reconstruction").curves if c.plot == "density"]
    dead = find(evaluated.measured("reconstruction").figures, "n_dead")
    assert sum(density.y) == inputs[0].results["d_sae"] - dead.value
    (l0,) = [c for c in evaluated.measured("reconstruction").curves if c.plot == "l0"]
    assert sum(l0.y) == find(evaluated.measured("reconstruction").figures, "l0", token_class="normal").n


def test_every_part_is_a_run_of_its_own_and_is_not_made_twice(
    runs: Path, inputs: tuple[Run, Run], evaluated: Evaluated
):
    again = evaluate_dictionary(requests(CORE), *inputs, runs)
    assert {part: run.id for part, run in again.runs.items()} == {part: run.id for part, run in evaluated.runs.items()}
    assert all(run.reused for run in again.runs.values())
    assert {run.config["part"] for run in list_runs(runs, "evaluation")} >= set(CORE)
    quick = evaluate_dictionary(requests(["loss"], quick=True), *inputs, runs)
    assert quick.runs["loss"].id != evaluated.runs["loss"].id


def test_a_part_that_fails_keeps_nobody_else_from_finishing(
    runs: Path, inputs: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def fails(cfg, subject, progress):
        raise UsageError("the texts cannot be fetched: no network")

    def refuses(cfg, subject, progress):
        raise NotApplicable("this is no dictionary of activations")

    for name, measure in (("failing", fails), ("refusing", refuses)):
        for table in (PARTS, TABLE):
            monkeypatch.setitem(table, name, Part(config=ReconstructionConfig, measure=measure, summary=""))
    status = main(["evaluate", "latest", "--root", str(runs), "--only", "failing", "refusing", "legacy"])
    printed = capsys.readouterr()
    assert status == 2
    assert "no network" in printed.out
    assert "does not apply: this is no dictionary" in printed.out
    assert "not measured: failing" in printed.err
    evaluated = evaluations_of(runs, inputs[0])[-1]
    assert evaluated.not_applicable("refusing") == "this is no dictionary of activations"
    assert "failing" not in evaluated.runs
    assert find(evaluated.measured("legacy").figures, "legacy_ev_saelens").value is not None


def test_settings_given_for_a_part_count_over_the_quick_preset():
    (given,) = requests(["loss"], quick=True, given={"loss": {"seed": 5}})
    assert (given.settings.seed, given.settings.n_sequences) == (5, PARTS["loss"].config.quick().n_sequences)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "losses"], "no part 'losses'"),
        (["--skip", "losses"], "no part 'losses'"),
        (["nobody"], "no finished sae run 'nobody'"),
        (["latest", "--only", "loss", "--loss.n-sequences", "0"], "n_sequences=0 is no text"),
        (["latest", "--only", "legacy", "--legacy.n-rows", "0"], "n_rows=0 is no row"),
        (["latest", "--only", "similarity"], "'similarity' compares dictionaries, but one is named"),
    ],
)
def test_what_a_person_can_mistype_is_one_line(runs: Path, capsys: pytest.CaptureFixture, arguments, complaint):
    assert main(["evaluate", *arguments, "--root", str(runs)]) == 2
    assert complaint in capsys.readouterr().err


def test_a_dictionary_of_another_model_is_refused_by_name(runs: Path, tmp_path: Path):
    """Same hook point, same width, another model: its figures would look like figures."""
    root = tmp_path / "runs"
    shutil.copytree(runs / "activations", root / "activations")
    shutil.copytree(runs / "sae", root / "sae")
    harvest, sae = find_run(root, "latest", "activations"), find_run(root, "latest", "sae")
    same = json.loads(json.dumps(harvest.same))
    same["model"]["weights"] = "another"
    with start_run(root, "activations", harvest.config, {}, same) as other:
        for name in ("documents", "tokens", "blocks.1.hook_resid_post", "text.json", "statistics.parquet", "windows"):
            place = harvest.folder / name
            (shutil.copytree if place.is_dir() else shutil.copyfile)(place, other.folder / name)
        other.finish(harvest.results, harvest.manifest["files"])
    with pytest.raises(UsageError, match="trained on another model"):
        Subject(sae, other)


def test_a_part_is_measured_again_when_a_file_it_reads_has_changed(runs: Path, inputs: tuple[Run, Run], tmp_path: Path):
    """The file's name is in the settings, but what is probed is what it says."""
    path, subject = tmp_path / "labelled.csv", Subject(*inputs)
    lines = [f"the {'ship' if n % 2 else 'mill'} number {n},{n % 2}" for n in range(160)]
    given = {"probing": {"datasets": (str(path),), "ks": (1,), "n_draws": 1}}
    made = []
    for end in ("", "\nanother ship,1"):
        path.write_text("\n".join(["text,label", *lines]) + end, encoding="utf-8")
        made.append(evaluate_part(requests(["probing"], quick=True, given=given)[0], subject, runs).id)
    assert made[0] != made[1]


def test_documents_it_was_trained_on_are_not_held_out_by_another_harvest(runs: Path, inputs: tuple[Run, Run]):
    harvest = "harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories --n-tokens 8000 --n-ctx 64"
    assert main([*harvest.split(), "--document-seed", "1", "--root", str(runs)]) == 0
    with pytest.raises(UsageError, match=r"\d+ of \d+ held-out documents .* were trained on"):
        Subject(inputs[0], find_run(runs, "latest", "activations"))


def test_intervals_hold_their_figures_where_no_vector_is_stored(runs: Path, tmp_path: Path):
    """The statistics of such a harvest are of its first window alone."""
    harvest = "harvest --model tiny --hook-points blocks.1.hook_resid_post --corpus stories --keep-activations none"
    root = tmp_path / "runs"
    assert main([*harvest.split(), "--shard-rows", "64", "--root", str(root)]) == 0
    assert (
        main(
            ["train", "topk", "--d-sae", "48", "--k", "4", "--n-steps", "10", "--batch-size", "64", "--root", str(root)]
        )
        == 0
    )
    assert main(["evaluate", "latest", "--only", "reconstruction", "loss", "--root", str(root)]) == 0
    found = evaluations_of(root, find_run(root, "latest", "sae"))[-1]
    fvu = find(found.measured("reconstruction").figures, "fvu", token_class="normal")
    assert fvu.low < fvu.value < fvu.high
    assert find(found.measured("loss").figures, "kl", arm="mean ablation").value > 0


def test_quick_takes_a_given_setting_that_is_the_full_presets_own(runs: Path, capsys: pytest.CaptureFixture):
    command = ["evaluate", "latest", "--quick", "--only", "loss", "--loss.n-sequences", "160", "--root", str(runs)]
    assert main(command) == 0
    newest = list_runs(runs, "evaluation")[-1]
    assert any(run.config["settings"].get("n_sequences") == 160 for run in [newest, *list_runs(runs, "evaluation")])
    assert "loss recovered" in capsys.readouterr().out


def test_measured_figures_come_back_as_they_were(tmp_path: Path):
    measured = Measured(
        [
            Figure(metric="fvu", value=None, n=3, n_of="rows", note="withheld"),
            Figure(metric="x", value=1.5, n=1, n_of="y"),
        ],
        [Curve(plot="density", series="a", x=(1.0, 2.0), y=(3.0, 4.0))],
    )
    with start_run(tmp_path, "evaluation", {"part": "x"}, {}) as run:
        write_measured(run.folder, measured)
        run.finish({})
    assert read_measured(run) == measured


def test_a_row_by_class_batch_is_of_one_class_and_one_split(inputs: tuple[Run, Run]):
    activations = Activations(inputs[1])
    n, held = 0, activations.heldout_docs
    for rows in activations.rows("all", ("normal", "sink"), first=True).by_class(100):
        assert len(rows.x) == len(rows.doc_id) <= 100
        assert set(held[rows.doc_id]) == {rows.heldout}
        n += len(rows.x)
    assert n == len(activations.rows("all", ("normal", "sink"), first=True))
    one = next(r for r in activations.rows("heldout").by_class())
    assert np.array_equal(one.x, next(activations.rows("heldout").in_order())[: len(one.x)])
