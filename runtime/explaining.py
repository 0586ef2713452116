"""Decision -> which pieces of its situation mattered: each is left out in turn, and the model is asked again (occlusion).

What counts is by how much the log-odds of the chosen action against the runner-up fall: with the memory as it is now, and by
the weights alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtime import pieces
from runtime.catalogue import Catalogue
from runtime.decision import considered
from runtime.errors import CorrigibleError, NotFound
from runtime.journal import Journal
from runtime.learning import trust
from runtime.learning.memory import Memory, unpacked
from runtime.learning.registry import Registry
from runtime.learning.trust import Belief, Trust
from runtime.lending import BASE, Policy, lent
from runtime.messages import Action, Decision
from runtime.pieces import Piece
from runtime.policy.protocol import Row
from runtime.situations import Catalogues

LIVE = 1e-3  # as closely as a decision looks


@dataclass(frozen=True)
class Voice:
    """Which weights are asked about a decision, how far they are trusted, and a sentence if they are not its own."""

    adapter: str
    directory: Path | None
    trusted: Trust
    fingerprint: tuple[float, ...] = ()
    note: str = ""


class Serving(Protocol):
    """What decides now."""

    adapter: str


class Explaining:
    """Asks the policy behind live decisions; changes nothing."""

    def __init__(
        self,
        journal: Journal,
        policy: Policy,
        catalogues: Catalogues,
        store: Registry,
        serving: Serving,
        memory: Memory | None,
    ) -> None:
        """`memory` is None where it is switched off."""
        self._journal, self._policy, self._catalogues = journal, policy, catalogues
        self._store, self._serving, self._memory = store, serving, memory

    async def mattered(self, decision: Decision) -> dict[str, Any]:
        """What every piece of the situation did for the action (log-odds in nats, None = not comparable); no pieces where
        there is only one."""
        percept = await self._journal.percept(decision.percept_id)
        if percept is None:
            raise NotFound(f"the situation of decision {decision.id} is not in the journal")
        voice, catalogue, action = (
            self.voice(decision.adapter),
            self._catalogues.of(decision.scope),
            decision.actions[0],
        )
        cut = pieces.cut(percept.text, percept.fields)
        texts = [percept.text, *(piece.rest for piece in cut)]
        gold = [] if catalogue.closed else [action] * len(texts)
        async with lent(self._policy, voice.directory, voice.fingerprint) as name:
            rows = await self._policy.score(texts, catalogue, name, floor=LIVE, feature=True, gold=gold)
        beliefs = [believed(decision.scope, row, self._memory, voice.trusted, voice.adapter) for row in rows]
        return {"adapter": voice.adapter, "note": voice.note, **_weighed(action, catalogue, cut, rows, beliefs)}

    def voice(self, adapter: str) -> Voice:
        """The weights that decided if they are still there, else those that serve; in the end the base model."""
        note = ""
        for name in dict.fromkeys((adapter, self._serving.adapter)):
            if name == BASE:
                return Voice(BASE, None, trust.BASE, note=note)
            try:
                manifest = self._store.verify(name)
            except CorrigibleError:
                note = f"{adapter} is no longer on disk; asked instead: what serves now"
                continue
            trusted = trust.trust_of(manifest.scores)
            return Voice(name, self._store.directory(name), trusted, manifest.fingerprint, note)
        return Voice(BASE, None, trust.BASE, note=f"{adapter} is no longer on disk; asked instead: the base model")


def believed(scope: str, row: Row, memory: Memory | None, trusted: Trust, version: str = "") -> Belief:
    """As a decision of these weights (`version`) would believe it, with this memory."""
    recalled = memory.recall(scope, unpacked(row.feature), version) if memory is not None and row.feature else None
    return trust.believe(*considered(row), recalled, trusted)


def _weighed(
    action: Action, catalogue: Catalogue, cut: Sequence[Piece], rows: Sequence[Row], beliefs: Sequence[Belief]
) -> dict[str, Any]:
    """The first row and belief are of the whole situation, the others of what is left without each piece."""
    whole, *without = beliefs
    if rows[0].log_p_gold is not None and action not in rows[0].actions:  # words of its own: there is no runner-up
        gold = [row.log_p_gold or 0.0 for row in rows]
        falls = [{"both": None, "weights": gold[0] - left, "instead": ""} for left in gold[1:]]
        return {"action": catalogue.render(action), "against": "", **_shown(cut, falls)}
    if len(whole.actions) < 2:
        return {"action": "", "against": "", "pieces": []}
    chosen = whole.actions.index(action) if action in whole.actions else whole.best  # it asked, or was overruled
    rival = max((i for i in range(len(whole.actions)) if i != chosen), key=whole.log_both.__getitem__)
    pair = whole.actions[chosen], whole.actions[rival]
    falls = []
    for left in without:
        instead = "" if left.chosen == whole.chosen else catalogue.render(left.chosen)
        falls.append({**_fall(whole, left, *pair), "instead": instead})
    return {"action": catalogue.render(pair[0]), "against": catalogue.render(pair[1]), **_shown(cut, falls)}


def _fall(whole: Belief, left: Belief, chosen: Action, rival: Action) -> dict[str, float | None]:
    """By how much the log-odds fall; None where one of the two is not considered any more, as words that are written anew
    may not be. (`log_p_gold` is no help: it is of the whole vocabulary, not of what the grammar allows.)"""
    if chosen not in left.actions or rival not in left.actions:
        return {"both": None, "weights": None}
    both, weights = _odds(whole, chosen, rival)
    both_left, weights_left = _odds(left, chosen, rival)
    return {"both": both - both_left, "weights": weights - weights_left}


def _odds(belief: Belief, chosen: Action, rival: Action) -> tuple[float, float]:
    """Log-odds of the one against the other: both judges together, and the weights alone."""
    a, b = belief.actions.index(chosen), belief.actions.index(rival)
    return belief.log_both[a] - belief.log_both[b], belief.log_model[a] - belief.log_model[b]


def _shown(cut: Sequence[Piece], falls: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"pieces": [{"text": piece.text, **fall} for piece, fall in zip(cut, falls, strict=True)]}
