"""Text + catalogue -> Row: scored whole where the catalogue is finite, decoded where it is not, replies both ways."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import msgspec
import torch

from runtime.catalogue import REPLY, Catalogue
from runtime.errors import BadAction
from runtime.messages import Action
from runtime.policy import decoding, grammar, trie
from runtime.policy.backbone import Backbone
from runtime.policy.prompt import Prompt, listed, replies_only, replies_open
from runtime.policy.protocol import Row

TRIES = 32  # catalogues kept
PREFIXES = 8  # prompt KVs kept (one for each adapter and listing)
NARROW = 1e-3  # least p of a first token that a bulk scoring looks below


class Scorer:
    """Backbone, prompt and catalogues in one place; called by the worker and by the trainer's evaluation."""

    def __init__(
        self, backbone: Backbone, instruction: str, *, reply_tokens: int, free_below: float, catalogue_tokens: int
    ) -> None:
        self.backbone = backbone
        self._instruction = instruction
        self._reply_tokens = reply_tokens
        self._free_below = free_below
        self._catalogue_tokens = catalogue_tokens
        self._tries: OrderedDict[str, tuple[trie.Trie, tuple[Action, ...]]] = OrderedDict()
        self._prompts: OrderedDict[str, Prompt] = OrderedDict()
        self._prefixes: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._grammars: Any = None

    def prompt(self, catalogue: Catalogue) -> Prompt:
        """The prompt of a catalogue: the same for all of them unless the catalogue is listed in it."""
        listing = self._listing(catalogue)
        if listing not in self._prompts:
            self._prompts[listing] = Prompt(self.backbone.tokenizer, self._instruction, listing)
            _trim(self._prompts, TRIES)
        return self._prompts[listing]

    def _listing(self, catalogue: Catalogue) -> str:
        if not self._catalogue_tokens:
            return ""
        text = listed(catalogue)
        fits = len(self.backbone.tokenizer(text, add_special_tokens=False)["input_ids"]) <= self._catalogue_tokens
        return text if fits else ""

    def prefix(self, adapter: str, prompt: Prompt) -> Any:
        """The prompt's KV under an adapter, computed once. The caller is inside `backbone.using(adapter)`."""
        key = (adapter, repr(prompt.prefix))
        if key not in self._prefixes:
            with torch.no_grad():
                self._prefixes[key] = self.backbone.prefix(prompt.prefix)
            _trim(self._prefixes, PREFIXES)
        self._prefixes.move_to_end(key)
        return self._prefixes[key]

    def forget(self, adapter: str) -> None:
        """Drop what was computed under an adapter, because it is unloaded or its weights moved (training)."""
        for key in [key for key in self._prefixes if key[0] == adapter]:
            del self._prefixes[key]

    def trie(self, catalogue: Catalogue) -> tuple[trie.Trie, tuple[Action, ...]]:
        """The trie of the catalogue's finite candidates, and the candidates."""
        key = catalogue.id
        if key not in self._tries:
            prompt, actions = self.prompt(catalogue), catalogue.finite()
            self._tries[key] = trie.Trie([prompt.completion(catalogue, action) for action in actions]), actions
            _trim(self._tries, TRIES)
        self._tries.move_to_end(key)
        return self._tries[key]

    def score(
        self, texts: Sequence[str], catalogue: Catalogue, adapter: str, floor: float = 0.0, gold: Sequence[Action] = ()
    ) -> list[Row]:
        """One row a text. `gold`, if given, has one action a text whose log-probability is wanted."""
        with self.backbone.using(adapter):
            prompt = self.prompt(catalogue)
            rows = [prompt.encode(text) for text in texts]
            prefix = self.prefix(adapter, prompt)
            if not catalogue.closed and not replies_open(catalogue):
                found = self._structured(prompt, prefix, rows, texts, catalogue)
            else:
                found = self._finite(prompt, prefix, rows, catalogue, floor)
            if not gold:
                return found
            return self._with_gold(prompt, prefix, rows, catalogue, found, gold)

    def _finite(
        self, prompt: Prompt, prefix: Any, rows: list[list[int]], catalogue: Catalogue, floor: float
    ) -> list[Row]:
        tree, actions = self.trie(catalogue)
        if not actions:
            return self._replies(prompt, prefix, rows, catalogue, [None] * len(rows))
        logs = trie.score(self.backbone, tree, prefix, rows, floor)
        found = [
            Row(
                actions=list(actions), log_probs=log.tolist(), chosen=actions[int(log.argmax())], log_p=float(log.max())
            )
            for log in logs
        ]
        return found if catalogue.closed else self._or_free(prompt, prefix, rows, catalogue, found)

    def _or_free(
        self, prompt: Prompt, prefix: Any, rows: list[list[int]], catalogue: Catalogue, found: list[Row]
    ) -> list[Row]:
        """Where the best known reply is not what the model would write itself, let it write."""
        completions = [prompt.completion(catalogue, row.chosen) for row in found]
        likelihood = [
            total / len(ids) for total, ids in zip(self.unmasked(prefix, rows, completions), completions, strict=True)
        ]
        doubtful = [i for i, per_token in enumerate(likelihood) if per_token < math.log(max(self._free_below, 1e-9))]
        written = self._replies(prompt, prefix, [rows[i] for i in doubtful], catalogue, [found[i] for i in doubtful])
        for i, row in zip(doubtful, written, strict=True):
            found[i] = row
        return found

    def _replies(
        self, prompt: Prompt, prefix: Any, rows: list[list[int]], catalogue: Catalogue, known: Sequence[Row | None]
    ) -> list[Row]:
        if not rows:
            return []
        if not replies_only(catalogue):  # beside other tools a reply begins with its name
            rows = [row + prompt.data(REPLY.name) for row in rows]
        writers = [decoding.Writer(prompt.end) for _ in rows]
        decoding.write(self.backbone, prefix, rows, writers, self._reply_tokens)
        written = []
        for writer, before in zip(writers, known, strict=True):
            text = self.backbone.tokenizer.decode(writer.ids, skip_special_tokens=True).rstrip("\ufffd").strip() or "…"
            action = Action(tool=REPLY.name, arguments={"text": text[:2000]})
            rest = (before.actions, before.log_probs) if before is not None else ([], [])
            written.append(Row(actions=rest[0], log_probs=rest[1], chosen=action, log_p=writer.log_p, free=True))
        return written

    def _structured(
        self, prompt: Prompt, prefix: Any, rows: list[list[int]], texts: Sequence[str], catalogue: Catalogue
    ) -> list[Row]:
        vocabulary = self.backbone.model.get_output_embeddings().weight.shape[0]
        if self._grammars is None:
            self._grammars = grammar.tokenizer(self.backbone.tokenizer, vocabulary)
        encoded = msgspec.json.encode(catalogue)
        copied = grammar.copies(catalogue)
        writers = [
            decoding.GrammarWriter(
                self._grammars, grammar.written(encoded, text if copied else ""), prompt.end, vocabulary
            )
            for text in texts
        ]
        decoding.write(self.backbone, prefix, rows, writers, decoding.MAX_STEPS)
        return [self._parsed(catalogue, writer) for writer in writers]

    def _parsed(self, catalogue: Catalogue, writer: decoding.Writer) -> Row:
        text = self.backbone.tokenizer.decode(writer.ids, skip_special_tokens=False)
        try:
            action = catalogue.parse(text)
        except BadAction:  # cut off by the step limit: the one way to leave the grammar
            action = (
                Action(tool="nothing") if any(t.name == "nothing" for t in catalogue.tools) else _shortest(catalogue)
            )
        return Row(actions=[action], log_probs=[writer.log_p], chosen=action, log_p=writer.log_p, free=True)

    def _with_gold(
        self,
        prompt: Prompt,
        prefix: Any,
        rows: list[list[int]],
        catalogue: Catalogue,
        found: list[Row],
        gold: Sequence[Action],
    ) -> list[Row]:
        """Add the gold actions' log-probability: as a candidate where it is one, else as text; None outside the catalogue."""
        logs: list[float | None] = [None] * len(gold)
        if catalogue.closed:
            index = {msgspec.json.encode(action): i for i, action in enumerate(found[0].actions)}
            places = [index.get(msgspec.json.encode(action)) for action in gold]
            logs = [None if at is None else row.log_probs[at] for row, at in zip(found, places, strict=True)]
        else:
            inside = [i for i, action in enumerate(gold) if _valid(catalogue, action)]
            completions = [prompt.completion(catalogue, gold[i]) for i in inside]
            for i, log in zip(inside, self.unmasked(prefix, [rows[i] for i in inside], completions), strict=True):
                logs[i] = log
        return [msgspec.structs.replace(row, log_p_gold=log) for row, log in zip(found, logs, strict=True)]

    @torch.no_grad()
    def unmasked(self, prefix: Any, rows: list[list[int]], completions: list[list[int]]) -> list[float]:
        """Log-probability of whole texts under the whole vocabulary."""
        if not rows:
            return []
        backbone = self.backbone
        hidden = backbone.after(prefix, [row + ids[:-1] for row, ids in zip(rows, completions, strict=True)])
        totals = []
        for i, (row, ids) in enumerate(zip(rows, completions, strict=True)):
            logs = backbone.logits(hidden[i, len(row) - 1 : len(row) - 1 + len(ids)]).log_softmax(-1)
            totals.append(float(logs[torch.arange(len(ids)), torch.tensor(ids)].sum()))
        return totals


def _valid(catalogue: Catalogue, action: Action) -> bool:
    try:
        catalogue.check(action)
    except BadAction:
        return False
    return True


def _shortest(catalogue: Catalogue) -> Action:
    """Some valid action, for a text that was cut off: the first tool that needs no argument, else its plainest form."""
    for tool in catalogue.tools:
        if not tool.required:
            return Action(tool=tool.name)
    tool = catalogue.tools[0]
    return Action(tool=tool.name, arguments={name: _plain(tool.arguments[name]) for name in tool.required})


def _plain(schema: dict[str, Any]) -> Any:
    if "anyOf" in schema:
        return _plain(schema["anyOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    return {"string": "", "boolean": False, "array": []}.get(str(schema.get("type")), schema.get("minimum", 0))


def _trim(kept: OrderedDict[Any, Any], limit: int) -> None:
    while len(kept) > limit:
        kept.popitem(last=False)
