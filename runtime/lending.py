"""An adapter's directory -> a name under which the policy worker answers with it, for as long as a block lasts.

What is looked at has a name of its own, so that it can be loaded and unloaded while the same weights serve, and no release
ever meets it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from runtime.catalogue import Catalogue
from runtime.errors import CorrigibleError
from runtime.learning import registry
from runtime.messages import Action, new_id
from runtime.policy.protocol import Row

BASE = "base"


class Policy(Protocol):
    """The part of the policy that explanations need."""

    async def score(
        self,
        texts: Sequence[str],
        catalogue: Catalogue,
        adapter: str,
        *,
        floor: float = ...,
        gold: Sequence[Action] = ...,
        feature: bool = ...,
    ) -> list[Row]: ...
    async def load(self, adapter: str, directory: Path) -> list[float]: ...
    async def unload(self, adapter: str) -> None: ...


@asynccontextmanager
async def lent(policy: Policy, directory: Path | None, fingerprint: Sequence[float] = ()) -> AsyncIterator[str]:
    """The name to score with; no directory means the base model. Raises Corrupt if what was loaded does not answer the
    probes as it did when it was trained."""
    if directory is None:
        yield BASE
        return
    name = new_id("look")
    try:
        loaded = await policy.load(name, directory.absolute())
        if fingerprint:
            registry.same_fingerprint(name, fingerprint, loaded)
        yield name
    finally:
        with suppress(CorrigibleError):  # a worker that died holds nothing
            await policy.unload(name)
