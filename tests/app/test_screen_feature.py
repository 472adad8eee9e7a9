"""Feature: contexts by band and whole documents, evidence, relatives, notes, and what can be taken along."""

import csv
import io

import numpy as np
import pytest
from safetensors.numpy import load
from streamlit.testing.v1 import AppTest

from app.cards import escape
from app.cards_feature import document_html, judgements_html, right, shown_html, snippet
from app.downloads import card_page, contexts_csv, vectors, vectors_csv, vectors_safetensors
from app.web import state
from app.web.panels.take import FILES
from app.workbench import Workbench
from sae import checkpoint
from store.documents import Document, document_at
from store.errors import UsageError
from store.latents import windows
from store.notes import Notes
from store.relatives import relatives

TIMEOUT = 60


@pytest.fixture(scope="module", autouse=True)
def _one_worker():
    yield
    state._worker.clear()


@pytest.fixture
def sae(rich_root) -> str:
    return Workbench.open(rich_root).run.inputs["sae"]


def html(at: AppTest) -> str:
    assert not at.exception
    return "\n".join(element.proto.body for element in at.get("html"))


def captions(at: AppTest) -> str:
    return "\n".join(caption.value for caption in at.caption)


def click(at: AppTest, label: str) -> AppTest:
    return next(button for button in at.button if button.label == label).click().run()


@pytest.mark.parametrize(
    ("tab", "kind"),
    [("Strongest", "top"), ("Quantiles", "q"), ("Values", "v"), ("Silent", "silent")],
)
def test_only_the_open_tab_is_drawn_and_it_has_its_band(dashboard, runs_root, fixture_index, tab, kind):
    own = [each for each in windows(Workbench.open(runs_root).index, fixture_index.SCORED) if each.band[0] == kind[0]]
    at = dashboard("feature", latent=str(fixture_index.SCORED), band=tab)
    assert html(at).count('<div class="ms-context">') == min(len(own), 10 if kind in ("top", "silent") else 999)
    shown = [button for button in at.button if button.key and button.key.startswith(f"open {kind}")]
    assert shown


def test_a_band_that_a_latent_has_not_shows_its_first(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED), band="Nonsense", zoom="zzz", related="zzz")
    assert '<div class="ms-context">' in html(at)


def test_a_snippet_is_the_window_around_its_peak(runs_root, fixture_index):
    for window in windows(Workbench.open(runs_root).index, fixture_index.SCORED):
        short = snippet(window, 3)
        assert short.tokens[short.peak] == window.tokens[window.peak]
        assert short.start + short.peak == window.start + window.peak
        assert short.text in window.text
        assert len(short.tokens) <= 7


def test_a_context_opens_its_whole_document(dashboard, runs_root, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED))
    next(button for button in at.button if button.key == "open top 0").click().run()
    index = Workbench.open(runs_root).index
    strongest = windows(index, fixture_index.SCORED, "top")[0]
    assert at.query_params["doc"] in (f"{strongest.seq}.{strongest.start + strongest.peak}",)
    text = index.tokens.document(strongest.doc_id)
    shown = html(at)
    assert all(escape(word) in shown for word in text.split())
    assert f"document {strongest.doc_id} of" in captions(at).replace("\\", "")
    click(at, "Back to the contexts")
    assert '<div class="ms-context">' in html(at)


def test_next_closes_the_document(dashboard, fixture_index):
    at = dashboard("feature", latent=str(fixture_index.SCORED), doc="0.5")
    assert "ms-doc" in html(at)
    assert "ms-doc" not in html(click(at, "Next"))


@pytest.mark.parametrize("doc", ["abc", "99.1", "0.99999", "-1.2", "1e9.3", "9" * 30 + ".1"])
def test_a_document_that_is_not_there_is_one_line(dashboard, fixture_index, doc):
    at = dashboard("feature", latent=str(fixture_index.SCORED), doc=doc)
    assert not at.exception
    assert len(at.error) == 1
    assert "open a document from one of its contexts" in at.error[0].value


