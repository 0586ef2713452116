"""The fastest time scale of learning: an exact repeat of a corrected situation gets the corrected action at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runtime.messages import Action, Decision, Example, Feedback, Percept


class CorrectionTable:
    """(scope, canonical text) -> the newest action a person gave. Rebuilt from the journal at every start."""

    def __init__(self, trusts: Callable[[str, str], bool] = lambda feedback, source: True) -> None:
        """`trusts(feedback, source)` says whose word is obeyed."""
        self._trusts = trusts
        self._rows: dict[tuple[str, str], tuple[Action, str]] = {}

    def restore(self, corrections: Iterable[Example], upheld: Iterable[Example] = ()) -> None:
        """Take over what the journal says is corrected. `upheld`: words that stand where a newer one is not obeyed."""
        self._rows = {
            (example.scope, example.text): (example.action, example.id)
            for example in corrections
            if self._trusts(example.id, example.source)
        }
        for example in upheld:
            self._rows.setdefault((example.scope, example.text), (example.action, example.id))

    def __len__(self) -> int:
        return len(self._rows)

    def lookup(self, percept: Percept) -> tuple[Action, str] | None:
        """The action and the id of the feedback it came from."""
        return self._rows.get((percept.scope, percept.text))

    def learn(self, percept: Percept, decision: Decision, feedback: Feedback) -> None:
        """Take a feedback in. A correction or an override writes; accepting something else than stands here erases."""
        if not self._trusts(feedback.id, feedback.source):
            return
        key = (percept.scope, percept.text)
        if feedback.kind in ("correction", "override") and feedback.action is not None:
            self._rows[key] = (feedback.action, feedback.id)
        elif feedback.kind == "acceptance" and key in self._rows and self._rows[key][0] != decision.actions[0]:
            del self._rows[key]
