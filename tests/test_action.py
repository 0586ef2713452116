"""Action: modes, rules and guard between a decision and a device; a command is in the journal before it is carried out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from runtime import action
from runtime.action import Acting
from runtime.bus import Bus, Subscription
from runtime.catalogue import Tool
from runtime.config import GuardConfig, Mode
from runtime.errors import NotFound
from runtime.guard import Guard, Modes
from runtime.journal import Journal
from runtime.messages import ASK, NOTHING, Action, Command, Decision, Message, Outcome, Percept, new_id
from runtime.metrics import Metrics
from runtime.roles import Actuator, Rule
from runtime.situations import Catalogues
from tests.stages import BRIGHT, LAMP, decision, percept

NOW = 1000.0
BELL = replace(LAMP, once=True)


@dataclass
class Lamp(Actuator):
    """Remembers what it was told; `broken` raises."""

    journal: Journal
    broken: bool = False
    tool: Tool = LAMP
    told: list[Command] = field(default_factory=list)

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {"room": (self.tool,)}

    async def act(self, command: Command) -> Outcome:
        assert [c.id for c in await self.journal.commands_of(command.decision_id)] == [command.id], "committed first"
        if self.broken:
            raise OSError("no power")
        self.told.append(command)
        return Outcome(
            id=new_id("oc"), decision_id=command.decision_id, command_id=command.id, status="applied", at=NOW
        )


@dataclass
class Never(Rule):
    raises: bool = False

    def judge(self, percept: Percept, action: Action, now: datetime) -> str | None:
        if self.raises:
            raise ValueError("a rule with a fault")
        return "not while I am asleep"


@dataclass
class Parts:
    acting: Acting
    lamp: Lamp
    outcomes: Subscription[Outcome]

    async def decide(self, number: int, action: Action) -> Outcome:
        await self.lamp.journal.put(percept(number))
        made = decision(number, action, NOW)
        await self.lamp.journal.put(made)
        await self.acting.take(made)
        return await self.outcomes.get()


@asynccontextmanager
async def parts(
    tmp_path: Path, mode: Mode, *, rules: tuple[Rule, ...] = (), broken: bool = False, tool: Tool = LAMP
) -> AsyncIterator[Parts]:
    async with Journal.open(tmp_path / "j.db") as journal:
        bus, lamp = Bus(), Lamp(journal, broken, tool)
        lamp.name = "Lamp"
        guard = Guard(GuardConfig(), tmp_path / "KILL", clock=lambda: NOW, monotonic=lambda: NOW)
        acting = Acting(
            journal, bus, Catalogues([lamp.tools()]), [lamp], rules, guard, Modes({"*": mode}, frozenset(), {}), Metrics(),
            zone=UTC, expiry=30.0, approval=60.0, clock=lambda: NOW, monotonic=lambda: NOW,
        )  # fmt: skip
        outcomes = bus.subscribe(Outcome)
        running = asyncio.create_task(acting.run(bus.subscribe(Decision)))
        await asyncio.sleep(0)
        yield Parts(acting, lamp, outcomes)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_observe_decides_in_silence(tmp_path: Path) -> None:
    async with parts(tmp_path, "observe") as p:
        assert (await p.decide(1, BRIGHT)).status == "observed"
        assert p.lamp.told == []


async def test_act_carries_out(tmp_path: Path) -> None:
    async with parts(tmp_path, "act") as p:
        assert (await p.decide(1, BRIGHT)).status == "applied"
        assert [c.action for c in p.lamp.told] == [BRIGHT]


async def test_nothing_needs_no_device(tmp_path: Path) -> None:
    async with parts(tmp_path, "act") as p:
        assert (await p.decide(1, NOTHING)).status == "none"


async def test_a_question_commands_nothing_and_no_rule_is_asked(tmp_path: Path) -> None:
    async with parts(tmp_path, "act", rules=(Never(True),)) as p:
        assert (await p.decide(1, ASK)).status == "asked"
        assert p.lamp.told == []


@pytest.mark.parametrize(("yes", "status"), [(True, "applied"), (False, "denied")])
async def test_confirm_waits_for_a_person(tmp_path: Path, yes: bool, status: str) -> None:
    async with parts(tmp_path, "confirm") as p:
        assert (await p.decide(1, BRIGHT)).status == "held"
        (held,) = p.acting.held
        await p.acting.approve(held.id, yes)
        assert (await p.outcomes.get()).status == status
        with pytest.raises(NotFound):
            await p.acting.approve(held.id, yes)


async def test_what_waits_for_a_yes_waits_also_after_a_kill(tmp_path: Path) -> None:
    """Killed as soon as the command is durable; whatever the mode is then, nobody has said yes."""
    async with parts(tmp_path, "confirm") as p:
        put = p.lamp.journal.put

        async def killed(*messages: Message, patient: bool = False) -> int:
            await put(*messages, patient=patient)
            if any(isinstance(message, Command) for message in messages):
                raise asyncio.CancelledError
            return 1

        p.lamp.journal.put = killed  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await p.decide(1, BRIGHT)
        p.lamp.journal.put = put  # type: ignore[method-assign]
    async with parts(tmp_path, "act") as p:
        await p.lamp.journal.unsettled()  # a round trip: whatever is sent would be by now
        (held,) = p.acting.held
        assert p.lamp.told == []
        await p.acting.approve(held.id, True)
        assert (await p.outcomes.get()).status == "applied"


@pytest.mark.parametrize("raises", [False, True])
async def test_a_rule_refuses_also_when_it_fails(tmp_path: Path, raises: bool) -> None:
    rule = Never(raises)
    rule.name = "Never"
    async with parts(tmp_path, "act", rules=(rule,)) as p:
        outcome = await p.decide(1, BRIGHT)
        assert outcome.status == "refused"
        assert "Never" in outcome.reason
        assert p.lamp.told == []


async def test_a_device_that_fails_is_an_outcome(tmp_path: Path) -> None:
    async with parts(tmp_path, "act", broken=True) as p:
        outcome = await p.decide(1, BRIGHT)
        assert (outcome.status, outcome.reason) == ("failed", "Lamp: OSError: no power")


async def test_a_plugin_that_never_answers_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "ANSWER", -29.99)  # of the 30 s that a command lives
    async with parts(tmp_path, "act") as p:
        act, never = p.lamp.act, asyncio.Event()
        p.lamp.act = lambda command: never.wait()  # type: ignore[method-assign, assignment, return-value]
        outcome = await p.decide(1, BRIGHT)
        assert (outcome.status, outcome.reason) == ("failed", "Lamp: TimeoutError: it did not answer in time")
        monkeypatch.undo()
        p.lamp.act = act  # type: ignore[method-assign]
        assert (await p.decide(2, BRIGHT)).status == "applied"


async def test_a_clock_that_is_put_back_after_the_decision_lets_no_command_live_longer(tmp_path: Path) -> None:
    """It would hold up its device for as long as the clock had been ahead, if nobody confirms it."""
    async with parts(tmp_path, "act") as p:
        await p.lamp.journal.put(percept(1))
        made = decision(1, BRIGHT, NOW + 3600.0)
        await p.lamp.journal.put(made)
        await p.acting.take(made)
        assert (await p.outcomes.get()).status == "applied"
        assert [command.expires_at - command.at for command in p.lamp.told] == [30.0]


async def test_an_unknown_tool_is_refused(tmp_path: Path) -> None:
    async with parts(tmp_path, "act") as p:
        assert (await p.decide(1, Action(tool="door"))).status == "refused"


@pytest.mark.parametrize(("expires_at", "status"), [(NOW + 20, "applied"), (NOW - 1, "expired")])
async def test_an_open_command_is_settled_after_a_restart(tmp_path: Path, expires_at: float, status: str) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        open_one = Command(id="cm-1", decision_id="dc-1", actuator="lamp", action=BRIGHT, expires_at=expires_at, at=NOW)
        await journal.put(percept(1), decision(1, BRIGHT, NOW), open_one)
    async with parts(tmp_path, "act") as p:
        outcome = await p.outcomes.get()
        assert (outcome.status, outcome.command_id) == (status, "cm-1")


async def test_an_approval_that_nobody_gives_in_time_is_a_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "LOOK", 0.0)
    async with parts(tmp_path, "confirm") as p:
        assert (await p.decide(1, BRIGHT)).status == "held"
        (held,) = p.acting.held
        monkeypatch.setattr(p.acting, "_clock", lambda: NOW + 60.0)
        outcome = await p.outcomes.get()
        assert (outcome.status, outcome.command_id) == ("denied", held.id)
        with pytest.raises(NotFound):
            await p.acting.approve(held.id, True)
        assert p.lamp.told == []


async def test_a_held_command_waits_again_after_a_restart(tmp_path: Path) -> None:
    async with parts(tmp_path, "confirm") as p:
        await p.decide(1, BRIGHT)
        (held,) = p.acting.held
    async with parts(tmp_path, "confirm") as p:
        await p.lamp.journal.counts()  # answered after what the resuming stage asked before
        assert [c.id for c in p.acting.held] == [held.id]
        await p.acting.approve(held.id, True)
        assert (await p.outcomes.get()).status == "applied"
        assert [c.id for c in p.lamp.told] == [held.id]


async def test_a_settled_command_is_not_sent_again(tmp_path: Path) -> None:
    async with parts(tmp_path, "act") as p:
        await p.decide(1, BRIGHT)
    async with parts(tmp_path, "act") as p:
        await p.decide(2, BRIGHT)
        assert [c.decision_id for c in p.lamp.told] == ["dc-2"]


async def test_a_decision_that_is_taken_twice_is_carried_out_once(tmp_path: Path) -> None:
    async with parts(tmp_path, "act") as p:
        await p.decide(1, BRIGHT)
        await p.acting.take(decision(1, BRIGHT, NOW))
        await p.decide(2, BRIGHT)
        assert [c.decision_id for c in p.lamp.told] == ["dc-1", "dc-2"]


async def test_what_is_told_once_is_written_down_before_it_leaves(tmp_path: Path) -> None:
    async with parts(tmp_path, "act", tool=BELL) as p:
        assert (await p.decide(1, BRIGHT)).status == "sending"
        assert (await p.outcomes.get()).status == "applied"


async def test_what_is_told_once_and_fails_may_have_happened(tmp_path: Path) -> None:
    async with parts(tmp_path, "act", tool=BELL, broken=True) as p:
        assert (await p.decide(1, BRIGHT)).status == "sending"
        assert (await p.outcomes.get()).status == "uncertain"


async def test_what_was_being_told_when_the_daemon_died_is_never_told_again(tmp_path: Path) -> None:
    one = Command(id="cm-1", decision_id="dc-1", actuator="lamp", action=BRIGHT, expires_at=NOW + 20, at=NOW, once=True)
    sending = Outcome(id="oc-1", decision_id="dc-1", command_id="cm-1", status="sending", at=NOW)
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.put(percept(1), decision(1, BRIGHT, NOW), one, sending)
    async with parts(tmp_path, "act", tool=BELL) as p:
        assert (await p.outcomes.get()).status == "uncertain"
        assert (p.lamp.told, await p.lamp.journal.uncertain()) == ([], [one])
        await asyncio.gather(p.acting.settled("cm-1", ""), p.acting.settled("cm-1", ""))
        assert (await p.outcomes.get()).status == "applied"
        assert await p.lamp.journal.uncertain() == []
        assert [o.status for o in await p.lamp.journal.outcomes_of("dc-1")] == ["sending", "uncertain", "applied"]
        with pytest.raises(NotFound):
            await p.acting.resolve("cm-1", False, "too late")
    async with parts(tmp_path, "act", tool=BELL) as p:
        assert (await p.lamp.journal.unsettled(), p.lamp.told) == ([], [])


async def test_a_clock_that_is_put_back_makes_no_command_young(tmp_path: Path) -> None:
    async with parts(tmp_path, "confirm") as p:
        await p.decide(1, BRIGHT)
        (held,) = p.acting.held
        due = p.acting._held[held.id]
        p.acting._clock, p.acting._monotonic = (lambda: NOW - 3600.0), (lambda: NOW + 61.0)
        await p.acting._send(due)
        assert (await p.outcomes.get()).status == "expired"
        assert p.lamp.told == []


async def test_the_kill_switch_stops_what_was_approved(tmp_path: Path) -> None:
    async with parts(tmp_path, "confirm") as p:
        await p.decide(1, BRIGHT)
        p.acting.guard.kill(True)
        await p.acting.approve(p.acting.held[0].id, True)
        outcome = await p.outcomes.get()
        assert (outcome.status, "kill switch" in outcome.reason) == ("refused", True)
        assert p.lamp.told == []


async def test_a_rehearsal_is_never_carried_out(tmp_path: Path) -> None:
    async with parts(tmp_path, "act") as p:
        await p.lamp.journal.put(percept(1))
        made = replace(decision(1, BRIGHT, NOW), note=action.REHEARSAL)
        await p.lamp.journal.put(made)
        await p.acting.take(made)
        assert (await p.outcomes.get()).status == "none"
        assert p.lamp.told == []
