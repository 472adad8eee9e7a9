"""Sheets on which people rate explanations with any table program, and the ratings that come back.

A sheet shows, beside each explanation, contexts of documents that no explainer of what is on it saw. The key to it,
which explanation is whose and which is of another latent, stays in the run that made it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from autointerp.explain.shown import fires
from autointerp.explaining import explanations_of, sample_of
from autointerp.latent import Explanation
from autointerp.prompts import marked
from autointerp.ratings import ARMS, Item, Key, Sheet, SheetConfig, blind_sheet
from autointerp.sample import Sampler
from store.errors import UsageError
from store.feature_index import FeatureIndex
from store.files import read_json, whole_file, write_json
from store.index import parts_of
from store.latents import Window
from store.notes import Notes
from store.run import Run, find_run, list_runs, start_run

KEY, SHEET = "key.json", "sheet.csv"
COLUMNS = ("sheet", "place", "latent", "explanation", "contexts", "rating")
FORMATS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".json": pd.read_json,
    ".jsonl": lambda path: pd.read_json(path, lines=True),
}
"""How ratings are read, by the file's ending."""


def make_sheet(cfg: SheetConfig, explanations: Sequence[Run], root: Path) -> Run:
    """Write a sheet to be filled in into `root/sheet/<hash>`, or return what is already there.

    Args:
        cfg: how many, and how many nulls among them.
        explanations: runs of explanations of one index, mixed on the sheet.
        root: of the run.

    Raises:
        UsageError: they are of several indexes, there is nothing to rate, or all contexts of a latent are of documents
            that an explainer saw.
    """
    indexes = {run.inputs["index"] for run in explanations}
    if len(indexes) != 1:
        raise UsageError(f"explanations of {len(indexes)} indexes: a sheet is of one, so that contexts are of one text")
    inputs = {"index": indexes.pop(), **{f"explanations {i}": run.id for i, run in enumerate(explanations)}}
    with start_run(root, "sheet", cfg, inputs) as run:
        if not run.finished:
            given = {each.id: explanations_of(each) for each in explanations}
            sheet = blind_sheet(given, cfg)
            seen = _seen(sheet, given)
            sampler = Sampler(FeatureIndex(find_run(root, inputs["index"], "index").folder), sample_of(explanations[0]))
            latents = {item.latent for item in sheet.items}
            windows = {latent: sampler.trial(latent, frozenset({"items"})).active for latent in latents}
            unseen = {latent: _unseen(latent, windows[latent], seen) for latent in latents}
            rows = [_row(run.id, shown, _contexts(unseen[shown.latent][: cfg.n_contexts])) for shown in sheet.shown]
            with whole_file(run.folder / SHEET) as scratch:
                pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(scratch, index=False)
            write_json(run.folder / KEY, asdict(sheet))
            results = {"n": len(sheet.items), "n_null": sum(item.arm != ARMS[0] for item in sheet.items)}
            run.finish(results | {"n_left_out": sum(len(windows[each]) - len(unseen[each]) for each in latents)})
    return run


def _seen(sheet: Sheet, given: Mapping[str, Sequence[Explanation]]) -> set[int]:
    """Documents that the explainer of any text on the sheet saw, as far as is known: each run kept its own apart, by
    settings of its own."""
    texts = {(item.run, item.text) for item in sheet.items}
    shown = (each for run, several in given.items() for each in several if (run, each.text) in texts)
    return {doc for each in shown for doc in each.doc_ids or ()}


def _unseen(latent: int, windows: Sequence[Window], seen: Set[int]) -> list[Window]:
    found = [window for window in windows if window.doc_id not in seen]
    if windows and not found:
        raise UsageError(
            f"all {len(windows)} contexts of latent {latent} are of documents that an explainer on the sheet saw: rate "
            "explanations of one --seed and --n-score together, or of fewer runs"
        )
    return found


def _row(sheet: str, shown: Any, contexts: str) -> tuple[Any, ...]:
    return sheet, shown.place, shown.latent, safe_cell(shown.text), safe_cell(contexts), None


def safe_cell(text: str) -> str:
    """A text that no table program takes for a formula."""
    return f" {text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _contexts(windows: Sequence[Window]) -> str:
    return "\n".join(f"{i}. {' '.join(marked(each, fires(each)).split())}" for i, each in enumerate(windows, 1))


class Loaded(NamedTuple):
    """What became of a file of ratings."""

    n_rated: int
    n_empty: int
    """Rows without a rating."""
    dictionaries: tuple[str, ...]
    """Whose latents were rated."""


class _Rated(NamedTuple):
    sae: str
    sheet: str
    place: int
    item: Item
    value: int
    author: str


def load_ratings(file: Path, root: Path, author: str, explanations: Run | None = None) -> Loaded:
    """Keep the ratings of a file: all of them, or none where one is wrong; loaded again, they count once.

    Args:
        file: a sheet with its column `rating` filled in; or a table of one's own, with `latent` and `rating` at least.
        root: of the runs.
        author: who rated, where the table has no column `author`.
        explanations: which explanations a table without a column `sheet` is of.

    Raises:
        UsageError: it is no such table, a rating is none of 1 to 5, or it is of what is not on the sheet or explained.
    """
    table = _read(file)
    rated = table.loc[table["rating"].notna() & (table["rating"].astype(str).str.strip() != "")]
    if rated.empty:
        raise UsageError(f"{file} has no rating in {len(table)} rows: fill in the column `rating` with 1 to 5")
    reader = _of_sheets(root) if "sheet" in table else _of_run(file, explanations)
    found = [_rated(file, number, row, author, reader) for number, row in _rows(rated)]
    notes = Notes(root)
    for each in found:
        notes.rate_blind(
            each.sae, value=each.value, author=each.author, sheet=each.sheet, place=each.place, **vars(each.item)
        )
    return Loaded(len(found), len(table) - len(rated), tuple(sorted({each.sae for each in found})))


