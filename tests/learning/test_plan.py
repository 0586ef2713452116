"""What a cycle trains: everything while there is time for it, else the new on top of what serves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.config import LearnerConfig
from runtime.learning import plan
from runtime.messages import Action, Cycle, Example

WAIT = Action(tool="nothing")


def examples(count: int, prefix: str = "old") -> list[Example]:
    return [Example(id=f"{prefix}-{n}", scope="s", text=f"{prefix} {n}", action=WAIT, at=1.0) for n in range(count)]


def settings(budget: float = 10.0) -> LearnerConfig:
    return LearnerConfig(budget=budget, epochs=4, batch=8, min_steps=80, lr=2e-3)


OLD, NEW = examples(1000), examples(20, "new")
TRAINED = frozenset(e.id for e in OLD)


def test_too_many_for_the_budget_go_on_from_the_champion() -> None:
    planned = plan.make([*OLD, *NEW], settings(), speed=40.0, champion="c", trained=TRAINED)
    assert planned.partial
    assert {e.id for e in NEW} <= {e.id for e in planned.train}
    assert len(planned.train) * 4 <= 400  # passes that ten seconds have room for
    assert planned.settings.start == "c"
    assert planned.settings.lr < settings().lr


def test_everything_is_trained_where_there_is_time_or_nothing_to_go_on_from() -> None:
    known = {"speed": 40.0, "champion": "c", "trained": TRAINED}
    whole = (tuple([*OLD, *NEW]), settings())
    assert plan.make([*OLD, *NEW], settings(), **{**known, "champion": ""}) == plan.Plan(*whole)  # type: ignore[arg-type]
    assert not plan.make([*OLD, *NEW], settings(), **{**known, "speed": 0.0}).partial  # type: ignore[arg-type]
    assert not plan.make([*OLD, *NEW], settings(), **{**known, "speed": 1e4}).partial  # type: ignore[arg-type]
    assert not plan.make([*OLD, *NEW], settings(0.0), **known).partial  # type: ignore[arg-type]
    assert not plan.make(OLD, settings(), **known).partial  # type: ignore[arg-type]


@given(st.integers(0, 300), st.integers(1, 100), st.floats(0.1, 1000))
def test_the_new_are_always_in_it_with_as_many_old_beside_them(old: int, new: int, speed: float) -> None:
    known, fresh = examples(old), examples(new, "new")
    planned = plan.make([*known, *fresh], settings(), speed=speed, champion="c", trained={e.id for e in known})
    chosen = {e.id for e in planned.train}
    assert {e.id for e in fresh} <= chosen
    assert len(chosen) - new >= min(old, new)
    assert [e.id for e in planned.train] == [e.id for e in (*known, *fresh) if e.id in chosen]  # in order


def test_speed_is_that_of_the_newest_cycle_that_trained() -> None:
    def cycle(**report: float) -> Cycle:
        return Cycle(id="c", state="failed", started_at=0.0, report=report)

    assert plan.speed([cycle(), cycle(examples_per_second=7.0), cycle(examples_per_second=9.0)]) == 7.0
    assert plan.speed([cycle()]) == 0.0


def test_few_examples_are_gone_over_more_often() -> None:
    settings = LearnerConfig(epochs=4, seen=10_000)
    assert [plan.epochs(count, settings) for count in (1, 770, 1000, 2000, 6000)] == [12, 12, 10, 5, 4]
    assert plan.epochs(5, LearnerConfig(epochs=4, seen=0)) == 4
