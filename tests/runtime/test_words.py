"""Numbers and lists in sentences."""

from __future__ import annotations

from rmiseg.runtime.words import counted, percent, percents, rounded, some


def test_one_and_many():
    assert (counted(1, "image"), counted(0, "image"), counted(1200, "image")) == ("1 image", "0 images", "1,200 images")


def test_large_numbers_have_no_exponent():
    assert [rounded(x) for x in (0.0163, 0.123, 9.87, 10.4, 152.3, 1523.4)] == [
        "0.016",
        "0.12",
        "9.9",
        "10",
        "152",
        "1,523",
    ]


def test_long_lists_say_how_many_more_there_are():
    assert some(["a", "b", "c"], 3) == "a, b, c"
    assert some(["a", "b", "c"], 2) == "a, b and 1 more"


def test_shares_are_in_percent_and_what_has_no_value_is_a_dash():
    assert [percent(0.12345), percent(None), percent(float("nan"))] == ["12.35", "-", "-"]
    assert (percent(0.1, " %"), percent(None, " %")) == ("10.00 %", "-")
    assert (percents([0.1, 0.2]), percents([0.1, None])) == ("10.00 to 20.00", "-")
