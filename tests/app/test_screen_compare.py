"""The page Compare under Streamlit's AppTest: figures, latents and settings of two dictionaries, evaluated or not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from streamlit.testing.v1 import AppTest

import app.web
from app.cli import main
from app.dictionaries import Dictionary, dictionaries, first_two, why_no_cosine
from app.figures_compare import best_figure, trade_figure, unbettered
from app.latent_pairs import from_matching, index_of, matching_of
from app.side_by_side import Point, figures_table, measurements, verdict
from app.web.navigation import file_of
from sae import checkpoint
from store.figures import Figure
from store.matching import Matching
from store.run import Run, list_runs

torch.set_num_threads(1)

MAIN = Path(app.web.__file__).parent / "main.py"
HOOK = "blocks.0.hook_resid_post"


def run_all(root: Path, *commands: str) -> None:
    for command in commands:
        assert main([*command.split(), "--root", str(root)]) == 0, command


@pytest.fixture
def root(compared_root: Path) -> Path:
    return compared_root


@pytest.fixture
def page(monkeypatch):
    """Opens the page on a root."""

    def open_page(root: Path, **query: str) -> AppTest:
        monkeypatch.setenv("MONOSEM_ROOT", str(root))
        at = AppTest.from_file(str(MAIN), default_timeout=60)
        at.switch_page(str(file_of("compare")))
        for key, value in query.items():
            at.query_params[key] = value
        return at.run()

    return open_page


def saes(root: Path) -> list[Run]:
    return list_runs(root, "sae")


def ids(root: Path) -> dict[str, str]:
    a, b, *_ = saes(root)
    return {"a": a.id, "b": b.id}


def html(at: AppTest) -> str:
    return "\n".join(element.proto.body for element in at.get("html"))


def charts(at: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


@pytest.mark.parametrize("n", [0, 1])
def test_with_fewer_than_two_it_says_what_to_run(page, root, tmp_path, n):
    for run in saes(root)[:n]:
        shutil.copytree(run.folder, tmp_path / "sae" / run.id)
    at = page(tmp_path)
    assert not at.exception
    assert not at.error
    assert "monosem train topk" in at.info[0].value


def test_figures_stand_side_by_side_with_their_intervals(page, root):
    at = page(root, **ids(root))
    assert not at.exception
    assert not at.warning
    rows = at.dataframe[0].value.set_index(["part", "metric", "class"])
    l0 = rows.loc[("reconstruction", "L0", "normal")]
    assert (l0["a"], l0["b"], l0["told"]) == ("4", "6", "a below b")
    fvu = rows.loc[("reconstruction", "FVU", "normal")]
    assert " to " in fvu["a_interval"]
    assert " to " in fvu["b_interval"]
    assert not rows["a"].str.contains("nan").any()
    drawn = {ref for trace in charts(at)[0]["data"] for ref in trace.get("customdata", ())}
    assert drawn == set(ids(root).values()), "the third is not evaluated"


def test_what_was_not_evaluated_says_how_to(page, root):
    wide = saes(root)[-1]
    at = page(root, a=ids(root)["a"], b=wide.id)
    assert f"monosem evaluate {wide.id} --root {root}" in at.code[0].value
    assert set(at.dataframe[0].value["b"]) == {""}


def test_two_harvests_are_never_compared_silently(page, root, tmp_path):
    other = tmp_path / "runs"
    shutil.copytree(root, other)
    run_all(other, f"harvest --model tiny --corpus stories --n-tokens 12000 --n-ctx 32 --hook-points {HOOK}")
    b = ids(other)["b"]
    for run in list_runs(other, "evaluation"):
        if run.inputs["sae"] == b:
            shutil.rmtree(run.folder)
    run_all(other, f"evaluate {b} --activations latest --only reconstruction loss --loss.n-sequences 6")
    at = page(other, **ids(other))
    assert not at.exception
    assert "two harvests" in at.warning[0].value
    assert any("texts differ" in warning.value for warning in at.warning)
    assert set(at.dataframe[0].value["told"]) == {""}


def test_settings_of_one_part_that_differ_unmark_that_part_alone(page, root, tmp_path):
    other = tmp_path / "runs"
    shutil.copytree(root, other)
    b = ids(other)["b"]
    for run in list_runs(other, "evaluation"):
        if run.inputs["sae"] == b and run.config["part"] == "loss":
            shutil.rmtree(run.folder)
    run_all(other, f"evaluate {b} --only loss --loss.n-sequences 8")
    at = page(other, **ids(other))
    assert "settings of loss differ" in at.warning[0].value
    rows = at.dataframe[0].value
    assert set(rows.loc[rows["part"] == "loss", "told"]) == {""}
    assert "a below b" in set(rows.loc[rows["part"] == "reconstruction", "told"])


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        ((1.0, 2.0), (3.0, 4.0), "a below b"),
        ((3.0, 4.0), (1.0, 2.0), "a above b"),
        ((1.0, 3.0), (2.0, 4.0), "intervals overlap"),
        ((2.0, 2.0), (2.0, 2.0), "equal"),
        ((None, None), (1.0, 2.0), ""),
    ],
)
def test_differences_are_told_only_where_intervals_tell(a, b, told):
    one, two = (Figure(metric="fvu", value=2.0, n=9, n_of="rows", low=ends[0], high=ends[1]) for ends in (a, b))
    assert verdict(one, two) == told


def test_matched_pairs_are_those_of_the_matching(page, root):
    at = page(root, view="Latents", **ids(root))
    assert not at.exception
    (run,) = list_runs(root, "matching")
    wanted = Matching(run.folder).sql(
        "SELECT a, b, value FROM one_to_one WHERE measure = 'decoder' AND matched ORDER BY value DESC"
    )
    rows = at.dataframe[1].value
    assert rows[["a", "b"]].astype(int).to_numpy().tolist() == wanted[["a", "b"]].to_numpy().tolist()
    assert rows["decoder"].tolist() == pytest.approx(wanted["value"].tolist())
    assert run.id in at.caption[0].value
    assert rows["a_explanation"].notna().any()
    assert rows["b_explanation"].isna().all(), "what was not explained is empty"


def test_a_matching_is_read_from_either_side(root):
    a, b, _ = (Dictionary(run) for run in saes(root))
    forth, back = matching_of(root, a, b), matching_of(root, b, a)
    assert forth is not None
    assert back is not None
    assert (forth[1], back[1]) == (False, True)
    one, two = from_matching(*forth), from_matching(*back)
    matched = [set(map(tuple, p.pairs.loc[p.pairs["kind"] == "matched", ["a", "b"]].to_numpy())) for p in (one, two)]
    assert matched[0] == {(a, b) for b, a in matched[1]}
    assert matched[0]
    assert one.counts["a"] == two.counts["b"]
    assert (one.pairs["kind"] == "only in a").sum() == (two.pairs["kind"] == "only in b").sum()
    assert one.best["a"] == pytest.approx(two.best["b"])


def test_without_a_matching_decoders_are_compared_at_once(page, root, tmp_path):
    other = tmp_path / "runs"
    shutil.copytree(root, other)
    shutil.rmtree(other / "matching")
    at = page(other, view="Latents", **ids(other))
    assert not at.exception
    rows = at.dataframe[1].value
    decoders = [checkpoint.load(run.folder).W_dec.detach().double() for run in saes(other)[:2]]
    unit = [one / one.norm(dim=1, keepdim=True) for one in decoders]
    cosines = (unit[0] @ unit[1].T).numpy()
    for a, b, value in rows[["a", "b", "decoder"]].astype(float).to_numpy():
        assert cosines[int(a), int(b)] == pytest.approx(value)
        assert value == pytest.approx(cosines[int(a)].max())
    assert len(rows)
    assert "monosem match" in at.caption[0].value
    (chart,) = charts(at)
    assert len(chart["data"]) == 3, "both sides, and chance beside them"


def test_a_pair_in_the_address_shows_both_latents_with_the_way_to_each(page, root):
    found = ids(root)
    at = page(root, view="Latents", pair="3-5", **found)
    assert not at.exception
    shown = html(at)
    assert "<h3>Latent 3</h3>" in shown
    assert "<h3>Latent 5</h3>" in shown
    links = {link.proto.label: link.proto.query_string for link in at.get("page_link")}
    indexes = {side: index_of(root, Dictionary(run)) for side, run in zip("ab", saes(root), strict=False)}
    assert f"index={indexes['a'].id}" in links["Latent 3 of a"]
    assert f"index={indexes['b'].id}" in links["Latent 5 of b"]
    assert "latent=5" in links["Latent 5 of b"]


def test_a_clicked_row_shows_its_pair(page, root):
    at = page(root, view="Latents", **ids(root))
    table = at.dataframe[1]
    a, b = (int(table.value[side].iloc[0]) for side in "ab")
    at.session_state[table.proto.id.split("-", 2)[2]] = {"selection": {"rows": [0], "columns": [], "cells": []}}
    at.run()
    assert f"<h3>Latent {a}</h3>" in html(at)
    assert f"<h3>Latent {b}</h3>" in html(at)
    assert at.query_params["pair"] == f"{a}-{b}"


def test_swap_looks_at_the_same_pair(page, root):
    at = page(root, view="Latents", pair="3-5", **ids(root))
    next(button for button in at.button if button.label == "Swap").click().run()
    assert not at.exception
    assert at.query_params["pair"] == "5-3"
    links = {link.proto.label for link in at.get("page_link")}
    assert links >= {"Latent 5 of a", "Latent 3 of b"}


@pytest.mark.parametrize("row", [0, -1])
def test_a_pick_does_not_outlive_its_dictionaries(page, root, row):
    at = page(root, view="Latents", **ids(root))
    table = at.dataframe[1]
    clicked = range(len(table.value))[row]
    at.session_state[table.proto.id.split("-", 2)[2]] = {"selection": {"rows": [clicked], "columns": [], "cells": []}}
    at.run()
    assert "pair" in at.query_params
    at.selectbox(key="b chosen").set_value(saes(root)[-1].id).run()
    assert not at.exception
    assert "pair" not in at.query_params
    assert "<h3>" not in html(at)


def test_explanations_are_searched(page, root):
    everything = page(root, view="Latents", **ids(root)).dataframe[1].value
    word = everything["a_explanation"].dropna().iloc[0]
    rows = page(root, view="Latents", q=word.upper(), **ids(root)).dataframe[1].value
    assert 0 < len(rows) <= len(everything)
    assert rows["a_explanation"].str.contains(word, regex=False).all()
    assert page(root, view="Latents", q="(*", **ids(root)).dataframe[1].value.empty


def test_steps_of_one_training_are_compared_by_log_and_decoders(page, root):
    run = saes(root)[-1]
    at = page(root, a=f"{run.id}@20", b=run.id)
    assert not at.exception
    rows = at.dataframe[0].value.set_index("figure")
    assert rows.loc["step"].tolist() == [20, 40]
    assert rows.loc["FVU", "a"] > rows.loc["FVU", "b"]
    pairs = page(root, a=f"{run.id}@20", b=run.id, view="Latents").dataframe[1].value
    assert (pairs["a"] == pairs["b"]).mean() > 0.9, "a latent is nearest to itself some steps later"
    settings = page(root, a=f"{run.id}@20", b=run.id, view="Settings")
    assert "settings are the same" in settings.caption[0].value


def test_settings_that_differ_are_told(page, root):
    differ = page(root, view="Settings", **ids(root)).dataframe[0].value.set_index("setting")
    assert differ.loc["sae.k"].tolist() == ["4", "6"]
    assert set(differ.index) == {"sae.k", "seed"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"a": "nothing"}, "is none of these"),
        ({"b": "<img src=x>"}, "is none of these"),
        ({"view": "Latents", "pair": "x-y"}, "is no pair of latents"),
        ({"view": "Latents", "pair": "3-4711"}, "There is no latent 4711"),
        ({"view": "Everything"}, None),
        ({"view": "Latents", "which": "few", "sort": "name", "order": "up"}, None),
    ],
)
def test_nonsense_in_the_address_is_one_line(page, root, query, said):
    at = page(root, **ids(root) | query)
    assert not at.exception
    assert [said in warning.value for warning in at.warning] == ([True] if said else [])


def test_a_dictionary_with_itself_is_refused(page, root):
    at = page(root, a=ids(root)["a"], b=ids(root)["a"])
    assert "choose another one" in at.info[0].value


def test_a_damaged_matching_is_one_line(page, root, tmp_path):
    other = tmp_path / "runs"
    shutil.copytree(root, other)
    for part in other.glob("matching/*/parts/best*"):
        part.write_bytes(b"half")
    at = page(other, view="Latents", **ids(other))
    assert not at.exception
    assert "damaged or missing" in at.error[0].value


def dictionary(hook_point: str, harvest: str = "h", *others: str) -> Dictionary:
    config = {"hook_point": hook_point, "other_hook_points": list(others)}
    return Dictionary(Run(Path("sae/x"), {"id": "x", "config": config, "inputs": {"activations": harvest}}))


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (dictionary("blocks.1.hook_resid_post"), dictionary("blocks.3.hook_resid_pre"), ""),
        (dictionary("blocks.1.attn.hook_z"), dictionary("blocks.2.attn.hook_z"), "not coordinates of the same space"),
        (dictionary(HOOK), dictionary(HOOK, "other"), "different models"),
        (dictionary(HOOK), dictionary(HOOK, "gone"), "not known"),
        (dictionary(HOOK, "gone"), dictionary(HOOK, "gone"), ""),
        (dictionary(HOOK), dictionary(HOOK, "h", "blocks.1.hook_mlp_out"), "not coordinates of the same space"),
    ],
)
def test_decoders_of_two_spaces_are_not_compared(a, b, why):
    found = why_no_cosine(a, b, {"h": "one model", "other": "another"})
    assert why in found
    assert bool(found) == bool(why)


def test_two_of_one_hook_point_are_compared_unless_others_are_asked_for(root):
    a, b = first_two(dictionaries(root))
    assert (a, b) == (saes(root)[1].id, saes(root)[2].id)


def point(ref: str, l0: float, fvu: float) -> Point:
    figures = (Figure(metric=name, value=value, n=9, n_of="rows") for name, value in (("l0", l0), ("fvu", fvu)))
    return Point(ref, ref, "topk", *figures)


def test_the_front_joins_those_that_none_betters():
    points = [point("p", 8, 0.5), point("q", 16, 0.3), point("r", 16, 0.4), point("s", 32, 0.35), point("t", 64, 0.2)]
    assert [one.ref for one in unbettered(points, more_is_better=False)] == ["p", "q", "t"]
    assert [one.ref for one in unbettered(points, more_is_better=True)] == ["p"]
    marks = [
        trace for trace in trade_figure(points, {"a": "r", "b": "t"}, more_is_better=False).data if trace.name in "ab"
    ]
    assert [(trace.name, trace.x[0], trace.y[0]) for trace in marks] == [("a", 16, 0.4), ("b", 64, 0.2)]


def test_bars_of_the_best_partners_are_shares_of_all():
    figure = best_figure({"a": np.array([0.1, 0.9, 1.0])}, {"a": np.array([0.2, 0.2])}, 0.3, "cosine")
    assert [sum(trace.y) for trace in figure.data] == pytest.approx([1.0, 1.0])


def test_controls_are_left_out_unless_asked_for(root):
    a, b, _ = (Dictionary(run) for run in saes(root))
    found = measurements(root, a, b)
    assert set(figures_table(found)["arm"]) == {""}
    assert "mean ablation" in set(figures_table(found, controls=True)["arm"])
    assert isinstance(figures_table(found), pd.DataFrame)
