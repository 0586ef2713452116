"""Labelled situations from a seed: the stream (old habits, then new ones) and unseen ones to evaluate on.

A scene is a message of a room's sensors and, often, something a person says in it a little later; each of the two is one
situation with one right action. The home after a situation is as the resident wants it, so the next one can be foretold.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from plugins.house.habits import Era, needed
from plugins.house.model import BY_ACTUATOR, Value, after, feel, sample, spell
from plugins.house.phrases import INTENTS, SMALL_TALK, Intent
from plugins.house.plans import PLANS, Plan
from runtime.messages import NOTHING, Action, Scalar

FIRST_DAY = datetime(2026, 1, 12)  # a Monday
RESIDENTS = ("Ana", "Ben")
SPEAK_AGAIN = 0.25  # chance of a second remark in a scene
CHAT = 0.12  # chance that a remark is small talk
FEW, MANY = 4, 10  # percent
ENOUGH = 100  # situations drawn per one wanted, at most: few are as different as they have to be
PARTS = (5, 8, 11, 14, 17, 19, 22)  # hours at which a person begins to speak of another part of the day


@dataclass(frozen=True)
class Case:
    """One situation: what the sensors say, perhaps what a person says, the devices as they are, and what is right."""

    number: int
    era: Era
    room: str
    clock: datetime  # local time on the wall
    readings: Mapping[str, Scalar]  # of the room's own sensors
    outside: Mapping[str, Scalar]
    devices: Mapping[str, Value]  # actuator -> state; of this room
    right: Action
    says: str = ""
    who: str = ""
    intent: str = ""

    @property
    def kind(self) -> str:
        return "speech" if self.says else "sensor"

    @property
    def right_text(self) -> str:
        return spell(self.right)

    def accepts(self, action: Action) -> bool:
        """Whether an action leaves the room as the resident wants it (setting what is set already changes nothing)."""
        return after(self.devices, action) == after(self.devices, self.right)

    def words(self) -> tuple[str, ...]:
        """The room's own sensors as a person would say them."""
        return tuple(f"{name} {feel(name, value)}" for name, value in sorted(self.readings.items()))

    def key(self) -> tuple[str, ...]:
        """What makes a situation the same as an earlier one, whatever the weather and the day of the week."""
        part = sum(self.clock.hour >= hour for hour in PARTS) % len(PARTS)  # before dawn and late are both night
        devices = (f"{name} {value}" for name, value in sorted(self.devices.items()))
        return (self.room, str(part), *self.words(), *devices, self.says)

    def observations(self) -> list[tuple[str, object]]:
        """The messages that make this situation, topic and value; the last one wakes the decision."""
        room = f"home/{self.room}"
        messages: list[tuple[str, object]] = [("home/house/clock", self.clock.isoformat(timespec="minutes"))]
        messages += [(f"home/outside/{name}", value) for name, value in self.outside.items()]
        messages += [(BY_ACTUATOR[name].topic, {"state": value, "by": "timer"}) for name, value in self.devices.items()]
        messages.append((room, dict(self.readings)))
        if self.says:
            messages.append((f"{room}/speech", {"who": self.who, "text": self.says}))
        return messages


class Shown(dict[str, tuple[str, ...]]):
    """Room -> its sensors as they were last published, in words."""


def stream(seed: int, count: int) -> list[Case]:
    """`count` situations in order; the second half is of the new era. Held-out sentences never occur."""
    half, shown = count // 2, Shown()
    old = _scenes(random.Random(f"house {seed} old"), "old", FIRST_DAY, shown)
    new = _scenes(random.Random(f"house {seed} new"), "new", FIRST_DAY + timedelta(days=120), shown)
    cases = [*islice(old, half), *islice(new, count - half)]
    return [replace(case, number=number) for number, case in enumerate(cases)]


def life(seed: int, count: int) -> Iterator[Case]:
    """The stream, and after it the new habits for ever."""
    cases = stream(seed, count)
    yield from cases
    shown = Shown({case.room: case.words() for case in cases})
    endless = _scenes(random.Random(f"house {seed} later"), "new", FIRST_DAY + timedelta(days=360), shown)
    for number, case in enumerate(endless, start=count):
        yield replace(case, number=number)


