"""Questions to `features` in one string: what is read of them is what DuckDB reads."""

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.feature_query import features_query
from store.errors import UsageError


@pytest.fixture(scope="module")
def features():
    connection = duckdb.connect()
    connection.execute(
        """CREATE TABLE features AS SELECT i AS latent, i % 7 AS density, (i * 37) % 101 AS score, 'é ' || i AS text,
        i AS "limit" FROM range(300) AS t(i)"""
    )
    return connection


SORTED = "ORDER BY density DESC, latent LIMIT 100"
ASKED = {
    "": SORTED,
    "density < 3 order by score desc": "WHERE density < 3 ORDER BY score DESC, latent LIMIT 100",
    "WHERE density < 3 LIMIT 5;": "WHERE density < 3 ORDER BY density DESC, latent LIMIT 5",
    "order by score limit 5 offset 3": "ORDER BY score, latent LIMIT 5 OFFSET 3",
    "offset 3": f"{SORTED} OFFSET 3",
    "text <> ' order by x limit 3' ORDER /* a */ BY score -- limit 1": "ORDER BY score, latent LIMIT 100",
    "text > 'é' order by score": "WHERE text > 'é' ORDER BY score, latent LIMIT 100",
    "latent in (select latent from features order by latent limit 9)": f"WHERE latent < 9 {SORTED}",
    '"limit" < 9 or latent = 12': f"WHERE latent < 9 OR latent = 12 {SORTED}",
    "text = $$limit 3$$": "WHERE false",
}


@pytest.mark.parametrize("asked", ASKED)
def test_one_string_is_a_condition_an_order_and_a_limit(asked, features):
    found = features.sql(features_query(asked, None, None, None)).fetchall()
    assert found == features.sql(f"SELECT * FROM features {ASKED[asked]}").fetchall()


@given(
    st.sampled_from(["", "density < 3", "text <> 'limit 2'"]),
    st.sampled_from([None, "score DESC", "density, score"]),
    st.sampled_from([None, 0, 7]),
    st.sampled_from([None, 4]),
)
def test_a_clause_in_the_string_is_what_it_is_as_an_argument(where, order_by, limit, offset):
    written = [f"order by {order_by}" * (order_by is not None), f"limit {limit}" * (limit is not None)]
    in_string = " ".join([where, *written, f"offset {offset}" * (offset is not None)])
    beside = features_query(where, order_by, limit, offset)
    assert duckdb.tokenize(features_query(in_string, None, None, None)) == duckdb.tokenize(beside)


@pytest.mark.parametrize(
    ("where", "beside", "message"),
    [
        ("order by score", ("max", None, None), "ORDER BY score stands in the string and order_by='max' beside it"),
        ("limit 3", (None, 4, None), "limit=4 beside it: leave one out"),
        ("limit 3 offset 4", (None, None, 0), "offset=0 beside it"),
        ("limit 3 limit 4", (None, None, None), "LIMIT stands twice"),
        ("SELECT * FROM features", (None, None, None), "is a whole query: ask `sql`"),
    ],
)
def test_what_is_said_twice_is_refused(where, beside, message):
    with pytest.raises(UsageError, match=message.replace("*", r"\*")):
        features_query(where, *beside)
