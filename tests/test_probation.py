"""A provisional version earns its place by what people say, or is taken back; so is a full one that gets worse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from runtime.catalogue import Catalogue
from runtime.errors import Unavailable
from runtime.journal import Journal
from runtime.learning import ladder
from runtime.learning.monitor import DOWN, UP
from runtime.messages import Action, Feedback, Release
from runtime.policy.protocol import Row
from runtime.probation import Probation
from runtime.situations import Catalogues
from tests.stages import BRIGHT, DIM, LAMP, decision, percept

NOW = 10_000.0


@dataclass
class Model:
    """Each version has one answer to everything."""

    answers: dict[str, Action]
    asked: list[str] = field(default_factory=list)

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str) -> Row:
        self.asked.append(adapter)
        if adapter not in self.answers:
            raise Unavailable(f"{adapter} is not loaded")
        return Row(actions=[], log_probs=[], chosen=self.answers[adapter], log_p=0.0)


@dataclass
class Releases:
    """What the learner was told to do."""

    journal: Journal
    told: list[tuple[str, str]] = field(default_factory=list)

    async def confirm(self, proven: Release, reason: str) -> Release:
        self.told.append(("confirm", reason))
        return proven

    async def release(self, adapter: str, *, why: str, reason: str = "") -> Release:
        assert why == "probation"
        self.told.append((adapter, reason))
        newest = await self.journal.serving()
        assert newest is not None
        return newest


@dataclass
class House:
    journal: Journal
    model: Model
    releases: Releases
    number: int = 0

    @property
    def probation(self) -> Probation:
        """As after a restart: it knows only what the journal knows."""
        return Probation(
            self.journal, self.model, Catalogues([{"room": (LAMP,)}]), self.releases,
            believes=lambda feedback, source: source != "Eve", clock=lambda: NOW + 5,
        )  # fmt: skip

    async def serves(self, adapter: str, **fields: object) -> None:
        self.number += 1
        told = {"previous": "old", "why": "gate", **fields}
        await self.journal.put(Release(id=f"re-{self.number}", adapter=adapter, at=NOW, **told))  # type: ignore[arg-type]

    async def lived(self, adapter: str, corrected: int = 0) -> None:
        """What a version decided before: of so many one was corrected, or none."""
        for n in range(40):
            made = await self.decided(adapter, at=NOW - 1000 + n)
            if corrected and n % corrected == 0:
                await self.corrected(made)

    async def decided(self, adapter: str = "new", by: str = "model", at: float = NOW + 1) -> str:
        self.number += 1
        made = replace(decision(self.number, BRIGHT, at), adapter=adapter, by=by)
        await self.journal.put(percept(self.number, f"situation {self.number}"), made)
        return made.id

    async def corrected(
        self, decision_id: str, to: Action = DIM, kind: str = "correction", source: str = "Ana"
    ) -> None:
        self.number += 1
        feedback = Feedback(
            id=f"fb-{self.number}", decision_id=decision_id, kind=kind, source=source, at=NOW + 2,  # type: ignore[arg-type]
            action=to if kind != "acceptance" else None,
        )  # fmt: skip
        await self.journal.put(feedback)
        await self.probation.hear(feedback)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with Journal.open(tmp_path / "j.db") as journal:
        yield House(journal, Model({"new": DIM, "old": BRIGHT}), Releases(journal))


async def test_a_provisional_version_that_is_right_where_the_other_is_wrong_is_confirmed(house: House) -> None:
    await house.serves("new", provisional=True, against="old")
    for _ in range(UP):
        assert not house.releases.told
        await house.corrected(await house.decided("old"))
    [(told, reason)] = house.releases.told
    assert told == "confirm"
    assert f"{UP} won and 0 lost" in reason


async def test_one_that_is_wrong_where_the_other_is_right_is_taken_back(house: House) -> None:
    house.model.answers = {"new": BRIGHT, "old": DIM}
    await house.serves("new", provisional=True, against="old")
    for _ in range(-DOWN):
        assert not house.releases.told
        await house.corrected(await house.decided())
    [(told, reason)] = house.releases.told
    assert told == "old"
    assert "new did worse than old" in reason


async def test_an_acceptance_counts_like_a_correction(house: House) -> None:
    house.model.answers = {"new": BRIGHT, "old": DIM}
    await house.serves("new", provisional=True, against="old")
    for _ in range(UP):
        await house.corrected(await house.decided(), kind="acceptance")
    assert house.releases.told[0][0] == "confirm"


async def test_what_says_nothing_about_the_two_does_not_count(house: House) -> None:
    """What the table answered, what was decided before the release, and a second word on the same decision."""
    await house.serves("new", provisional=True, against="old")
    await house.corrected(await house.decided(by="table"))
    await house.corrected(await house.decided(at=NOW - 1))
    assert not house.model.asked
    made = await house.decided()
    await house.corrected(made)
    await house.corrected(made)
    assert house.model.asked == ["new", "old"]


async def test_without_the_other_version_nothing_is_judged(house: House) -> None:
    del house.model.answers["old"]
    await house.serves("new", provisional=True, against="old")
    with pytest.raises(Unavailable):
        await house.corrected(await house.decided())
    newest = await house.journal.serving()
    assert newest is not None
    assert (await house.probation.trial(newest)).events == 0


async def test_another_release_begins_another_trial(house: House) -> None:
    await house.serves("new", provisional=True, against="old")
    await house.corrected(await house.decided())
    await house.serves("new", provisional=True, against="old")
    newest = await house.journal.serving()
    assert newest is not None
    assert (await house.probation.trial(newest)).events == 0


async def watched(house: House, situations: int, over: float = 0.0) -> None:
    newest = await house.journal.serving()
    assert newest is not None
    watch = ladder.Watch(release=newest.id, situations=situations, over=over)
    await house.journal.set_metadata(ladder.WATCHED, msgspec.to_builtins(watch))


async def test_in_shadow_a_version_can_lose_but_not_win(house: House) -> None:
    """People who only correct speak of the mistakes of the one that decides alone: whatever is asked beside it wins."""
    await house.serves("new", provisional=True, against="old", shadow=10)
    for _ in range(2 * UP):
        await house.corrected(await house.decided("old"))
    assert not house.releases.told
    house.model.answers = {"new": BRIGHT, "old": DIM}
    for _ in range(2 * UP - DOWN):
        assert not house.releases.told
        await house.corrected(await house.decided("old"))
    assert house.releases.told[0][0] == "old"


async def test_what_was_seen_in_shadow_does_not_count_once_it_acts(house: House) -> None:
    await house.serves("new", provisional=True, against="old", shadow=10)
    before = await house.decided("old", at=NOW + 5)
    for _ in range(UP):
        await house.corrected(await house.decided("old"))
    await watched(house, 10, over=NOW + 9)
    newest = await house.journal.serving()
    assert newest is not None
    assert (await house.probation.trial(newest)).events == 0
    await house.corrected(before)
    assert (await house.probation.trial(newest)).events == 0, "it was decided in shadow"
    for _ in range(UP):
        await house.corrected(await house.decided("old", at=NOW + 10))
    assert house.releases.told[0][0] == "confirm"


async def test_people_can_read_what_a_version_waits_for(house: House) -> None:
    await house.serves("new", provisional=True, against="old", shadow=10)
    newest = await house.journal.serving()
    assert newest is not None
    trial = await house.probation.trial(newest)
    seen = ladder.Watch(release=newest.id, situations=4, differ=1)
    assert ladder.says(newest, seen, trial, 0.5) == (
        "shadow: old decides, new is only asked; of 4 situations it would have decided 1 otherwise; 6 more, then it takes part"
    )
    assert ladder.says(newest, replace(seen, situations=10), trial, 0.5).startswith(
        "canary: new makes 50% of the decisions"
    )
    assert ladder.rung(replace(newest, against="base"), seen) == "full", "the base model was never taught"
    assert ladder.says(replace(newest, provisional=False), seen, trial, 0.5) == "full: new makes all decisions"


async def test_a_full_version_that_people_complain_about_more_is_taken_back(house: House) -> None:
    await house.lived("old", corrected=8)
    house.model.answers = {"new": BRIGHT, "old": DIM}
    await house.serves("new")
    assert not house.releases.told
    while not house.releases.told and house.number < 400:
        await house.corrected(await house.decided())
    told, reason = house.releases.told[0]
    assert told == "old"
    assert "of 40 of old" in reason


async def test_complaints_that_the_version_before_would_have_earned_too_change_nothing(house: House) -> None:
    await house.lived("old")
    house.model.answers = {"new": BRIGHT, "old": BRIGHT}
    await house.serves("new")
    for _ in range(30):
        await house.corrected(await house.decided())
    assert not house.releases.told, "something new came in, and neither knows it"
    assert "old" in house.model.asked
    house.model.answers = {"new": BRIGHT}
    await house.corrected(await house.decided())
    assert not house.releases.told, "nor where the other one cannot be asked"


async def test_who_only_corrects_does_not_bring_back_an_equal_version(house: House) -> None:
    """The one before does otherwise wherever the version that serves was wrong, and wherever it was right."""
    await house.lived("old")
    house.model.answers = {"new": BRIGHT, "old": DIM}
    await house.serves("new")
    for n in range(200):
        made = await house.decided()
        if n % 4 == 0:
            await house.corrected(made)
    assert not house.releases.told
    assert "old" in house.model.asked, "people complain, so it was looked into"


async def test_silence_counts_as_soon_as_somebody_speaks_of_something_later(house: House) -> None:
    """Or nearly all that is seen of the newest decisions would be complaints."""
    await house.lived("old", corrected=4)
    house.model.answers = {"new": BRIGHT, "old": DIM}
    await house.serves("new")
    for n in range(60):
        made = await house.decided()
        if n % 4 == 0:
            await house.corrected(made)
    assert "old" not in house.model.asked, "no more complaints than before"


async def test_nobody_goes_back_to_what_was_taken_back(house: House) -> None:
    await house.lived("bad")
    house.model.answers = {"new": BRIGHT, "bad": DIM}
    await house.serves("bad")
    await house.serves("new", why="rollback", previous="bad")
    for _ in range(30):
        await house.corrected(await house.decided())
    assert not house.releases.told


async def test_who_is_not_believed_decides_nothing(house: House) -> None:
    await house.lived("old")
    house.model.answers = {"new": BRIGHT, "old": DIM}
    await house.serves("new")
    for _ in range(30):
        await house.corrected(await house.decided(), source="Eve")
    await house.serves("newer", provisional=True, against="new")
    for _ in range(UP):
        await house.corrected(await house.decided("new"), source="Eve")
    assert not house.releases.told


async def test_two_words_that_come_together_count_once(house: House) -> None:
    await house.serves("new", provisional=True, against="old")
    made = await house.decided()
    bad = Feedback(id="fb-bad", decision_id=made, kind="rating", source="Ana", at=NOW + 2, rating=-1.0)
    await house.journal.put(bad)
    await house.probation.hear(bad)
    await house.corrected(made)
    newest = await house.journal.serving()
    assert newest is not None
    assert (await house.probation.trial(newest)).events == 1, "the first word said nothing of what is right"


async def test_as_many_complaints_as_before_change_nothing(house: House) -> None:
    for adapter in ("old", "new"):
        if adapter == "new":
            await house.serves("new")
        for n in range(60):
            made = await house.decided(adapter, at=NOW + n)
            if n % 4 == 0:
                await house.corrected(made)
    assert not house.releases.told
