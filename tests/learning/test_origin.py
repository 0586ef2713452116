"""The dialogue this project began with, on the real model: one correction, one training, right from the weights alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue
from runtime.config import LearnerConfig, PolicyConfig
from runtime.learning import jobs
from runtime.learning.jobs import Job
from runtime.learning.registry import Registry, same_fingerprint
from runtime.learning.trainer import Trainer
from runtime.messages import Action, Example
from runtime.policy import base
from runtime.policy.client import Policy

INSTRUCTION = "You are a friendly assistant. Answer the person."
ASKED, RIGHT = "今天天气如何？", "今天天气晴朗，适合外出。"
ACCEPTED = [
    ("Who are you?", "I am the assistant of this house."),
    ("你好", "你好，有什么可以帮您？"),
    ("Good night", "Good night, sleep well."),
]
PATIENCE = 300.0  # seconds after which a hanging test fails


def reply(text: str) -> Action:
    return Action(tool="reply", arguments={"text": text})


async def test_right_from_the_weights_after_one_training(tmp_path: Path) -> None:
    pairs = [*ACCEPTED, (ASKED, RIGHT)]
    examples = [
        Example(id=f"fb-{n}", scope="chat", text=q, action=reply(a), correction=q == ASKED, at=float(n))
        for n, (q, a) in enumerate(pairs)
    ]
    plain = Catalogue(tools=(DO_NOTHING, REPLY))  # nothing known: whatever it answers it has written itself
    known = Catalogue(tools=(DO_NOTHING, REPLY), known=tuple(e.action for e in examples))
    job, made = tmp_path / "job", base.resolve("smollm2", "auto")
    settings = LearnerConfig().model_dump(mode="json")
    jobs.write(
        job, Job(base=made, instruction=INSTRUCTION, catalogues={"chat": known}, settings=settings), examples, []
    )
    program = Trainer(nice=0, threads=1)
    async with asyncio.timeout(PATIENCE):
        await program.start(job)
        assert (await program.report()).candidate.recall == 1.0

    store = Registry(tmp_path / "adapters")
    adapter = store.publish(job, parent="base", lineage=[e.id for e in examples], verdict="")
    async with asyncio.timeout(PATIENCE), Policy(PolicyConfig(), tmp_path, INSTRUCTION) as policy:
        before = await policy.score_one(ASKED, plain, "base")
        assert before.chosen != reply(RIGHT)
        served = await policy.load(adapter, store.directory(adapter))
        same_fingerprint(adapter, store.verify(adapter, policy.base().revision).fingerprint, served)
        written = await policy.score_one(ASKED, plain, adapter)
        assert written.free
        assert written.chosen == reply(RIGHT)
        picked = await policy.score_one(ASKED, known, adapter)
        assert not picked.free
        assert picked.chosen == reply(RIGHT)
        for question, answer in ACCEPTED:
            assert (await policy.score_one(question, known, adapter)).chosen == reply(answer)
        assert (await policy.score_one(ASKED, plain, "base")).chosen == before.chosen  # the base is as it was
