"""Adapter mutants: a real small adapter, spoilt in a thousand ways, asks to be served; none may be, and each refusal is one sentence.

    python -m tests.chaos.adapter_mutants [--count 1000] [--seed 0]

The way into service is the daemon's: `Registry.verify`, the worker's `Backbone.load`, the fingerprint. Mutants are of three
sorts: what disks and copies do (bytes, files); what a careless tool does (the hash in the manifest is right, the rest is not);
and forged ones, made of spoilt weights by the real `Registry.publish`, so that every name and hash is right.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import safetensors.numpy

from runtime.errors import CorrigibleError
from runtime.learning import jobs, registry
from runtime.learning.registry import CONFIG, MANIFEST, WEIGHTS, Registry
from runtime.policy.backbone import Backbone
from tests.learning.test_registry import finished
from tests.policy import tiny

Tensors = dict[str, np.ndarray[Any, Any]]
Mutate = Callable[[Path, random.Random], None]  # spoils an adapter's folder
LINEAGE = ("fb-1", "fb-2")
SENTENCE = 600  # characters


class Trial:
    """A store with one good adapter, the worker's side of a tiny model, and the question whether something is served."""

    def __init__(self, folder: Path) -> None:
        base = tiny.llama(folder / "model")
        self._revision = base.revision
        self.job, self._store = folder / "job", Registry(folder / "adapters")
        finished(self.job)
        shutil.rmtree(self.job / jobs.ADAPTER)
        tiny.adapter(base, self.job / jobs.ADAPTER, 1)
        described, _, _ = jobs.read(self.job)
        jobs.write_atomically(self.job / jobs.JOB, msgspec.structs.replace(described, base=base))
        self._backbone = Backbone(base)
        self._backbone.load("made", self.job / jobs.ADAPTER)
        report = jobs.read_report(self.job)
        assert report is not None
        report = msgspec.structs.replace(report, fingerprint=tuple(self._backbone.fingerprint("made")))
        jobs.write_atomically(self.job / jobs.REPORT, report)
        self.good = self.publish(self.job)
        if why := self.refused(self.good):
            raise RuntimeError(f"even the good adapter is refused ({why}); the mutants test nothing")

    def publish(self, job: Path, root: Path | None = None) -> str:
        return Registry(root or self._store.root).publish(job, parent="base", lineage=LINEAGE, verdict="better")

    def copy(self, root: Path) -> Path:
        """The good adapter in another store; its folder."""
        shutil.copytree(self._store.root, root)
        return root / self.good

    def refused(self, adapter: str, root: Path | None = None) -> str:
        """Why it is not served, "" if it is: the steps of `Releases._prove`. Whatever is no CorrigibleError is raised."""
        store = Registry(root or self._store.root)
        try:
            manifest = store.verify(adapter, self._revision)
            self._backbone.load("mutant", store.directory(adapter))
            registry.same_fingerprint(adapter, manifest.fingerprint, self._backbone.fingerprint("mutant"))
        except CorrigibleError as error:
            return str(error)
        finally:
            self._backbone.unload("mutant")
        return ""


# --- what disks, copies and people do to files ------------------------------------------------------------------------


def _any_file(folder: Path, rng: random.Random) -> Path:
    return folder / rng.choice((MANIFEST, CONFIG, WEIGHTS))


