"""The proof of a forget: true when nothing that is left names the words, false when something does, and it says what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from runtime.catalogue import Catalogue
from runtime.errors import Unavailable
from runtime.journal import Journal
from runtime.learning.cases import Case
from runtime.learning.registry import MANIFEST, Manifest, Registry
from runtime.messages import Action, Feedback, Forgotten
from runtime.policy.protocol import Row
from runtime.proving import Proving
from runtime.situations import Catalogues
from tests.stages import BRIGHT, DIM, LAMP, decision, percept

OLD, NEW = "0" * 12, "1" * 12
FIRE = Case(scope="room", text="fire", required="lamp bright")


@dataclass
class Versions:
    """What each version says, where it is not `lamp bright`."""

    says: dict[tuple[str, str], Action] = field(default_factory=dict)
    broken: bool = False

    async def score(self, texts: Sequence[str], catalogue: Catalogue, adapter: str) -> list[Row]:
        if self.broken:
            raise Unavailable("the worker is gone")
        chosen = [self.says.get((adapter, text), BRIGHT) for text in texts]
        return [Row(actions=[action], log_probs=[0.0], chosen=action, log_p=0.0) for action in chosen]


def version(store: Registry, id: str, *lineage: str) -> None:
    store.directory(id).mkdir(parents=True)
    manifest = Manifest(
        id=id, parent="base", revision="r", files={}, lineage=lineage, parameters={}, scores={}, fingerprint=(),
        verdict="", created=1.0,
    )  # fmt: skip
    (store.directory(id) / MANIFEST).write_bytes(msgspec.json.encode(manifest))


async def taught(journal: Journal) -> None:
    for number, text in enumerate(("dark", "noon", "dusk")):
        said = Feedback(
            id=f"fb-{number}", decision_id=f"dc-{number}", kind="correction", source="Ana", at=float(number), action=DIM
        )
        await journal.put(percept(number, text), decision(number, BRIGHT, float(number)), said)
    await journal.put(Forgotten(id="fg-0", feedback_id="fb-0", by="person", at=9.0))


async def test_what_changed_is_named_and_what_was_forgotten_is_not_asked(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        await taught(journal)
        store, policy = Registry(tmp_path / "adapters"), Versions({(OLD, "dusk"): DIM, (NEW, "fire"): DIM})
        proving = Proving(journal, policy, Catalogues([{"room": (LAMP,)}]), store, [FIRE])
        await proving.begin(OLD)
        version(store, NEW, "fb-1", "fb-2")
        proof = await proving.proof(NEW, [OLD])
        assert proof.holds
        assert (proof.serving, proof.named, proof.versions, proof.removed) == (NEW, 0, 1, (OLD,))
        assert (proof.cases, proof.cases_changed) == (1, ("room: 'fire' -> lamp dim, before lamp bright",))
        assert (proof.reference, proof.reference_changed) == (2, 1)
        assert proof.changed == ("room: 'dusk' -> lamp bright, before lamp dim",)
        assert (await proving.proof(NEW)).unasked == "no version had to be made anew"


async def test_a_version_that_still_names_a_word_disproves_it(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        await taught(journal)
        store = Registry(tmp_path / "adapters")
        version(store, OLD, "fb-0", "fb-1")
        proof = await Proving(journal, Versions(), Catalogues([{"room": (LAMP,)}]), store, []).proof(OLD)
        assert (proof.holds, proof.named, proof.tainted) == (False, 1, (OLD,))


async def test_without_a_policy_the_lineage_is_still_proven(tmp_path: Path) -> None:
    async with Journal.open(tmp_path / "j.db") as journal:
        await taught(journal)
        store = Registry(tmp_path / "adapters")
        proving = Proving(journal, Versions(broken=True), Catalogues([{"room": (LAMP,)}]), store, [FIRE])
        await proving.begin(OLD)
        proof = await proving.proof("base")
        assert (proof.holds, proof.cases, proof.unasked) == (True, 0, "the worker is gone")