def test_a_document_is_its_own_text_with_every_activation(runs_root, fixture_index):
    index = Workbench.open(runs_root).index
    for latent in (fixture_index.SCORED, 12):
        fired = index.events(latent)
        for seq in range(3):
            found = document_at(index, latent, seq, 4)
            assert "".join(found.tokens) + found.rest == index.tokens.document(seq)
            assert sum(value > 0 for value in found.values) == int((fired.doc_id == seq).sum())
            assert sum(found.values) == pytest.approx(float(fired.value[fired.doc_id == seq].sum()), rel=1e-5)
            assert found.tokens[found.place] == index.tokens.texts(*_place(index, seq, 4))[0]


def _place(index, seq: int, pos: int) -> tuple[int, int]:
    place = int(index.tokens.places(np.array([seq]), np.array([pos]))[0])
    return place, place + 1


def test_of_a_long_document_the_stretch_around_the_place_is_shown(runs_root, fixture_index):
    index = Workbench.open(runs_root).index
    whole, part = document_at(index, 3, 1, 20), document_at(index, 3, 1, 20, most=10)
    assert len(part.tokens) == 10
    assert part.n_before + 10 + part.n_after == whole.n_tokens
    assert part.tokens[part.place] == whole.tokens[whole.place]
    assert part.tokens == whole.tokens[part.n_before : part.n_before + 10]
    assert "tokens before" in document_html(part, 1.0)


def test_a_hostile_document_is_shown_as_it_is(dashboard, fixture_index):
    shown = html(dashboard("feature", latent=str(fixture_index.SCORED), doc="2.5"))
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "[U+202E]" in shown


def test_evidence_is_fetched_when_it_is_opened(dashboard, rich_root, fixture_index):
    closed = dashboard("feature", rich_root, latent=str(fixture_index.SCORED))
    assert "✓ right" not in html(closed)
    at = dashboard("feature", rich_root, latent=str(fixture_index.SCORED), evidence="true")
    shown = html(at)
    assert '<td class="n">0.52</td>' in shown, "the null stands beside the score"
    assert "3 examples: 1 of 2 right; 1 could not be read." in captions(at)
    assert shown.count("✓ right") == 1
    assert shown.count("✗ wrong") == 1
    assert "a &lt;b&gt;boat&lt;/b&gt;" in shown
    assert [code.value for code in at.code][-2:] == ["Does it fire?", "<img src=x onerror='window.pwned=1'> **no**"]
    at.selectbox(key=f"judged {fixture_index.SCORED}").set_value(("tokens", "detection", "shuffled", _run(at))).run()
    assert "1 examples: 0 of 1 right" in captions(at)


def _run(at: AppTest) -> str:
    (found,) = {option[-1] for option in [at.selectbox[0].value]}
    return found


def test_an_answer_that_is_a_number_is_neither_right_nor_wrong():
    assert right({"truth": 1.0, "answer": 0.4}) is None
    assert right({"truth": 1.0, "answer": None}) is None
    assert right({"truth": 0.0, "answer": 0.0}) is True
    row = {"kind": "active", "truth": 1.0, "answer": None, "text": "<b>", "doc_id": None}
    assert "could not be read" in judgements_html([row])
    assert "&lt;b&gt;" in judgements_html([row])


def test_explanations_can_be_hidden_until_one_has_labelled(dashboard, rich_root, fixture_index):
    at = dashboard("feature", rich_root, latent=str(fixture_index.SCORED), blind="true")
    assert "fires on boats" not in html(at)
    at.toggle(key="blind").set_value(False).run()
    assert "fires on boats" in html(at)


