"""What evaluations measured, by SQL: the rows as they were written, controls in columns, damage named in one line."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import duckdb
import pytest

from store.catalog import Catalog, write_catalog
from store.errors import UsageError
from store.figures import CURVES_FILE, FIGURES_FILE, Curve, Figure, Measured, read_measured, write_measured
from store.run import Run, start_run

OF_PART = ["run", "part", "sae", "activations"]
COLUMNS = {
    "figures": [*OF_PART, *Figure.__dataclass_fields__],
    "curves": [*OF_PART, *Curve.__dataclass_fields__],
    "compared": [*OF_PART, "metric", "token_class", "setting", "value", "low", "high", "n", "n_of", "note", "controls"],
}
CURVES = [Curve(plot="density", series="sae", x=(1.0, 2.0), y=(3.0, 4.0)), Curve(plot="l0", series="b", x=(), y=())]


def fvu(value: float | None, arm: str = "sae", **others) -> Figure:
    return Figure(metric="fvu", value=value, n=10, n_of="rows", token_class="normal", arm=arm, **others)


def evaluated(root: Path, figures: Sequence[Figure], sae: str = "s", part: str = "reconstruction") -> Run:
    return finished(root, "evaluation", part, {"sae": sae, "activations": "a"}, figures)


def finished(root: Path, kind: str, part: str, inputs: dict[str, str], figures: Sequence[Figure]) -> Run:
    with start_run(root, kind, {"part": part, "settings": {}}, inputs) as run:
        write_measured(run.folder, Measured(figures, CURVES))
        run.finish({"part": part})
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two dictionaries with a control each, and what they are to each other."""
    between = Figure(metric="cka", value=0.9, n=5, n_of="rows", setting="s ~ t")
    inputs = {"sae 0": "s", "activations 0": "a", "sae 1": "t", "activations 1": "a"}
    return [
        evaluated(tmp_path, [fvu(0.1, low=0.05, high=0.15, note="told"), fvu(0.5, "random"), fvu(None, "shuffled")]),
        evaluated(tmp_path, [fvu(0.2), fvu(0.6, "random")], sae="t"),
        finished(tmp_path, "comparison", "similarity", inputs, [between]),
    ]


def test_rows_are_those_that_were_measured(tmp_path: Path, runs: list[Run]):
    opened = Catalog(tmp_path)
    for run in runs:
        measured = read_measured(run)
        of_run = {"run": run.id, "part": run.config["part"]}
        of_run |= {"sae": run.inputs.get("sae"), "activations": run.inputs.get("activations")}
        for table, rows in (("figures", measured.figures), ("curves", measured.curves)):
            found = opened.arrow(f"SELECT * FROM {table} WHERE run = ?", [run.id]).to_pylist()
            told = [Curve(**row) if table == "curves" else Figure(**row) for row in _without(found, of_run)]
            expected = [type(row)(**{name: _listed(value) for name, value in asdict(row).items()}) for row in rows]
            assert sorted(told, key=repr) == sorted(expected, key=repr)


def _without(rows: list[dict], of_run: dict[str, str | None]) -> list[dict]:
    assert all({name: row[name] for name in of_run} == of_run for row in rows)
    return [{name: value for name, value in row.items() if name not in of_run} for row in rows]


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_controls_stand_beside_the_dictionary(tmp_path: Path, runs: list[Run]):
    opened = Catalog(tmp_path)
    (row,) = opened.arrow("SELECT * FROM compared WHERE run = ?", [runs[0].id]).to_pylist()
    controls = row.pop("controls")
    assert dict(controls) == {"random": 0.5, "shuffled": None}
    assert row == {
        "run": runs[0].id, "part": "reconstruction", "sae": "s", "activations": "a", "metric": "fvu",
        "token_class": "normal", "setting": "", "value": 0.1, "low": 0.05, "high": 0.15, "n": 10, "n_of": "rows",
        "note": "told",
    }  # fmt: skip
    query = "SELECT controls['random'] AS random, controls['nobody'] AS nobody FROM compared WHERE sae = 't'"
    assert opened.arrow(query).to_pylist() == [{"random": 0.6, "nobody": None}]
    (of_pairs,) = opened.arrow("SELECT sae, value, controls FROM compared WHERE part = 'similarity'").to_pylist()
    assert of_pairs == {"sae": None, "value": 0.9, "controls": []}


def test_two_dictionaries_are_compared_by_one_query(tmp_path: Path, runs: list[Run]):
    query = """
        SELECT metric, token_class, s.value AS s, t.value AS t, s.value - t.value AS difference
        FROM compared s JOIN compared t USING (part, metric, token_class, setting)
        WHERE s.sae = 's' AND t.sae = 't' AND s.value < s.controls['random']
    """
    (row,) = Catalog(tmp_path).arrow(query).to_pylist()
    assert row == {"metric": "fvu", "token_class": "normal", "s": 0.1, "t": 0.2, "difference": pytest.approx(-0.1)}
    pivoted = Catalog(tmp_path).sql(
        "FROM (PIVOT figures ON arm IN ('random') USING any_value(value) GROUP BY sae) ORDER BY sae"
    )
    assert pivoted["random"].tolist()[:2] == [0.5, 0.6]


