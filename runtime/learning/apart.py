"""Examples -> weights that nobody serves: a training run beside the learner's cycles, to find out what would be if.

It has its own job directory and its own trainer process, below a cycle's priority; it shares no cached states with a cycle, is
never judged, published or released, and nothing of it is left when the block is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.config import Config
from runtime.learning import curation, jobs, trainer
from runtime.learning.learner import Learner
from runtime.messages import Action, Example, new_id
from runtime.situations import Catalogues

KIND = "apart"  # of job directory: the name begins with it
LOWER = 5  # steps of niceness below a cycle's trainer
POLL = 0.5  # seconds between looks at the clock and at the trainer's progress
Tell = Callable[[float], None]  # is told how far it is, in [0, 1]


@dataclass(frozen=True)
class Trained:
    """Where the weights lie, and what they answer to the probes."""

    directory: Path
    fingerprint: tuple[float, ...]


class Apart:
    """`async with apart.trained(examples) as weights`: they lie on disk inside the block."""

    def __init__(
        self, config: Config, catalogues: Catalogues, learner: Learner, model: Callable[[], jobs.Base]
    ) -> None:
        self._config, self._catalogues, self._learner, self._model = config, catalogues, learner, model
        self._turn = asyncio.Lock()  # one trainer at a time

    @asynccontextmanager
    async def trained(self, examples: Sequence[Example], tell: Tell = lambda progress: None) -> AsyncIterator[Trained]:
        """By the recipe of a cycle that starts from the base model. Raises Unavailable with the trainer's reason."""
        with jobs.folder(self._config.agent.data, new_id(KIND)) as directory:
            async with self._turn:
                report = await self._train(directory, examples, tell)
            yield Trained(directory / jobs.ADAPTER, report.fingerprint)

    async def _train(self, directory: Path, examples: Sequence[Example], tell: Tell) -> jobs.Report:
        settings = await self._learner.recipe()
        train, held = curation.split(self._catalogues.possible(examples), settings, self._render)
        job = jobs.Job(
            base=await asyncio.to_thread(self._model),
            instruction=self._config.agent.instruction,
            catalogues=self._catalogues.all(),
            settings={**settings.model_dump(mode="json"), "tune": False},
            reply_tokens=self._config.policy.reply_tokens,
            catalogue_tokens=self._config.policy.catalogue_tokens,
        )
        await asyncio.to_thread(jobs.write, directory, job, train, held)
        process = self._learner.beside = trainer.Trainer(nice=min(settings.nice + LOWER, 19), threads=settings.threads)
        try:
            await process.start(directory)
            deadline = time.monotonic() + settings.timeout
            while await process.running(POLL):
                seen = await asyncio.to_thread(jobs.read_progress, directory)
                tell(seen.progress if seen is not None else 0.0)
                if time.monotonic() > deadline:
                    raise trainer.gave_up(settings.timeout)
            return await process.report()
        finally:
            self._learner.beside = None
            await process.stop()

    def _render(self, scope: str, action: Action) -> str:
        return self._catalogues.of(scope).render(action)
