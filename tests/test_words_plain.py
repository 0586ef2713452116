"""A stranger's words as data: what nobody sees, what turns text round and what ends a quotation is gone."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from runtime.words import plain

UNSEEN = "\x00\x1b\x7f\x85\u061c\u200b\u200e\u2028\u202e\u2060\u2066\ufeff\U000e0041"


def test_what_nobody_sees_and_what_screens_obey_is_a_blank() -> None:
    assert plain("a".join(UNSEEN)) == " ".join("a" * (len(UNSEEN) - 1))


def test_joiners_stay_for_scripts_and_pictures_that_need_them() -> None:
    assert plain("می\u200cروم 👩\u200d🔧") == "می\u200cروم 👩\u200d🔧"


@given(st.text())
def test_a_text_ends_no_quotation_and_stays_what_it_is(text: str) -> None:
    told = plain(text)
    assert '"' not in told
    assert not any(unicodedata.category(sign) == "Cc" for sign in told)
    assert plain(told) == told