def test_what_only_a_control_has_and_what_could_not_be_told_are_apart(tmp_path: Path):
    alone = Figure(metric="cross_entropy", value=2.0, n=1, n_of="tokens", arm="clean model")
    evaluated(tmp_path, [alone, fvu(None, note="withheld: fewer than 100 rows")])
    found = Catalog(tmp_path).arrow("SELECT metric, value, note, controls FROM compared ORDER BY ALL").to_pylist()
    assert found == [
        {"metric": "cross_entropy", "value": None, "note": None, "controls": [("clean model", 2.0)]},
        {"metric": "fvu", "value": None, "note": "withheld: fewer than 100 rows", "controls": []},
    ]


def test_a_figure_told_twice_is_compared_once(tmp_path: Path):
    """As where a dictionary is compared with itself."""
    evaluated(tmp_path, [fvu(0.1), fvu(0.5, "random")] * 2)
    opened = Catalog(tmp_path)
    assert len(opened.sql("FROM figures")) == 4
    (row,) = opened.arrow("SELECT value, controls FROM compared").to_pylist()
    assert row == {"value": 0.1, "controls": [("random", 0.5)]}


def test_without_evaluations_the_views_are_there_and_empty(tmp_path: Path, root: Path):
    (tmp_path / "fresh").mkdir()
    for place in (tmp_path / "fresh", root):
        opened = Catalog(place)
        for table, columns in COLUMNS.items():
            assert opened.sql(f"FROM {table}").empty
            assert opened.sql(f"DESCRIBE {table}")["column_name"].tolist() == columns


def test_columns_are_the_same_with_and_without_rows(tmp_path: Path, root: Path, runs: list[Run]):
    for table, columns in COLUMNS.items():
        found = [Catalog(place).sql(f"DESCRIBE {table}")[["column_name", "column_type"]] for place in (tmp_path, root)]
        assert found[0].equals(found[1])
        assert found[0]["column_name"].tolist() == columns


def test_parts_that_do_not_apply_or_are_not_finished_have_no_rows(tmp_path: Path):
    with start_run(tmp_path, "evaluation", {"part": "itda"}, {"sae": "s", "activations": "a"}) as run:
        run.finish({"part": "itda", "not_applicable": "it is trained"})
    with start_run(tmp_path, "evaluation", {"part": "loss"}, {"sae": "s", "activations": "a"}) as run:
        write_measured(run.folder, Measured([fvu(0.1)]))
    assert Catalog(tmp_path).sql("FROM figures").empty


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage"])
@pytest.mark.parametrize(
    ("table", "name"), [("figures", FIGURES_FILE), ("compared", FIGURES_FILE), ("curves", CURVES_FILE)]
)
def test_a_damaged_file_is_named_and_hides_nothing_else(
    tmp_path: Path, runs: list[Run], table: str, name: str, damage: str
):
    path = (runs[0].folder / name).resolve()
    path.write_bytes({"empty": b"", "truncated": path.read_bytes()[:-9], "garbage": b"garbage" * 100}[damage])
    opened = Catalog(tmp_path)
    assert len(opened.sql("FROM runs")) == 3
    assert len(opened.sql("FROM figures WHERE run = ?", [runs[1].id])) == 2
    with pytest.raises(UsageError) as refusal:
        opened.sql(f"FROM {table}")
    assert str(refusal.value) == f"{path} is damaged or missing: delete {path.parent} and make it again"
    with pytest.raises(UsageError, match=f"{name} is damaged or missing: delete .* and make it again"):
        read_measured(runs[0])


@pytest.mark.parametrize("name", [FIGURES_FILE, CURVES_FILE])
def test_a_missing_file_is_named_with_the_way_out(tmp_path: Path, runs: list[Run], name: str):
    path = (runs[0].folder / name).resolve()
    opened = Catalog(tmp_path)
    path.unlink()
    message = f"^{path} is damaged or missing: delete {path.parent} and make it again$"
    with pytest.raises(UsageError, match=message):
        Catalog(tmp_path)
    with pytest.raises(UsageError, match=message):
        opened.sql(f"FROM {name.removesuffix('.parquet')}")
    with pytest.raises(UsageError, match="is damaged or missing"):
        read_measured(runs[0])


def test_the_written_file_has_them_for_any_client(tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch):
    file = write_catalog(tmp_path)
    monkeypatch.chdir("/")
    with duckdb.connect(str(file), read_only=True) as connection:
        for table, columns in COLUMNS.items():
            assert connection.sql(f"DESCRIBE {table}").df()["column_name"].tolist() == columns
        query = "SELECT value, controls['random'] FROM compared WHERE sae IS NOT NULL ORDER BY sae"
        assert connection.sql(query).fetchall() == [(0.1, 0.5), (0.2, 0.6)]
