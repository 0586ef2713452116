"""Every invariant can go red: a history without fault, and for each the smallest thing that breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.chaos.checker import LATE, Envelope, check
from tests.chaos.facts import Commanded, Facts
from tests.chaos.history import Acked, Effect, Fault, Kept, Left, Received, Record, Sent, Synced

ENVELOPE = Envelope(values={"heater": frozenset(("20", "21"))}, lives=1.0)


def sent(number: int, *, valid: bool = True) -> Sent:
    return Sent(id=f"e{number}", producer="p", topic="home/a/b", payload=b'{"n": %d}' % number, valid=valid, at=0.0)


def acked(number: int) -> Acked:
    return Acked(id=f"e{number}", producer="p", at=1.0)


RECEIVED = Received(actuator="heater", command="c1", value="20", not_after=10.0, fence=1, at=2.0)
EFFECT = Effect(actuator="heater", command="c1", value="20", at=2.0)
FAULT = Fault(kind="kill_agent", evidence="died of signal 9", at=3.0)
RECORDS: list[Record] = [
    sent(1), sent(2), sent(3, valid=False), acked(1), acked(2), acked(3), RECEIVED, EFFECT, FAULT,
    Synced(events=3, syncs=3), Left(exit_code=0, at=9.0),
]  # fmt: skip
COMMAND = Commanded(id="c1", actuator="heater", value="20", cause="e1", at=1.5, statuses=("applied",))
FACTS = Facts(
    stored=(("e1", sent(1).payload), ("e2", sent(2).payload)), quarantined=(sent(3).payload,), commands=(COMMAND,)
)


def red(records: list[Record], facts: Facts) -> set[str]:
    return {finding.invariant for finding in check(records, facts, ENVELOPE) if finding.state == "broken"}


def test_without_fault_nothing_is_red() -> None:
    assert red(RECORDS, FACTS) == set()


@pytest.mark.parametrize(
    ("invariant", "more", "facts"),
    [
        ("I1", [], replace(FACTS, stored=FACTS.stored[:1])),
        ("I1", [], replace(FACTS, quarantined=())),
        ("I1", [acked(9)], FACTS),
        ("I2", [], replace(FACTS, stored=(*FACTS.stored, ("other id", sent(2).payload)))),
        ("I3", [sent(4)], FACTS),
        ("I3", [Left(exit_code=-9, at=9.0)], FACTS),
        ("I4", [], replace(FACTS, unperceived=("e1",))),
        ("I4", [], replace(FACTS, undecided=("p1",))),
        ("I5", [], replace(FACTS, unanswered=("d1",))),
        ("I5", [], replace(FACTS, commands=(COMMAND, replace(COMMAND, id="c2", cause="e2", statuses=())))),
        ("I6", [EFFECT], FACTS),
        ("I6", [], replace(FACTS, commands=(COMMAND, replace(COMMAND, id="c2", cause="e2")))),
        ("I6", [], replace(FACTS, commands=(replace(COMMAND, statuses=("applied", "applied")),))),
        ("I6", [replace(EFFECT, command="c2")], replace(FACTS, commands=(COMMAND, replace(COMMAND, id="c2")))),
        ("I7", [replace(RECEIVED, at=10.0 + LATE + 0.1)], FACTS),
        ("I7", [replace(RECEIVED, retained=True)], FACTS),
        (
            "I7",
            [replace(RECEIVED, not_after=9e9), replace(RECEIVED, not_after=9e9, at=RECEIVED.at + 2.1 + LATE)],
            FACTS,
        ),
        ("I8", [Kept(payload=b"yesterday")], replace(FACTS, waking=frozenset([b"yesterday"]))),
        ("I11", [replace(RECEIVED, value="99")], FACTS),
        ("I11", [replace(RECEIVED, command="c7")], FACTS),
        ("accounts", [], replace(FACTS, stored=(*FACTS.stored, ("x", b"of nobody")))),
        ("accounts", [], replace(FACTS, quarantined=(sent(3).payload, sent(1).payload))),
        ("sync", [Synced(events=40, syncs=2)], FACTS),
        ("faults", [replace(FAULT, evidence="")], FACTS),
        ("faults", [replace(FAULT, recovered=False)], FACTS),
    ],
)
def test_each_invariant_goes_red(invariant: str, more: list[Record], facts: Facts) -> None:
    assert invariant in red([*RECORDS, *more], facts)


@given(total=st.integers(1, 60), data=st.data())
def test_whatever_is_lost_is_named(total: int, data: st.DataObject) -> None:
    """Any set of acknowledged messages that is missing in the journal is found, and no other."""
    missing = data.draw(st.sets(st.integers(0, total - 1)))
    records: list[Record] = [record for number in range(total) for record in (sent(number), acked(number))]
    kept = tuple((f"e{number}", sent(number).payload) for number in range(total) if number not in missing)
    assert ("I1" in red(records, Facts(stored=kept, quarantined=()))) == bool(missing)
