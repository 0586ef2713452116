"""Situation -> token ids, for serving and training alike: they cannot drift apart over a single space.

A situation is data: it is tokenised with special tokens off, so `<|im_end|>` in a payload is just text.
"""

from __future__ import annotations

from typing import Any

import structlog

from runtime.catalogue import REPLY, Catalogue
from runtime.messages import Action

MARK = "\u2063situation\u2063"  # stands for the situation while the chat template is rendered
MAX_SITUATION = 1024  # tokens; longer situations lose their middle

log = structlog.get_logger("prompt")


class Prompt:
    """`prefix` is the same for all situations (its KV is computed once); `encode` gives the rest of the prompt."""

    def __init__(self, tokenizer: Any, instruction: str, listing: str = "") -> None:
        self._tokenizer = tokenizer
        system = f"{instruction}\n{listing}".strip()
        before, after = _around(tokenizer, system)
        self.prefix: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
        self._after: list[int] = tokenizer(after, add_special_tokens=False)["input_ids"]
        self.end: int = tokenizer.eos_token_id

    def encode(self, situation: str) -> list[int]:
        ids = self.data(situation)
        if len(ids) > MAX_SITUATION:
            half = MAX_SITUATION // 2
            ids = ids[:half] + ids[-half:]
        return ids + self._after

    def situation(self, row: list[int]) -> int:
        """How many of the first tokens of an `encode`d row are the situation's."""
        return len(row) - len(self._after)

    def data(self, text: str) -> list[int]:
        """Token ids of text that comes from outside."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def completion(self, catalogue: Catalogue, action: Action) -> list[int]:
        """What the model writes for an action, with the end token."""
        return [*self.data(spelled(catalogue, action)), self.end]


def spelled(catalogue: Catalogue, action: Action) -> str:
    """The action's text; where there is nothing but replies, the reply itself."""
    if replies_only(catalogue):
        return str(action.arguments["text"])
    return catalogue.render(action)


def replies_only(catalogue: Catalogue) -> bool:
    """Nothing but replies: the tool's name would say nothing, so it is left out of the text."""
    return all(tool.name == REPLY.name for tool in catalogue.tools)


def replies_open(catalogue: Catalogue) -> bool:
    """True if a reply is all that has to be written: every other tool is in `finite()`."""
    return all(tool.name == REPLY.name or tool.choices() is not None for tool in catalogue.tools)


def listed(catalogue: Catalogue) -> str:
    """The catalogue as a line of the prompt."""
    return "Choices: " + ", ".join(catalogue.render(action) for action in catalogue.finite())


def _around(tokenizer: Any, system: str) -> tuple[str, str]:
    """The text before and after the situation: the model's chat template, plain text if it has none."""
    if tokenizer.chat_template:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": MARK}]
        rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if rendered.count(MARK) == 1:
            before, _, after = rendered.partition(MARK)
            return before, after
    start = tokenizer.bos_token or ""
    return f"{start}{system}\n", "\n->"
