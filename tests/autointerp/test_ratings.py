"""Blind rating: what a rater sees, what is kept, and what the report makes of it."""

import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autointerp.latent import Explanation
from autointerp.ratings import Key, Sheet, SheetConfig, blind_sheet, rating_report
from store import notes as module
from store.errors import UsageError
from store.notes import BlindRating, Notes

SAE = "sae-1"


def explained(explainer: str, n: int = 40) -> list[Explanation]:
    return [Explanation(i, explainer, f"{explainer} {i}", "", "test", 1, None) for i in range(n)]


@pytest.fixture
def sheet() -> Sheet:
    return blind_sheet({"r1": explained("top"), "r2": explained("default")}, SheetConfig(n=50, share_null=0.2))


class TestSheet:
    def test_a_rater_sees_only_latents_and_texts(self, sheet: Sheet):
        assert {name for shown in sheet.shown for name in shown._fields} == {"place", "latent", "text"}

    def test_nulls_are_of_other_latents_and_as_many_as_asked(self, sheet: Sheet):
        arms = Counter(item.arm for item in sheet.items)
        assert arms == {"explanation": 40, "shuffled": 10}
        assert all(
            (item.text == f"{item.explainer} {item.latent}") == (item.arm == "explanation") for item in sheet.items
        )

    @pytest.mark.parametrize("n_latents", [40, 500])
    def test_nulls_are_beside_latents_that_are_rated_each_once(self, n_latents: int):
        runs = {"r1": explained("top", n_latents), "r2": explained("default", n_latents)}
        items = blind_sheet(runs, SheetConfig(n=50, share_null=0.2)).items
        own, null = ({item.latent for item in items if item.arm == arm} for arm in ("explanation", "shuffled"))
        assert len(null) == 10
        assert null <= own

    def test_more_nulls_than_rated_latents_are_filled_up(self):
        items = blind_sheet({"r": explained("top", 40)}, SheetConfig(n=10, share_null=0.8)).items
        own, null = ({item.latent for item in items if item.arm == arm} for arm in ("explanation", "shuffled"))
        assert (len(own), len(null)) == (2, 8)
        assert own <= null

    def test_explainers_have_equal_shares_and_no_text_stands_twice_beside_a_latent(self, sheet: Sheet):
        assert Counter(item.explainer for item in sheet.items if item.arm == "explanation") == {
            "top": 20,
            "default": 20,
        }
        assert len({(item.latent, item.text) for item in sheet.items}) == 50

    def test_arms_are_mixed_and_the_order_is_that_of_the_seed(self, sheet: Sheet):
        places = [i for i, item in enumerate(sheet.items) if item.arm == "shuffled"]
        assert min(places) < 25 < max(places)
        runs = {"r1": explained("top"), "r2": explained("default")}
        assert blind_sheet(runs, SheetConfig()) == sheet
        assert blind_sheet(runs, SheetConfig(seed=1)).id != sheet.id

    def test_one_latent_has_no_null_and_nothing_is_refused(self):
        assert [item.arm for item in blind_sheet({"r": explained("top", 1)}, SheetConfig()).items] == ["explanation"]
        with pytest.raises(UsageError, match="monosem explain"):
            blind_sheet({}, SheetConfig())

    def test_a_place_that_is_not_on_it_is_refused(self, sheet: Sheet, tmp_path: Path):
        with pytest.raises(UsageError, match="no place 50 on a sheet of 50: choose 0 to 49"):
            sheet.rate(Notes(tmp_path), SAE, 50, 3, "ada")


class TestKept:
    def test_the_newest_rating_of_a_place_counts_and_all_are_exported(self, sheet: Sheet, tmp_path: Path):
        notes = Notes(tmp_path)
        for value in (2, 4):
            sheet.rate(notes, SAE, 7, value, "ada")
        (found,) = notes.blind_ratings(SAE)
        item = sheet.items[7]
        assert (found.value, found.latent, found.explainer, found.arm) == (4, item.latent, item.explainer, item.arm)
        assert [row["value"] for row in notes.export()] == [2, 4]
        with pytest.raises(UsageError, match="choose 1 to 5"):
            sheet.rate(notes, SAE, 7, 6, "ada")

    def test_ratings_are_only_added_to(self, sheet: Sheet, tmp_path: Path):
        notes = Notes(tmp_path)
        sheet.rate(notes, SAE, 0, 3, "ada")
        with sqlite3.connect(notes.path) as connection, pytest.raises(sqlite3.IntegrityError, match="only added to"):
            connection.execute("UPDATE blind_ratings SET value = 5")

    def test_a_file_from_before_is_read_without_and_written_with_them(
        self, sheet: Sheet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        notes = Notes(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(module, "MIGRATIONS", module.MIGRATIONS[:1])
            notes.label(SAE, 1, "a", "ada")
        assert notes.blind_ratings(SAE) == []
        assert [row["table"] for row in notes.export()] == ["labels"]
        sheet.rate(notes, SAE, 0, 3, "ada")
        assert len(notes.blind_ratings(SAE)) == 1
        assert notes.labels(SAE)[0].text == "a"


def rated(sheet: Sheet, author: str, noise: float) -> list[BlindRating]:
    """A rater for whom latents get better with their number, `default` is 1 better, and nulls are 1."""
    random = np.random.default_rng(len(author))
    found = []
    for place, item in enumerate(sheet.items):
        value = 1.0 if item.arm == "shuffled" else 2 + item.latent / 20 + (item.explainer == "default")
        value = int(np.clip(round(value + random.normal(0, noise)), 1, 5))
        source = (sheet.id, place, item.run, item.explainer, item.arm, item.text)
        found.append(BlindRating(item.latent, *source, author, value, ""))
    return found


class TestReport:
    def test_planted_truths_are_found(self, sheet: Sheet):
        keys = [(Key(i.latent, i.run, i.explainer, i.arm), i.latent * (i.arm == "explanation")) for i in sheet.items]
        scores: dict[str, dict[Key, float | None]] = {
            "good": {key: value / 40 for key, value in keys},
            "blind": dict.fromkeys(key for key, _ in keys),
        }
        found = rating_report([*rated(sheet, "ada", 0.3), *rated(sheet, "grace", 0.3)], scores)
        assert (found.n_ratings, found.n_items) == (100, 50)
        default, top = (found.explainers[name].value for name in ("default", "top"))
        assert default is not None
        assert top is not None
        assert default > top + 0.5
        kappa = found.raters["ada", "grace"]
        assert kappa.value is not None
        assert kappa.value > 0.8
        assert kappa.n == 50
        assert found.against_null.difference is not None
        assert found.against_null.difference > 1
        assert (found.scorers["good"].value or 0) > 0.5
        assert found.scorers["blind"] == (None, None, 0)

    def test_one_rater_has_nobody_to_agree_with(self, sheet: Sheet):
        assert rating_report(rated(sheet, "ada", 0), {}).raters == {}

    def test_without_ratings_nothing_is_claimed(self):
        found = rating_report([], {"s": {}})
        assert (found.n_items, found.against_null.difference, found.scorers["s"].value) == (0, None, None)
