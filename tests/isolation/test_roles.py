"""All five roles in a process of their own: they are asked as in the daemon, and answer as there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runtime.errors import Unavailable
from runtime.messages import Action, Command, Decision, Feedback, Observation, Percept
from runtime.plugins import roles_of
from runtime.roles import ROLES, Actuator, Critic, Perceiver, Reading, Rule, World, answer
from tests.isolation.conftest import Opened
from tests.isolation.honest import LAMP

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ON = Action(tool="lamp", arguments={"level": "on"})
OFF = Action(tool="lamp", arguments={"level": "off"})
MAY = {"emit": ["hall/*", "refused"], "actuators": ["lamp"], "feedback": True}
EVERYTHING = {"use": "tests.isolation.honest:Everything", "name": "all", "permissions": MAY}


def command(action: Action) -> Command:
    return Command(id="cm-1", decision_id="dc-1", actuator="lamp", action=action, expires_at=9.0, at=1.0)


async def test_a_plugin_of_all_roles_works_through_its_pipe(house: Opened) -> None:
    async with house(EVERYTHING) as found:
        plugin = found.plugins["all"]
        assert roles_of(plugin) == [role.__name__ for role in ROLES]
        said = await found.hears(4)
        assert [message.id for message in said] == ["all:ob-0", "all:ob-1", "all:ob-2", "all:refused"]
        assert [message.source for message in said] == ["all"] * 4
        assert isinstance(said[-1], Observation)
        assert said[-1].payload == b'"nobody wants this"', "what emit raises here, it raises there"

        assert isinstance(plugin, Actuator)
        assert plugin.tools() == {"hall": (LAMP,)}
        done = await plugin.act(command(ON))
        assert (done.command_id, done.status) == ("cm-1", "applied")
        with pytest.raises(Unavailable, match="OSError: the lamp is unplugged"):
            await plugin.act(command(OFF))

        assert isinstance(plugin, Rule)
        percept = Percept(id="pc-1", scope="hall", text="dark", at=1.0)
        assert await answer(plugin.judge(percept, ON, NOW)) == "not at 21:00", "the house's time, wherever we ask from"
        assert await answer(plugin.judge(percept, OFF, NOW)) is None

        assert isinstance(plugin, Perceiver)
        world = World({"hall/light": Reading(name="hall/light", value=3.0, at=1.0)}, NOW)
        (situation,) = await answer(plugin.perceive(world, Observation(id="o", topic="home/x", payload=b"1", at=1.0)))
        assert situation.text == "21:00 3.0 home/x"

        assert isinstance(plugin, Critic)
        decision = Decision(
            id="dc-1", percept_id="pc-1", scope="hall", actions=(ON,), by="table", adapter="base", p_model=None,
            p_behaviour=1.0, at=1.0,
        )  # fmt: skip
        (feedback,) = await answer(plugin.criticise(decision))
        assert feedback == Feedback(id="all:fb-1", decision_id="dc-1", kind="acceptance", source="all/eye", at=3.0)
        assert list(await answer(plugin.criticise(percept))) == []
        assert found.children["all"].state == "running"
        assert plugin.rejected == 1, "what the runtime refused"
