"""Generated parts of documents: every marked block in README.md and docs/*.md is made from a result file or the code.

    <!-- figures: bench/results/NAME.json -->            a table of figures and values
    <!-- figures: bench/results/NAME.json PART -->       one part of an evaluation, controls in columns
    <!-- end of figures -->

    <!-- judged: bench/results/NAME.json -->            what judges gave, nulls beside them
    <!-- end of judged -->

    <!-- schema -->                                     every table of an index, with its columns
    <!-- end of schema -->

    <!-- api: MODULE -->                                what is public in a module: signatures, arguments, errors
    <!-- end of api -->

Run from anywhere: `python bench/render.py` brings all documents up to date, `--check` only says which are not.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from bench.api import reference
from store.files import read_json
from store.index_tables import ROWS, TABLES

REPO = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BLOCK = re.compile(
    r"(?P<begin><!-- figures: bench/results/(?P<name>[\w-]+)\.json(?: (?P<part>\w+))? -->\n)"
    r".*?(?P<end><!-- end of figures -->)",
    re.DOTALL,
)
JUDGED = re.compile(
    r"(?P<begin><!-- judged: bench/results/(?P<name>[\w-]+)\.json -->\n).*?(?P<end><!-- end of judged -->)", re.DOTALL
)
API = re.compile(r"(?P<begin><!-- api: (?P<module>[\w.]+) -->\n).*?(?P<end><!-- end of api -->)", re.DOTALL)
SCHEMA = re.compile(r"(?P<begin><!-- schema -->\n).*?(?P<end><!-- end of schema -->)", re.DOTALL)
DETAIL = "seconds: "
"""Figures named so are kept in the file and left out of documents."""


def main() -> None:
    """Bring the documents up to date, or say which are not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where a document is behind")
    args = parser.parse_args()
    changed = behind() if args.check else update()
    for document in changed:
        print(f"{'behind its result files' if args.check else 'rendered'}: {document}")
    sys.exit(bool(args.check and changed))


def documents() -> list[Path]:
    """Where figures may be shown."""
    return [REPO / "README.md", *sorted((REPO / "docs").glob("*.md"))]


def behind() -> list[Path]:
    """Documents that do not equal their rendering."""
    return [path for path in documents() if (text := path.read_text(encoding="utf-8")) != rendered(text)]


def update() -> list[Path]:
    """Write the documents that are behind, and name them."""
    changed = behind()
    for path in changed:
        path.write_text(rendered(path.read_text(encoding="utf-8")), encoding="utf-8")
    return changed


def rendered(text: str) -> str:
    """`text` with every marked block made from its result file.

    Raises:
        UsageError: a block names a result file that does not exist.
    """
    text = BLOCK.sub(lambda m: m["begin"] + _block(m["name"], m["part"]) + m["end"], text)
    text = JUDGED.sub(lambda m: m["begin"] + judged(read_json(RESULTS / f"{m['name']}.json")) + m["end"], text)
    text = API.sub(lambda m: m["begin"] + reference(m["module"]) + m["end"], text)
    return SCHEMA.sub(lambda m: m["begin"] + schema() + m["end"], text)


def schema() -> str:
    """Every table of an index: what a row is, and each column with its type and meaning."""
    parts = []
    for table, columns in TABLES.items():
        rows = [f"| `{name}` | {column.type} | {column.about} |" for name, column in columns.items()]
        parts += [f"### {table}", "", ROWS[table], "", "| column | type | |", "|---|---|---|", *rows, ""]
    return "\n".join(["", *parts])


def _block(name: str, part: str | None) -> str:
    document = read_json(RESULTS / f"{name}.json")
    return block(document) if part is None else part_block(document, part)


def part_block(document: dict[str, Any], part: str) -> str:
    """One part of an evaluation: a row for each figure, a column for each control or token class."""
    from app.report.view import of_one
    from store.figures import Figure

    found = document["settings"]
    if part in found["remarks"]:
        return f"Does not apply: {found['remarks'][part]}.\n"
    table = of_one([Figure(**row) for row in found["parts"][part]])
    asked = [("setting", table.has_settings), ("tokens", table.has_classes)]
    head = ["figure", *(name for name, shown in asked if shown), *table.columns]
    lines = [head, ["---"] * len(head)]
    for row in table.rows:
        places = {"setting": row.setting, "tokens": row.token_class}
        cells = [f"{cell.text} {cell.interval}".strip() for cell in row.cells]
        lines.append([row.label, *(places[name] for name, shown in asked if shown), *cells])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


def judged(document: dict[str, Any]) -> str:
    """What explanations got from each scorer: the mean, that of shuffled ones, the difference with its interval."""
    found = document["settings"]
    head = ["explainer, scorer", "mean", "shuffled", "difference", "95 %", "p", "answers read", "not read"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_judged_row(row))} |" for row in found["rows"]]
    about = f"{found['model']} on {found['n_latents']} latents. {_measured(document)}"
    return about + "\n\n" + "\n".join(lines) + "\n"


def _judged_row(row: dict[str, Any]) -> list[str]:
    shuffled, above = row.get("shuffled"), row["above"].get("shuffled")
    read = [f"{row['n_judged']:,}", f"{row['n_unparsed']:,}"]
    own = f"{row['explanation']['mean']:.3f}"
    if shuffled is None or above is None:
        return [row["what"], own, "reads none", "", "", "", *read]
    low, high = above["interval"]
    found = [f"{above['difference']:+.3f}", f"[{low:.3f}, {high:.3f}]", f"{above['p_value']:.3f}"]
    return [row["what"], own, f"{shuffled['mean']:.3f}", *found, *read]


def _measured(document: dict[str, Any]) -> str:
    machine, commit, torch = document["machine"], document["commit"], document["versions"]["torch"]
    return f"Measured on {machine} at commit {commit}, torch {torch}."


def block(document: dict[str, Any]) -> str:
    """What stands between the markers: how it was measured, and a row for each figure."""
    rows = [
        f"| {figure['name']} | {shown(figure)} |"
        for figure in document["figures"]
        if not figure["name"].startswith(DETAIL)
    ]
    head = f"{_measured(document)}\n\n| figure | value |\n|---|---|\n"
    return head + "\n".join(rows) + "\n"


def shown(figure: dict[str, Any]) -> str:
    """Value and unit; of a figure that misses, what it was meant to reach."""
    value = f"{number(figure['value'])} {figure['unit']}".rstrip()
    return f"{value}, **misses {figure['reach']}**" if figure["holds"] is False else value


def number(value: float) -> str:
    """Three significant digits, counts whole."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    main()
