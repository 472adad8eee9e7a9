"""What the page of a sweep shows, as plain values, each figure from the rows of a query that stands beside it."""

from pprint import pformat
from typing import Any

import pandas as pd

from app.estimates import figure, interval
from app.interpretation.view import Asked, Page, Section, Table
from app.sweeping import plots
from autointerp.steer_config import SteerConfig
from autointerp.sweep.results import MOST_PERPLEXITY
from store.run import Run
from store.swept import Swept

SUMMARY = """SELECT * FROM summary WHERE measure = '{measure}' ORDER BY tier, strength, arm, draw"""
MOVED = """SELECT tier, strength, latent, change, n_tokens FROM moved WHERE arm = 'latents'
ORDER BY tier, strength, abs(change) DESC, latent"""
TEXTS = """SELECT arm, tier, strength, item, seed, text FROM texts WHERE draw = 0 AND seed = 0 AND item < 2
ORDER BY item, arm <> 'clean', arm, tier, strength"""
MEASURED = """SELECT tier, strength,
    max(mean) FILTER (measure = 'mass') AS mass,
    max(mean) FILTER (measure = 'kl') AS kl,
    max(mean) FILTER (measure = 'kl_retain') AS kl_retain,
    exp(max(mean) FILTER (measure = 'log_perplexity')) AS perplexity,
    exp(max(above_clean) FILTER (measure = 'log_perplexity')) AS perplexity_ratio,
    max(mean) FILTER (measure = 'repetition') AS repetition,
    max(mean) FILTER (measure = 'share_of_norm') AS share_of_norm,
    max(n) FILTER (measure = 'mass') AS n
FROM summary WHERE arm = 'latents' GROUP BY tier, strength ORDER BY tier, strength"""
COLUMNS = (
    *("tier", "strength", "moved by", "mass", "above clean", "95 %", "random latents", "95 % of theirs", "moved by "),
    *("random direction", "95 % of those", "mean difference", "perplexity ratio", "KL on retained"),
)
"""`moved by`: |x' − x| / |x|, mean over changed positions, of the latents and of the random latents."""
OTHER_COLUMNS = (
    *("tier", "strength", "by", "told of", "mean", "above clean", "95 %", "random latents", "95 % of theirs"),
    *("random direction", "95 % of those"),
)
"""Of effects on what was written: a table of their own."""
ABOUT = {
    "probe": "where the text stands to the probe, from texts without the concept (0) to texts with it (1)",
    "judge_concept": "how much of the concept the judge finds in the text, 0 to 2",
    "judge_fluency": "how the text reads to the judge, 0 to 2",
    "judge": "the harmonic mean of both ratings",
}
"""What else than the concept's words may tell an effect."""


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The main table: the effect at each tier and strength, controls and cost beside it; and the instruction's."""
    table = [_row(each) for each in results["effects"]]
    if told := results["instruction"]:
        own = [figure(told["mass"], digits=4), figure(told["above_clean"], signed=True, digits=4)]
        table.append(["instruction", "", "", *own, _ends(told["interval"], 4), *[""] * (len(COLUMNS) - 6)])
    return table


def _row(each: dict[str, Any]) -> list[str]:
    latents, direction, mean = (
        each["controls"].get(arm, {}) for arm in ("random latents", "random direction", "mean difference")
    )
    return [
        each["tier"],
        f"{each['strength']:g}",
        _share(each["share_of_norm"]),
        figure(each["mass"], digits=4),
        *_above(each),
        *_above(latents),
        _share(latents.get("share_of_norm")),
        *_above(direction),
        figure(mean.get("above_clean"), signed=True, digits=4),
        figure(each["perplexity_ratio"], digits=2),
        figure(each["kl_retain"], digits=4),
    ]


def other_rows(results: dict[str, Any]) -> list[list[str]]:
    """What a probe and a judge say of what was written, where they were asked."""
    return [
        [
            each["tier"],
            f"{each['strength']:g}",
            name,
            f"{found['n_told']} of {found['n_texts']}",
            figure(found["mean"], digits=3),
            *(cell for arm in (None, "random latents", "random direction") for cell in _above(_of(found, arm), 3)),
        ]
        for each in results["effects"]
        for name, found in each["also"].items()
    ]


def _of(found: dict[str, Any], arm: str | None) -> dict[str, Any]:
    return found if arm is None else found["controls"].get(arm, {})


def _above(found: dict[str, Any], digits: int = 4) -> tuple[str, str]:
    return figure(found.get("above_clean"), signed=True, digits=digits), _ends(found.get("interval"), digits)


