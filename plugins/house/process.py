"""The simulated home as a process: plays its situations over MQTT and tells on stdout, one JSON line each, what happened.

Alone it plays them all. With `--controlled` it reads JSON lines from stdin and answers each with `{"event": "idle"}`:

    {"next": 20}                      the next 20 situations, with the resident's answers
    {"again": 7}                      situation 7 once more, to see what the agent does now; nobody answers
    {"again": 7, "react": true}       the same, and the resident answers
    {"stop": true}
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from plugins.house import Case, stream
from plugins.house.model import BY_ACTUATOR, DEVICES, catalogue, spell
from plugins.house.player import Decided, Player
from plugins.house.resident import Resident
from plugins.house.settings import as_toml
from plugins.mqtt_actor import Actor, Heard
from runtime.errors import BadAction
from runtime.messages import NOTHING, Action, derived_id, new_id

GRACE = 3.0  # seconds between a decision and its command, at most; after that the device was not asked


class OverMqtt:
    """The player's port: sensors and devices out, decisions and commands in."""

    def __init__(self, actor: Actor, agent: str, patience: float) -> None:
        self._actor = actor
        self._agent = agent
        self._patience = patience
        self._decisions: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._done: dict[str, asyncio.Event] = {}  # actuator -> it carried out a command since the situation began
        self._known: set[str] = set()

    async def listen(self, command: Callable[[str, str], Awaitable[bool]]) -> None:
        """Sort what is heard; commands are carried out one after the other, beside the waiting for decisions."""
        commands: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._obey(commands, command), name="home: commands")
            while True:
                heard = await self._actor.hear()
                if heard.topic.endswith("/set"):
                    actuator = "_".join(heard.topic.split("/")[-3:-1])
                    commands.put_nowait((actuator, _set_point(heard)))
                else:
                    self._decisions.put_nowait(_object(heard.payload))

    async def _obey(
        self, commands: asyncio.Queue[tuple[str, str]], command: Callable[[str, str], Awaitable[bool]]
    ) -> None:
        while True:
            actuator, value = await commands.get()
            if await command(actuator, value):
                self._done.setdefault(actuator, asyncio.Event()).set()

    async def publish(self, topic: str, value: object) -> str:
        return self._safe(f"{topic}:{await self._actor.send(topic, value)}")

    async def ask(self, case: Case, wake: Callable[[], Awaitable[str]]) -> Decided | None:
        self._done.clear()
        cause = await wake()
        percept = derived_id("pc", case.room, case.kind, cause, "")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                decision = await self._decision(case.room, percept)
                return await self._decided(case, decision)
        return None

    async def _decision(self, room: str, percept: str) -> dict[str, Any]:
        """The decision on this percept; if there is none soon, the first unknown one of the room must do."""
        other: dict[str, Any] | None = None
        while True:
            try:
                async with asyncio.timeout(GRACE if other is not None else None):
                    message = await self._decisions.get()
            except TimeoutError:
                assert other is not None
                return other
            identity = str(message.get("id", ""))
            if identity in self._known or not identity:
                continue
            self._known.add(identity)
            if message.get("percept") == percept:
                return message
            if message.get("scope", room) == room:
                other = other or message

    async def _decided(self, case: Case, decision: Mapping[str, Any]) -> Decided:
        action = read_action(decision, case.room)
        carried_out = action == NOTHING
        if action.tool in BY_ACTUATOR:
            with suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self._done.setdefault(action.tool, asyncio.Event()).wait()
                    carried_out = True
        by, adapter = str(decision.get("by", "")), str(decision.get("adapter", ""))
        return Decided(str(decision["id"]), action, by, adapter, carried_out)

    async def correct(self, decision: str, right: Action, who: str) -> None:
        await self._say({"decision": decision, "correct": spell(right), "source": who})

    async def accept(self, decision: str, who: str) -> None:
        await self._say({"decision": decision, "accept": True, "source": who})

    async def _say(self, feedback: dict[str, Any]) -> None:
        identity = new_id("fb")
        await self._actor.send(f"corrigible/{self._agent}/feedback", {"id": identity, **feedback})
        self._safe(derived_id("fb", identity, feedback["decision"]))

    def _safe(self, identity: str) -> str:
        """The agent acknowledged this message: it must be in the journal, whatever happens."""
        tell({"event": "safe", "id": identity})
        return identity


def read_action(decision: Mapping[str, Any], room: str) -> Action:
    """The action of a published decision, written as text or as an object; `nothing` if it is not one of ours."""
    for key in ("action", "text"):
        found = decision.get(key)
        with suppress(BadAction, msgspec.ValidationError):
            if isinstance(found, str):
                return catalogue(room).parse(found)
            if isinstance(found, Mapping):
                return catalogue(room).check(msgspec.convert(found, type=Action))
    return NOTHING


def _set_point(heard: Heard) -> str:
    """What a command asks for: the bare value, or the value under `state`, `value` or `level` of an object."""
    body = _object(heard.payload)
    value = next((body[key] for key in ("state", "value", "level") if key in body), None)
    return heard.payload.decode(errors="replace").strip().strip('"') if value is None else str(value)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(payload, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def tell(event: Mapping[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    sys.stdout.flush()


async def play(arguments: argparse.Namespace) -> None:
    """Connect, then play until the situations are over or somebody says stop."""
    actor = Actor(
        arguments.host, arguments.port, producer=arguments.name, agent=arguments.agent,
        topics=(*(f"{device.topic}/set" for device in DEVICES), f"corrigible/{arguments.agent}/decision/+"),
        username=arguments.username, password=os.environ.get("CORRIGIBLE_BROKER__PASSWORD", ""),
    )  # fmt: skip
    async with actor.connected():
        port = OverMqtt(actor, arguments.agent, arguments.patience)
        player = Player(port, Resident(arguments.seed), tell)
        listening = asyncio.create_task(port.listen(player.command), name="home: listen")
        tell({"event": "connected", "situations": arguments.count, "seed": arguments.seed})
        cases = stream(arguments.seed, arguments.count)
        try:
            if arguments.controlled:
                await _obey_stdin(player, cases, arguments.start)
            else:
                for case in cases[arguments.start :]:
                    await player.play(case)
            tell({"event": "done", "resent": actor.resent})
        finally:
            listening.cancel()


async def _obey_stdin(player: Player, cases: list[Case], position: int) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = _object(line.encode())
        if order.get("stop"):
            return
        if "again" in order and 0 <= int(order["again"]) < len(cases):
            await player.play(cases[int(order["again"])], react=bool(order.get("react")))
        upto = min(position + int(order.get("next", 0)), len(cases))
        for case in cases[position:upto]:
            await player.play(case)
        position = upto
        tell({"event": "idle", "position": position})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m plugins.simulated_home", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--username", default="", help="the password comes from CORRIGIBLE_BROKER__PASSWORD")
    parser.add_argument("--agent", default="corrigible", help="[agent] name of the daemon")
    parser.add_argument("--name", default="simulated-home", help="client id and producer name")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=240, help="situations; the habits change after half of them")
    parser.add_argument("--start", type=int, default=0, help="number of the first situation to play")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a decision")
    parser.add_argument("--print-config", action="store_true", help="print the daemon's configuration for this home")
    parser.add_argument("--controlled", action="store_true", help="obey JSON lines on stdin")
    arguments = parser.parse_args()
    if arguments.print_config:
        sys.stdout.write(as_toml())
        return
    with suppress(KeyboardInterrupt):
        asyncio.run(play(arguments))
