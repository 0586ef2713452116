"""Text + finite catalogue -> Row with an encoder: the action whose vector is nearest to the situation's.

    log p(action | situation) = log softmax over the catalogue of cos(situation, rendered action) / TEMPERATURE

The actions' vectors are computed once for an adapter and a catalogue. Not covered: replies and free arguments, since a
vector cannot be read back as text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import Tensor

from runtime.catalogue import Catalogue
from runtime.errors import BadConfig
from runtime.messages import Action
from runtime.policy.backbone import Backbone
from runtime.policy.encoder import Encoder, nearness
from runtime.policy.prompt import Prompt
from runtime.policy.protocol import Row
from runtime.policy.scoring import TRIES, Looker, Scorer, _featured, picked
from runtime.policy.steps import Steps, finish

VECTORS = 64  # (adapter, catalogue) pairs whose actions' vectors are kept
STEP = 4  # actions that are computed between two decisions


def scorer_of(
    backbone: Backbone, instruction: str, *, reply_tokens: int, free_below: float, catalogue_tokens: int,
    looker: Looker | None = None,
) -> Scorer:  # fmt: skip
    """What answers with this model; an encoder takes no instruction."""
    if isinstance(backbone, Encoder):
        return Matcher(backbone, looker)
    return Scorer(
        backbone, instruction, reply_tokens=reply_tokens, free_below=free_below, catalogue_tokens=catalogue_tokens,
        looker=looker,
    )  # fmt: skip


class Phrasing(Prompt):
    """No prompt: a situation is read as it is, and an action is one token."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.prefix = []

    def encode(self, situation: str) -> list[int]:
        return self._encoder.encode(situation)

    def situation(self, row: list[int]) -> int:
        return len(row)

    def completion(self, catalogue: Catalogue, action: Action) -> list[int]:
        return [self._encoder.number(catalogue.render(action))]


@dataclass(frozen=True)
class Choices:
    """A catalogue's actions and the token ids of their texts."""

    catalogue: str  # its id
    actions: tuple[Action, ...]
    rows: list[list[int]]


class Matcher(Scorer):
    """Encoder and catalogues in one place, with the calls of a `Scorer`. The `floor` is not needed: all is exact."""

    backbone: Encoder

    def __init__(self, backbone: Encoder, looker: Looker | None = None) -> None:
        super().__init__(backbone, "", reply_tokens=0, free_below=0.0, catalogue_tokens=0, looker=looker)
        self._choices: OrderedDict[str, Choices] = OrderedDict()
        self._vectors: OrderedDict[tuple[str, str], Tensor] = OrderedDict()  # by adapter and catalogue
        self._phrasing = Phrasing(backbone)

    def prompt(self, catalogue: Catalogue) -> Prompt:
        """The same for all catalogues. Raises BadConfig if this one is not finite."""
        if not picked(catalogue):
            raise BadConfig(
                f"[policy] model: models of type {self.backbone.model.config.model_type!r} choose among finitely many "
                "actions, and this catalogue has replies or free arguments; use a language model"
            )
        return self._phrasing

    def choices(self, catalogue: Catalogue) -> Choices:
        key = catalogue.id
        if key not in self._choices:
            self.prompt(catalogue)
            actions = catalogue.finite()
            rows = [self.backbone.encode(catalogue.render(action)) for action in actions]
            self._choices[key] = Choices(key, actions, rows)
            _trim(self._choices, TRIES)
        self._choices.move_to_end(key)
        return self._choices[key]

    def forget(self, adapter: str) -> None:
        super().forget(adapter)
        for key in [key for key in self._vectors if key[0] == adapter]:
            del self._vectors[key]

    def warming(self, adapter: str) -> Steps[None]:
        """Compute the vectors of the actions in use under an adapter before it serves."""
        for choices in tuple(self._choices.values()):
            yield from self._matching(adapter, choices)

    @torch.inference_mode()
    def score_together(
        self, asked: Sequence[tuple[str, Catalogue]], adapter: str, floor: float, feature: bool = False
    ) -> list[Row]:
        """One row for each (text, catalogue), in as few forwards as possible."""
        weights = self.backbone.weights(adapter)
        every = [self.choices(catalogue) for _, catalogue in asked]
        vectors = self.backbone.decoder.vectors(weights, [self.backbone.encode(text) for text, _ in asked])
        rows = []
        for vector, choices in zip(vectors, every, strict=True):
            logs = nearness(vector, finish(self._matching(adapter, choices))).log_softmax(-1)
            best = int(logs.argmax())
            rows.append(
                Row(
                    actions=list(choices.actions), log_probs=logs.tolist(), chosen=choices.actions[best],
                    log_p=float(logs[best]),
                )
            )  # fmt: skip
        return _featured(rows, self.look([text for text, _ in asked], asked[0][1])) if feature else rows

    def score(
        self, texts: Sequence[str], catalogue: Catalogue, adapter: str, floor: float = 0.0,
        gold: Sequence[Action] = (), feature: bool = False,
    ) -> list[Row]:  # fmt: skip
        """One row a text. `gold`, if given, has one action a text whose log-probability is wanted."""
        if not texts:
            return []
        rows = self.score_together([(text, catalogue) for text in texts], adapter, floor, feature)
        if not gold:
            return rows
        place = {msgspec.json.encode(action): i for i, action in enumerate(rows[0].actions)}
        places = [place.get(msgspec.json.encode(action)) for action in gold]
        return [
            row if at is None else msgspec.structs.replace(row, log_p_gold=row.log_probs[at])
            for row, at in zip(rows, places, strict=True)
        ]

    def _matching(self, adapter: str, choices: Choices) -> Steps[Tensor]:
        """The vectors of these actions under an adapter, computed once, a forward at a time."""
        key = (adapter, choices.catalogue)
        if key not in self._vectors:
            weights, made = self.backbone.weights(adapter), []
            for start in range(0, len(choices.rows), STEP):
                with torch.inference_mode():
                    made.append(self.backbone.decoder.vectors(weights, choices.rows[start : start + STEP]))
                yield
            self._vectors[key] = torch.cat(made)
            _trim(self._vectors, VECTORS)
        self._vectors.move_to_end(key)
        return self._vectors[key]


def _trim(kept: OrderedDict[Any, Any], limit: int) -> None:
    while len(kept) > limit:
        kept.popitem(last=False)
