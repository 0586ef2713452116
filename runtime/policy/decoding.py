"""Writes an action token by token: under a grammar, forced tokens without a model step, or freely for a reply. Greedy.

All rows of a batch take their steps together. A step appends to each row what is known to follow: one chosen token and
the tokens it forces.
"""

from __future__ import annotations

from collections.abc import Sequence

import llguidance.numpy as lln
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from runtime.policy import layout as layouts
from runtime.policy.backbone import Backbone
from runtime.policy.decoder import Weights
from runtime.policy.layout import Layout, Past

MAX_STEPS = 160  # model steps of one action


class Writer:
    """One row under construction."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.ids: list[int] = []
        self.log_p = 0.0
        self.done = False

    def forced(self) -> list[int]:
        """Tokens that must follow now."""
        return []

    def allow(self, logits: Tensor) -> Tensor:
        """The logits [V] with what may not follow at -inf."""
        return logits

    def take(self, token: int) -> None:
        self.ids.append(token)
        self.done = token == self.end


class GrammarWriter(Writer):
    """Follows a grammar; done when it accepts and nothing more may follow, or the end token was chosen."""

    def __init__(self, llt: LLTokenizer, grammar: str, end: int, vocabulary: int) -> None:
        super().__init__(end)
        self._matcher = LLMatcher(llt, LLMatcher.grammar_from_lark(grammar))
        self._mask = lln.allocate_token_bitmask(1, vocabulary)
        self._vocabulary = vocabulary
        if self._matcher.is_error():
            raise ValueError(self._matcher.get_error())

    def forced(self) -> list[int]:
        tokens = [t for t in self._matcher.compute_ff_tokens() if t != self.end]
        for token in tokens:
            self._matcher.consume_token(token)
        self.ids.extend(tokens)
        self.done = self.done or self._matcher.is_stopped()
        return tokens

    def allow(self, logits: Tensor) -> Tensor:
        lln.fill_next_token_bitmask(self._matcher, self._mask, 0)
        bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._vocabulary]
        return logits.masked_fill(torch.from_numpy(bits == 0), float("-inf"))

    def take(self, token: int) -> None:
        if token == self.end:
            self.done = True
            return
        self._matcher.consume_token(token)
        super().take(token)
        self.done = self._matcher.is_stopped()


@torch.inference_mode()
def write(
    backbone: Backbone,
    past: Past,
    rows: Sequence[Sequence[int]],
    writers: Sequence[Writer],
    limit: int,
    weights: Weights,
) -> None:
    """Let every writer write after its prompt rest; at most `limit` model steps, after which a row is left as it is."""
    sees = [list(range(len(past))) for _ in rows]  # the columns of each row
    chunks = [[*row, *writer.forced()] for row, writer in zip(rows, writers, strict=True)]
    for _ in range(limit):
        active = [i for i, writer in enumerate(writers) if not writer.done]
        if not active:
            return
        layout = _append(past, [sees[i] for i in active], [len(chunks[i]) for i in active])
        hidden, new = backbone.hidden([token for i in active for token in chunks[i]], layout, past, weights)
        past = past.then(new)
        ends = torch.tensor([len(chunks[i]) for i in active]).cumsum(0) - 1
        logits = backbone.logits(hidden[ends], weights).cpu()
        for i, row in zip(active, logits, strict=True):
            chunks[i] = _step(writers[i], row)


def _append(past: Past, sees: Sequence[list[int]], lengths: Sequence[int]) -> Layout:
    """Each row grows by so many tokens, which from now on it sees."""
    positions, seen, column = [], [], len(past)
    for columns, length in zip(sees, lengths, strict=True):
        for _ in range(length):
            positions.append(len(columns))
            columns.append(column)
            seen.append(columns[:])
            column += 1
    return layouts.seeing(past, positions, seen)


def _step(writer: Writer, logits: Tensor) -> list[int]:
    logs = writer.allow(logits).log_softmax(-1)
    token = int(logs.argmax())
    writer.log_p += float(logs[token])
    writer.take(token)
    return [] if writer.done else [token, *writer.forced()]
