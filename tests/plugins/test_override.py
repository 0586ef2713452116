"""A person's act on a device becomes a correction; echoes, rounding, automations and guests do not."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import pytest

from plugins.house import Case, stream
from plugins.house.model import BY_ACTUATOR, Value, catalogue, set_to
from plugins.house.resident import Resident
from plugins.override import Device, Override
from runtime.messages import (
    NOTHING,
    Action,
    Candidate,
    Command,
    Decision,
    Feedback,
    Observation,
    Outcome,
    OutcomeStatus,
    Percept,
)

LAMP = "living_room_lamp"
WATCHED = ["*_lamp", "*_blind", "*_fan", "*_heating"]


@dataclass
class Room:
    """Feeds a critic as the runtime would, and keeps what it noticed."""

    critic: Override = field(default_factory=lambda: Override(actuators=WATCHED, guests=["guest*"]))
    now: float = 1000.0
    noticed: list[Feedback] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def decide(self, scope: str, action: Action, candidates: tuple[Action, ...] = ()) -> Decision:
        number = next(self._numbers)
        percept = Percept(id=f"pc-{number}", scope=scope, text="", at=self.now)
        decision = Decision(
            id=f"dc-{number}", percept_id=percept.id, scope=scope, actions=(action,), by="model", adapter="base",
            p_model=0.5, p_behaviour=1.0, at=self.now, candidates=tuple(Candidate(action=a) for a in candidates),
        )  # fmt: skip
        self._tell(percept)
        self._tell(decision)
        if action != NOTHING:
            self._tell(
                Command(
                    id=f"cm-{number}", decision_id=decision.id, actuator=action.tool, action=action,
                    expires_at=self.now + 30, at=self.now,
                )
            )  # fmt: skip
        return decision

    def report(self, actuator: str, value: object, by: str = "", *, bare: bool = False) -> None:
        topic = BY_ACTUATOR[actuator].topic
        body = value if bare else {"state": value, **({"by": by} if by else {})}
        self._tell(
            Observation(id=f"ob-{next(self._numbers)}", topic=topic, payload=msgspec.json.encode(body), at=self.now)
        )

    def silent(self, decision: Decision, status: OutcomeStatus = "observed") -> None:
        command = decision.id.replace("dc", "cm")
        self._tell(Outcome(id="oc", decision_id=decision.id, command_id=command, status=status, at=self.now))

    def _tell(self, message: Percept | Decision | Command | Observation | Outcome) -> None:
        self.now += 0.01
        self.noticed.extend(self.critic.criticise(message))


def test_a_person_who_sets_something_else_corrects_us() -> None:
    room = Room()
    room.report(LAMP, "off")
    decision = room.decide("living_room", set_to(LAMP, "bright"))
    room.report(LAMP, "bright")
    assert room.noticed == []
    room.report(LAMP, "dim")
    (feedback,) = room.noticed
    assert (feedback.kind, feedback.decision_id, feedback.action) == ("override", decision.id, set_to(LAMP, "dim"))
    assert feedback.evidence["before"] == "bright"
    assert feedback.evidence["after"] == "dim"


def test_undoing_us_means_nothing_was_right() -> None:
    room = Room()
    room.report(LAMP, "off")
    room.decide("living_room", set_to(LAMP, "bright"))
    room.report(LAMP, "bright")
    room.report(LAMP, "off", "Ana")
    assert [feedback.action for feedback in room.noticed] == [NOTHING]


def test_nothing_can_be_wrong_too() -> None:
    room = Room()
    room.report(LAMP, "off")
    decision = room.decide("living_room", NOTHING)
    room.report(LAMP, "dim")
    assert [(f.decision_id, f.action) for f in room.noticed] == [(decision.id, set_to(LAMP, "dim"))]


@pytest.mark.parametrize("status", ["observed", "refused", "expired"])
def test_doing_by_hand_what_was_not_carried_out_is_an_acceptance(status: OutcomeStatus) -> None:
    room = Room()
    room.report(LAMP, "off")
    decision = room.decide("living_room", set_to(LAMP, "bright"))
    room.silent(decision, status)
    room.report(LAMP, "bright", "Ana")
    room.report(LAMP, "dim", "Ana")
    told = [(f.decision_id, f.kind, f.action) for f in room.noticed]
    assert told == [(decision.id, "acceptance", None), (decision.id, "override", set_to(LAMP, "dim"))]


def test_a_device_that_never_reports_gathers_nothing() -> None:
    room = Room()
    for _ in range(100):
        room.decide("living_room", set_to(LAMP, "bright"))
        room.now += room.critic.settle / 2
    assert len(room.critic._pending[LAMP]) <= 3


def test_trying_another_and_putting_it_back_means_nothing_was_right() -> None:
    room = Room()
    room.report(LAMP, "off")
    room.silent(room.decide("living_room", set_to(LAMP, "bright")))
    for value in ("dim", "off"):
        room.report(LAMP, value, "Ana")
    assert [f.action for f in room.noticed] == [set_to(LAMP, "dim"), NOTHING]


@pytest.mark.parametrize("undo_first", [True, False])
def test_undoing_and_doing_something_else_means_the_something_else(undo_first: bool) -> None:
    room = Room()
    room.report(LAMP, "off")
    room.report("living_room_blind", "up")
    room.decide("living_room", set_to(LAMP, "bright"))
    room.report(LAMP, "bright")
    acts = [(LAMP, "off"), ("living_room_blind", "down")]
    for actuator, value in acts if undo_first else acts[::-1]:
        room.report(actuator, value, "Ben")
    assert room.noticed[-1].action == set_to("living_room_blind", "down")


def test_a_toggle_back_to_what_we_did_takes_the_correction_back() -> None:
    room = Room()
    room.report(LAMP, "off")
    room.decide("living_room", set_to(LAMP, "bright"))
    for value in ("bright", "dim", "bright"):
        room.report(LAMP, value)
    assert [f.action for f in room.noticed] == [set_to(LAMP, "dim"), set_to(LAMP, "bright")]


def test_echoes_rounding_and_the_way_there_are_no_overrides() -> None:
    room = Room()
    room.report("bedroom_heating", 17.02)
    room.decide("bedroom", set_to("bedroom_heating", 21))
    for value in (17.0, 18.4, 20.1, 21.04, 20.96, "21.0"):
        room.report("bedroom_heating", value, bare=value == "21.0")
    assert room.noticed == []
    room.report("bedroom_heating", 18.97)
    assert [f.action for f in room.noticed] == [set_to("bedroom_heating", 19)]


@pytest.mark.parametrize("origin", ["timer", "app", "guest Tom", "Guest"])
def test_known_automations_and_guests_teach_nothing(origin: str) -> None:
    room = Room()
    room.report(LAMP, "off")
    room.decide("living_room", NOTHING)
    room.report(LAMP, "dim", origin)
    assert room.noticed == []
    room.report(LAMP, "off", "Ana")  # what the automation did is how Ana found the room
    assert [f.action for f in room.noticed] == [set_to(LAMP, "off")]


def test_too_late_or_before_our_decision_is_no_answer_to_it() -> None:
    room = Room()
    room.report(LAMP, "off")
    room.decide("living_room", NOTHING)
    room.now += room.critic.window + 1
    room.report(LAMP, "dim", "Ana")
    room.critic.criticise(Percept(id="pc-next", scope="living_room", text="", at=room.now))  # being decided
    room.report(LAMP, "bright", "Ana")
    assert room.noticed == []


def test_sensors_on_topics_of_the_same_shape_are_not_devices() -> None:
    room = Room(Override())
    room.decide("outside", NOTHING)
    for value in (0.0, 2.5):
        room.critic.criticise(Observation(id=str(value), topic="home/outside/rain", payload=b"%f" % value, at=room.now))
    room.decide("living_room", NOTHING, catalogue("living_room").finite())  # from here on the lamp is known
    room.report(LAMP, "off", "Ana")
    assert [f.action for f in room.noticed] == [set_to(LAMP, "off")]


def test_what_a_device_showed_before_we_knew_it_for_one_still_counts() -> None:
    room = Room(Override())
    room.report(LAMP, "off", "timer")
    room.decide("living_room", set_to(LAMP, "bright"), catalogue("living_room").finite())
    room.report(LAMP, "bright")
    room.report(LAMP, "off", "Ana")
    assert [f.action for f in room.noticed] == [NOTHING]


def test_a_switch_may_say_true_or_ON() -> None:
    device = Device(actuator="plug", scope="office", topic="plug/state")
    room = Room(Override(devices=[device]))
    room.decide("office", Action(tool="plug", arguments={"level": "on"}))
    for number, body in enumerate([b"true", b'"ON"', b'{"state": "on"}', b"OFF"]):
        observation = Observation(id=f"p{number}", topic=device.topic, payload=body, at=room.now + 1)
        room.noticed.extend(room.critic.criticise(observation))
    assert [f.action for f in room.noticed] == [Action(tool="plug", arguments={"level": "off"})]


def test_a_declared_device_with_its_own_topic_path_and_words() -> None:
    device = Device(actuator="desk", scope="office", topic="zigbee2mqtt/desk", path="light.brightness", step=10)
    critic = Override(devices=[device])
    room = Room(critic)
    room.decide("office", Action(tool="desk", arguments={"level": 100}))
    messages = [b'{"light": {"brightness": 98}}', b'{"light": {"brightness": 41}}', b"not json", b'{"light": 3}']
    for number, body in enumerate(messages):
        observation = Observation(id=f"z{number}", topic=device.topic, payload=body, at=room.now + 1)
        room.noticed.extend(critic.criticise(observation))
    assert [f.action for f in room.noticed] == [Action(tool="desk", arguments={"level": 40})]


def test_precision_and_recall_in_simulated_days(capsys: pytest.CaptureFixture[str]) -> None:
    true, derived, right, others = 0, 0, 0, Counter[str]()
    for seed in (1, 2, 3):
        room, truth, acts = _days(seed, count=400)
        noticed = {
            feedback.decision_id: feedback.action for feedback in room.noticed
        }  # the newest counts, as in learning
        true, derived, others = true + len(truth), derived + len(noticed), others + Counter(acts)
        right += sum(truth.get(decision) == action for decision, action in noticed.items())
    precision, recall = right / derived, right / true
    with capsys.disabled():
        print(f"\noverrides: {true} true, {derived} derived, precision {precision:.1%}, recall {recall:.1%}")
        print("among: " + ", ".join(f"{count} {name}" for name, count in others.items()))
    assert precision >= 0.95
    assert recall >= 0.95


def _days(seed: int, count: int) -> tuple[Room, dict[str, Action], dict[str, int]]:
    """A home with an agent that is often wrong, a resident who overrides, and everything that merely looks like it."""
    rng, resident, room = random.Random(seed), Resident(seed), Room()
    devices: dict[str, Value] = {}
    truth: dict[str, Action] = {}
    acts = dict.fromkeys(("echo", "rounded", "late echo", "repeat", "timer", "guest", "unmarked guest", "too late"), 0)
    for case in stream(seed, count):
        room.now += rng.uniform(5, 400)
        _stage(room, case, devices)
        taken = case.right if rng.random() < 0.4 else rng.choice(catalogue(case.room).finite())
        decision = room.decide(case.room, taken, catalogue(case.room).finite())
        if taken != NOTHING:
            _echo(room, rng, taken, devices, acts)
        reaction = resident.react(case, taken)
        if reaction.kind == "override":
            truth[decision.id] = case.right
            for actuator, value in reaction.acts:
                room.now += rng.uniform(1, 20)
                devices[actuator] = value
                shown = value + rng.uniform(-0.3, 0.3) if isinstance(value, int) else value
                room.report(actuator, shown, rng.choice(("Ana", "Ben", "", "")))
        else:
            for actuator, value in reaction.acts:
                devices[actuator] = value
                room.report(actuator, value, "app")
            _others(room, rng, case, devices, acts)
    return room, truth, acts


def _stage(room: Room, case: Case, devices: dict[str, Value]) -> None:
    for actuator, value in case.devices.items():
        if devices.get(actuator) != value:
            devices[actuator] = value
            room.report(actuator, value, "timer")


def _echo(room: Room, rng: random.Random, taken: Action, devices: dict[str, Value], acts: dict[str, int]) -> None:
    value: Value = taken.arguments["level"]
    if rng.random() < 0.2:
        acts["repeat"] += 1
        room.report(taken.tool, devices[taken.tool])  # the device's periodic report, just before it obeys
    if rng.random() < 0.2:
        acts["late echo"] += 1
        room.now += rng.uniform(2, 8)
    rounded = isinstance(value, int)
    acts["rounded" if rounded else "echo"] += 1
    for _ in range(rng.randint(1, 2)):
        shown = value + rng.uniform(-0.3, 0.3) if isinstance(value, int) else value
        room.report(taken.tool, shown)
    devices[taken.tool] = value


def _others(room: Room, rng: random.Random, case: Case, devices: dict[str, Value], acts: dict[str, int]) -> None:
    """Acts that are not the resident's answer: an automation, a guest, and the resident long after."""
    actuator = rng.choice(list(case.devices))
    value = rng.choice(BY_ACTUATOR[actuator].values)
    draw = rng.random()
    if value == devices[actuator] or draw > 0.6:
        return
    kind = "timer" if draw < 0.25 else "guest" if draw < 0.4 else "unmarked guest" if draw < 0.41 else "too late"
    acts[kind] += 1
    room.now += room.critic.window + 1 if kind == "too late" else rng.uniform(1, 60)
    devices[actuator] = value
    room.report(actuator, value, {"timer": "timer", "guest": "guest Tom"}.get(kind, ""))
