"""JOURNAL, versions, policy -> the proof that what was taken back is unlearnt, in figures that a person can check.

No version on disk names a forgotten word in its lineage, so none was trained on it (every version is made anew from the base
model). What else became of it is shown: the cases that must pass and some situations that people still stand by are asked
before and after, by the weights alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Protocol

from runtime.catalogue import Catalogue
from runtime.errors import CorrigibleError
from runtime.journal import Journal
from runtime.learning.cases import Case
from runtime.learning.duplicates import merged
from runtime.learning.registry import Registry
from runtime.messages import Action, Message
from runtime.situations import Catalogues

REFERENCE = 50  # situations asked before and after
NOTHING = "no version had to be made anew"
SHOWN = 20  # changes that are named

Situation = tuple[str, str]  # scope, text
Answers = dict[Situation, str]  # as the catalogue writes them


class Scored(Protocol):
    @property
    def chosen(self) -> Action: ...


class Scorer(Protocol):
    async def score(self, texts: Sequence[str], catalogue: Catalogue, adapter: str) -> Sequence[Scored]: ...


class Proof(Message, frozen=True, kw_only=True):
    """`holds`: nothing that is left was taught by what was forgotten."""

    holds: bool
    forgotten: int  # words that were taken back, in all
    serving: str
    named: int  # of them in the lineage of what serves
    versions: int  # on disk
    tainted: tuple[str, ...] = ()  # versions on disk whose lineage names one of them
    removed: tuple[str, ...] = ()  # versions that went for it
    cases: int = 0  # that must pass, asked before and after
    cases_changed: tuple[str, ...] = ()
    reference: int = 0  # other situations asked before and after
    reference_changed: int = 0
    changed: tuple[str, ...] = ()  # the first of them, as sentences
    unasked: str = ""  # why nothing was asked


class Proving:
    """`begin` asks what serves before the rebuild; `proof` asks again and compares."""

    def __init__(
        self, journal: Journal, policy: Scorer, catalogues: Catalogues, store: Registry, cases: Sequence[Case]
    ) -> None:
        self._journal, self._policy, self._catalogues, self._store = journal, policy, catalogues, store
        self._cases = [(case.scope, case.text) for case in cases]
        self._before: Answers = {}
        self._unasked = NOTHING

    async def begin(self, adapter: str) -> None:
        """What this version says, as long as it is there."""
        self._unasked = ""
        standing = merged(await self._journal.words(REFERENCE * 4))[-REFERENCE:]
        self._before = await self._answers([*self._cases, *((e.scope, e.text) for e in standing)], adapter)

    async def proof(self, adapter: str, removed: Collection[str] = ()) -> Proof:
        """Of what `adapter`, which serves now, and all versions on disk were taught."""
        forgotten = await self._journal.forgotten()
        lineages = {manifest.id: frozenset(manifest.lineage) for manifest in self._store.list()}
        tainted = tuple(sorted(id for id, lineage in lineages.items() if lineage & forgotten))
        before, self._before = self._before, {}
        after = await self._answers(list(before), adapter)
        changed = [key for key in after if after[key] != before[key]]
        told = [f"{key[0]}: {key[1]!r} -> {after[key]}, before {before[key]}" for key in changed]
        cases = {key for key in self._cases if key in after}
        broken = tuple(line for key, line in zip(changed, told, strict=True) if key in cases)
        others = [line for key, line in zip(changed, told, strict=True) if key not in cases]
        unasked, self._unasked = self._unasked, NOTHING
        return Proof(
            holds=not tainted, forgotten=len(forgotten), serving=adapter, versions=len(lineages), tainted=tainted,
            named=len(lineages.get(adapter, frozenset()) & forgotten), removed=tuple(removed),
            cases=len(cases), cases_changed=broken,
            reference=len(after) - len(cases), reference_changed=len(others), changed=tuple(others[:SHOWN]),
            unasked=unasked,
        )  # fmt: skip

    async def _answers(self, situations: Sequence[Situation], adapter: str) -> Answers:
        """By the weights alone; nothing if the policy cannot be asked."""
        by_scope: defaultdict[str, list[str]] = defaultdict(list)
        for scope, text in dict.fromkeys(situations):
            if scope in self._catalogues.scopes:
                by_scope[scope].append(text)
        found: Answers = {}
        try:
            for scope, texts in by_scope.items():
                catalogue = self._catalogues.of(scope)
                rows = await self._policy.score(texts, catalogue, adapter)
                found |= {(scope, t): catalogue.render(row.chosen) for t, row in zip(texts, rows, strict=True)}
        except CorrigibleError as error:
            self._unasked = str(error)
            return {}
        return found
