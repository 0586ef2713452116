"""What is on disk serves only if it is whole, finite and the same as on the day it was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from runtime.errors import Corrupt, NotFound
from runtime.learning import jobs, registry
from runtime.learning.jobs import Base, Job, Report, Scores
from runtime.learning.reference import Drift, Flip
from runtime.learning.registry import MANIFEST, WEIGHTS, Registry
from runtime.messages import Action, Example


def finished(directory: Path, value: float = 0.5, held: Sequence[Example] = (), kind: type = np.float32) -> Path:
    """A job directory as the trainer leaves it; what was `held` out was learnt in the end."""
    job = Job(base=Base(directory="/models/x", revision="rev1", dtype="float32"), instruction="x", catalogues={})
    jobs.write(directory, job, [], held)
    for made, number in ((jobs.ADAPTER, value), *([(jobs.JUDGED, value / 2)] if held else [])):
        (directory / made).mkdir()
        safetensors.numpy.save_file({"lora_A": np.full((4, 8), number, kind)}, directory / made / WEIGHTS)
        (directory / made / "adapter_config.json").write_text("{}")
    report = Report(
        examples=1, holdout=0, seconds=1.0, examples_per_second=1.0, epochs=1, early_stopped=False, candidate=Scores(),
        champion=Scores(), wins=0, losses=0, fingerprint=(-1.0, -2.0), parameters={"rank": 4}, refit=bool(held),
    )  # fmt: skip
    jobs.write_atomically(directory / jobs.REPORT, report)
    return directory


@pytest.fixture
def store(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "adapters")


def published(store: Registry, job: Path) -> str:
    return store.publish(job, parent="base", lineage=["fb-1", "fb-2"], verdict="better")


def test_a_version_keeps_its_lineage(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job"))
    manifest = store.verify(adapter, "rev1")
    assert (manifest.parent, manifest.lineage, manifest.revision) == ("base", ("fb-1", "fb-2"), "rev1")
    assert manifest.parameters == {"rank": 4}
    assert [m.id for m in store.list()] == [adapter]
    assert published(store, tmp_path / "job") == adapter  # the same weights are the same version


def test_a_version_keeps_nobodys_words(store: Registry, tmp_path: Path) -> None:
    job = finished(tmp_path / "job")
    report = jobs.read_report(job)
    assert report is not None
    flip = Flip(scope="hall", text="xylophone", before="lamp off", after="lamp on")
    drift = Drift(situations=9, flips=0.5, divergence=0.1, flipped=(flip,))
    jobs.write_atomically(job / jobs.REPORT, msgspec.structs.replace(report, drift=drift))
    adapter = published(store, job)
    assert "xylophone" not in (store.directory(adapter) / MANIFEST).read_text()
    assert store.manifest(adapter).scores["drift"]["flips"] == 0.5


def test_changed_bytes_are_found(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job"))
    weights = store.directory(adapter) / WEIGHTS
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(Corrupt, match="changed on disk"):
        store.verify(adapter)
    assert published(store, tmp_path / "job") == adapter
    store.verify(adapter)  # a cycle that came to the same weights again has mended it


def test_a_version_that_learnt_what_it_was_judged_by_is_kept_as_it_was_judged(store: Registry, tmp_path: Path) -> None:
    example = Example(id="fb-3", scope="hall", text="dark", action=Action(tool="nothing"), at=1.0)
    adapter = published(store, finished(tmp_path / "job", held=[example]))
    manifest = store.verify(adapter)
    assert (manifest.lineage, manifest.held_out) == (("fb-1", "fb-2", "fb-3"), ("fb-3",))
    judged = safetensors.numpy.load_file(store.judged(adapter) / WEIGHTS)
    assert float(judged["lora_A"][0, 0]) == 0.25
    (store.judged(adapter) / WEIGHTS).write_bytes(b"x")
    with pytest.raises(Corrupt, match="changed on disk"):
        store.verify(adapter)


def test_a_version_that_learnt_nothing_more_is_its_own_measure(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job"))
    assert store.judged(adapter) == store.directory(adapter)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_found(store: Registry, tmp_path: Path, value: float, kind: type) -> None:
    adapter = published(store, finished(tmp_path / "job", value, kind=kind))
    with pytest.raises(Corrupt, match="not finite"):
        store.verify(adapter)


def test_numbers_of_a_kind_that_no_adapter_has_are_found(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job", 1, kind=np.uint8))
    with pytest.raises(Corrupt, match="has the type U8, which no adapter has"):
        store.verify(adapter)


def test_another_base_is_refused(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job"))
    with pytest.raises(Corrupt, match="rev1"):
        store.verify(adapter, "rev2")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "base", "aaaaaaaaaaaa/..", "AAAAAAAAAAAA", "aaaaaaaaaaaa\n"])
def test_a_name_cannot_leave_the_folder(store: Registry, name: str) -> None:
    with pytest.raises(NotFound):
        store.directory(name)


def test_an_unknown_id_is_not_found(store: Registry) -> None:
    with pytest.raises(NotFound, match="no adapter 'aaaaaaaaaaaa'"):
        store.verify("aaaaaaaaaaaa")


def test_a_broken_manifest_is_named_and_hides_no_other(store: Registry, tmp_path: Path) -> None:
    good, bad = published(store, finished(tmp_path / "a", 0.1)), published(store, finished(tmp_path / "b", 0.2))
    (store.directory(bad) / MANIFEST).write_text("{")
    with pytest.raises(Corrupt, match="cannot be read"):
        store.manifest(bad)
    assert [m.id for m in store.list()] == [good]


def test_an_unfinished_job_is_not_published(store: Registry, tmp_path: Path) -> None:
    job = finished(tmp_path / "job")
    (job / jobs.REPORT).unlink()
    with pytest.raises(Corrupt, match="no finished adapter"):
        published(store, job)


def test_a_half_stored_version_is_replaced(store: Registry, tmp_path: Path) -> None:
    job = finished(tmp_path / "job")
    adapter = published(store, job)
    (store.directory(adapter) / MANIFEST).unlink()  # as if the power went before the end
    assert store.list() == []
    assert published(store, job) == adapter
    store.verify(adapter)


def test_pruning_keeps_the_newest_and_the_protected(store: Registry, tmp_path: Path) -> None:
    ids = [published(store, finished(tmp_path / str(n), n + 1.0)) for n in range(5)]
    for n, adapter in enumerate(ids):  # the clock may not have moved between them
        path = store.directory(adapter) / MANIFEST
        jobs.write_atomically(path, msgspec.structs.replace(store.manifest(adapter), created=float(n), seal=""))
    store.prune(2, protected={ids[0]})
    assert {m.id for m in store.list()} == {ids[0], ids[3], ids[4]}


def test_fingerprints_agree_or_it_is_not_served() -> None:
    registry.same_fingerprint("a", [-1.0, -2.0], [-1.001, -2.0])
    for served in ([-1.0], [-1.0, -3.0], [-1.0, float("nan")]):
        with pytest.raises(Corrupt, match="probes"):
            registry.same_fingerprint("a", [-1.0, -2.0], served)


def test_a_changed_manifest_is_found(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job"))
    path = store.directory(adapter) / MANIFEST
    text = path.read_text()
    for changed in (text.replace("better", "bitter"), text.replace("\n", ""), '{"verdict": "x",' + text[1:]):
        path.write_text(changed)
        with pytest.raises(Corrupt, match="changed after it was written"):
            store.verify(adapter)


def test_a_version_from_before_there_were_seals_serves(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job"))
    path = store.directory(adapter) / MANIFEST
    kept = msgspec.json.decode(path.read_bytes())
    del kept["seal"]
    path.write_bytes(msgspec.json.encode(kept))
    assert store.verify(adapter).seal == ""


def test_a_version_holds_no_links_and_nothing_that_nobody_named(store: Registry, tmp_path: Path) -> None:
    adapter = published(store, finished(tmp_path / "job"))
    more, weights = store.directory(adapter) / "training_args.bin", store.directory(adapter) / WEIGHTS
    more.write_bytes(b"")
    with pytest.raises(Corrupt, match=r"training_args.bin belongs to no adapter; remove it"):
        store.verify(adapter)
    more.unlink()
    weights.rename(tmp_path / WEIGHTS)
    weights.symlink_to(tmp_path / WEIGHTS)
    with pytest.raises(Corrupt, match="is a link"):
        store.verify(adapter)
