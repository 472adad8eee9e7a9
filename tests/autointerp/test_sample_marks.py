"""Highlighted positions of silent contexts are drawn as those of the active ones are: marks tell nothing."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.sample_silent import fires_at, marks
from store.latents import Window


def window(n: int, peak: int, on: tuple[int, ...] = ()) -> Window:
    values = tuple(float(i in on) for i in range(n))
    return Window("given", 1.0, 0, "s", "t", "train", 0, 0, peak, ("x",) * n, (0,) * n, values)


def offsets(window: Window, marked: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(i - window.peak for i in marked)


@st.composite
def active_windows(draw: st.DrawFn) -> Window:
    n = draw(st.integers(1, 9))
    peak = draw(st.integers(0, n - 1))
    return window(n, peak, tuple({peak, *draw(st.sets(st.integers(0, n - 1), max_size=4))}))


class TestMarks:
    @settings(max_examples=200, deadline=None)
    @given(active=st.lists(active_windows(), min_size=1, max_size=20), seed=st.integers(0, 99))
    def test_of_whole_windows_have_exactly_the_active_ones_distribution(self, active: list[Window], seed: int):
        silent = [window(17, 8) for _ in active]
        found = marks(silent, active, np.random.default_rng(seed))
        theirs = Counter(offsets(w, fires_at(w)) for w in active)
        assert Counter(offsets(w, at) for w, at in zip(silent, found, strict=True)) == theirs

    @settings(max_examples=200, deadline=None)
    @given(
        active=st.lists(active_windows(), min_size=1, max_size=12),
        silent=st.lists(active_windows(), min_size=1, max_size=12),
        seed=st.integers(0, 99),
    )
    def test_stay_inside_and_are_a_whole_pattern_where_one_fits(
        self, active: list[Window], silent: list[Window], seed: int
    ):
        patterns = {offsets(w, fires_at(w)) for w in active}
        for w, at in zip(silent, marks(silent, active, np.random.default_rng(seed)), strict=True):
            assert w.peak in at
            assert all(0 <= i < len(w.tokens) for i in at)
            fitting = {p for p in patterns if w.peak + min(p) >= 0 and w.peak + max(p) < len(w.tokens)}
            assert not fitting or offsets(w, at) in fitting

    def test_with_nothing_active_the_peak_is_marked(self):
        assert marks([window(5, 2)], [], np.random.default_rng(0)) == [(2,)]
