"""Text + catalogue -> Row: scored whole where the catalogue is finite, decoded where it is not, replies both ways."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from runtime.catalogue import REPLY, Catalogue
from runtime.errors import BadAction
from runtime.messages import Action
from runtime.policy import decoding, grammar, trie
from runtime.policy.backbone import BASE, Backbone
from runtime.policy.decoder import Weights
from runtime.policy.features import Features, Watching
from runtime.policy.layout import Past
from runtime.policy.prompt import Prompt, listed, replies_only, replies_open
from runtime.policy.protocol import Row
from runtime.policy.steps import Steps

TRIES = 32  # catalogues kept
PREFIXES = 8  # prompt KVs kept (one for each adapter and listing)
NARROW = 1e-3  # least p of a first token that a bulk scoring looks below
LOOKED = (
    1.4  # what an encoder's view of a situation counts beside the model's own: more than half where both are at hand
)


@dataclass(frozen=True)
class Context:
    """What a call's rows have in common: the prompt, its keys and values, and the weights they were computed with."""

    prompt: Prompt
    past: Past
    weights: Weights


class Looker(Protocol):
    """An encoder of texts."""

    def look(self, texts: Sequence[str]) -> Tensor: ...


class Scorer:
    """Backbone, prompt and catalogues in one place; called by the worker and by the trainer's evaluation."""

    def __init__(
        self, backbone: Backbone, instruction: str, *, reply_tokens: int, free_below: float, catalogue_tokens: int,
        looker: Looker | None = None,
    ) -> None:  # fmt: skip
        """`looker` says what situations are like, too, beside the model's own lower layers."""
        self.backbone = backbone
        self._looker = looker
        self._instruction = instruction
        self._reply_tokens = reply_tokens
        self._free_below = free_below
        self._catalogue_tokens = catalogue_tokens
        self._tries: OrderedDict[str, tuple[trie.Trie, tuple[Action, ...]]] = OrderedDict()
        self._prompts: OrderedDict[str, Prompt] = OrderedDict()
        self._prefixes: OrderedDict[tuple[str, str], Past] = OrderedDict()
        self._features: OrderedDict[str, Features] = OrderedDict()
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

    def prefix(self, adapter: str, prompt: Prompt) -> Past:
        """The prompt's keys and values under an adapter, computed once."""
        key = (adapter, repr(prompt.prefix))
        if key not in self._prefixes:
            with torch.inference_mode():
                self._prefixes[key] = self.backbone.prefix(prompt.prefix, self.backbone.weights(adapter))
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

    def features(self, catalogue: Catalogue) -> Features:
        """What situations under this catalogue's prompt are like."""
        prompt = self.prompt(catalogue)
        key = repr(prompt.prefix)
        if key not in self._features:
            self._features[key] = Features(self.backbone, self.prefix(BASE, prompt))
            _trim(self._features, PREFIXES)
        return self._features[key]

    def look(self, texts: Sequence[str], catalogue: Catalogue) -> list[bytes]:
        """The features of situations, as `Row.feature`."""
        if not texts:
            return []
        prompt = self.prompt(catalogue)
        rows = [prompt.encode(text) for text in texts]
        own = self.features(catalogue).of(rows, [prompt.situation(row) for row in rows])
        return _packed(self._beside(own, texts))

    def _beside(self, own: Tensor, texts: Sequence[str]) -> Tensor:
        """What the encoder says of the texts beside the model's own features [N, size], at length 1."""
        if self._looker is None:
            return own
        said = LOOKED * self._looker.look(texts).to(own.device)
        return torch.cat([own, said], -1) / math.sqrt(1 + LOOKED**2)

    def score(
        self, texts: Sequence[str], catalogue: Catalogue, adapter: str, floor: float = 0.0,
        gold: Sequence[Action] = (), feature: bool = False,
    ) -> list[Row]:  # fmt: skip
        """One row a text. `gold`, if given, has one action a text whose log-probability is wanted."""
        prompt = self.prompt(catalogue)
        rows = [prompt.encode(text) for text in texts]
        context = Context(prompt, self.prefix(adapter, prompt), self.backbone.weights(adapter))
        if not catalogue.closed and not replies_open(catalogue):
            found = self._structured(context, rows, texts, catalogue)
        else:
            found = self._finite(context, rows, catalogue, floor)
        if feature:
            found = _featured(found, self.look(texts, catalogue))
        return self._with_gold(context, rows, catalogue, found, gold) if gold else found

    def score_together(
        self, asked: Sequence[tuple[str, Catalogue]], adapter: str, floor: float, feature: bool = False
    ) -> list[Row]:
        """One row for each (text, catalogue), in as few forwards as possible: rows that follow the same prompt share
        them, whatever their catalogues. The catalogues are `picked`."""
        found: dict[int, Row] = {}
        groups: dict[str, list[int]] = {}
        for i, (_, catalogue) in enumerate(asked):
            groups.setdefault(repr(self.prompt(catalogue).prefix), []).append(i)
        weights = self.backbone.weights(adapter)
        for part in groups.values():
            prompt = self.prompt(asked[part[0]][1])
            rows = [prompt.encode(asked[i][0]) for i in part]
            tries = [self.trie(asked[i][1]) for i in part]
            past = self.prefix(adapter, prompt)
            watch = self._watching(asked[part[0]][1], rows, weights) if feature else None
            logs = trie.score(self.backbone, [tree for tree, _ in tries], past, rows, weights, floor, watch)
            picked_rows = [_picked(actions, log) for (_, actions), log in zip(tries, logs, strict=True)]
            if feature:
                picked_rows = _featured(picked_rows, self._seen(watch, [asked[i] for i in part]))
            found.update(zip(part, picked_rows, strict=True))
        return [found[i] for i in range(len(asked))]

    def _watching(self, catalogue: Catalogue, rows: list[list[int]], weights: Weights) -> Watching | None:
        prompt = self.prompt(catalogue)
        lengths, counts = [len(row) for row in rows], [prompt.situation(row) for row in rows]
        return self.features(catalogue).watching(weights, lengths, counts)

    def _seen(self, watch: Watching | None, asked: Sequence[tuple[str, Catalogue]]) -> list[bytes]:
        """The features of rows of one prompt: seen in passing, else by a pass of their own."""
        catalogue, texts = asked[0][1], [text for text, _ in asked]
        if watch is None:
            return self.look(texts, catalogue)
        return _packed(self._beside(self.features(catalogue).seen(watch.means), texts))

    def warming(self, adapter: str) -> Steps[None]:
        """Compute the prompts in use under an adapter before it serves, in small steps."""
        weights = self.backbone.weights(adapter)
        for prompt in {repr(prompt.prefix): prompt for prompt in self._prompts.values()}.values():
            key = (adapter, repr(prompt.prefix))
            if key not in self._prefixes:
                self._prefixes[key] = (yield from self.backbone.stepping(prompt.prefix, weights))[1]
                _trim(self._prefixes, PREFIXES)

    def _finite(self, context: Context, rows: list[list[int]], catalogue: Catalogue, floor: float) -> list[Row]:
        tree, actions = self.trie(catalogue)
        if not actions:
            return self._replies(context, rows, catalogue, [None] * len(rows))
        logs = trie.score(self.backbone, [tree] * len(rows), context.past, rows, context.weights, floor)
        found = [_picked(actions, log) for log in logs]
        return found if catalogue.closed else self._or_free(context, rows, catalogue, found)

    def _or_free(self, context: Context, rows: list[list[int]], catalogue: Catalogue, found: list[Row]) -> list[Row]:
        """Where the best known reply is not what the model would write itself, let it write."""
        completions = [context.prompt.completion(catalogue, row.chosen) for row in found]
        likelihood = [
            total / len(ids) for total, ids in zip(self.unmasked(context, rows, completions), completions, strict=True)
        ]
        doubtful = [i for i, per_token in enumerate(likelihood) if per_token < math.log(max(self._free_below, 1e-9))]
        written = self._replies(context, [rows[i] for i in doubtful], catalogue, [found[i] for i in doubtful])
        for i, row in zip(doubtful, written, strict=True):
            found[i] = row
        return found

    def _replies(
        self, context: Context, rows: list[list[int]], catalogue: Catalogue, known: Sequence[Row | None]
    ) -> list[Row]:
        if not rows:
            return []
        if not replies_only(catalogue):  # beside other tools a reply begins with its name
            rows = [row + context.prompt.data(REPLY.name) for row in rows]
        writers = [decoding.Writer(context.prompt.end) for _ in rows]
        decoding.write(self.backbone, context.past, rows, writers, self._reply_tokens, context.weights)
        written = []
        for writer, before in zip(writers, known, strict=True):
            text = self.backbone.tokenizer.decode(writer.ids, skip_special_tokens=True).rstrip("\ufffd").strip() or "…"
            action = Action(tool=REPLY.name, arguments={"text": text[:2000]})
            rest = (before.actions, before.log_probs) if before is not None else ([], [])
            written.append(Row(actions=rest[0], log_probs=rest[1], chosen=action, log_p=writer.log_p, free=True))
        return written

    def _structured(
        self, context: Context, rows: list[list[int]], texts: Sequence[str], catalogue: Catalogue
    ) -> list[Row]:
        vocabulary = self.backbone.model.get_output_embeddings().weight.shape[0]
        if self._grammars is None:
            self._grammars = grammar.tokenizer(self.backbone.tokenizer, vocabulary)
        encoded = msgspec.json.encode(catalogue)
        copied = grammar.copies(catalogue)
        writers = [
            decoding.GrammarWriter(
                self._grammars, grammar.written(encoded, text if copied else ""), context.prompt.end, vocabulary
            )
            for text in texts
        ]
        decoding.write(self.backbone, context.past, rows, writers, decoding.MAX_STEPS, context.weights)
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
        context: Context,
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
            inside = [i for i, action in enumerate(gold) if catalogue.allows(action)]
            completions = [context.prompt.completion(catalogue, gold[i]) for i in inside]
            for i, log in zip(inside, self.unmasked(context, [rows[i] for i in inside], completions), strict=True):
                logs[i] = log
        return [msgspec.structs.replace(row, log_p_gold=log) for row, log in zip(found, logs, strict=True)]

    @torch.inference_mode()
    def unmasked(self, context: Context, rows: list[list[int]], completions: list[list[int]]) -> list[float]:
        """Log-probability of whole texts under the whole vocabulary."""
        if not rows:
            return []
        backbone = self.backbone
        whole = [row + ids[:-1] for row, ids in zip(rows, completions, strict=True)]
        hidden, _ = backbone.after(context.past, whole, context.weights)
        totals = []
        for states, row, ids in zip(hidden, rows, completions, strict=True):
            logs = backbone.logits(states[len(row) - 1 :], context.weights).log_softmax(-1)
            totals.append(float(logs[torch.arange(len(ids)), torch.tensor(ids)].sum()))
        return totals


def picked(catalogue: Catalogue) -> bool:
    """True if a decision is one of a finite set, so that it can share its forwards with others."""
    return catalogue.closed and bool(catalogue.finite())


def _picked(actions: Sequence[Action], logs: Tensor) -> Row:
    best = int(logs.argmax())
    return Row(actions=list(actions), log_probs=logs.tolist(), chosen=actions[best], log_p=float(logs[best]))


def _packed(features: Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in features.to("cpu", torch.float16)]


def _featured(rows: Sequence[Row], features: Sequence[bytes]) -> list[Row]:
    return [msgspec.structs.replace(row, feature=feature) for row, feature in zip(rows, features, strict=True)]


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
