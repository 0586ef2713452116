"""What travels: one frozen struct per arrow of the loop, and nothing else travels between stages.

    Observation -> Percept -> Decision -> Command -> Outcome
                                  ^-- Feedback --> Example -> Cycle -> Release

Times are UTC seconds since the epoch (`float`); log-probabilities are natural logarithms; ids are plain strings that
mean the same thing after a restart.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Scalar = str | float | int | bool | None


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything on the bus; immutable, serialisable with msgspec."""


class Observation(Message, frozen=True, kw_only=True):
    """What a sensor said: raw bytes on a topic. `id` is the dedupe key, unique per message of a producer."""

    id: str
    topic: str
    payload: bytes
    at: float
    source: str = ""
    retained: bool = False
    properties: dict[str, str] = {}  # MQTT 5 user properties and the like; small


class Percept(Message, frozen=True, kw_only=True):
    """One situation to decide on. `text` is the canonical form: the model, the table and the learner all read it."""

    id: str
    scope: str
    text: str
    at: float
    kind: Literal["sensor", "speech", "timer"] = "sensor"
    fields: dict[str, Scalar] = {}
    causes: tuple[str, ...] = ()  # ids of the observations that woke it
    synthetic: bool = False  # a rehearsal: decided and logged, never acted on, never learnt from


class Action(Message, frozen=True, kw_only=True):
    """One member of a catalogue: a tool and the values of its arguments."""

    tool: str
    arguments: dict[str, Any] = {}


class Candidate(Message, frozen=True, kw_only=True):
    """An action that was considered, with the log-probability each judge gave it (None = was not asked)."""

    action: Action
    log_model: float | None = None
    log_memory: float | None = None
    log_both: float | None = None


class Decision(Message, frozen=True, kw_only=True):
    """What was chosen and why. `p_model` is belief; `p_behaviour` is the chance with which it was really chosen."""

    id: str
    percept_id: str
    scope: str
    actions: tuple[Action, ...]
    by: Literal["model", "memory", "table", "rule", "fallback", "doubt"]  # memory: it overruled the model
    adapter: str  # "base" or an adapter id: what was serving, even if the table answered
    p_model: float | None
    p_behaviour: float
    candidates: tuple[Candidate, ...] = ()
    novelty: float | None = None  # in (0, 1]: 1 = nothing like it was ever taught; None = the memory was not asked
    chance: float | None = None  # that the likeliest is right, counting what nobody ever taught (`learning.knowing`)
    plausible: tuple[Action, ...] = ()  # the conformal set
    choices: tuple[Action, ...] = ()  # what a question offers; answered by a correction
    table_feedback: str | None = None  # the feedback the table answered from
    lane: str = "default"
    timings_ms: dict[str, float] = {}
    note: str = ""
    at: float


class Command(Message, frozen=True, kw_only=True):
    """What is sent to an actuator: an absolute set-point with an expiry; `id` is stable over recomputation."""

    id: str
    decision_id: str
    actuator: str
    action: Action
    expires_at: float
    at: float
    once: bool = False  # told at most once, whatever becomes of it


OutcomeStatus = Literal[
    "applied",  # the device said so
    "sending",  # of a command that is told once: it is about to leave, and will not leave again
    "sent",  # handed over; the device does not confirm
    "refused",  # the guard or a rule said no
    "observed",  # modes `observe` and `apprentice`: decided in silence
    "held",  # mode `confirm`: waits for a person
    "denied",  # a person said no
    "expired",
    "failed",
    "uncertain",  # it may have been carried out; it is not told again by itself
    "asked",  # a person was asked instead
    "none",  # the decision asked for no act (`nothing`, `reply` without a device ...)
]


class Outcome(Message, frozen=True, kw_only=True):
    """What became of one action of a decision. The newest outcome of a command is its state."""

    id: str
    decision_id: str
    command_id: str | None
    status: OutcomeStatus
    reason: str = ""
    at: float


FeedbackKind = Literal["correction", "acceptance", "rating", "preference", "override"]


class Feedback(Message, frozen=True, kw_only=True):
    """What a person (or their act on a device) said about a decision. Silence is none of these."""

    id: str
    decision_id: str
    kind: FeedbackKind
    source: str
    at: float
    action: Action | None = None  # the right action: correction, override, preferred side of a preference
    rejected: Action | None = None  # the other side of a preference
    rating: float | None = None  # in [-1, 1]
    evidence: dict[str, Any] = {}
    note: str = ""


class Forgotten(Message, frozen=True, kw_only=True):
    """A feedback was taken back: nothing is learnt from it any more."""

    id: str
    feedback_id: str
    by: str
    at: float


