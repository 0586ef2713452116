"""Inside the trainer: two versions are asked about the same situations, whatever became of the catalogue since."""

from __future__ import annotations

import pytest

from runtime.learning import comparing
from runtime.learning.jobs import Base, Job
from runtime.learning.offpolicy import Logged
from runtime.learning.reference import Reference
from runtime.messages import Action
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.scoring import Scorer
from tests.learning.test_train import CATALOGUES, HOUSE, INSTRUCTION, lamp

TEXTS = ("It is dark.", "Good night.", "Who are you?")


@pytest.fixture(scope="module")
def scorer(model: Base) -> Scorer:
    return Scorer(Backbone(model), INSTRUCTION, reply_tokens=12, free_below=0.0, catalogue_tokens=0)


@pytest.fixture
def job(model: Base) -> Job:
    return Job(base=model, instruction=INSTRUCTION, catalogues=CATALOGUES)


def test_a_version_changes_nothing_against_itself(scorer: Scorer, job: Job) -> None:
    """In all kinds of catalogues: finite, known replies, and arguments that must be written."""
    asked = [Reference(scope=scope, text=text) for scope in CATALOGUES for text in TEXTS]
    found = comparing.change(scorer, job, asked, BASE, BASE)
    assert found is not None
    assert (found.situations, found.flips, found.flipped) == (len(asked), 0.0, ())
    assert found.divergence == pytest.approx(0.0, abs=1e-6)


def test_the_answers_come_in_the_order_of_the_questions(scorer: Scorer, job: Job) -> None:
    asked = [Reference(scope=scope, text=text * 3) for text in TEXTS for scope in ("hall", "chat")]
    alone = [comparing.answers(scorer, job, BASE, [one])[0].said for one in asked]
    assert [answer.said for answer in comparing.answers(scorer, job, BASE, asked)] == alone


def test_rooms_that_are_gone_are_not_asked_about_and_written_answers_only_a_few_times(scorer: Scorer, job: Job) -> None:
    gone = [Reference(scope="cellar", text="It is dark.")]
    assert comparing.change(scorer, job, gone, BASE, BASE) is None
    many = [Reference(scope="desk", text=f"Note {n}.") for n in range(comparing.SLOW + 3)]
    kept = comparing._affordable(job, [*gone, *many])
    assert kept == many[: comparing.SLOW]


def test_an_action_that_is_gone_says_nothing_about_the_present(scorer: Scorer, job: Job) -> None:
    def logged(number: int, scope: str, action: Action, right: Action | None = None) -> Logged:
        return Logged(
            id=f"dc-{number}", scope=scope, text="It is dark.", action=action, chance=0.5, reward=1.0, right=right
        )

    blind = Action(tool="blind")
    assert (
        comparing.off_policy(scorer, job, [logged(0, "hall", blind), logged(1, "cellar", lamp("dim"))], BASE, BASE)
        is None
    )
    kept = [
        logged(2, "hall", lamp("dim"), lamp("dim")),
        logged(3, "chat", HOUSE),
        logged(4, "hall", lamp("dim"), blind),
    ]
    found = comparing.off_policy(scorer, job, kept, BASE, BASE)
    assert found is not None
    assert found.decisions == 2
    assert found.candidate == found.champion
