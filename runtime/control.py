"""What people and programs may ask of a running daemon (or, with it down, of its journal): the console and CLI stand on this."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from msgspec import to_builtins

from runtime import __version__
from runtime.action import Acting
from runtime.apprentice import Apprentice
from runtime.bus import Bus, Subscription
from runtime.catalogue import REPLY
from runtime.config import Config, Mode
from runtime.counterfactual import Counterfactuals, named
from runtime.decision import Decider
from runtime.doubting import Doubts
from runtime.drifting import KEY as DRIFT
from runtime.errors import BadInput, NotFound, Unavailable
from runtime.explaining import Explaining
from runtime.guard import Modes
from runtime.ingest import TEXT, Ingest
from runtime.journal import Journal
from runtime.learning import ladder
from runtime.learning.doubt import Doubted
from runtime.learning.learner import Learner
from runtime.learning.registry import Registry
from runtime.learning.releases import Releases
from runtime.learning.unlearning import Unlearning
from runtime.messages import (
    Action,
    Cycle,
    Decision,
    Feedback,
    Message,
    Observation,
    Outcome,
    Release,
    new_id,
)
from runtime.remembering import Remembering
from runtime.retracting import Retracting
from runtime.roles import observe
from runtime.satisfaction import Satisfaction
from runtime.situations import Catalogues
from runtime.versions import Versions

CHOICES = 200  # actions offered for a correction
MODES_KEY = "modes"
SAY_TIMEOUT = 90.0  # seconds a person waits for an answer
MODE_NAMES = ("observe", "apprentice", "confirm", "act")


class Control:
    """Every method checks its input, does one thing, and raises a CorrigibleError that can be shown as it is."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        bus: Bus,
        catalogues: Catalogues,
        ingest: Ingest,
        decider: Decider,
        acting: Acting,
        modes: Modes,
        learner: Learner,
        releases: Releases,
        unlearning: Unlearning,
        store: Registry,
        remembering: Remembering,
        doubts: Doubts,
        apprentice: Apprentice,
        restore_taught: Callable[[], Awaitable[None]],
        explaining: Explaining,
        versions: Versions,
        counterfactuals: Counterfactuals,
        *,
        health: Callable[[], dict[str, Any]],
        topics: Callable[[], dict[str, Any]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._journal = journal
        self._bus = bus
        self._catalogues = catalogues
        self._ingest = ingest
        self._decider = decider
        self._acting = acting
        self._modes = modes
        self._learner, self._releases = learner, releases
        self._store = store
        self._remembering = remembering
        self._doubts = doubts
        self._apprentice = apprentice
        self._retracting = Retracting(journal, ingest, remembering, unlearning, restore_taught, clock)
        self._explaining, self._versions, self._counterfactuals = explaining, versions, counterfactuals
        self._health = health
        self._topics = topics
        self._clock = clock
        self._started = clock()
        self._satisfaction = Satisfaction(journal, clock)

    # --- looking ------------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        release = await self._journal.serving()
        cycles = await self._journal.cycles(1)
        cycle = self._learner.current or (cycles[0] if cycles else None)
        return {
            "agent": self._config.agent.name,
            "pid": os.getpid(),
            "version": __version__,
            "uptime": round(self._clock() - self._started, 1),
            "adapter": release.adapter if release else "base",
            "provisional": bool(release and release.provisional),
            **await self._rung(release),
            "changes": cycle.report.get("drift") if cycle else None,
            "why": release.reason if release else "",
            "modes": await self.modes(),
            "apprentice": await self._apprentice.report(),
            "kill": self._acting.guard.killed,
            "drift": await self._drift(),
            "doubted": len(self._doubts.found.doubted),
            "distrusted": list(self._doubts.found.sources),
            "table": self._decider.table_on,
            "memory": self._decider.memory_on,
            "satisfaction": to_builtins((await self._satisfaction.lately()).lately),
            "counts": await self._journal.counts(),
            "cycle": to_builtins(cycle) if cycle else None,
            "feedback_since": await self._journal.feedback_since(cycle.started_at if cycle else 0.0),
            **self._health(),
        }

    async def _rung(self, release: Release | None) -> dict[str, Any]:
        """On which rung what serves stands, what it waits for, and how its trial goes."""
        if release is None:
            return {"rung": "full", "waits_for": "", "trial": None}
        watch = await ladder.watched(self._journal, release)
        trial = await ladder.tried(self._journal, release, watch)
        rung = ladder.rung(release, watch)
        return {
            "rung": rung,
            "waits_for": "" if rung == "full" else ladder.says(release, watch, trial, self._config.gate.share),
            "trial": to_builtins(trial) if trial.events else None,
        }

    async def _drift(self) -> dict[str, Any] | None:
        """The last change of what people say or of what comes in, and whether a cycle has learnt since."""
        found = await self._journal.metadata(DRIFT)
        return {**found, "learnt": await self._journal.learnt_at() >= found["at"]} if found else None

    async def decisions(self, limit: int = 50, before: str = "", scope: str = "") -> list[dict[str, Any]]:
        found = await self._journal.decisions(limit=limit, before=before or None, scope=scope or None)
        return [await self.row(decision) for decision in found]

    async def row(self, decision: Decision) -> dict[str, Any]:
        """A decision as a person sees it in a list."""
        percept = await self._journal.percept(decision.percept_id)
        outcomes = await self._journal.outcomes_of(decision.id)
        feedback = await self._journal.feedback_of(decision.id)
        newest = outcomes[-1] if outcomes else None
        return {
            "id": decision.id,
            "at": decision.at,
            "scope": decision.scope,
            "text": percept.text if percept else "",
            "action": self._text(decision.scope, decision.actions[0]),
            "by": decision.by,
            "adapter": decision.adapter,
            "p_model": decision.p_model,
            "outcome": newest.status if newest else "",
            "reason": newest.reason if newest else "",
            "feedback": [f.kind for f in feedback],
            "chance": decision.chance,
            "question": [self._text(decision.scope, action) for action in decision.choices],
            "choices": [self._text(decision.scope, a) for a in self._catalogues.of(decision.scope).finite()[:CHOICES]],
        }

    async def explain(self, decision_id: str) -> dict[str, Any]:
        decision = await self._need(decision_id)
        percept = await self._journal.percept(decision.percept_id)
        taught = await self._journal.feedback(decision.table_feedback) if decision.table_feedback else None
        return {
            **await self.row(decision),
            "candidates": self._candidates(decision),
            "remembered": await self._remembered(decision, percept.text) if percept and decision.candidates else [],
            "plausible": [self._text(decision.scope, action) for action in decision.plausible],
            "p_behaviour": decision.p_behaviour,
            "note": decision.note,
            "table": {
                "feedback_id": decision.table_feedback,
                "source": taught.source if taught else "",
                "at": taught.at if taught else None,
            }
            if decision.table_feedback
            else None,
            "timings_ms": decision.timings_ms,
            "fields": to_builtins(percept.fields) if percept else {},
            "causes": list(percept.causes) if percept else [],
            "outcomes": to_builtins(await self._journal.outcomes_of(decision_id)),
            "given": to_builtins(await self._journal.feedback_of(decision_id)),
            "lineage": self._lineage(decision.adapter),
        }

    async def mattered(self, decision_id: str) -> dict[str, Any]:
        """Which pieces of the situation mattered for a decision: the model is asked again without each."""
        return await self._explaining.mattered(await self._need(decision_id))

    async def prove(self, decision_id: str) -> dict[str, Any]:
        """Begin to train without the lessons that caused a decision; `proof` says how far it is."""
        return self._counterfactuals.ask(await self._need(decision_id))

    async def proof(self, decision_id: str) -> dict[str, Any]:
        return self._counterfactuals.told(decision_id)

    def _candidates(self, decision: Decision) -> list[dict[str, Any]]:
        rows = [
            {
                "action": self._text(decision.scope, c.action),
                "p": _chance(c.log_both),
                "p_model": _chance(c.log_model),
                "p_memory": _chance(c.log_memory),
                "log_model": c.log_model,
            }
            for c in decision.candidates
        ]
        return sorted(rows, key=lambda row: -(row["p"] or 0.0))

    async def _remembered(self, decision: Decision, text: str) -> list[dict[str, Any]]:
        """What people taught that speaks for this action now, the strongest first; `named` are its causes."""
        known = [
            (lesson, part, await self._journal.feedback(lesson.id))
            for lesson, part in await self._remembering.causes(decision.scope, text, decision.actions[0])
        ]
        in_time = [(lesson, part) for lesson, part, given in known if given and given.at <= decision.at]
        causes = {lesson.id for lesson in named(in_time)}
        found = []
        for lesson, part, given in known:
            found.append(
                {
                    "text": lesson.text,
                    "part": part,
                    "named": lesson.id in causes,
                    "feedback_id": lesson.id,
                    "source": given.source if given else "",
                    "at": given.at if given else None,
                }
            )
        return found

    def _lineage(self, adapter: str) -> dict[str, Any] | None:
        if adapter == "base":
            return None
        with suppress(NotFound):
            manifest = to_builtins(self._store.manifest(adapter))
            return {**manifest, "lineage": len(manifest.get("lineage", ()))}
        return {"id": adapter, "note": "no longer on disk"}

    async def cycles(self, limit: int = 20) -> list[dict[str, Any]]:
        return [to_builtins(cycle) for cycle in await self._journal.cycles(limit)]

    async def curve(self) -> list[list[float]]:
        return [list(point) for point in await self._journal.curve()]

    async def satisfaction(self, days: float = 0.0) -> dict[str, Any]:
        """Are people content: over the last `days` days, in all, and with every version. 0 = the usual days, and what was
        found within the last minute will do."""
        if not 0.0 <= days < math.inf:
            raise BadInput(f"days is a number above 0, not {days:g}")
        found = await (self._satisfaction.report(days) if days else self._satisfaction.lately())
        return dict(to_builtins(found))

    async def topics(self) -> dict[str, Any]:
        return self._topics()

    async def modes(self) -> dict[str, str]:
        return {actuator: self._modes.of(actuator) for actuator in sorted(self._catalogues.actuators)}

    async def held(self) -> list[dict[str, Any]]:
        return [
            {
                "command_id": command.id,
                "actuator": command.actuator,
                "decision_id": command.decision_id,
                "action": self._text_of(command.decision_id, command.action),
                "expires_at": command.expires_at,
            }
            for command in self._acting.held
        ]

    def subscribe(self) -> Subscription[Message]:
        return self._bus.subscribe(Decision, Outcome, Feedback, Cycle, Release, lossy=True)

    # --- saying -------------------------------------------------------------------------------------------------

    async def feedback(
        self,
        decision_id: str,
        kind: str,
        *,
        action: str = "",
        rejected: str = "",
        rating: float | None = None,
        source: str = "person",
        note: str = "",
        id: str = "",
    ) -> dict[str, Any]:
        if kind not in ("correction", "acceptance", "rating", "preference"):
            raise BadInput(f"a person gives a correction, an acceptance, a rating or a preference, not {kind!r}")
        feedback = Feedback(
            id=id or new_id("fb"),
            decision_id=decision_id,
            kind=kind,  # type: ignore[arg-type]
            source=source or "person",
            at=self._clock(),
            action=_written(action),
            rejected=_written(rejected),
            rating=rating,
            note=note,
        )
        await self._ingest.emit(feedback)
        return {"id": feedback.id, "decision_id": decision_id, "kind": kind}

    async def forget(
        self, decision_id: str = "", source: str = "", since: float | None = None, until: float | None = None
    ) -> dict[str, Any]:
        """Take feedback back: of a decision (or one feedback, by its id), a source, a time, or all that is named at once.
        What was learnt from it is unlearnt: from the table and the memory now, from the weights by a cycle without it."""
        return await self._retracting.forget(decision_id, source, since, until)

    async def edit(self, feedback_id: str, action: str = "", accept: bool = False, note: str = "") -> dict[str, Any]:
        """Change what was said: the old word is taken back and the new one said, at once."""
        return await self._retracting.edit(feedback_id, action=action, accept=accept, note=note)

    async def sources(self) -> list[dict[str, Any]]:
        """Who teaches, how far each is trusted, and how much of what is learnt is theirs."""
        return await self._doubts.sources(self._config.learner)

    async def doubted(self) -> list[dict[str, Any]]:
        """Feedback that is kept but not learnt from, and why."""
        return [await self._doubt(doubted) for doubted in self._doubts.found.doubted]

    async def _doubt(self, doubted: Doubted) -> dict[str, Any]:
        feedback = await self._journal.feedback(doubted.feedback_id)
        decision = await self._journal.decision(feedback.decision_id) if feedback else None
        percept = await self._journal.percept(decision.percept_id) if decision else None
        said = feedback.action if feedback and feedback.action else decision.actions[0] if decision else None
        return {
            **to_builtins(doubted),
            "text": percept.text if percept else "",
            "said": self._text(decision.scope, said) if decision and said else "",
        }

    async def vouch(self, names: list[str]) -> dict[str, Any]:
        """Somebody answers for doubted feedback (by id), or for all that a source says: it is learnt from again."""
        known = {name for doubted in self._doubts.found.doubted for name in (doubted.feedback_id, doubted.source)}
        unknown = sorted(set(names) - known)
        if not names or unknown:
            raise NotFound(f"nothing of {', '.join(unknown) or 'nobody'} is doubted; `corrigible doubts` lists what is")
        await self._doubts.vouch(*names)
        return {"vouched": names, "doubted": len(self._doubts.found.doubted)}

    async def say(self, text: str, scope: str = "chat", who: str = "") -> dict[str, Any]:
        """Hand a person's words in and wait for the decision."""
        if not text.strip():
            raise BadInput("there is nothing to answer: the text is empty")
        if scope not in self._catalogues.scopes:
            raise NotFound(
                f"there is no scope {scope!r}; the scopes are {', '.join(self._catalogues.scopes) or 'none'}"
            )
        body = {"input": text} if scope == "chat" else {"says": text, **({"who": who} if who else {})}
        message = observe(f"say/{scope}/speech", body, at=self._clock(), source=who or "console")
        with self._bus.subscribe(Decision, lossy=True) as decisions:
            await self._ingest.emit(message)
            decision = await self._answer(decisions, message)
        row = await self.row(decision)
        reply = decision.actions[0].arguments.get("text", "") if decision.actions[0].tool == REPLY.name else ""
        return {**row, "reply": reply}

    async def _answer(self, decisions: Subscription[Decision], message: Observation) -> Decision:
        try:
            async with asyncio.timeout(SAY_TIMEOUT):
                async for decision in decisions:
                    percept = await self._journal.percept(decision.percept_id)
                    if percept is not None and message.id in percept.causes:
                        return decision
        except TimeoutError:
            pass
        raise Unavailable(f"no decision within {SAY_TIMEOUT:g} s; see `corrigible status`")

    # --- switching ----------------------------------------------------------------------------------------------

    async def set_mode(self, actuator: str, mode: str) -> dict[str, Any]:
        if mode not in MODE_NAMES:
            raise BadInput(f"there is no mode {mode!r}; the modes are {', '.join(MODE_NAMES)}")
        if actuator not in self._catalogues.actuators:
            raise NotFound(
                f"there is no actuator {actuator!r}; the actuators are {', '.join(sorted(self._catalogues.actuators))}"
            )
        switched: dict[str, Mode] = {**self._modes.switched, actuator: mode}  # type: ignore[dict-item]
        await self._journal.set_metadata(MODES_KEY, to_builtins(switched))
        self._modes.switched = switched
        return {"actuator": actuator, "mode": mode}

    async def set_table(self, on: bool) -> dict[str, Any]:
        """Switch the exact-match table for now (`[policy] table` holds again after a restart)."""
        self._decider.table_on = on
        return {"table": on}

    async def set_memory(self, on: bool) -> dict[str, Any]:
        """Let the memory of similar situations take part in decisions, or not, for now (`[policy] memory` holds again after a
        restart). It goes on remembering meanwhile."""
        if on and not self._config.policy.memory:
            raise Unavailable("there is no memory to switch on: [policy] memory is false; set it and start again")
        self._decider.memory_on = on
        return {"memory": on}

    async def kill(self, on: bool) -> dict[str, Any]:
        await asyncio.to_thread(self._acting.guard.kill, on)
        return {"kill": on}

    async def approve(self, command_id: str, yes: bool) -> dict[str, Any]:
        await self._acting.approve(command_id, yes)
        return {"command_id": command_id, "approved": yes}

    async def learn(self) -> dict[str, Any]:
        if self._learner.current is not None:
            return {"started": False, "why": f"cycle {self._learner.current.id} is running"}
        self._learner.ask()
        return {"started": True}

    async def adapters(self) -> list[dict[str, Any]]:
        serving = await self._journal.serving()
        now = serving.adapter if serving else "base"
        rows = [{"id": "base", "serving": now == "base", "provisional": False}]
        for manifest in self._store.list():
            row = to_builtins(manifest)
            provisional = bool(serving and serving.provisional and serving.adapter == manifest.id)
            rows.append(
                {
                    **row,
                    "serving": manifest.id == now,
                    "provisional": provisional,
                    "lineage": len(row.get("lineage", ())),
                }
            )
        return rows

    async def adapter(self, id: str) -> dict[str, Any]:
        return dict(to_builtins(self._store.manifest(id)))

    async def changes(self, id: str, since: str = "") -> dict[str, Any]:
        """How a version differs from another, or from the one before it."""
        return await self._versions.changes(id, since)

    async def promote(self, id: str) -> dict[str, Any]:
        return dict(to_builtins(await self._releases.release(id, why="promote", by="person")))

    async def rollback(self) -> dict[str, Any]:
        return dict(to_builtins(await self._releases.rollback(by="person")))

    # --- helpers ------------------------------------------------------------------------------------------------

    async def _need(self, decision_id: str) -> Decision:
        decision = await self._journal.decision(decision_id)
        if decision is None:
            raise NotFound(f"there is no decision {decision_id!r}; `corrigible decisions` lists the newest")
        return decision

    def _text(self, scope: str, action: Action) -> str:
        with suppress(BadInput):
            return self._catalogues.of(scope).render(action)
        return f"{action.tool} {action.arguments}" if action.arguments else action.tool

    def _text_of(self, decision_id: str, action: Action) -> str:
        return f"{action.tool} {' '.join(map(str, action.arguments.values()))}".strip()


def _written(text: str) -> Action | None:
    """An action that a person wrote; the door reads it against the decision's catalogue."""
    return Action(tool=TEXT, arguments={"text": text}) if text else None


def _chance(log_p: float | None) -> float | None:
    return math.exp(log_p) if log_p is not None else None