def flip(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def truncate(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    os.truncate(path, rng.randrange(path.stat().st_size))


def overwrite(folder: Path, rng: random.Random) -> None:
    """A page of zeros or noise, as after a bad sector."""
    path = _any_file(folder, rng)
    raw = bytearray(path.read_bytes())
    start, size = rng.randrange(len(raw)), rng.choice((1, 16, 512, 4096))
    piece = rng.choice((bytes(size), rng.randbytes(size)))[: len(raw) - start]
    changed = bytes(raw[:start]) + piece + bytes(raw[start + len(piece) :])
    path.write_bytes(changed if changed != bytes(raw) else changed + b"\0")


def grow(folder: Path, rng: random.Random) -> None:
    with _any_file(folder, rng).open("ab") as stream:
        stream.write(rng.choice((b"\0", b"}", rng.randbytes(100))))


def remove(folder: Path, rng: random.Random) -> None:
    _any_file(folder, rng).unlink()


def become_a_folder(folder: Path, rng: random.Random) -> None:
    path = _any_file(folder, rng)
    path.unlink()
    path.mkdir()


def swap(folder: Path, rng: random.Random) -> None:
    one, other = rng.sample((MANIFEST, CONFIG, WEIGHTS), 2)
    (folder / one).rename(folder / "between")
    (folder / other).rename(folder / one)
    (folder / "between").rename(folder / other)


def link(folder: Path, rng: random.Random) -> None:
    """The right content, but elsewhere, where it may change after it was looked at."""
    path = rng.choice((_any_file(folder, rng), folder))
    elsewhere = folder.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def add(folder: Path, rng: random.Random) -> None:
    """A file that no adapter has, such as those that carry code."""
    name = rng.choice(
        ("adapter_model.bin", "training_args.bin", "optimizer.pt", "hook.py", ".hidden", "judged/x", "x/y.pkl")
    )
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(rng.choice((b"\x80\x04cposix\nsystem\n.", b"")))


# --- a careless tool: what the manifest says is changed, or hashed anew -----------------------------------------------


def described(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def describe(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))


def change_manifest(folder: Path, rng: random.Random) -> None:
    manifest = described(folder)
    key = rng.choice(list(manifest))
    value = rng.choice((None, "", "x", -1, [], {}, "../../etc/passwd", "a" * 64, ["x"], {"x": "y"}, 1e308, True))
    manifest[key] = value if value != manifest[key] else "other"
    describe(folder, manifest)


def repeat_key(folder: Path, rng: random.Random) -> None:
    """The same key twice: readers differ in which one they believe."""
    text, manifest = (folder / MANIFEST).read_text().strip(), described(folder)
    key = rng.choice(list(manifest))
    again = f"{json.dumps(key)}: {json.dumps(rng.choice((manifest[key], None, 'x')))}"
    (folder / MANIFEST).write_text("{" + again + "," + text[1:] if rng.random() < 0.5 else f"{text[:-1]},{again}}}")


def wander(folder: Path, rng: random.Random) -> None:
    """The manifest names a file outside."""
    manifest = described(folder)
    name = rng.choice((CONFIG, WEIGHTS))
    shutil.copy(folder / name, folder.parent / name)
    manifest["files"][rng.choice((f"../{name}", str(folder.parent / name)))] = manifest["files"].pop(name)
    describe(folder, manifest)


def rehashed(spoil: Callable[[Path, random.Random], None]) -> Mutate:
    """`spoil`, and the manifest says that this is how it should be."""

    def mutate(folder: Path, rng: random.Random) -> None:
        spoil(folder, rng)
        manifest = described(folder)
        manifest["files"] = {name: registry._sha256(folder / name) for name in manifest["files"]}
        manifest.pop("seal", None)
        describe(folder, manifest)

    mutate.__name__ = f"{spoil.__name__}, hashed anew"
    return mutate


# --- spoilt weights and configurations --------------------------------------------------------------------------------


def _tensors(spoil: Callable[[Tensors, str, random.Random], None]) -> Mutate:
    def mutate(folder: Path, rng: random.Random) -> None:
        tensors = safetensors.numpy.load_file(folder / WEIGHTS)
        spoil(tensors, rng.choice(sorted(tensors)), rng)
        safetensors.numpy.save_file(tensors, folder / WEIGHTS)

    mutate.__name__ = spoil.__name__
    return mutate


@_tensors
def not_finite(tensors: Tensors, name: str, rng: random.Random) -> None:
    flat = tensors[name].reshape(-1)
    flat[rng.randrange(flat.size)] = rng.choice((np.nan, np.inf, -np.inf))


@_tensors
def enormous(tensors: Tensors, name: str, rng: random.Random) -> None:
    tensors[name] *= rng.choice((1e5, 1e30, -1e3))


@_tensors
def other_numbers(tensors: Tensors, name: str, rng: random.Random) -> None:
    for each in tensors:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, tensors[each].shape)
        tensors[each] = np.asarray(noise, np.float32)


@_tensors
def other_shape(tensors: Tensors, name: str, rng: random.Random) -> None:
    was = tensors[name]
    shapes = (was.T, was.reshape(-1), was[:-1], was[:, :-1], was[:, :1], was[:0], was[None], np.concatenate([was, was]))
    tensors[name] = np.ascontiguousarray(rng.choice([shape for shape in shapes if shape.shape != was.shape]))


@_tensors
def other_rank(tensors: Tensors, name: str, rng: random.Random) -> None:
    pair = (name.replace("lora_B", "lora_A"), name.replace("lora_A", "lora_B"))
    tensors[pair[0]], tensors[pair[1]] = (
        np.ascontiguousarray(tensors[pair[0]][:1]),
        np.ascontiguousarray(tensors[pair[1]][:, :1]),
    )


@_tensors
def other_type(tensors: Tensors, name: str, rng: random.Random) -> None:
    tensors[name] = tensors[name].astype(np.dtype(rng.choice(("i8", "i1", "u1", "?", "i4"))))


@_tensors
def one_less(tensors: Tensors, name: str, rng: random.Random) -> None:
    del tensors[name]


@_tensors
def other_name(tensors: Tensors, name: str, rng: random.Random) -> None:
    new = rng.choice(
        (
            "x",
            "",
            name.replace("layers", "blocks"),
            name.replace("lora", "hada"),
            name.replace(".self_attn", ""),
            name + "\n",
        )
    )
    tensors[new] = tensors.pop(name)


def header(folder: Path, rng: random.Random) -> None:
    """A header that lies about the file: its size, the offsets, the shapes, or twice the same name."""
    raw = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    entries, data = json.loads(raw[8 : 8 + size]), raw[8 + size :]
    name = rng.choice([key for key in entries if key != "__metadata__"])
    entry = entries[name]
    start, end = entry["data_offsets"]
    lies: list[dict[str, Any]] = [
        {"shape": [1 << 62, 4]}, {"shape": [-1]}, {"shape": []}, {"dtype": "F128"}, {"dtype": ""}, {"dtype": "F8_E4M3"},
        {"data_offsets": [start - 8, end - 8] if start else [8, end + 8]}, {"data_offsets": [end, start]}, {"data_offsets": [-8, -4]},
        {"data_offsets": [0, 1 << 63]}, {"data_offsets": [0, 2**64 + 1]}, {"data_offsets": None}, {"shape": "x"},
    ]  # fmt: skip
    entry |= rng.choice(lies)
    text = json.dumps(entries).encode()
    if rng.random() < 0.2:
        text = b"{" + json.dumps(name).encode() + b": " + json.dumps(entry).encode() + b"," + text[1:]
    if rng.random() < 0.1:
        text = rng.choice((b"[" * 5000, b"\xff\xfe", b"{}", b"null", text + b" " * (1 << 20)))
    length = rng.choice((1 << 63, 0, 1 << 30, len(text) + 1)) if rng.random() < 0.3 else len(text)
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + text + data)


