"""20,000 hostile messages, and what notices when one is lost or a parser raises what it did not declare."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from runtime import payload
from tests.chaos.fuzz_payloads import Way, fuzz
from tests.chaos.hostile import Source


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


def test_every_hostile_message_ends_in_one_counted_place() -> None:
    figures = fuzz(20_000, seed=7)
    assert figures.offered == figures.ends.total() == 20_000
    places = (
        "perceived",
        "absorbed",
        "quarantined",
        "feedback",
        "feedback, unreadable",
        "settled",
        "switched",
        "nothing to keep",
    )
    assert all(figures.ends[place] for place in places)


def test_the_same_seed_gives_the_same_messages() -> None:
    one, other = Source(3), Source(3)
    assert [one.payload() for _ in range(200)] == [other.payload() for _ in range(200)]


def test_an_error_that_nobody_declared_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_json", json.loads)  # a parser without limits
    with pytest.raises((RecursionError, ValueError)):
        fuzz(5_000, seed=7)


def test_a_message_that_is_counted_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Way, "_end", lambda self, place: self.ends.update([place, place]))
    with pytest.raises(AssertionError, match="2 places"):
        fuzz(50, seed=7)
