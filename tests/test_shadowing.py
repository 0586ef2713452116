"""A candidate is watched in silence before it takes part, and the chances of what both decide together are noted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from runtime.bus import Bus
from runtime.catalogue import Catalogue
from runtime.config import PolicyConfig
from runtime.decision import Decider, Serving
from runtime.errors import Unavailable
from runtime.journal import Journal
from runtime.learning import ladder
from runtime.learning.evidence import CHANCES
from runtime.learning.trust import BASE
from runtime.messages import Action, Decision, Release
from runtime.metrics import Metrics
from runtime.policy.protocol import Row
from runtime.shadowing import Shadowing
from runtime.situations import Catalogues
from runtime.table import CorrectionTable
from tests.stages import BRIGHT, DIM, LAMP, TableModel, percept

CATALOGUES = Catalogues([{"room": (LAMP,)}])
SHADOW = 3


@dataclass
class Versions:
    """Each version has one answer to everything."""

    answers: dict[str, Action]
    asked: list[str] = field(default_factory=list)

    async def score_one(self, text: str, catalogue: Catalogue, adapter: str, *, feature: bool = False) -> Row:
        if adapter not in self.answers:
            raise Unavailable(f"{adapter} is not loaded")
        return await TableModel(self.answers[adapter]).score_one(text, catalogue, adapter)

    async def score(
        self, texts: Sequence[str], catalogue: Catalogue, adapter: str, *, feature: bool = False
    ) -> list[Row]:
        self.asked.append(adapter)
        return [await self.score_one(text, catalogue, adapter) for text in texts]


@dataclass
class House:
    """The release `new` against `old`, seen as it is after a restart: only the journal is remembered."""

    journal: Journal
    models: Versions
    serving: Serving
    settings: dict[str, Any] = field(default_factory=dict)
    number: int = 0

    @property
    def decider(self) -> Decider:
        return Decider(
            self.journal, Bus(), self.models, CATALOGUES, CorrectionTable(), self.serving, PolicyConfig(**self.settings),
            Metrics(), clock=lambda: 5.0, seed=self.number,
        )  # fmt: skip

    def take_part(self, release: Release) -> None:
        self.serving.share = 0.5

    @property
    def stage(self) -> Shadowing:
        return Shadowing(self.journal, self.models, CATALOGUES, self.serving, self.decider, self, clock=lambda: 5.0)

    async def decides(self, **changes: Any) -> Decision:
        self.number += 1
        said = percept(self.number, f"situation {self.number}")
        made = replace(await self.decider.decide(said), **changes)
        await self.journal.put(said, made)
        await self.stage.watch(made)
        return made

    async def watched(self) -> tuple[int, int]:
        newest = await self.journal.serving()
        assert newest is not None
        watch = await ladder.watched(self.journal, newest)
        return watch.situations, watch.differ


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    serving = Serving("new")
    serving.against, serving.share = ("old", BASE), 0.0
    async with Journal.open(tmp_path / "j.db") as journal:
        await journal.put(
            Release(
                id="re-1", adapter="new", previous="old", why="gate", provisional=True, against="old", shadow=SHADOW, at=1.0
            )
        )  # fmt: skip
        yield House(journal, Versions({"new": DIM, "old": BRIGHT}), serving)


async def test_in_shadow_only_the_old_version_acts_until_enough_was_watched(house: House) -> None:
    for count in range(SHADOW):
        assert house.serving.share == 0.0
        assert (await house.decides()).adapter == "old"
        assert await house.watched() == (count + 1, count + 1)
    assert house.serving.share == 0.5
    assert set(house.models.asked) == {"new"}, "in silence"
    decided = {(await house.decides()).adapter for _ in range(20)}
    assert decided == {"new", "old"}


async def test_what_both_would_do_is_no_difference(house: House) -> None:
    house.models.answers["new"] = BRIGHT
    await house.decides()
    assert await house.watched() == (1, 0)


async def test_what_does_not_compare_the_two_is_not_counted(house: House) -> None:
    """The table's answers, and what was decided before the release or by a third version."""
    await house.decides(by="table")
    await house.decides(at=0.5)
    await house.decides(adapter="older")
    assert await house.watched() == (0, 0)


async def test_a_version_that_cannot_be_asked_stays_in_shadow(house: House) -> None:
    del house.models.answers["new"]
    with pytest.raises(Unavailable):
        await house.decides()
    assert (await house.watched(), house.serving.share) == ((0, 0), 0.0)


async def chances(house: House) -> dict[str, float]:
    return dict(cast(list[tuple[str, float]], await house.journal.metadata(CHANCES) or []))


async def test_the_chance_of_a_shared_decision_is_that_of_both_together(house: House) -> None:
    for _ in range(SHADOW):
        await house.decides()
    assert await chances(house) == {}, "in shadow nobody drew lots"
    made = [await house.decides() for _ in range(4)]
    assert await chances(house) == {one.id: 0.5 for one in made}
    house.models.answers["new"] = BRIGHT
    agreed = await house.decides()
    assert agreed.id not in await chances(house), "both would have done it: it was certain"


async def test_exploring_and_sharing_are_one_chance(house: House) -> None:
    """Each explores a little: the lot decides whose best it is."""
    house.settings = {"explore": 0.3, "explore_among": ["lamp"]}
    for _ in range(SHADOW):
        await house.decides()
    made = [await house.decides() for _ in range(20)]
    noted = await chances(house)
    uniform = 0.3 / 3
    for one in made:
        best = {"new": DIM, "old": BRIGHT}
        expected = sum(0.5 * (uniform + 0.7 * (one.actions[0] == action)) for action in best.values())
        assert noted.get(one.id, one.p_behaviour) == pytest.approx(expected)