def _read(file: Path) -> pd.DataFrame:
    read = FORMATS.get(file.suffix.lower())
    if read is None:
        raise UsageError(f"{file} does not end in {', '.join(FORMATS)}: save the ratings as one of these")
    try:
        table = read(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as {file.suffix} ({error}): save the ratings again") from error
    missing = {"latent", "rating"} - set(table.columns)
    if missing:
        raise UsageError(f"{file} has no column {' and '.join(sorted(missing))}: name each rating's latent and rating")
    return table


def _rows(table: pd.DataFrame) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Numbered as in the file, the row of names not counted."""
    for at, row in zip(table.index, table.to_dict("records"), strict=True):
        yield int(at) + 1, {str(name): None if pd.isna(value) else value for name, value in row.items()}


Reader = Callable[[Mapping[str, Any]], tuple[str, str, int, Item]]
"""From a row: dictionary, sheet, place and what was rated."""


def _rated(file: Path, number: int, row: Mapping[str, Any], author: str, reader: Reader) -> _Rated:
    try:
        value = float(row["rating"])
        if value not in range(1, 6):
            raise UsageError(f"a rating of {row['rating']} is none: choose 1 to 5")
        return _Rated(*reader(row), int(value), str(row.get("author") or author))
    except UsageError as error:
        raise UsageError(f"{file}, row {number}: {error}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{file}, row {number}: {error}: a rating is a whole number from 1 to 5") from error


def _of_sheets(root: Path) -> Reader:
    known: dict[str, tuple[str, Sheet]] = {}

    def read(row: Mapping[str, Any]) -> tuple[str, str, int, Item]:
        name, place = str(row["sheet"]), int(row["place"])
        if name not in known:
            run = find_run(root, name, "sheet")
            known[name] = dictionary_of(run), sheet_of(run)
        sae, sheet = known[name]
        if not 0 <= place < len(sheet.items) or sheet.items[place].latent != int(row["latent"]):
            raise UsageError(f"place {place} of sheet {name} is not of latent {row['latent']}: leave those columns")
        return sae, sheet.id, place, sheet.items[place]

    return read


def sheet_of(run: Run) -> Sheet:
    key = read_json(run.folder / KEY)
    return Sheet(key["id"], tuple(Item(**item) for item in key["items"]))


def contexts_of(run: Run) -> list[list[str]]:
    """What stands beside each place of a sheet, in order: contexts with « and » around the words on which the latent
    fires.

    Raises:
        UsageError: the sheet cannot be read.
    """
    path = run.folder / SHEET
    try:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False)["contexts"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} cannot be read ({error}): {run.way_out}") from error
    return [[line.partition(". ")[2] for line in cell.strip().split("\n") if line] for cell in cells]


def _of_run(file: Path, explanations: Run | None) -> Reader:
    if explanations is None:
        raise UsageError(f"{file} has no column sheet: say which explanations were rated, with --explanations")
    given = {each.latent: each for each in explanations_of(explanations)}
    sae = dictionary_of(explanations)

    def read(row: Mapping[str, Any]) -> tuple[str, str, int, Item]:
        latent = int(row["latent"])
        if latent not in given:
            raise UsageError(f"latent {latent} is not explained by run {explanations.id}: name the run that was rated")
        item = Item(latent, given[latent].text, explanations.id, given[latent].explainer, ARMS[0])
        return sae, f"elsewhere {explanations.id}", latent, item

    return read


def dictionary_of(run: Run) -> str:
    """The dictionary whose latents a run of explanations, scores or a sheet is of; its index, where it has none."""
    index = find_run(run.root, run.inputs["index"], "index")
    return index.inputs.get("sae", index.id)


def scores_of(root: Path, explanations: Sequence[str]) -> dict[str, dict[Key, float | None]]:
    """By scorer, what it gave to each explanation of some runs. Runs of one scorer with one configuration are one."""
    runs = [run for run in list_runs(root, "scores") if run.inputs["explanations"] in explanations]
    by_config: dict[str, list[Run]] = {}
    for run in runs:
        by_config.setdefault(json.dumps(run.config, sort_keys=True), []).append(run)
    n_of = Counter(group[0].config["scorer"] for group in by_config.values())
    return {_name(group[0], n_of): _values(group) for group in by_config.values()}


def _name(run: Run, n_of: Mapping[str, int]) -> str:
    scorer = run.config["scorer"]
    return scorer if n_of[scorer] == 1 else f"{scorer} {run.id[:6]}"


def _values(runs: Sequence[Run]) -> dict[Key, float | None]:
    """Of explanations alone: a scorer's nulls are other texts than a sheet's."""
    return {
        Key(row["latent"], run.inputs["explanations"], row["explainer"], row["arm"]): row["value"]
        for run in runs
        for row in parts_of(run.folder, "scores", ["latent", "explainer", "arm", "value"]).to_pylist()
        if row["arm"] == ARMS[0]
    }
