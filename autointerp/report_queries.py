"""Every number of an interpretation report as one SQL query over an index, each of which `monosem sql` answers too."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autointerp.leakage import LEAKS
from store.confined import quoted

N_BINS = 20
"""Of a histogram of scores."""
PER_VERDICT = 4
"""Examples shown of a latent's right answers to a scorer, of its wrong ones, and of those that could not be read."""
N_PLACES = 2
"""Latents shown of the best explained, of the middle and of the worst."""
ID = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True)
class Query:
    """What a figure is read from."""

    about: str
    """What its rows are, for the reader of the report."""
    sql: str
    """With `{explanations}`, `{scores}` and `{latents}` where the runs and the latents in question stand."""


# One row a latent and scorer: what the explanation got, and the density of the latent.
_OWN = "FROM scores WHERE run IN {scores} AND arm = 'explanation'"
_ASKED = "WITH asked AS (SELECT DISTINCT run, scorer FROM scores WHERE run IN {scores})"

QUERIES: dict[str, Query] = {
    "overview": Query(
        "Latents and tokens. `n_tokens` are those that count for densities.",
        """SELECT count(*) AS width, max(round(n_fired / density)) FILTER (density > 0)::BIGINT AS n_tokens,
    (SELECT count(DISTINCT latent) FROM explanations WHERE run = {explanations}) AS n_explained,
    (SELECT count(DISTINCT latent) FROM scores
     WHERE run IN {scores} AND arm = 'explanation' AND value IS NOT NULL) AS n_scored,
    (SELECT count(*) FROM examples WHERE run IN {scores}) AS n_examples
FROM latents""",
    ),
    "denominators": Query(
        "What became of every latent, a row a scorer: each latent is in one column, and the columns add up to `width`.",
        f"""{_ASKED}, own AS (
    SELECT run, latent, value, n_unparsed {_OWN}
), told AS (
    SELECT latent, any_value(explained) AS explained FROM (
        SELECT latent, true AS explained FROM explanations WHERE run = {{explanations}}
        UNION ALL SELECT latent, NULL FROM unexplained WHERE run = {{explanations}}
    ) GROUP BY latent
), fates AS (
    SELECT a.run, a.scorer, CASE WHEN o.value IS NOT NULL THEN 'scored'
        WHEN o.n_unparsed > 0 THEN 'unparsed' WHEN o.latent IS NOT NULL OR t.explained THEN 'skipped'
        WHEN t.latent IS NOT NULL THEN 'unexplained' WHEN l.dead THEN 'dead' ELSE 'not chosen' END AS fate
    FROM asked a CROSS JOIN latents l
    LEFT JOIN own o ON o.run = a.run AND o.latent = l.latent LEFT JOIN told t ON t.latent = l.latent
)
SELECT run, scorer, count(*) FILTER (fate = 'dead') AS dead, count(*) FILTER (fate = 'not chosen') AS not_chosen,
    count(*) FILTER (fate = 'unexplained') AS unexplained, count(*) FILTER (fate = 'skipped') AS skipped,
    count(*) FILTER (fate = 'unparsed') AS unparsed, count(*) FILTER (fate = 'scored') AS scored, count(*) AS width
FROM fates GROUP BY run, scorer ORDER BY scorer, run""",
    ),
    "unexplained": Query(
        "Why latents have no explanation.",
        """SELECT reason, count(DISTINCT latent) AS n_latents FROM unexplained WHERE run = {explanations}
GROUP BY reason ORDER BY n_latents DESC, reason""",
    ),
    "means": Query(
        "Mean score of every arm, and mean chance of the same latents. Its interval is Student's, of the latents' "
        "`own` values, which are in the order of `latents`; where clusters share one explanation (`together` has each "
        "latent's), it is CR2's over those.",
        """SELECT run, scorer, arm, avg(value) AS mean, count(value) AS n_scored,
    count(*) - count(value) AS n_not_scored,
    coalesce(avg(chance) FILTER (value IS NOT NULL), avg(chance)) AS chance,
    list(latent ORDER BY latent) AS latents, list(value ORDER BY latent) AS own,
    list(coalesce(medoid, latent) ORDER BY latent) AS together
FROM scores s LEFT JOIN (SELECT latent, medoid FROM clusters WHERE run = {explanations}) USING (latent)
WHERE run IN {scores} GROUP BY run, scorer, arm
ORDER BY scorer, run, arm <> 'explanation', arm""",
    ),
    "above": Query(
        "Score minus null, of the latents that have both. The interval is Student's over `own` minus `nulls`; the "
        "p-value is that of flipping the sign of each latent's difference at random. Where clusters share one "
        "explanation (`together` has each latent's), both are of whole clusters.",
        """SELECT e.run, e.scorer, n.arm AS null_arm, avg(e.value - n.value) AS difference, count(*) AS n_latents,
    list(e.latent ORDER BY e.latent) AS latents, list(e.value ORDER BY e.latent) AS own,
    list(n.value ORDER BY e.latent) AS nulls, list(coalesce(c.medoid, e.latent) ORDER BY e.latent) AS together
FROM scores e JOIN scores n ON n.run = e.run AND n.scorer = e.scorer AND n.latent = e.latent
LEFT JOIN clusters c ON c.latent = e.latent AND c.run = {explanations}
WHERE e.run IN {scores} AND e.arm = 'explanation' AND n.arm <> 'explanation'
    AND e.value IS NOT NULL AND n.value IS NOT NULL
GROUP BY e.run, e.scorer, n.arm ORDER BY e.scorer, e.run, n.arm""",
    ),
    "histogram": Query(
        f"Scores in {N_BINS} bins of equal width, from 0 to 1, or from -1 where a scorer gave less than 0. `share` is "
        "of the arm's latents with a score, `chance` their mean.",
        f"""WITH spans AS (
    SELECT run, CASE WHEN min(value) < 0 THEN least(-1.0, min(value)) ELSE 0.0 END AS low,
        greatest(1.0, max(value)) AS high
    FROM scores WHERE run IN {{scores}} GROUP BY run
), binned AS (
    SELECT s.run, s.scorer, s.arm, s.chance, low, (high - low) / {N_BINS} AS width,
        least({N_BINS - 1}, floor((s.value - low) / (high - low) * {N_BINS}))::INTEGER AS bin
    FROM scores s JOIN spans USING (run) WHERE s.value IS NOT NULL
)
SELECT run, scorer, arm, bin, any_value(low) + bin * any_value(width) AS low,
    any_value(low) + (bin + 1) * any_value(width) AS high, count(*) AS n_latents,
    count(*) / sum(count(*)) OVER same AS share, sum(sum(chance)) OVER same / sum(count(*)) OVER same AS chance
FROM binned GROUP BY run, scorer, arm, bin WINDOW same AS (PARTITION BY run, scorer, arm)
ORDER BY scorer, run, arm <> 'explanation', arm, bin""",
    ),
    "density": Query(
        "Density and score of every latent that has one. The correlation is Spearman's, over all of them.",
        """SELECT s.run, s.scorer, s.latent, l.density, s.value FROM scores s JOIN latents l USING (latent)
WHERE s.run IN {scores} AND s.arm = 'explanation' AND s.value IS NOT NULL AND l.density > 0
ORDER BY s.scorer, s.run, hash(s.latent)""",
    ),
    "agreement": Query(
        "Every scorer's value of every explanation: the correlations are Spearman's, over the latents that both have.",
        f"SELECT run, scorer, latent, value {_OWN} ORDER BY scorer, run, latent",
    ),
    "unread": Query(
        "Answers that could not be read, and what the mean score would be were all of those wrong, or all right.",
        """SELECT run, scorer, arm, sum(n_judged)::BIGINT AS n_read, sum(n_unparsed)::BIGINT AS n_unread,
    sum(n_unparsed) / nullif(sum(n_judged + n_unparsed), 0) AS share_unread,
    sum(n_asked_twice)::BIGINT AS n_asked_twice, avg(coalesce(worst, value)) AS worst, avg(value) AS mean,
    avg(coalesce(best, value)) AS best, count(*) - count(value) AS n_without_value
FROM scores WHERE run IN {scores} GROUP BY run, scorer, arm
ORDER BY scorer, run, arm <> 'explanation', arm""",
    ),
    "metrics": Query(
        "Other figures of the same answers: means over latents, of the explanations and of the shuffled ones.",
        """SELECT run, scorer, metric, avg(value) FILTER (arm = 'explanation') AS mean,
    count(value) FILTER (arm = 'explanation') AS n_latents, avg(value) FILTER (arm = 'shuffled') AS shuffled
FROM score_metrics WHERE run IN {scores} AND metric NOT IN ('precision_at_base_rate_low', 'precision_at_base_rate_high')
GROUP BY run, scorer, metric ORDER BY metric, scorer, run""",
    ),
    "leakage": Query(
        f"Explanations of which {LEAKS:.0%} of the words or more are copied from contexts that the explainer saw, in "
        "runs of six or more. `n_explained` are all.",
        f"""SELECT latent, quoted, text, n_explained FROM (
    SELECT latent, quoted, text, count(*) OVER () AS n_explained FROM explanations WHERE run = {{explanations}}
) WHERE quoted >= {LEAKS} ORDER BY quoted DESC, latent""",
    ),
    "overlap": Query(
        "Documents that a score shares with what its explainer saw: `most` is 0, or the score is refused.",
        """SELECT run, scorer, max(n_docs_shared) AS most, count(*) - count(n_docs_shared) AS n_not_known, count(*) AS n
FROM scores WHERE run IN {scores} GROUP BY run, scorer ORDER BY scorer, run""",
    ),
    "calls": Query(
        "Replies of language models, each counted once, whichever runs used it. `n_unpriced` have no known price, and "
        "are not in `usd`.",
        """SELECT model, prompt, count(*) AS n_calls, sum(n_tokens_in)::BIGINT AS n_tokens_in,
    sum(n_tokens_out)::BIGINT AS n_tokens_out, sum(usd) AS usd, count(*) - count(usd) AS n_unpriced
FROM (SELECT DISTINCT ON (key) * FROM calls WHERE run IN {scores} OR run = {explanations} ORDER BY key, run)
GROUP BY model, prompt ORDER BY n_calls DESC, model, prompt""",
    ),
    "calibration": Query(
        "Probabilities that a judge gave to yes, in ten bins, and the share that was true. The intervals are Wilson's, "
        "of answers as if they were independent.",
        """SELECT run, scorer, least(floor(probability * 10), 9)::INTEGER AS bin, count(*) AS n,
    avg(probability) AS mean_probability, avg(truth) AS share_true, sum(truth)::BIGINT AS n_true
FROM examples WHERE run IN {scores} AND arm = 'explanation' AND probability IS NOT NULL AND truth IN (0, 1)
GROUP BY run, scorer, bin ORDER BY scorer, run, bin""",
    ),
    "chosen": Query(
        "The best explained latents, those in the middle and the worst, by score minus shuffled null, or minus chance "
        "where there is none, the mean over scorers.",
        f"""WITH gains AS (
    SELECT e.latent, avg(e.value - coalesce(n.value, e.chance)) AS gain FROM scores e
    LEFT JOIN scores n ON n.run = e.run AND n.scorer = e.scorer AND n.latent = e.latent AND n.arm = 'shuffled'
    WHERE e.run IN {{scores}} AND e.arm = 'explanation' AND e.value IS NOT NULL GROUP BY e.latent
), placed AS (
    SELECT latent, gain, row_number() OVER (ORDER BY gain DESC, latent) AS place, count(*) OVER () AS n FROM gains
)
SELECT latent, gain, place, n FROM placed
WHERE place <= {N_PLACES} OR place > n - {N_PLACES} OR abs(place - (n + 1) / 2) <= {N_PLACES / 2} ORDER BY place""",
    ),
    "texts": Query(
        "What was said of the latents below.",
        """SELECT l.latent, l.density, l.n_fired, e.text, e.method, e.prompt, e.quoted, e.n_contexts, e.n_docs
FROM latents l JOIN explanations e USING (latent) WHERE e.run = {explanations} AND l.latent IN {latents}
ORDER BY l.latent""",
    ),
    "values": Query(
        "Every score of the latents below, nulls included.",
        """SELECT latent, run, scorer, arm, value, ci_low, ci_high, chance, n_judged, n_unparsed FROM scores
WHERE run IN {scores} AND latent IN {latents} ORDER BY latent, scorer, run, arm <> 'explanation', arm""",
    ),
    "examples": Query(
        "Answers about the latents below. Where every token was asked about, a context is right if the largest answer "
        "says whether it fires at all; where the answer is a degree, if it is on the right side of half of the "
        f"contexts of the other kind. At most {PER_VERDICT} of a kind.",
        f"""WITH mine AS (
    SELECT * FROM examples WHERE run IN {{scores}} AND latent IN {{latents}} AND arm = 'explanation'
), asked AS (
    SELECT latent, run, scorer, number, kind, doc_id, text, token, truth, answer, probability FROM mine
    WHERE token IS NULL
    UNION ALL SELECT latent, run, scorer, min(number), kind, doc_id, text, 0, max(truth), max(answer), NULL FROM mine
    WHERE token IS NOT NULL GROUP BY latent, run, scorer, kind, doc_id, text
), forms AS (
    SELECT run, scorer, bool_and(truth = round(truth) AND coalesce(answer = round(answer), true)) AS decided
    FROM examples WHERE run IN {{scores}} AND token IS NULL GROUP BY run, scorer
), sides AS (
    SELECT a.latent, a.run, a.scorer, a.number,
        avg(CASE WHEN a.answer = b.answer THEN 0.5 WHEN (a.answer > b.answer) = (a.truth > b.truth) THEN 1 ELSE 0 END)
            AS share
    FROM asked a JOIN asked b ON b.latent = a.latent AND b.run = a.run AND b.truth <> a.truth AND b.answer IS NOT NULL
    WHERE a.token IS NULL AND a.truth IN (0, 1) GROUP BY ALL
), judged AS (
    SELECT a.*, CASE WHEN a.answer IS NULL THEN 'not read'
        WHEN CASE WHEN a.token IS NOT NULL THEN (a.truth > 0) = (a.answer > 0)
            WHEN f.decided THEN a.truth = a.answer ELSE s.share >= 0.5 END THEN 'right' ELSE 'wrong' END AS verdict
    FROM asked a LEFT JOIN forms f USING (run, scorer) LEFT JOIN sides s USING (latent, run, scorer, number)
)
SELECT latent, run, scorer, verdict, number, kind, doc_id, text, truth, answer, probability,
    count(*) OVER (PARTITION BY latent, run, scorer, verdict) AS n
FROM judged QUALIFY row_number() OVER (PARTITION BY latent, run, scorer, verdict ORDER BY number) <= {PER_VERDICT}
ORDER BY latent, scorer, run, verdict DESC, number""",
    ),
    "firings": Query(
        "Where the latents below fire in those documents, and the characters there.",
        """SELECT e.latent, e.doc_id, any_value(d.text) AS document,
    list(s.char_start[e.pos + 1] ORDER BY e.seq, e.pos) AS starts,
    list(s.char_end[e.pos + 1] ORDER BY e.seq, e.pos) AS stops, list(e.value ORDER BY e.seq, e.pos) AS activations
FROM events e JOIN sequences s USING (seq) JOIN documents d ON d.doc_id = e.doc_id
WHERE e.latent IN {latents} AND e.doc_id IN (SELECT DISTINCT doc_id FROM examples
    WHERE run IN {scores} AND latent IN {latents} AND arm = 'explanation')
GROUP BY e.latent, e.doc_id ORDER BY e.latent, e.doc_id""",
    ),
}
"""By name, in the order of the report."""
PER_LATENT = ("texts", "values", "examples", "firings")
"""Those that are of some latents only."""


def query(name: str, explanations: str, scores: Sequence[str], latents: Sequence[int] = ()) -> str:
    """The query `name` of the run `explanations` and the runs that scored it.

    Raises:
        ValueError: an id is not one.
    """
    for run in (explanations, *scores):
        if not ID.fullmatch(run):
            raise ValueError(f"{run!r} is no id of a run: choose one that `monosem show` lists")
    return QUERIES[name].sql.format(
        explanations=quoted(explanations),
        scores=f"({', '.join(map(quoted, scores))})",
        latents=f"({', '.join(str(int(latent)) for latent in latents) or 'NULL'})",
    )
