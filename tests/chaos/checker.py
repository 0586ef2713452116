"""The verdict: a pure function over histories and journal. What producers and actuators saw must be what is written.

I1 what was acknowledged is stored; I2 once; I3 what was sent arrived; I4 and I5 work has an end; I6 no effect twice, none
invented; I7 nothing after its time; I8 no state an event; I9 no decision of weights that were changed; I11 nothing outside the envelope and nothing unwritten; `accounts`: stored and
quarantined are the sent ones, to the message; `faults`: every fault left evidence and was got over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from runtime.journal.doctor import NAMED, Finding
from runtime.messages import Message
from tests.chaos.facts import Facts
from tests.chaos.history import Acked, Effect, Fault, Kept, Left, Received, Record, Sent, Spoilt, Synced

LATE = 3.0  # seconds on the wire that are nobody's fault: the links' delays and a stopped process
ENDS = frozenset(("applied", "sent", "refused", "expired", "failed", "uncertain", "denied"))

R = TypeVar("R", bound=Record)


class Envelope(Message, frozen=True, kw_only=True):
    """What actuators may ever be told: name -> the values that are inside; and for how many seconds a command lives."""

    values: dict[str, frozenset[str]]
    lives: float


def check(records: Sequence[Record], facts: Facts, envelope: Envelope) -> list[Finding]:
    """One finding an invariant, in their order."""
    checks: tuple[tuple[str, str, Callable[[], Iterable[str]]], ...] = (
        ("I1", "what was acknowledged is in the journal, byte for byte", lambda: lost(records, facts)),
        ("I2", "no message is stored twice", lambda: stored_twice(records, facts)),
        ("I3", "what a producer sent was acknowledged in the end", lambda: unheard(records)),
        ("I4", "what came in was perceived and decided", lambda: unfinished(facts)),
        ("I5", "every decision was answered and every command has an end", lambda: endless(facts)),
        ("I6", "no effect twice and none that is only said", lambda: doubled(records, facts)),
        ("I7", "nothing was sent after it had expired", lambda: late(records, envelope.lives)),
        ("I8", "what the broker retains is a state and wakes nobody", lambda: replayed(records, facts)),
        ("I9", "no decision is made by weights that were changed on the disk", lambda: spoilt(records, facts)),
        ("I11", "every command was written before and inside the envelope", lambda: outside(records, facts, envelope)),
        ("accounts", "sent = stored + quarantined + still on the way", lambda: unaccounted(records, facts)),
        ("sync", "no acknowledgement before its commit was forced to the disk", lambda: unsynced(records)),
        ("faults", "every fault was really injected, and got over", lambda: unproven(records)),
    )
    return [_finding(name, title, list(wrong())) for name, title, wrong in checks]


def of(records: Iterable[Record], kind: type[R]) -> list[R]:
    return [record for record in records if isinstance(record, kind)]


def lost(records: Sequence[Record], facts: Facts) -> Iterable[str]:
    """I1: acknowledged, yet not there, or not as it was sent."""
    sent = {record.id: record for record in of(records, Sent)}
    kept, quarantined = {payload for _, payload in facts.stored}, set(facts.quarantined)
    for acked in of(records, Acked):
        message = sent.get(acked.id)
        if message is None:
            yield f"{acked.id} was acknowledged, but nobody sent it"
        elif message.payload not in (kept if message.valid else quarantined):
            yield f"{acked.id} was acknowledged and is not {'stored' if message.valid else 'in quarantine'}"


def stored_twice(records: Sequence[Record], facts: Facts) -> Iterable[str]:
    """I2: by payload, which is of one message only, so that another id hides nothing."""
    times = Counter(payload for _, payload in facts.stored)
    for message in of(records, Sent):
        if times[message.payload] > 1:
            yield f"{message.id} is stored {times[message.payload]} times"


def unheard(records: Sequence[Record]) -> Iterable[str]:
    """I3: the run waits for all of them before it ends."""
    acked = {record.id for record in of(records, Acked)}
    for message in of(records, Sent):
        if message.id not in acked:
            yield f"{message.id} was sent until the end and never acknowledged"
    for left in of(records, Left):
        if left.exit_code != 0:
            yield f"the daemon left with {left.exit_code}"


def unfinished(facts: Facts) -> Iterable[str]:
    """I4: after the run came to rest."""
    yield from (f"observation {id} was never perceived" for id in facts.unperceived)
    yield from (f"percept {id} was never decided" for id in facts.undecided)


def endless(facts: Facts) -> Iterable[str]:
    """I5."""
    yield from (f"decision {id} has neither command nor outcome" for id in facts.unanswered)
    for command in facts.commands:
        if not command.statuses or command.statuses[-1] not in ENDS:
            yield f"command {command.id} ends with {command.statuses or 'nothing'}"


def doubled(records: Sequence[Record], facts: Facts) -> Iterable[str]:
    """I6: a command id took effect once, one observation moves an actuator once, `applied` was not made up."""
    effects = of(records, Effect)
    for (actuator, id), times in Counter((e.actuator, e.command) for e in effects).items():
        if times > 1:
            yield f"command {id} took effect {times} times at {actuator}"
    yield from fenced(of(records, Received))
    done = {effect.command for effect in effects}
    causes = Counter((c.cause, c.actuator) for c in facts.commands if c.cause and c.id in done)
    for (cause, actuator), times in causes.items():
        if times > 1:
            yield f"observation {cause} moved {actuator} {times} times"
    for command in facts.commands:
        if "applied" in command.statuses and command.id not in done:
            yield f"command {command.id} is called applied, but {command.actuator} never did it"
        if command.statuses.count("applied") > 1:
            yield f"command {command.id} was applied {command.statuses.count('applied')} times"


def fenced(received: Sequence[Received]) -> Iterable[str]:
    """Part of I6: every command carries a fence, and none a smaller one than a command before it at the same actuator."""
    highest: dict[str, int] = {}
    for one in received:
        if one.fence < max(1, highest.get(one.actuator, 1)):
            yield f"{one.command} came to {one.actuator} with the fence {one.fence}, after {highest.get(one.actuator, 'none')}"
        highest[one.actuator] = max(one.fence, highest.get(one.actuator, 0))


def late(records: Sequence[Record], lives: float) -> Iterable[str]:
    """I7: by the time it carries, with an allowance for the wire; by how long it is told again, for a clock that was wrong
    may have written that time; and nothing waits in the broker for whoever comes."""
    first: dict[str, float] = {}
    for received in of(records, Received):
        if received.retained:
            yield f"{received.command or 'a command'} is retained at the broker"
        elif received.at > received.not_after + LATE:
            yield f"{received.command} came {received.at - received.not_after:.1f} s after its time"
        elif received.at > first.setdefault(received.command, received.at) + 2 * lives + LATE:
            yield f"{received.command} is told again after {received.at - first[received.command]:.1f} s, and lives {lives:.1f} s"


def replayed(records: Sequence[Record], facts: Facts) -> Iterable[str]:
    """I8: it comes again with every subscription."""
    for kept in of(records, Kept):
        if kept.payload in facts.waking:
            yield f"{kept.payload.decode(errors='replace')} was decided on, and nobody said it now"


def spoilt(records: Sequence[Record], facts: Facts) -> Iterable[str]:
    """I9: after the daemon was started again, for what it holds in memory is what was trained."""
    for one in of(records, Spoilt):
        since = [place for place, adapter in facts.taught if adapter == one.adapter and place > one.decisions]
        if since:
            yield f"adapter {one.adapter} made {len(since)} decisions after its file was changed"


def outside(records: Sequence[Record], facts: Facts, envelope: Envelope) -> Iterable[str]:
    """I11: every value an actuator was told."""
    written = {command.id for command in facts.commands}
    for received in of(records, Received):
        if received.value not in envelope.values.get(received.actuator, frozenset()):
            yield f"{received.actuator} was told {received.value!r}"
        if received.command not in written:
            yield f"{received.command or 'a command without id'} reached {received.actuator} and is not in the journal"


def unaccounted(records: Sequence[Record], facts: Facts) -> Iterable[str]:
    """The identity, to the message: nothing in the journal that nobody sent, nothing valid in quarantine."""
    messages = of(records, Sent)
    valid = {message.payload for message in messages if message.valid} | {kept.payload for kept in of(records, Kept)}
    invalid = {message.payload for message in messages if not message.valid}
    stored = {payload for _, payload in facts.stored}
    yield from (f"{payload[:40]!r} is stored, but nobody sent it" for payload in stored - valid)
    yield from (f"{payload[:40]!r} is in quarantine without reason" for payload in set(facts.quarantined) - invalid)
    acked = {record.id for record in of(records, Acked)}
    arrived = sum(message.payload in stored for message in messages)
    quarantined = len(set(facts.quarantined) & invalid)
    under_way = sum(
        message.id not in acked and message.payload not in stored | set(facts.quarantined) for message in messages
    )
    if len(messages) != arrived + quarantined + under_way:
        yield f"{len(messages)} sent, {arrived} stored + {quarantined} quarantined + {under_way} on the way"


def unsynced(records: Sequence[Record]) -> Iterable[str]:
    """Only in a traced run: each event waited for the one before, so each needed a sync of its own."""
    for record in of(records, Synced):
        if record.syncs < record.events:
            yield f"{record.events} events one after the other, and {record.syncs} syncs of the journal"


def unproven(records: Sequence[Record]) -> Iterable[str]:
    """A nemesis that did nothing proves nothing."""
    for fault in of(records, Fault):
        if not fault.evidence:
            yield f"{fault.kind} left no evidence"
        if not fault.recovered:
            yield f"nothing was acknowledged any more after {fault.kind}"


def _finding(name: str, title: str, wrong: Sequence[str]) -> Finding:
    more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    detail = "; ".join(wrong[:NAMED]) + more
    return Finding(invariant=name, title=title, state="broken" if wrong else "ok", detail=detail)
