"""Leakage: words of an explanation that are copied from what its author was shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.leakage import quoted
from store.latents import Window


def window(text: str) -> Window:
    return Window("given", 1.0, 0, "s", "t", "train", 0, 0, 0, (text,), (0,), (1.0,))


FOX = window("The quick brown fox jumps over the lazy dog")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the quick brown fox jumps over", 1.0),
        ("the quick brown fox jumps", 0.0),
        ("Fires in: 'THE QUICK, brown fox\n jumps OVER'", 6 / 8),
        ("the quick brown fox jumps over the lazy dog, twice", 9 / 10),
        ("fox brown quick the over jumps", 0.0),
        ("over the lazy dog the quick brown fox", 0.0),
        ("", 0.0),
        ("?!", 0.0),
    ],
)
def test_words_in_copied_runs_of_six_are_counted(text: str, expected: float):
    assert quoted(text, [FOX]) == expected


def test_a_run_does_not_reach_into_the_next_context():
    assert quoted("one two three four five six", [window("one two three"), window("four five six")]) == 0


def test_scripts_without_spaces_are_counted_by_character():
    assert quoted("これは猫です!", [window("「これは猫です」と言った")]) == 1
    assert quoted("これは猫です!", [window("あれは猫です")]) == 0


@given(st.lists(st.sampled_from("abcdefg"), max_size=30), st.integers(0, 20))
def test_any_stretch_of_a_context_is_quoted_whole_from_six_words_on(words: list[str], start: int):
    stretch = words[start:]
    expected = 1.0 if len(stretch) >= 6 else 0.0
    assert quoted(" ".join(stretch), [window(" ".join(words))]) == expected
