"""The bus: in order, nothing missed from the moment of subscribing, a stage's fullness waits, a watcher's loses."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.bus import Bus, Subscription
from runtime.messages import Decision, Percept
from tests.stages import BRIGHT, decision, percept

SAFETY = 20.0  # seconds after which a test that hangs is ended


async def read(subscription: Subscription[Percept], count: int) -> list[str]:
    async with asyncio.timeout(SAFETY):
        return [(await subscription.get()).id for _ in range(count)]


async def is_waiting(task: asyncio.Task[None]) -> bool:
    """Whether a task still waits after it had every chance to go on."""
    for _ in range(10):
        await asyncio.sleep(0)
    return not task.done()


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 5), steps=st.lists(st.sampled_from(["publish", "read"]), max_size=40), readers=st.integers(1, 3)
)
def test_every_stage_gets_everything_once_in_order(size: int, steps: list[str], readers: int) -> None:
    async def loop() -> None:
        bus = Bus()
        stages = [bus.subscribe(Percept, size=size) for _ in range(readers)]
        sent = [percept(number) for number in range(steps.count("publish"))]

        async def publish() -> None:
            for message in sent:
                await bus.publish(message)

        publishing = asyncio.create_task(publish())
        got = await asyncio.gather(*(read(stage, len(sent)) for stage in stages))
        await publishing
        assert got == [[message.id for message in sent]] * readers
        assert bus.backlog == 0

    asyncio.run(loop())


async def test_only_the_types_that_were_subscribed_to() -> None:
    bus = Bus()
    percepts, both = bus.subscribe(Percept), bus.subscribe(Percept, Decision)
    await bus.publish(decision(1, BRIGHT, 1.0))
    await bus.publish(percept(1))
    assert (len(percepts), len(both)) == (1, 2)
    assert bus.published == 2


async def test_a_publisher_waits_for_a_full_stage() -> None:
    bus = Bus()
    stage = bus.subscribe(Percept, size=1)
    await bus.publish(percept(1))
    publishing = asyncio.create_task(bus.publish(percept(2)))
    assert await is_waiting(publishing)
    assert await read(stage, 2) == ["pc-1", "pc-2"]
    await publishing


async def test_a_watcher_loses_the_oldest_and_counts() -> None:
    bus = Bus()
    watcher = bus.subscribe(Percept, size=2, lossy=True)
    for number in range(5):
        await bus.publish(percept(number))
    assert watcher.dropped == 3
    assert await read(watcher, 2) == ["pc-3", "pc-4"]


async def test_closing_lets_a_waiting_publisher_go_on() -> None:
    bus = Bus()
    with bus.subscribe(Percept, size=1) as stage:
        await bus.publish(percept(1))
        publishing = asyncio.create_task(bus.publish(percept(2)))
        assert await is_waiting(publishing)
    async with asyncio.timeout(SAFETY):
        await publishing
    await bus.publish(percept(3))
    assert len(stage) == 1, "nothing comes after the end"
    assert bus.backlog == 0


async def test_a_cancelled_reader_takes_no_message_with_it() -> None:
    bus = Bus()
    stage = bus.subscribe(Percept)
    reading = asyncio.create_task(stage.get())
    await asyncio.sleep(0)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    await bus.publish(percept(1))
    assert await read(stage, 1) == ["pc-1"]