@pytest.mark.parametrize(("tab", "other"), [("Decoder", 4), ("Encoder", 5)])
def test_neighbours_open_when_clicked(dashboard, rich_root, fixture_index, tab, other):
    at = dashboard("feature", rich_root, latent=str(fixture_index.SCORED), related=tab)
    rows = at.dataframe[0].value
    assert rows["other"].tolist() == [other]
    assert rows["explanation"].tolist() == [{4: "fires at dawn", 5: "fires on sorted lists"}[other]]
    key = at.dataframe[0].proto.id.split("-", 2)[2]
    at.session_state[key] = {"selection": {"rows": [], "columns": [], "cells": [[0, "other"]]}}
    assert at.run().title[0].value == f"Latent {other}"


def test_the_family_in_other_dictionaries(dashboard, rich_root, fixture_index):
    at = dashboard("feature", rich_root, latent=str(fixture_index.SCORED), related="Other dictionaries")
    assert not at.exception
    partners, children = (frame.value for frame in at.dataframe)
    assert partners[["other", "value", "threshold", "above_chance"]].values.tolist() == [[17, 0.8, 0.3, True]]
    assert children[["other", "role", "coverage"]].values.tolist() == [[21, "child", 0.8], [22, "absorbs", 0.8]]


def test_relatives_seen_from_the_other_side(rich_root, fixture_index):
    run = Workbench.open(rich_root).run
    (found,) = relatives(run, fixture_index.SCORED)
    assert (found.side, len(found.partners), len(found.children), len(found.parents)) == ("a", 1, 2, 0)
    assert found.partners["explanation"].isna().all(), "the other index is not here"
    (none,) = relatives(run, 12)
    assert (len(none.partners), len(none.children), len(none.parents)) == (0, 0, 0)


def test_logit_effects_and_ngrams_are_behind_folds(dashboard, rich_root, fixture_index):
    latent = str(fixture_index.SCORED)
    assert "kurtosis" not in captions(dashboard("feature", rich_root, latent=latent))
    at = dashboard("feature", rich_root, latent=latent, effects="true", ngrams="true")
    assert "kurtosis 3" in captions(at)
    assert "of all firings" in html(at)


def test_a_latent_is_labelled_rated_and_listed(dashboard, rich_root, sae):
    at = dashboard("feature", rich_root, latent="3")
    assert "Nobody has written anything yet." in html(at)
    at.session_state["notes"] = True
    at.run()
    at.text_input(key="label of 3").set_value("<b>boats</b>")
    click(at, "Save")
    at.multiselect[0].set_value(["sea & shore"]).run()
    at.get("feedback")[0].set_value(3).run()
    notes = Notes(rich_root)
    assert [(each.latent, each.text) for each in notes.labels(sae)] == [(3, "<b>boats</b>")]
    assert notes.lists(sae) == {"sea & shore": [3]}
    assert [each.value for each in notes.ratings(sae)] == [4]
    shown = html(dashboard("feature", rich_root, latent="3"))
    assert "&lt;b&gt;boats&lt;/b&gt;" in shown
    assert "rated 4.0 of 5 (n = 1)" in shown
    assert "on sea &amp; shore" in shown


def test_read_only_shows_notes_and_no_way_to_write(dashboard, rich_root, sae, monkeypatch):
    Notes(rich_root).label(sae, 3, "boats", "ada")
    monkeypatch.setenv("MONOSEM_READ_ONLY", "1")
    at = dashboard("feature", rich_root, latent="3")
    assert "<b>boats</b>" in html(at)
    assert not [each for each in at.expander if each.label == "Write"]
    assert not [box for box in at.text_input if box.label == "Your name"]


def test_the_link_names_the_index(dashboard, rich_root):
    at = dashboard("feature", rich_root, latent="3", band="Silent")
    link = at.code[0].value
    assert f"index={Workbench.open(rich_root).run.id}" in link
    assert "latent=3" in link
    assert "band=Silent" in link


