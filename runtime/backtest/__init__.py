"""`corrigible backtest`: a labelled history through the same perception, decision, action, journal, learner, gate and swap
as live traffic, with a teacher that corrects wrong decisions and accepts right ones."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from runtime import app as application
from runtime.app import App
from runtime.backtest import data
from runtime.backtest.data import Codec, Line
from runtime.backtest.session import SCOPE, Road, Session
from runtime.backtest.teacher import LIARS, PEOPLE, Said, Teacher, way_of
from runtime.backtest.typos import typed
from runtime.catalogue import Tool
from runtime.config import Config, load
from runtime.errors import BadInput
from runtime.learning import scores
from runtime.learning.naive_bayes import NaiveBayes
from runtime.learning.sentences import HINT, Sentences, available
from runtime.messages import Command, Decision, Feedback, Observation, Outcome, new_id
from runtime.roles import Actuator

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The command line of `corrigible backtest`."""

    stream: Path
    holdout: Path
    limit: int | None = None
    per_class: int | None = None
    learn_every: int | None = None
    holdout_limit: int | None = None
    instruction: str = ""
    actions: Path | None = None
    mqtt: bool = False
    teacher: str = "correct"
    noise: float = 0.0
    hostile: float = 0.0
    sources: int = PEOPLE
    hostile_sources: int = LIARS
    typos: float = 0.0
    oos: Path | None = None
    must_pass: Path | None = None
    seed: int = 0
    report: Path | None = None
    config: Path | None = None


@dataclass
class Listed(Actuator):
    """The history's actions as tools that need no device."""

    offered: tuple[Tool, ...] = ()

    def tools(self) -> Mapping[str, tuple[Tool, ...]]:
        return {SCOPE: self.offered}

    async def act(self, command: Command) -> Outcome:
        raise BadInput("a backtest commands no device")


async def run(options: Options, told: Tell = print) -> dict[str, Any]:
    """The report of one run; written to `options.report` too. Raises BadInput naming file and line of a broken row."""
    started = time.time()
    stream = data.take(data.read(options.stream), options.limit, options.per_class)
    holdout = data.read(options.holdout)[: options.holdout_limit]
    codec = Codec(data.actions_file(options.actions) if options.actions else stream)
    stream, holdout = (_typed(lines, options, name) for lines, name in ((stream, "stream"), (holdout, "holdout")))
    outside = _typed(data.read(options.oos), options, "oos") if options.oos else []
    with tempfile.TemporaryDirectory(prefix="corrigible-backtest-") as scratch:
        config = _config(options, codec, Path(scratch))
        async with application.opened(config, extra=[_named(Listed(codec.catalogue.tools))]) as app:
            session = await _session(app, options, codec, stream, holdout, outside, told)
            mixed = app.policy.mixed
    report = {
        "stream": {"events": len(stream), "actions": len({line.output for line in stream})},
        "holdout": {"events": len(holdout)},
        "seed": options.seed,
        "wall_seconds": round(time.time() - started, 1),
        "prequential": {
            "accuracy": scores.accuracy([True] * len(session.right), session.right),
            "by_100": [sum(part) / len(part) for part in _hundreds(session.right)],
        },
        "baselines": {
            "memory_only": session.points[-1]["accuracy_memory_only"],
            **_baselines(session.bayes, holdout),
            "encoder": await asyncio.to_thread(_encoder, stream, holdout, told),
        },
        "points": session.points,
        **session.end,
        "cycles": session.cycles,
        "invalid_decisions": session.invalid,
        **({"free_reply": session.free} if codec.replies else {}),
        **session.gauges.report(mixed),
    }
    if options.report is not None:
        options.report.parent.mkdir(parents=True, exist_ok=True)
        options.report.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _named(plugin: Listed) -> Listed:
    plugin.name = "backtest"
    return plugin


def _config(options: Options, codec: Codec, scratch: Path) -> Config:
    """The user's settings, with a scratch data directory, no devices, and learning only when the stream says so."""
    base = load(options.config)
    instruction = options.instruction or _instruction(codec)
    plugins: list[dict[str, Any]] = []
    if options.mqtt:
        plugins = [{"use": "plugins.mqtt:Mqtt", "sensors": ["backtest/#"]}]
    return base.model_copy(
        update={
            "agent": base.agent.model_copy(update={"name": "backtest", "data": scratch, "instruction": instruction}),
            "broker": base.broker.model_copy(
                update={"port": 0}
                if options.mqtt and not base.broker.host
                else {}
                if options.mqtt
                else {"mode": "none"}
            ),
            "learner": base.learner.model_copy(
                update={"after": 0, "every": 0.0, "idle": 0.0, "drift": False, "seed": options.seed}
            ),
            "gate": base.gate.model_copy(  # what is judged is what was released last: nothing is held back in silence
                update={"must_pass": str(options.must_pass or base.gate.must_pass), "shadow": 0}
            ),
            "policy": base.policy.model_copy(update={"ask": "never"}),  # what asking would bring is reckoned at the end
            "plugin": plugins,
        }
    )