def _share(value: float | None) -> str:
    return figure(None) if value is None else f"{value:.1%}"


def _ends(ends: list[float | None] | None, digits: int) -> str:
    if ends is None or None in ends:
        return interval(None)
    return f"[{figure(ends[0], digits=digits, signed=True)}, {figure(ends[1], digits=digits, signed=True)}]"


def remarks(results: dict[str, Any]) -> list[str]:
    """What one has to know beside the table: which strengths to use, what broke the model, and what words stand for."""
    lines = []
    for tier, strengths in results["suggested"].items():
        found = ", ".join(f"{each:g}" for each in strengths) or (
            "none does what it is for beyond its interval and all random draws, in texts of at most "
            f"{MOST_PERPLEXITY} times the clean ones' perplexity"
        )
        lines.append(f"suggested strengths, {tier}: {found}")
    lines += [
        f"{each['arm']} at strength {each['strength']:g}, {each['tier']}: logits were not finite"
        for each in results["not_finite"]
    ]
    if words := results["words_in_part"]:
        lines.append(f"of several tokens, so that others that begin alike count too: {', '.join(words)}")
    return lines + _believed(results)


def _believed(results: dict[str, Any]) -> list[str]:
    """How far probe and judge are to be believed."""
    lines = []
    if probe := results["probe"]:
        texts = f"{probe['n_with']} different texts with the concept and {probe['n_without']} without"
        lines.append(f"the probe: {texts} are too few" if probe["interval"] is None else f"{_right(probe)} ({texts})")
    if judge := results["judge"]:
        lines.append(
            f"rated by {judge['name']}; not rated: {judge['n_empty']} empty texts, {judge['n_unread']} of which the "
            "reply could not be read"
        )
    return lines


def _right(probe: dict[str, Any]) -> str:
    low, high = probe["interval"]
    share = f"{probe['balanced_accuracy']:.0%} [{low:.0%}, {high:.0%}]"
    said = f"the probe is right on {share} of texts it was not trained on"
    if not probe["is_used"]:
        return f"{said}, and takes one side for the other: it is not used"
    return f"{said}, where chance is 50%" + (", from which that is not told" if low <= 0.5 else "")


def measured(swept: Swept) -> pd.DataFrame:
    """What the edit itself did, a row for each place and strength: `tier strength mass kl kl_retain perplexity
    perplexity_ratio repetition share_of_norm n`; what could not be told is missing."""
    return swept.sql(MEASURED)


def snippet(run: Run) -> str:
    """The sweep again, in Python."""
    cfg = dict(run.config)
    judge = ", ".join(f"{name}={value!r}" for name, value in cfg.pop("llm").items() if value is not None)
    edit = {name: _tupled(value) for name, value in cfg.pop("edit").items()}
    settings = {name: _tupled(value) for name, value in cfg.items()}
    given = ",\n".join(f"    {name}={pformat(value, width=100, indent=1)}" for name, value in settings.items())
    edited = ", ".join(f"{name}={value!r}" for name, value in edit.items())
    return (
        "from pathlib import Path\n\nfrom autointerp.llm.config import LLMConfig\n"
        "from autointerp.steer_config import SteerConfig\n"
        "from autointerp.sweep import SweepConfig, sweep\nfrom store.run import find_run\n\n"
        f"root = Path({str(run.root)!r})\n"
        f"cfg = SweepConfig(\n    edit=SteerConfig({edited}),\n{given},\n"
        f"    llm=LLMConfig({judge}),\n)\n"
        f'run = sweep(cfg, find_run(root, {run.inputs["index"]!r}, "index"), root)\n'
    )


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def page(run: Run) -> Page:
    """The whole page of a sweep."""
    swept = Swept(run.folder)
    edit = SteerConfig(**{name: _tupled(value) for name, value in run.config["edit"].items()})
    return Page(
        title=f"Steering by latent{'s' * (len(edit.latents) > 1)} {', '.join(map(str, edit.latents))}",
        described={
            "edit": f"{edit.op}, {edit.decode}; strengths {', '.join(f'{each:g}' for each in run.config['strengths'])}",
            "concept's words": ", ".join(run.config["words"]),
            **({"judge": f"{_judge(run)}, of: {run.config['concept']}"} if run.config["concept"] else {}),
            "prompts": f"{len(run.config['prompts']):,}, {run.config['n_seeds']} continuations each",
            "retained texts": f"{len(run.config['retain']):,}",
            "sweep": run.id,
            "index": run.inputs["index"],
        },
        tiles=[],
        sections=[
            *(_effect(run, swept), *_others(run, swept), _cost(swept)),
            *((_texts(swept), _moved(swept)) if run.config["n_seeds"] else ()),
            _again(run),
        ],
        latents=[],
        labels={},
        over=" --over steering",
    )