class Example(Message, frozen=True, kw_only=True):
    """What the learner trains on: derived from Decision + Feedback by a query, never a second copy of the truth."""

    id: str  # the feedback's id
    scope: str
    text: str
    action: Action
    weight: float = 1.0  # > 0
    correction: bool = True  # False: an accepted decision (an anchor)
    source: str = ""
    at: float
    rejected: Action | None = None  # what was decided instead, or the worse side of a preference
    reward: float = 1.0  # in [-1, 1]; below 0 the action was disliked and nobody said what is right
    also: tuple[str, ...] = ()  # ids of older feedback that says the same of the same situation


class Witnessed(Message, frozen=True, kw_only=True):
    """A decision, what became of it, and people's newest word on it: derived by a query, like an Example."""

    at: float
    action: Action
    status: OutcomeStatus
    word: str = ""  # the feedback's id; "" = nobody did or said anything
    source: str = ""
    right: Action | None = None  # what people did or said; None with a word: only that it was wrong
    fields: dict[str, Scalar] = {}  # of the situation, where there is no word


class Lived(Message, frozen=True, kw_only=True):
    """A decision and all that people said of it and did not take back, oldest first: derived by a query, like an Example."""

    id: str
    scope: str
    text: str
    action: Action
    said: tuple[Feedback, ...] = ()


class Turn(Message, frozen=True, kw_only=True):
    """One decision as people took it: derived like an Example, for measuring how content they are. Actions are JSON, so that
    equal ones are equal strings."""

    decision: str
    at: float
    scope: str
    who: str = ""  # spoke, where that is known
    words: str = ""  # that were spoken; "" = nobody spoke
    adapter: str
    question: bool = False  # it asked instead of deciding
    decided: str
    right: str = ""  # by the newest word on it; "" = nobody said
    rating: float | None = None  # the newest

    @property
    def judged(self) -> bool:
        """Somebody said whether it was right. An answer to a question says nothing of the kind."""
        return bool(self.right) and not self.question

    @property
    def overridden(self) -> bool:
        """People said or did something else."""
        return self.judged and self.right != self.decided

    @property
    def wrong(self) -> bool:
        """It was overridden, or disliked and never called right."""
        return self.overridden or (not self.judged and self.rating is not None and self.rating < 0)


class Cycle(Message, frozen=True, kw_only=True):
    """One run of the learner, as it stands now (a cycle row is replaced while it runs)."""

    id: str
    state: Literal["running", "released", "provisional", "rejected", "failed"]
    reason: str = ""
    started_at: float
    ended_at: float | None = None
    examples: int = 0
    epoch: float = 0.0
    progress: float = 0.0  # in [0, 1]
    adapter: str = ""
    report: dict[str, Any] = {}


class Release(Message, frozen=True, kw_only=True):
    """The event that makes an adapter serve. The newest release of a lane is what serves; "base" is an adapter too."""

    id: str
    adapter: str
    previous: str
    why: str  # "gate", "promote", "rollback", "unverifiable", "forget", "probation"
    provisional: bool = False
    against: str = ""  # the version that a provisional one has to prove itself against
    shadow: int = 0  # situations in which a provisional one is only asked, before it takes part (`learning.ladder`)
    reason: str = ""  # for people, where `why` does not say it all
    lane: str = "default"
    by: str = "corrigible"
    at: float


class Quarantined(Message, frozen=True, kw_only=True):
    """Input we could not use, kept whole or, above 64 KiB, by hash and first bytes."""

    id: str
    topic: str
    payload: bytes
    sha256: str
    size: int
    reason: str
    source: str = ""
    at: float


class Gap(Message, frozen=True, kw_only=True):
    """Numbers of a producer that never came, `first` to `last`, or came late (the row is replaced then). Where many are missing at
    once, one names them all, with what came between them."""

    id: str
    producer: str
    boot: str
    first: int
    last: int
    at: float  # when it was noticed
    filled: float | None = None


NOTHING = Action(tool="nothing")
ASK = Action(tool="ask")  # a person, instead of guessing


def new_id(kind: str) -> str:
    """A fresh id such as `fb-3f9c…`, sortable by time of making."""
    return f"{kind}-{int(time.time() * 1000):011x}{uuid.uuid4().hex[:8]}"


def portion(*parts: str) -> float:
    """A number in [0, 1) that hangs on these alone: for choices that must come out the same again."""
    digest = hashlib.sha256("|".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def derived_id(kind: str, *parts: str) -> str:
    """An id that a recomputation finds again: the same parts give the same id."""
    return f"{kind}-{hashlib.sha256(chr(31).join(parts).encode()).hexdigest()[:20]}"


def encode_arguments(arguments: Mapping[str, Any]) -> str:
    """Compact JSON in the order given."""
    return msgspec.json.encode(arguments).decode()
