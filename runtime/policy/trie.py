"""Finite catalogues: candidates as a token trie, scored whole.

The probability of a candidate is the product, over the branching nodes on its path, of the softmax over the children that
exist there. Tokens that are forced cost nothing and are never asked of the model. The candidates' probabilities sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache

from runtime.policy.backbone import Backbone


@dataclass
class Node:
    token: int
    parent: int
    depth: int  # tokens from the root
    children: dict[int, int] = field(default_factory=dict)  # token -> node
    leaves: list[int] = field(default_factory=list)  # candidates below


class Trie:
    """The candidates' token sequences (each with its end token) as a tree; node 0 is the root."""

    def __init__(self, candidates: Sequence[Sequence[int]]) -> None:
        self.nodes = [Node(token=-1, parent=-1, depth=0)]
        for number, ids in enumerate(candidates):
            self._add(number, ids)
        self.count = len(candidates)
        self.branching = [n for n, node in enumerate(self.nodes) if len(node.children) > 1]
        self.asked = self._ancestors(self.branching)  # nodes whose tokens must be fed to the model, parents first
        tokens = sorted({token for n in self.branching for token in self.nodes[n].children})
        self.tokens = tokens
        self.column = {token: i for i, token in enumerate(tokens)}
        self._paths = [self._path(number, ids) for number, ids in enumerate(candidates)]

    def _add(self, number: int, ids: Sequence[int]) -> None:
        at = 0
        self.nodes[0].leaves.append(number)
        for token in ids:
            here = self.nodes[at]
            if token not in here.children:
                here.children[token] = len(self.nodes)
                self.nodes.append(Node(token=token, parent=at, depth=here.depth + 1))
            at = here.children[token]
            self.nodes[at].leaves.append(number)

    def _path(self, number: int, ids: Sequence[int]) -> list[tuple[int, int]]:
        """(branching node, token taken there) along a candidate."""
        at, steps = 0, []
        for token in ids:
            if len(self.nodes[at].children) > 1:
                steps.append((at, token))
            at = self.nodes[at].children[token]
        return steps

    def _ancestors(self, wanted: Sequence[int]) -> list[int]:
        found: set[int] = set()
        for n in wanted:
            while n > 0 and n not in found:
                found.add(n)
                n = self.nodes[n].parent
        return sorted(found)  # a parent is always made before its children

    def steps(self, number: int) -> list[tuple[int, int]]:
        """(depth of the branching node, token) pairs of a candidate: what training is about."""
        return [(self.nodes[n].depth, token) for n, token in self._paths[number]]

    def allowed(self, number: int) -> list[list[int]]:
        """The tokens that compete at each step of `steps`."""
        return [list(self.nodes[n].children) for n, _ in self._paths[number]]

    def below(self, root_tokens: Sequence[int]) -> list[int]:
        """The asked nodes under these children of the root."""
        kept: set[int] = {self.nodes[0].children[token] for token in root_tokens}
        for n in self.asked:
            if self.nodes[n].parent in kept:
                kept.add(n)
        return [n for n in self.asked if n in kept]

    def mask(self, nodes: Sequence[int]) -> Tensor:
        """[len(nodes), len(tokens)]: 0 where the token is a child of the node, -inf elsewhere."""
        mask = torch.full((len(nodes), len(self.tokens)), -math.inf)
        for row, n in enumerate(nodes):
            mask[row, [self.column[token] for token in self.nodes[n].children]] = 0.0
        return mask


