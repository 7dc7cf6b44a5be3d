"""Which texts count as one, and which as none."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peft_study.data.prepare import clean
from peft_study.data.sources import Row
from peft_study.data.tasks import TASKS
from peft_study.data.texts import is_empty, shown, spelling

DIFFERENT = [
    pytest.param("राम कल गया था", "राम कल गयी थी", id="vowel signs of Devanagari"),
    pytest.param("มา", "มี", id="vowel signs of Thai"),
    pytest.param("கல்", "கால்", id="vowel signs of Tamil"),
    pytest.param("דָּבָר", "דֶּבֶר", id="points of Hebrew"),
    pytest.param("ma\u0301", "ma\u0300", id="tones of Vietnamese, decomposed"),
    pytest.param("なし", "なじ", id="voiced signs of Japanese"),
    pytest.param("what a film 😍", "what a film 🤮", id="emoji"),
    pytest.param("rated ★★★★★", "rated ★", id="stars"),
    pytest.param("C++ is fast", "C is fast", id="mathematical signs"),
    pytest.param("it costs 5 €", "it costs 5 $", id="currencies"),
    pytest.param("in Maßen trinken", "in Massen trinken", id="ß and ss"),
    pytest.param("10⁶ cells", "106 cells", id="superscripts"),
    pytest.param("résumé", "resume", id="accents"),
    pytest.param("5 < 6", "5 > 6", id="what compares"),
]
SAME = [
    pytest.param("Good film!", "good   FILM", id="case, punctuation and spaces"),
    pytest.param("राम, कल गया था।", "राम कल गया था", id="punctuation of Devanagari"),
    pytest.param("caf\u00e9", "CAFE\u0301", id="composed and decomposed"),
    pytest.param("the Index <.SPX> rose", "the Index .SPX rose", id="brackets of an angle"),
    pytest.param("<" * 10**5 + "a" + ">" * 10**5, "a", id="many brackets, in no time"),
    pytest.param("a < <b> > c < d", "a b c < d", id="brackets, and one that compares"),
    pytest.param("«Привет», мир…", "привет мир", id="Cyrillic"),
    pytest.param("ΟΔΟΣ", "οδος", id="the last sigma of a word"),
    pytest.param("a\u00a0b\u3000c\td", "abcd", id="every kind of space"),
    pytest.param("\uac00", "\u1100\u1161", id="Hangul, composed and decomposed"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_texts_that_differ_are_two(one: str, other: str) -> None:
    assert spelling(one) != spelling(other)
    rows = [Row("t", "t", (one,), 0, "train"), Row("v", "v", (other,), 1, "validation")]
    kept, dropped = clean(rows, TASKS["movie_polarity"])
    assert (kept, sum(dropped.values())) == (rows, 0)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_case_punctuation_and_spaces_make_no_other_text(one: str, other: str) -> None:
    rows = [Row("t", "t", (one,), 0, "train"), Row("v", "v", (other,), 1, "validation")]
    kept, dropped = clean(rows, TASKS["movie_polarity"])
    assert (kept, dropped["also_in_validation"]) == ([rows[1]], 1)


@given(st.text(), st.sampled_from(("NFC", "NFD")))
def test_a_spelling_is_that_of_both_forms_and_of_its_own(text: str, form: str) -> None:
    assert spelling(unicodedata.normalize(form, text)) == spelling(text)  # type: ignore[arg-type]
    assert spelling(spelling(text)) == spelling(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\u00a0",
        "\u200b",
        "\ufeff\u200d\u2060",
        "\u00ad",
        "\u3164",
        "\ufe0f",
        "\x00\x1b",
        "\u2800",
    ],
)
def test_a_text_without_a_sign_that_is_seen_is_empty(text: str) -> None:
    assert is_empty(text)
    rows = [Row("0", "0", (text,), 1), Row("1", "1", ("a" + text,), 1)]
    kept, dropped = clean(rows, TASKS["movie_polarity"])
    assert (kept, dropped["empty_text"]) == (rows[1:], 1)


@pytest.mark.parametrize("text", [".", "😀", "\u200b.", "\u0301", "\ue000", "\ufffd", "؟"])
def test_a_sign_alone_is_a_text(text: str) -> None:
    assert not is_empty(text)


@given(st.one_of(st.text(), st.integers(), st.lists(st.text(max_size=200)), st.none()))
def test_what_is_shown_is_one_short_line(value: object) -> None:
    assert len(shown(value).splitlines()) == 1
    assert len(shown(value)) < 700