def configuration(folder: Path, rng: random.Random) -> None:
    config = json.loads((folder / CONFIG).read_text())
    changes: list[dict[str, Any]] = [
        {"r": 0}, {"r": -4}, {"r": "4"}, {"r": None}, {"r": config["r"] * 2, "lora_alpha": config["lora_alpha"] * 2}, {"r": 10**400},
        {"lora_alpha": config["lora_alpha"] * 9}, {"lora_alpha": float("nan")}, {"lora_alpha": "x"}, {"lora_alpha": 1e308},
        {"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 2}},
    ]  # fmt: skip
    text = json.dumps(config | rng.choice(changes))
    if rng.random() < 0.3:
        text = rng.choice(
            (
                "",
                "[]",
                "null",
                "{}",
                "7",
                '"x"',
                "[" * 5000,
                text[:-1],
                text + text,
                text.replace('"r"', '"R"'),
                "\ud800",
            )
        )
    (folder / CONFIG).write_bytes(text.encode(errors="surrogatepass"))


PLAIN: tuple[Mutate, ...] = (
    flip,
    truncate,
    overwrite,
    grow,
    remove,
    become_a_folder,
    swap,
    link,
    add,
    change_manifest,
    repeat_key,
    wander,
)
SPOILT: tuple[Mutate, ...] = (
    not_finite, enormous, other_numbers, other_shape, other_rank, other_type, one_less, other_name, header, configuration,
)  # fmt: skip
CARELESS = tuple(rehashed(spoil) for spoil in SPOILT)


def mutants(trial: Trial, folder: Path, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(what was done, why it was refused): "" means that it was served, and is a fault, as is any other exception."""
    kinds = [
        *((mutate.__name__, mutate, False) for mutate in (*PLAIN, *CARELESS)),
        *((f"{m.__name__}, forged", m, True) for m in SPOILT),
    ]
    for number in range(count):
        name, mutate, forged = kinds[number % len(kinds)]
        rng, root = random.Random(f"{seed}:{number}"), folder / "mutant"
        if forged:
            yield name, _forged(trial, root, mutate, rng)
        else:
            mutate(trial.copy(root / "adapters"), rng)
            yield name, trial.refused(trial.good, root / "adapters")
        shutil.rmtree(root)


def _forged(trial: Trial, root: Path, mutate: Mutate, rng: random.Random) -> str:
    """The weights were spoilt before they got their names and hashes."""
    shutil.copytree(trial.job, root / "job")
    mutate(root / "job" / jobs.ADAPTER, rng)
    return trial.refused(trial.publish(root / "job", root / "adapters"), root / "adapters")


def wrong(refusal: str) -> str:
    """What is wrong with a refusal, "" for nothing."""
    if not refusal:
        return "SERVED"
    return "" if "\n" not in refusal and len(refusal) <= SENTENCE else f"no sentence: {refusal[:200]!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begun, done, bad = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        for name, refusal in mutants(Trial(Path(folder)), Path(folder), options.count, options.seed):
            done[name] += 1
            if fault := wrong(refusal):
                bad += 1
                print(f"mutant {done.total() - 1} ({name}): {fault}")
    print(
        f"{done.total()} mutants of {len(done)} kinds, {bad} served or badly refused, {time.monotonic() - begun:.0f} s, seed {options.seed}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