@torch.no_grad()
def score(
    backbone: Backbone, trie: Trie, prefix: DynamicCache, rows: Sequence[Sequence[int]], floor: float = 0.0
) -> Tensor:
    """Log-probabilities [B, K] of all candidates after each row (prompt rests that share `prefix`, a cache).

    Two forwards: the situations, then the trie's tokens with tree attention. With `floor` > 0 the candidates below a
    first token less likely than it are not asked apart: they share that token's probability evenly.
    """
    width, past = max(map(len, rows)), prefix.get_seq_length()
    cache = backbone.repeat(prefix, len(rows))
    mask = [[1] * (past + len(row)) + [0] * (width - len(row)) for row in rows]
    hidden = backbone.hidden(rows, cache, mask)
    last = hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
    steps: list[dict[int, Tensor]] = [{} for _ in rows]  # per row: node -> log-probabilities of trie.tokens there
    tokens = torch.tensor(trie.tokens, dtype=torch.long, device=backbone.device)
    if len(trie.nodes[0].children) > 1:
        root = (backbone.logits(last, tokens).cpu() + trie.mask([0])).log_softmax(-1)
        for i in range(len(rows)):
            steps[i][0] = root[i]
    wanted = [_wanted(trie, found.get(0), floor) for found in steps]
    if any(wanted):
        _ask_tree(backbone, trie, cache, mask, [past + len(row) for row in rows], wanted, tokens, steps)
    return torch.stack([_leaves(trie, found) for found in steps])


def _length(cache: DynamicCache) -> int:
    return int(cache.get_seq_length())


def _wanted(trie: Trie, root: Tensor | None, floor: float) -> list[int]:
    if root is None or floor <= 0:
        return trie.asked
    likely = [t for t in trie.nodes[0].children if root[trie.column[t]] >= math.log(floor)]
    return trie.below(likely or [max(trie.nodes[0].children, key=lambda t: float(root[trie.column[t]]))])


def _ask_tree(
    backbone: Backbone, trie: Trie, cache: DynamicCache, mask: list[list[int]], lengths: list[int],
    wanted: list[list[int]], tokens: Tensor, steps: list[dict[int, Tensor]],
) -> None:  # fmt: skip
    """One forward over each row's wanted nodes; a node sees the prompt and its own ancestors only."""
    width, past = max(map(len, wanted)), len(mask[0])
    dtype = next(backbone.model.parameters()).dtype
    attention = torch.full((len(wanted), 1, width, past + width), torch.finfo(dtype).min, dtype=dtype)
    ids = torch.zeros((len(wanted), width), dtype=torch.long)
    positions = torch.zeros((len(wanted), width), dtype=torch.long)
    visible = torch.tensor(mask, dtype=torch.bool)
    for i, nodes in enumerate(wanted):
        attention[i, 0, :, :past].masked_fill_(visible[i], 0.0)
        slot = {n: s for s, n in enumerate(nodes)}
        for s, n in enumerate(nodes):
            ids[i, s], positions[i, s] = trie.nodes[n].token, lengths[i] + trie.nodes[n].depth - 1
            above = slot.get(trie.nodes[n].parent)
            if above is not None:
                attention[i, 0, s, past:] = attention[i, 0, above, past:]
            attention[i, 0, s, past + s] = 0.0
        for s in range(len(nodes), width):
            attention[i, 0, s, past + s] = 0.0
    move = backbone.device
    hidden = backbone.decode(ids.to(move), attention.to(move), positions.to(move), cache)
    where = [
        (i, s, n) for i, nodes in enumerate(wanted) for s, n in enumerate(nodes) if len(trie.nodes[n].children) > 1
    ]
    if not where:
        return
    picked = hidden[[i for i, _, _ in where], [s for _, s, _ in where]]
    logs = (backbone.logits(picked, tokens).cpu() + trie.mask([n for _, _, n in where])).log_softmax(-1)
    for row, (i, _, n) in enumerate(where):
        steps[i][n] = logs[row]


def _leaves(trie: Trie, steps: dict[int, Tensor]) -> Tensor:
    """Candidate log-probabilities from the answers at the branching nodes; below an unasked node all share alike."""
    logs = torch.empty(trie.count)
    stack: list[tuple[int, float]] = [(0, 0.0)]
    while stack:
        n, log_p = stack.pop()
        node = trie.nodes[n]
        if len(node.leaves) == 1 or (len(node.children) > 1 and n not in steps):
            logs[node.leaves] = log_p - math.log(len(node.leaves))
            continue
        here = steps.get(n)
        for token, child in node.children.items():
            stack.append((child, log_p + (float(here[trie.column[token]]) if here is not None else 0.0)))
    return logs