def unseen(seed: int, count: int, seen: Sequence[Case]) -> list[Case]:
    """`count` situations under the new habits that are not in `seen`: held-out sentences, sensor pictures not met.

    Half of them are spoken. Every right action gets a few first, then up to FEW or MANY percent of its half, so that
    `nothing` does not drown the rest and a balanced accuracy means something.
    """
    known = {case.key() for case in seen}
    rng = random.Random(f"house {seed} unseen")
    kinds: Counter[str] = Counter()
    actions: Counter[tuple[str, str]] = Counter()
    chosen: list[Case] = []
    for percent in (FEW, MANY):
        for case in islice(
            _scenes(rng, "new", FIRST_DAY + timedelta(days=240), Shown(), held_out=True), ENOUGH * count
        ):
            label = (case.kind, case.right_text)
            full = actions[label] >= max(2.0, percent * count / 200) or kinds[case.kind] >= (count + 1) // 2
            if full or case.key() in known:
                continue
            known.add(case.key())
            actions[label] += 1
            kinds[case.kind] += 1
            chosen.append(replace(case, number=len(chosen)))
            if len(chosen) == count:
                return chosen
    return chosen


def persistence(cases: Sequence[Case], seen: Sequence[Case] = ()) -> list[Action]:
    """The baseline that keeps the last setting: the right action of the room's situation before."""
    last: dict[str, Action] = {case.room: case.right for case in seen}
    guesses = []
    for case in cases:
        guesses.append(last.get(case.room, NOTHING))
        last[case.room] = case.right
    return guesses


def _scenes(rng: random.Random, era: Era, start: datetime, shown: Shown, *, held_out: bool = False) -> Iterator[Case]:
    """Scene after scene, without end; two messages of a room's sensors in a row always feel different."""
    weights = [1.0 if held_out else plan.weight for plan in PLANS]
    day = start
    while True:
        plan = rng.choices(PLANS, weights)[0]
        first = _first(plan, rng, era, day)
        day += timedelta(hours=rng.choice((12, 24, 36)))
        if first.words() == shown.get(plan.room):
            continue
        shown[plan.room] = first.words()
        yield first
        yield from _remarks(plan, rng, first, held_out)


def _first(plan: Plan, rng: random.Random, era: Era, day: datetime) -> Case:
    """The scene as its sensors show it."""
    clock = day.replace(hour=rng.choice(plan.hours), minute=rng.randrange(0, 50))
    feels = {name: rng.choice(words.split()) for name, words in plan.feels.items()}
    devices = {f"{plan.room}_{name}": rng.choice(states) for name, states in plan.devices.items()}
    rain, wind = rng.choice(("no", "no", "light", "heavy")), rng.choice(("calm", "calm", "breezy", "windy"))
    return Case(
        number=0,
        era=era,
        room=plan.room,
        clock=clock,
        readings={name: sample(name, word, rng) for name, word in feels.items()},
        outside={"rain": sample("rain", rain, rng), "wind": sample("wind", wind, rng)},
        devices=devices,
        right=needed(plan.room, clock, feels, devices, era),
    )


def _remarks(plan: Plan, rng: random.Random, scene: Case, held_out: bool) -> Iterator[Case]:
    """What is said in the scene after the home was put right."""
    chance = plan.talk if scene.readings["presence"] else 0.0
    who = rng.choice(RESIDENTS)
    while rng.random() < chance:
        clock = scene.clock + timedelta(minutes=rng.randint(1, 4))
        devices = after(scene.devices, scene.right)
        intent = _intent(rng, replace(scene, clock=clock, devices=devices))
        if intent is None:
            return
        scene = replace(
            scene,
            clock=clock,
            devices=devices,
            who=who,
            says=rng.choice(intent.held_out if held_out else intent.said),
            intent=intent.name,
            right=needed(scene.room, clock, {}, devices, scene.era, intent.name),
        )
        yield scene
        chance = SPEAK_AGAIN


def _intent(rng: random.Random, scene: Case) -> Intent | None:
    """Something a person could want here and now and does not have yet, or small talk, or nothing comes to mind."""
    fitting = [
        intent
        for intent in INTENTS.values()
        if intent.room == scene.room
        and scene.clock.hour in intent.hours
        and all(feel(name, scene.readings[name]) in words.split() for name, words in intent.feels)
        and needed(scene.room, scene.clock, {}, scene.devices, scene.era, intent.name) != NOTHING
    ]
    if rng.random() < CHAT:
        return INTENTS[SMALL_TALK]
    return rng.choice(fitting) if fitting else None
