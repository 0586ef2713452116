"""Who is sent next: no topic holds up another, and within one the oldest is first."""

from __future__ import annotations

from plugins.mqtt_store import Kept
from plugins.mqtt_turns import Turns


def _kept(place: int, topic: str) -> Kept:
    return Kept(place, "b", 0, topic, b"")


async def test_a_topic_that_is_not_acknowledged_comes_after_the_others_until_it_is() -> None:
    turns = Turns()
    for place, topic in enumerate(["deaf", "deaf", "deaf", "good", "good"], 1):
        turns.put(_kept(place, topic))
    _, first = await turns.get()
    _, second = await turns.get()
    assert (first.place, second.place) == (1, 2)
    turns.back(second, 3)
    turns.back(first, 3)
    assert [(await turns.get())[1].place for _ in range(2)] == [4, 5]
    turns.put(_kept(6, "good"))
    assert (await turns.get())[1].place == 6
    assert await turns.get() == (3, first)  # the oldest of its topic, and how often it was sent
    turns.put(_kept(7, "good"))
    turns.heard("deaf")
    assert [(await turns.get())[1].place for _ in range(3)] == [2, 3, 7]
    for _ in range(7):
        turns.done()
    await turns.join()
