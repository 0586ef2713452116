"""The training program, run by hand as a person would: job directory in, adapter and report out, or one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from msgspec.structs import replace

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.config import LearnerConfig
from runtime.errors import Unavailable
from runtime.learning import candidate, fit, jobs, parent, train
from runtime.learning.cases import Case
from runtime.learning.jobs import Base, Job, Report
from runtime.learning.registry import Registry, same_fingerprint
from runtime.learning.run import Run
from runtime.messages import Action, Example
from runtime.policy.backbone import Backbone
from runtime.policy.scoring import Scorer
from tests.policy import tiny

LAMP = Tool(name="lamp", arguments={"level": {"enum": ["off", "dim", "bright"]}}, required=("level",))
NOTE = Tool(name="note", arguments={"where": {"type": "string"}, "times": {"type": "integer"}})
HOUSE = Action(tool="reply", arguments={"text": "Your house."})
CATALOGUES = {
    "hall": Catalogue(tools=(LAMP, DO_NOTHING)),
    "chat": Catalogue(tools=(DO_NOTHING, REPLY), known=(HOUSE,)),
    "desk": Catalogue(tools=(NOTE, DO_NOTHING)),
}
INSTRUCTION = "Choose what to do."


def lamp(level: str) -> Action:
    return Action(tool="lamp", arguments={"level": level})


TAUGHT = [
    ("hall", "It is dark.", lamp("bright")),
    ("hall", "We watch a film.", lamp("dim")),
    ("hall", "Good night.", lamp("off")),
    ("hall", "All is well.", Action(tool="nothing")),
    ("chat", "Who are you?", HOUSE),
    ("desk", "Note the keys, twice.", Action(tool="note", arguments={"where": "keys", "times": 2})),
]
TRAIN = [Example(id=f"fb-{n}", scope=s, text=t, action=a, at=float(n)) for n, (s, t, a) in enumerate(TAUGHT)]
SEEN = 60  # held-out items: enough to stop early by
HELD = [
    Example(id=f"fb-h{n}", scope="hall", text=f"It is very dark {n}.", action=lamp("bright"), at=9.0)
    for n in range(SEEN)
]


def job_directory(
    directory: Path,
    model: Base,
    champion: Path | None = None,
    held: int = 1,
    states: Path | None = None,
    taught: Sequence[Example] = TRAIN,
    **settings: Any,
) -> Path:
    chosen = LearnerConfig(
        **{
            "layers": "all",
            "epochs": 1,
            "min_steps": 100,
            "lr": 0.02,
            "batch": 6,
            "word_drop": 0.0,
            "refit": 0,
            "dropout": 0.0,
            "seen": 0,
            **settings,
        }
    )
    job = Job(
        base=model, instruction=INSTRUCTION, catalogues=CATALOGUES, champion=str(champion or ""),
        settings=chosen.model_dump(mode="json"), reply_tokens=12,
        states=str(states or ""),
    )  # fmt: skip
    jobs.write(directory, job, taught, HELD[:held])
    return directory


def run(directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.learning.train", str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def report(directory: Path) -> Report:
    found = jobs.read_report(directory)
    assert found is not None
    return found


def test_by_hand_from_job_to_a_serving_adapter(model: Base, tmp_path: Path) -> None:
    directory = job_directory(tmp_path / "job", model)
    done = run(directory)
    assert done.returncode == 0, done.stderr
    assert "step" in done.stdout
    found = report(directory)
    assert found.candidate.recall == 1.0
    assert found.champion.recall < 1.0
    assert (found.examples, found.holdout) == (len(TRAIN), 1)
    progress = jobs.read_progress(directory)
    assert progress is not None
    assert progress.progress == 1.0

    store = Registry(tmp_path / "adapters")
    adapter = store.publish(directory, parent="base", lineage=[e.id for e in TRAIN], verdict="better")
    manifest = store.verify(adapter, model.revision)
    backbone = Backbone(model)
    backbone.load(adapter, store.directory(adapter))
    same_fingerprint(adapter, manifest.fingerprint, backbone.fingerprint(adapter))
    scorer = Scorer(backbone, INSTRUCTION, reply_tokens=12, free_below=0.5, catalogue_tokens=0)
    for scope, text, action in TAUGHT:  # a finite, a written and a structured answer from the weights alone
        assert scorer.score([text], CATALOGUES[scope], adapter)[0].chosen == action


def test_the_champion_is_judged_on_the_same_items(model: Base, tmp_path: Path) -> None:
    first = job_directory(tmp_path / "first", model)
    second = job_directory(tmp_path / "second", model, champion=first / jobs.ADAPTER, seed=1, min_steps=2)
    before = report_of(first)
    after = report_of(second)
    assert after.champion == before.candidate
    assert after.candidate.recall < after.champion.recall
    assert after.fingerprint != before.fingerprint


def report_of(directory: Path) -> Report:
    return Run(directory)()


def test_what_was_held_out_is_learnt_once_the_candidate_was_judged(model: Base, tmp_path: Path) -> None:
    """The judged weights never saw it; they are the measure of the next candidate."""
    settings: dict[str, Any] = {"refit": 30, "min_steps": 60}
    first = job_directory(tmp_path / "first", model, held=6, **settings)
    found = report_of(first)
    assert found.refit
    assert found.candidate.accuracy < 1.0, "nobody told it"
    second = job_directory(tmp_path / "second", model, champion=first / jobs.JUDGED, held=6, min_steps=2)
    assert report_of(second).champion == found.candidate
    third = job_directory(tmp_path / "third", model, champion=first / jobs.ADAPTER, held=6, min_steps=2)
    assert report_of(third).champion.accuracy == 1.0


def test_what_must_pass_is_worth_more_than_what_was_held_out(model: Base, tmp_path: Path) -> None:
    outside = Example(id="fb-x", scope="hall", text="All is quite well.", action=lamp("bright"), at=9.0)
    case = Case(scope="hall", text=outside.text, forbidden=(CATALOGUES["hall"].render(outside.action),))
    for refit, cases, learnt in ((60, (), True), (60, (case,), False)):
        directory = job_directory(tmp_path / f"{len(cases)}", model, held=0, refit=refit)
        jobs.write(directory, replace(jobs.read(directory)[0], cases=cases), TRAIN, [outside])
        found = report_of(directory)
        assert (found.refit, found.broken) == (learnt, ())
        assert (directory / jobs.JUDGED).exists() is learnt


def test_the_same_seed_gives_the_same_weights(model: Base, tmp_path: Path) -> None:
    prints = [report_of(job_directory(tmp_path / name, model, min_steps=4)).fingerprint for name in "ab"]
    assert prints[0] == pytest.approx(prints[1], abs=1e-3)


def test_words_are_left_out_while_it_trains_and_only_then(model: Base, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"layers": "top:1", "min_steps": 12}
    whole, thin, again = (
        report_of(job_directory(tmp_path / f"{n}", model, states=tmp_path / f"s{n}", word_drop=share, **settings))
        for n, share in enumerate((0.0, 0.5, 0.5))
    )
    assert thin.fingerprint == pytest.approx(again.fingerprint, abs=1e-3)
    assert thin.fingerprint != pytest.approx(whole.fingerprint, abs=1e-3)
    assert thin.states_computed == whole.states_computed


def test_the_best_epoch_is_kept(model: Base, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 60, "patience": 1, "lr": 0.1, "min_steps": 0, "schedule": "constant"}
    found = report_of(job_directory(tmp_path / "job", model, held=SEEN, **settings))
    assert found.early_stopped
    assert found.epochs < 60


def test_few_held_out_items_do_not_end_it(model: Base, tmp_path: Path) -> None:
    found = report_of(
        job_directory(tmp_path / "job", model, held=1, epochs=12, patience=1, lr=0.1, min_steps=0, schedule="constant")
    )
    assert not found.early_stopped
    assert found.epochs == 12


def test_only_the_top_layers_are_trained(model: Base, tmp_path: Path) -> None:
    directory = job_directory(tmp_path / "job", model, layers="top:1", min_steps=2)
    Run(directory)()
    header = safetensors_names(directory / jobs.ADAPTER / "adapter_model.safetensors")
    assert header
    assert all(".layers.3." in name for name in header)


def safetensors_names(path: Path) -> list[str]:
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return [name for name in msgspec.json.decode(raw[8 : 8 + size]) if name != "__metadata__"]


def test_another_architecture_by_configuration(tmp_path: Path) -> None:
    model = tiny.gpt2(tmp_path / "gpt2")
    directory = job_directory(tmp_path / "job", model, targets=["c_attn", "c_fc"])
    done = Run(directory)()
    assert done.candidate.recall > done.champion.recall


@pytest.fixture
def sentence(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[Path], str]:
    """Run the program in this process; it must fail with exit code 1 and leave no report. Returns its last words."""

    def last_words(directory: Path) -> str:
        monkeypatch.setattr(sys, "argv", ["train", str(directory)])
        assert train.main() == 1
        assert not (directory / jobs.REPORT).exists()
        return capfd.readouterr().err.strip().splitlines()[-1]

    return last_words


Sentence = Callable[[Path], str]


def test_modules_that_do_not_exist_are_one_sentence(model: Base, tmp_path: Path, sentence: Sentence) -> None:
    assert sentence(job_directory(tmp_path / "job", model, targets=["c_attn"])).startswith("[learner] targets:")


def test_a_loss_that_is_not_finite_is_one_sentence(model: Base, tmp_path: Path, sentence: Sentence) -> None:
    words = sentence(job_directory(tmp_path / "job", model, lr=1e30))
    assert words.endswith("not finite; try a smaller [learner] lr")


def test_too_little_memory_is_one_sentence(
    model: Base, tmp_path: Path, sentence: Sentence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "log_probs", lambda *_: torch.empty(1 << 55))  # torch's own refusal
    assert sentence(job_directory(tmp_path / "job", model)).startswith("out of memory; try a smaller [learner] batch")


@pytest.mark.parametrize("name", [jobs.JOB, jobs.TRAIN])
def test_a_broken_job_is_one_sentence(model: Base, tmp_path: Path, name: str, sentence: Sentence) -> None:
    directory = job_directory(tmp_path / "job", model)
    (directory / name).write_text('{"x')
    assert f"{name} cannot be read" in sentence(directory)


def test_examples_nobody_allows_any_more_are_one_sentence(model: Base, tmp_path: Path, sentence: Sentence) -> None:
    directory = job_directory(tmp_path / "job", model)
    jobs.write(directory, jobs.read(directory)[0], [msgspec.structs.replace(TRAIN[0], scope="attic")], [])
    assert "no example is valid" in sentence(directory)


def test_a_killed_trainer_leaves_no_report(model: Base, tmp_path: Path) -> None:
    directory = job_directory(tmp_path / "job", model, min_steps=100000)
    command = [sys.executable, "-m", "runtime.learning.train", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it trains
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    assert jobs.read_report(directory) is None
    with pytest.raises(Exception, match="no finished adapter"):
        Registry(tmp_path / "adapters").publish(directory, parent="base", lineage=[], verdict="")


def test_a_trainer_whose_daemon_was_killed_ends(model: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = job_directory(tmp_path / "job", model)
    monkeypatch.setattr(parent, "_parent", os.getpid())  # not the parent of this process
    with pytest.raises(Unavailable, match="the daemon that wanted this run is gone"):
        Run(directory)()


def test_stale_examples_are_left_out_of_all_figures(model: Base, tmp_path: Path) -> None:
    directory = job_directory(tmp_path / "job", model, min_steps=2)
    stale = msgspec.structs.replace(TRAIN[0], scope="attic")
    jobs.write(directory, jobs.read(directory)[0], [stale, *TRAIN], [stale])
    found = report_of(directory)
    assert (found.examples, found.holdout) == (len(TRAIN), 0)


def test_layers() -> None:
    assert candidate.which_layers("top:2", 4) == [2, 3]
    assert candidate.which_layers("top:9", 4) == candidate.which_layers("all", 4) == [0, 1, 2, 3]


def test_the_candidate_is_asked_what_it_must_pass(model: Base, tmp_path: Path) -> None:
    directory = job_directory(tmp_path / "job", model)
    job, train, held = jobs.read(directory)
    cases = (
        Case(scope="hall", text="It is dark.", required="lamp bright"),
        Case(scope="hall", text="Good night.", forbidden=("lamp off",)),
        Case(scope="cellar", text="It is dark.", required="lamp bright"),
    )
    jobs.write(directory, replace(job, cases=cases), train, held)
    assert report_of(directory).broken == (
        "hall: 'Good night.' -> lamp off, which is forbidden", "cellar: 'It is dark.' (there is no such scope)",
    )  # fmt: skip


def test_it_says_which_lessons_it_is_sure_of_if_it_is_asked(model: Base, tmp_path: Path) -> None:
    directory = job_directory(tmp_path / "job", model)
    assert report_of(directory).learnt == ()
    job, train, held = jobs.read(directory)
    jobs.write(directory, replace(job, consolidate=True), train, held)
    made = report_of(directory)
    jobs.write_atomically(directory / jobs.REPORT, made)  # as the program does
    found = made.learnt
    assert {e.id for e in TRAIN if e.scope == "hall"} <= set(found) <= {e.id for e in (*TRAIN, *held)}
    store = Registry(tmp_path / "adapters")
    adapter = store.publish(directory, parent="base", lineage=[e.id for e in TRAIN], verdict="better")
    assert store.manifest(adapter).learnt == found
