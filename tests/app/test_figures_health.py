"""Figures of several dictionaries side by side."""

import pandas as pd
import pytest

from app.figures_health import density_multiples


@pytest.mark.parametrize("n", [1, 3, 9])
def test_every_dictionary_has_bars_that_add_up_to_all_of_it(n):
    frame = pd.DataFrame({"bin": [-12, -8, -4], "n": [2, 5, 3]})
    figure = density_multiples({f"<b>{i}": frame for i in range(n)})
    assert len(figure.data) == n
    for bars in figure.data:
        assert sum(bars.y) == pytest.approx(1)
        assert list(bars.x) == [-2.875, -1.875, -0.875], "the middles of quarters of a decade"
    assert all("<b>" not in note.text for note in figure.layout.annotations)


def test_a_dictionary_that_never_fired_has_no_bars():
    figure = density_multiples({"dead": pd.DataFrame({"bin": [], "n": []})})
    assert not sum(figure.data[0].y)
