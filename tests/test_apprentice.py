"""An apprentice watches what people do at their devices, takes over what it would have done like them, and gives it back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.override import Override
from runtime.action import Acting
from runtime.apprentice import Apprentice
from runtime.bus import Bus
from runtime.catalogue import Tool
from runtime.config import GuardConfig, Mode
from runtime.guard import Guard, Modes
from runtime.ingest import Ingest
from runtime.journal import Journal
from runtime.messages import NOTHING, Action, Command, Decision, Feedback, Outcome, Release, new_id
from runtime.metrics import Metrics
from runtime.roles import Actuator, observe
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import decision, percept

ROOM_LAMP = Tool(
    name="room_lamp",
    arguments={"level": {"enum": ["off", "dim", "bright"]}},
    required=("level",),
    actuator="room_lamp",
)
OFF, DIM, BRIGHT = (Action(tool="room_lamp", arguments={"level": level}) for level in ("off", "dim", "bright"))
LATER = 1000.0  # seconds between two situations: what nobody did anything about is settled by then


@dataclass
class Lamp(Actuator):
    """The device: does what it is told, and shows it on its topic."""

    shows: str = "off"
    told: list[str] = field(default_factory=list)

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {"room": (ROOM_LAMP,)}

    async def act(self, command: Command) -> Outcome:
        self.shows = str(command.action.arguments["level"])
        self.told.append(self.shows)
        return Outcome(
            id=new_id("oc"), decision_id=command.decision_id, command_id=command.id, status="applied", at=command.at
        )


@dataclass
class House:
    """The real stages behind a decision that the test makes, and a person who wants something of the lamp."""

    journal: Journal
    folder: Path
    mode: Mode = "apprentice"
    believes: Any = lambda feedback, source: True
    now: float = 0.0
    number: int = 0

    def __post_init__(self) -> None:
        self.bus, self.lamp, self.critic = Bus(), Lamp(), Override(actuators=["*_lamp"])
        self.catalogues, self.metrics = Catalogues([self.lamp.tools()]), Metrics()
        self.modes = Modes({"*": self.mode}, frozenset(), {})
        clock = lambda: self.now  # noqa: E731
        self.apprentice = Apprentice(
            self.journal, self.catalogues, self.modes, GuardConfig().apprentice_bound,
            believes=lambda feedback, source: self.believes(feedback, source), clock=clock,
        )  # fmt: skip
        self.guard = Guard(GuardConfig(), self.folder / "KILL", clock=clock, monotonic=clock)
        self.acting = Acting(
            self.journal, self.bus, self.catalogues, [self.lamp], [], self.guard, self.modes, self.metrics,
            zone=UTC, expiry=30.0, approval=60.0, apprentice=self.apprentice, clock=clock,
        )  # fmt: skip
        self.ingest = Ingest(self.journal, self.bus, CorrectionTable(), self.catalogues.of, self.metrics)
        self.feedbacks = self.bus.subscribe(Feedback)
        self.outcomes = self.bus.subscribe(Outcome)

    async def situation(self, decides: Action, wants: Action, by: str = "Ana", adapter: str = "base") -> str:
        """One situation: what it decides, and what the person makes of the room then; the outcome."""
        self.number += 1
        self.now += LATER
        await self._shown("off", by="timer")
        seen = replace(percept(self.number), at=self.now, fields={"room/lamp": "off"})
        made = replace(decision(self.number, decides, self.now), adapter=adapter)
        await self.journal.put(seen, made)
        for message in (seen, made):
            await self._notice(message)
        await self.acting.take(made)
        outcome = await self.outcomes.get()
        while self.outcomes:
            outcome = await self.outcomes.get()
        for command in await self.journal.commands_of(made.id):
            await self._notice(command)
        await self._notice(outcome)
        if outcome.status == "applied":
            await self._shown(self.lamp.shows)
        wanted = str(wants.arguments.get("level", "off"))
        if self.lamp.shows != wanted:
            await self._shown(wanted, by)
        return outcome.status

    async def _shown(self, value: str, by: str = "") -> None:
        self.now += 1.0
        self.lamp.shows = value
        report = observe("home/room/lamp", {"state": value, **({"by": by} if by else {})}, at=self.now)
        await self.ingest.emit(report)
        await self._notice(report)

    async def _notice(self, message: Any) -> None:
        for feedback in self.critic.criticise(message):
            await self.ingest.emit(feedback)
        while self.feedbacks:
            await self.apprentice.hear(await self.feedbacks.get())

    async def told(self) -> dict[str, tuple[bool, str]]:
        report = await self.apprentice.report()
        return {row["action"]: (row["acts"], row["cases"]) for row in report.get("room_lamp", [])}


@asynccontextmanager
async def opened(folder: Path, **settings: Any) -> AsyncIterator[House]:
    async with Journal.open(folder / "j.db") as journal:
        house = House(journal, folder, **settings)
        await house.apprentice.restore()
        running = asyncio.create_task(house.acting.run(house.bus.subscribe(Decision)))
        await asyncio.sleep(0)
        yield house
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as found:
        yield found


async def until_it_acts(house: House, action: Action, most: int = 60) -> int:
    for count in range(most):
        if house.apprentice.acts("room", action):
            return count
        assert await house.situation(action, action) == "observed"
    raise AssertionError(f"never acts: {await house.told()}")


async def test_the_easy_action_goes_live_the_confusing_one_does_not(house: House) -> None:
    draw = random.Random(0)
    for _ in range(60):
        await house.situation(BRIGHT, BRIGHT)
        await house.situation(DIM, DIM if draw.random() < 0.6 else OFF)
    told = await house.told()
    assert told["bright"][0]
    assert not told["dim"][0]
    assert "of 60 like people" in told["dim"][1]
    assert set(house.lamp.told) == {"bright"}
    assert await house.situation(BRIGHT, BRIGHT) == "applied"
    assert await house.situation(DIM, DIM) == "observed"


async def test_twenty_cases_without_a_miss_are_enough_and_it_says_so(house: House) -> None:
    assert await until_it_acts(house, BRIGHT) == 20
    (row,) = (await house.apprentice.report())["room_lamp"]
    assert row["reason"] == "room_lamp bright: it decided 20 of 20 like people"
    await house.situation(BRIGHT, BRIGHT)
    assert await house.told() == {"bright": (True, "0 of 1 put right")}


async def test_where_people_begin_to_put_it_right_it_falls_back_and_has_to_show_it_anew(house: House) -> None:
    await until_it_acts(house, BRIGHT)
    for _ in range(10):
        assert await house.situation(BRIGHT, BRIGHT) == "applied"
    statuses = [await house.situation(BRIGHT, DIM) for _ in range(5)]
    assert statuses == ["applied"] * 3 + ["observed"] * 2
    told = await house.told()
    assert told["bright"] == (False, "0 of 2 like people")
    assert await until_it_acts(house, BRIGHT) > 20


async def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        await until_it_acts(house, BRIGHT)
        before = await house.told()
    async with opened(tmp_path, now=house.now, number=house.number) as house:
        assert await house.told() == before
        assert await house.situation(BRIGHT, BRIGHT) == "applied"


async def test_what_nobody_did_counts_against_it(house: House) -> None:
    for _ in range(30):
        await house.situation(BRIGHT, NOTHING)
    house.now += LATER
    assert await house.told() == {"bright": (False, "0 of 30 like people")}


async def test_a_device_that_is_like_that_already_needs_nobody(house: House) -> None:
    seen = replace(percept(1), at=1.0, fields={"room/lamp": "bright"})
    await house.journal.put(seen, decision(1, BRIGHT, 1.0))
    await house.acting.take(decision(1, BRIGHT, 1.0))
    house.now = LATER
    assert await house.told() == {"bright": (False, "0 of 0 like people")}


async def test_what_people_do_while_it_would_have_left_it_counts_against_that_action(house: House) -> None:
    for _ in range(5):
        await house.situation(NOTHING, DIM)
    assert await house.told() == {"dim": (False, "0 of 5 like people")}


async def test_a_correction_that_says_the_same_is_agreement_and_a_guests_act_is_nothing(house: House) -> None:
    await house.situation(BRIGHT, DIM, by="guest Tom")
    said = Feedback(id="fb", decision_id="dc-1", kind="correction", source="Ana", at=house.now, action=BRIGHT)
    await house.ingest.emit(said)
    assert await house.told() == {"bright": (False, "1 of 1 like people")}


async def test_versions_that_were_taken_back_do_not_count(house: House) -> None:
    confirmed, taken_back = ("good", "base", "probation"), ("good", "bad", "probation")
    releases = [("good", "base", "gate"), confirmed, ("bad", "good", "gate"), taken_back, ("newer", "good", "gate")]
    for _ in range(3):
        await house.situation(BRIGHT, BRIGHT, adapter="good")
        await house.situation(BRIGHT, DIM, adapter="bad")
    for number, (adapter, previous, why) in enumerate(releases):
        release = Release(id=f"re-{number}", adapter=adapter, previous=previous, why=why, at=house.now)
        await house.journal.put(release)
    assert (await house.told())["bright"] == (False, "3 of 3 like people")


async def test_whom_nobody_believes_teaches_no_apprentice(tmp_path: Path) -> None:
    async with opened(tmp_path, believes=lambda feedback, source: source != "Eve") as house:
        for _ in range(25):
            await house.situation(BRIGHT, BRIGHT, by="Eve")
        assert not house.apprentice.acts("room", BRIGHT)
        assert await house.told() == {}


async def test_who_is_not_believed_and_speaks_last_hides_nobody(tmp_path: Path) -> None:
    async with opened(tmp_path, believes=lambda feedback, source: source != "Eve") as house:
        await house.situation(BRIGHT, BRIGHT)
        newest = (await house.journal.decisions(limit=1))[0]
        lie = Feedback(
            id="fb-eve", decision_id=newest.id, kind="correction", source="Eve", at=house.now + 1, action=DIM
        )
        await house.journal.put(lie)
        assert await house.told() == {"bright": (False, "1 of 1 like people")}


async def test_what_an_older_configuration_offered_is_no_action_any_more(house: House) -> None:
    for number, old in enumerate([{"level": "blue"}, {"colour": "red"}], start=1):
        made = decision(number, Action(tool="room_lamp", arguments=old), 1.0)
        await house.journal.put(percept(number), made)
        await house.journal.put(Outcome(id=made.id, decision_id=made.id, command_id=None, status="observed", at=1.0))
    house.now, house.number = LATER, 2
    await house.situation(BRIGHT, BRIGHT)
    assert await house.told() == {"bright": (False, "1 of 1 like people")}


async def test_the_guard_stands_above_it(house: House) -> None:
    await until_it_acts(house, BRIGHT)
    house.guard.kill(True)
    assert await house.situation(BRIGHT, BRIGHT) == "refused"


async def test_in_other_modes_it_says_and_does_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, mode="observe") as house:
        for _ in range(25):
            assert await house.situation(BRIGHT, BRIGHT) == "observed"
        assert await house.told() == {}
        house.modes.switched = {"room_lamp": "apprentice"}
        assert await house.told() == {"bright": (False, "25 of 25 like people")}, "what was watched before counts"