def _instruction(codec: Codec) -> str:
    if codec.replies:
        return "Answer the customer."
    return "Say what is meant." if codec.structured else "Sort the message."


async def _session(
    app: App, options: Options, codec: Codec, stream: list[Line], holdout: list[Line], outside: list[Line], told: Tell
) -> Session:
    """Run the stages around the stream, and end them when it is over."""
    await app.policy.wait_ready()
    await app.restore()
    async with asyncio.TaskGroup() as core:
        await app.stages(core)
        async with _road(app, options) as road:
            teacher = Teacher(
                [codec.action(output) for output in dict.fromkeys(line.output for line in stream)], way=way_of(options.teacher), noise=options.noise, hostile=options.hostile,
                people=options.sources, liars=options.hostile_sources, seed=options.seed,
            )  # fmt: skip
            session = Session(app, road, codec, holdout, teacher, told, stream=stream, outside=outside)
            await session.run(stream, options.learn_every)
            session.end = await session.finish()
        await app.drain()
        application.cancel(core)
    return session


@asynccontextmanager
async def _road(app: App, options: Options) -> AsyncIterator[Road]:
    if not options.mqtt:
        yield Direct(app)
        return
    async with asyncio.TaskGroup() as edge:
        for plugin in app.plugins:
            edge.create_task(app.operate(plugin), name=f"plugin {plugin.name}")
        remote = importlib.import_module("plugins.mqtt_actor")  # by name: the runtime imports no plugin
        broker = app.broker.config
        actor = remote.Actor(
            broker.host, broker.port, producer="teacher", agent="backtest", topics=("corrigible/backtest/decision/#",),
            username=broker.username, password=broker.password.get_secret_value(),
        )  # fmt: skip
        async with actor.connected():
            yield OverMqtt(actor, app)
        application.cancel(edge)


class Direct:
    """In process: the door of every sensor."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def event(self, observation: Observation) -> str:
        await self._app.ingest.emit(observation)
        return observation.id

    async def feedback(self, decision: Decision, said: Said) -> None:
        await self._app.ingest.emit(
            Feedback(
                id=new_id("fb"), decision_id=decision.id, kind=said.kind, source=said.source, at=time.time(),
                action=said.action, rating=said.rating,
            )
        )  # fmt: skip


class OverMqtt:
    """Over the broker: events and feedback as any device and person would send them; returns when they are in the journal."""

    def __init__(self, actor: Any, app: App) -> None:
        self._actor = actor
        self._app = app

    async def event(self, observation: Observation) -> str:
        await self._actor.send(observation.topic, json.loads(observation.payload), id=observation.id)
        return f"{observation.topic}:{observation.id}"

    async def feedback(self, decision: Decision, said: Said) -> None:
        word: dict[str, Any] = {"accept": True}
        if said.rating is not None:
            word = {"rating": said.rating}
        elif said.action is not None:
            word = {"correct": {"tool": said.action.tool, "arguments": said.action.arguments}}
        await self._actor.send("corrigible/backtest/feedback", {"decision": decision.id, "source": said.source, **word})


def _typed(lines: list[Line], options: Options, name: str) -> list[Line]:
    generator = random.Random(f"typos {options.seed} {name}")
    if not options.typos:
        return lines
    return [msgspec.structs.replace(line, input=typed(line.input, options.typos, generator)) for line in lines]


def _baselines(bayes: NaiveBayes, holdout: list[Line]) -> dict[str, float]:
    """On the holdout, having seen the same stream. Persistence says what was right the row before."""
    gold = [line.output for line in holdout]
    said = [bayes.predict(line.input) for line in holdout]
    last = [bayes.majority, *gold[:-1]]
    return {
        "naive_bayes": scores.accuracy(gold, said),
        "naive_bayes_balanced": scores.balanced_accuracy(gold, said),
        "majority": scores.accuracy(gold, [bayes.majority] * len(gold)),
        "persistence": scores.accuracy(gold, last),
        "persistence_balanced": scores.balanced_accuracy(gold, last),
    }


def _encoder(stream: list[Line], holdout: list[Line], told: Tell) -> float | None:
    """Accuracy of the sentence encoder after the same stream, of which it is told every right answer; None without it."""
    if not available():
        told(HINT)
        return None
    encoder = Sentences()
    for line in stream:
        encoder.learn(line.input, line.output)
    said = encoder.predict([line.input for line in holdout])
    return scores.accuracy([line.output for line in holdout], said)


def _hundreds(values: list[bool]) -> list[list[bool]]:
    return [values[i : i + 100] for i in range(0, len(values), 100)]
