"""Who disagrees with whom, what is learnt meanwhile, and what a person's word for one of them changes."""

from __future__ import annotations

import random
from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.learning.disputes import Rulings, rule
from runtime.messages import Action, Example

people = st.sampled_from(["Ana", "Ben", "Cem", "page"])
histories = st.lists(
    st.tuples(people, st.sampled_from(["dim", "bright"]), st.sampled_from(["dark", "noon"])), max_size=12
)


def said(*rows: tuple[str, str] | tuple[str, str, str]) -> list[Example]:
    """(source, answer) or (source, answer, text), oldest first."""
    return [
        Example(
            id=f"fb-{n}",
            scope="room",
            text=row[2] if len(row) > 2 else "dark",
            action=Action(tool=row[1]),
            source=row[0],
            at=float(n),
        )
        for n, row in enumerate(rows)
    ]


def ruled(examples: list[Example], **more: Collection[str]) -> Rulings:
    return rule(examples, trust=lambda source: 1.0, render=lambda scope, action: action.tool, **more)


def left(examples: list[Example], rulings: Rulings) -> list[str]:
    """Ids of what is learnt."""
    out = {d.feedback_id for d in rulings.doubted} | rulings.aside | rulings.overruled
    return [e.id for e in examples if e.id not in out]


def test_two_who_disagree_are_both_set_aside_until_somebody_answers_for_one() -> None:
    examples = said(("Ana", "dim"), ("Ben", "bright"))
    found = ruled(examples)
    assert [(d.feedback_id, d.source) for d in found.doubted] == [("fb-0", "Ana"), ("fb-1", "Ben")]
    assert {d.reason for d in found.doubted} == {
        "Ana says dim, Ben says bright in the same situation; neither is learnt until you answer for one"
    }
    assert left(examples, found) == []
    for vouched in ("fb-0", "Ana"):
        after = ruled(examples, vouched={vouched})
        assert (left(examples, after), after.upheld) == (["fb-0"], {"fb-0"})


def test_what_is_said_against_a_word_after_somebody_answered_for_it_is_shown_again() -> None:
    examples = said(("Ana", "dim"), ("Ben", "bright"), ("Ana", "dim"))
    found = ruled(examples, vouched={"fb-1"}, overruled={"fb-0"})
    assert found.overruled == {"fb-0"}
    assert [d.feedback_id for d in found.doubted] == ["fb-2"]
    assert found.doubted[0].reason.endswith("in the same situation; you answered for Ben before")
    assert ruled(examples, vouched={"fb-1", "fb-2"}).upheld == {"fb-2"}, "the newest word that is answered for"


def test_a_majority_of_two_to_one_is_learnt_and_the_others_are_shown() -> None:
    examples = said(("Ana", "dim"), ("Ben", "bright"), ("Cem", "dim"))
    found = ruled(examples)
    assert left(examples, found) == ["fb-0", "fb-2"]
    assert [d.source for d in found.doubted] == ["Ben"]
    assert found.doubted[0].reason.endswith("the majority is learnt")


def test_nobody_wins_by_repeating() -> None:
    loud = said(*[("Ana", "dim")] * 2, *[("Eve", "bright")] * 50)
    assert left(loud, ruled(loud)) == []
    once = said(*[("Ana", "dim")] * 2, ("Eve", "bright"))
    assert left(once, ruled(once)) == ["fb-0", "fb-1"]


def test_a_word_counts_as_much_as_its_source_is_trusted() -> None:
    examples = said(("Ana", "dim"), ("Eve", "bright"))
    trust = {"Ana": 1.0, "Eve": 0.4}
    found = rule(examples, trust=trust.__getitem__, render=lambda scope, action: action.tool)
    assert left(examples, found) == ["fb-0"]


@pytest.mark.parametrize(
    "rows",
    [
        [("Ana", "dim"), ("Ana", "bright")],  # she changed her mind
        [("Ana", "dim"), ("Ben", "bright"), ("Ana", "bright")],  # she came round
        [("Ana", "dim"), ("page", "bright")],  # nobody knows who sat at the page
        [("person", "dim"), ("chat 2", "bright")],
        [("Ana", "dim", "dark"), ("Ben", "bright", "noon")],
        [("Ana", "dim", 'Ben says: "it is dark"'), ("Ben", "bright", 'Ben says: "it is dark"')],  # his own request
    ],
)
def test_this_is_no_dispute(rows: list[tuple[str, str]]) -> None:
    assert ruled(said(*rows)) == Rulings()


def test_a_dispute_is_about_a_situation_however_it_is_written() -> None:
    assert len(ruled(said(("Ana", "dim", "It is dark."), ("Ben", "bright", "it is dark"))).doubted) == 2


@given(histories, st.integers(0, 3), st.sets(st.sampled_from(["Ana", "Ben", "fb-0", "fb-1", "fb-2"])))
def test_the_order_in_which_words_are_read_changes_nothing_and_one_answer_is_left(
    rows: list[tuple[str, str, str]], seed: int, vouched: set[str]
) -> None:
    examples = said(*rows)
    found = ruled(examples, vouched=vouched)
    again = ruled(random.Random(seed).sample(examples, len(examples)), vouched=vouched)
    assert sorted(d.feedback_id for d in again.doubted) == sorted(d.feedback_id for d in found.doubted)
    assert (again.aside, again.overruled, again.upheld) == (found.aside, found.overruled, found.upheld)
    kept = [e for e in examples if e.id in left(examples, found)]
    disputed = {e.text for e in examples} - {e.text for e in examples if e in kept}
    for text in {e.text for e in examples}:
        named = {e.source: e.action for e in examples if e.text == text and e.source != "page"}
        answers = {e.action.tool for e in kept if e.text == text}
        assert text in disputed or len({a.tool for a in named.values()}) < 2 or len(answers) == 1