def _judge(run: Run) -> str:
    return " ".join(filter(None, (run.config["llm"]["backend"], run.config["llm"]["model"])))


def _asked(swept: Swept, name: str, about: str, query: str) -> tuple[Asked, pd.DataFrame]:
    return Asked(name, about, query), swept.sql(query)


def _effect(run: Run, swept: Swept) -> Section:
    query, found = _asked(
        swept, "effect", "Probability that the next token begins a word of the concept.", SUMMARY.format(measure="mass")
    )
    return Section(
        "effect",
        "Effect",
        "Probability that the next token after a prompt begins one of the concept's words, less that of the clean "
        "model, over prompts. Grey: draws of as many latents that fire as often, each edited alike, and of random "
        "directions along which x is moved as far in the same places. An effect that is not outside of them is none "
        "of these latents in particular; how far others moved x stands beside theirs.",
        [query],
        [Table(COLUMNS, rows(run.results))],
        [plots.against_strength(found, tier, "probability above clean") for tier in run.config["tiers"]],
        remarks=remarks(run.results),
    )


def _others(run: Run, swept: Swept) -> list[Section]:
    """The effect as a probe and a judge tell it, where they were asked."""
    names = [name for name in ABOUT if any(name in each["also"] for each in run.results["effects"])]
    if not names:
        return []
    queries, figures = [], []
    for name in names:
        query, found = _asked(swept, name, f"{ABOUT[name]}, over prompts.", SUMMARY.format(measure=name))
        if name == "probe":
            # Trained on the texts that this direction is of.
            found = found.loc[found["arm"] != "mean difference"]
        queries.append(query)
        figures += [plots.against_strength(found, tier, f"{name} above clean") for tier in run.config["tiers"]]
    told = "; ".join(f"{name}: {ABOUT[name]}" for name in names)
    return [
        Section(
            "written",
            "What was written",
            f"Of the texts themselves, beside the same draws of random latents and directions. {told}.",
            queries,
            [Table(OTHER_COLUMNS, other_rows(run.results))],
            figures,
        )
    ]


def _cost(swept: Swept) -> Section:
    queries, figures = [], []
    for measure, label in (
        ("log_perplexity", "nats a token above clean"),
        ("kl_retain", "KL on retained texts, nats"),
        ("repetition", "repetition above clean"),
    ):
        query, found = _asked(swept, measure, f"{measure}, over texts.", SUMMARY.format(measure=measure))
        queries.append(query)
        figures += [plots.against_strength(found, tier, label) for tier in found["tier"].unique() if tier]
    return Section(
        "cost",
        "Cost",
        "How unlikely steered texts are to the clean model, what the edit does to texts without the concept, and how "
        "much of a text is repeated from the sixteen tokens before.",
        queries,
        [],
        figures,
    )


def _texts(swept: Swept) -> Section:
    query, found = _asked(swept, "texts", "The first continuation of the first prompts.", TEXTS)
    cells = [
        [row["arm"], row["tier"], f"{row['strength']:g}", str(row["item"]), row["text"]]
        for row in found.to_dict("records")
    ]
    return Section(
        "texts",
        "Texts",
        "One continuation of two prompts, from one seed in every row.",
        [query],
        [Table(("arm", "tier", "strength", "prompt", "text"), cells)],
    )


def _moved(swept: Swept) -> Section:
    query, found = _asked(swept, "moved", "Other latents that fire more or less often on steered texts.", MOVED)
    cells = [
        [row["tier"], f"{row['strength']:g}", str(row["latent"]), figure(row["change"], signed=True, digits=3)]
        for row in found.to_dict("records")
    ]
    return Section(
        "moved",
        "Other latents that moved",
        "Change of the share of written tokens that a latent fires on, read by the clean model.",
        [query],
        [Table(("tier", "strength", "latent", "change"), cells)],
    )


def _again(run: Run) -> Section:
    return Section(
        "again",
        "Again, in Python",
        "The same sweep; where it is finished, it is read and not made again.",
        [Asked("Python", "what was asked for, in full.", snippet(run))],
    )