def test_vectors_are_those_of_the_dictionary(dashboard, rich_root):
    dashboard("feature", rich_root, latent="3")
    directions = state.worker().ask("directions", vectors, latent=3).result(TIMEOUT)
    sae = checkpoint.load(Workbench.open(rich_root).sae_run.folder)
    back = load(vectors_safetensors(directions, {"latent": "3"}))
    assert np.array_equal(back["decoder"], sae.W_dec[3].detach().numpy())
    assert np.array_equal(back["encoder"], sae.W_enc[:, 3].detach().numpy())
    rows = list(csv.DictReader(io.StringIO(vectors_csv(directions))))
    assert np.array_equal(np.array([float(row["decoder"]) for row in rows], np.float32), back["decoder"])


def test_contexts_as_csv_are_what_is_stored(rich_root, fixture_index):
    stored = windows(Workbench.open(rich_root).index, fixture_index.SCORED)
    rows = list(csv.DictReader(io.StringIO(contexts_csv(stored))))
    assert [row["text"] for row in rows] == [each.text for each in stored]
    assert [row["doc_id"] for row in rows] == [str(each.doc_id) for each in stored]
    for row, window in zip(rows, stored, strict=True):
        assert len(row["active_at"].split()) == sum(value > 0 for value in window.values)


def test_every_file_has_a_button_and_the_card_stands_alone(dashboard, rich_root, fixture_index):
    at = dashboard("feature", rich_root, latent=str(fixture_index.SCORED))
    assert {button.proto.label for button in at.get("download_button")} == set(FILES)
    card = card_page(Workbench.open(rich_root), fixture_index.SCORED)
    assert card.startswith("<!doctype html>")
    assert "<script" not in card
    assert "fires on boats" in card


def test_without_its_model_all_else_works(dashboard, fixture_index, tmp_path, monkeypatch):
    begin = fixture_index.start_run

    def without_model(root, kind, config, *more):
        if kind == "activations":
            config = {"harvest": config["harvest"] | {"model": "no-such-model"}}
        return begin(root, kind, config, *more)

    monkeypatch.setattr(fixture_index, "start_run", without_model)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fixture_index.build_workbench(tmp_path)
    at = dashboard("feature", tmp_path, latent=str(fixture_index.SCORED), evidence="true")
    assert "fires on boats" in html(at)
    assert '<div class="ms-context">' in html(at)
    at.text_area[0].set_value("Ahoy")
    click(at, "Run")
    assert not at.exception
    assert "no model 'no-such-model' here" in at.error[0].value.replace("\\", "")
    directions = state.worker().ask("directions", vectors, latent=3).result(TIMEOUT)
    assert len(directions["decoder"]) == fixture_index.D_IN
    assert dashboard("features", tmp_path, q="boats", by="text").dataframe


def test_there_is_no_document_of_a_token_that_is_not_there(runs_root):
    index = Workbench.open(runs_root).index
    with pytest.raises(UsageError, match="no token 5000 of sequence 1"):
        document_at(index, 3, 1, 5000)
    with pytest.raises(UsageError, match="no latent 99"):
        document_at(index, 99, 1, 5)


MARKUP = ("<script>x</script>", "</td></table><b>", '" onmouseover="x', "&lt;")
HOSTILE = (*MARKUP, "\u202e\u2066abc", "a" * 10_000, "\x00\x1b[2J")


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_a_text_holds_is_shown_and_not_interpreted(text):
    shown = Document(
        doc_id=1,
        source=text,
        title=text,
        split=text,
        latent=3,
        tokens=(text, text),
        values=(1.0, 0.0),
        place=0,
        n_tokens=2,
        n_before=0,
        n_after=0,
        rest=text,
    )
    row = {"kind": text, "truth": 1.0, "answer": 1.0, "text": text, "doc_id": 1}
    seen = {"doc_ids": [1], "quoted": 0.5, "prompt": text, "explainer": text}
    for html in (document_html(shown, 2.0), judgements_html([row]), shown_html(seen)):
        assert escape(text) in html
        bare = html.replace(escape(text), "")
        assert text == escape(text) or text not in bare
