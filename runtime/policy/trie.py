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

from runtime.policy import layout as layouts
from runtime.policy.backbone import Backbone
from runtime.policy.decoder import Watch, Weights
from runtime.policy.layout import Layout, Past

WAVE = 16  # most tokens of the trie that are asked at once because some of them may matter


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
        self._fed = self._ancestors(self.branching)  # nodes whose tokens must be fed to the model
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

    def _ancestors(self, wanted: Sequence[int]) -> set[int]:
        found: set[int] = set()
        for n in wanted:
            while n > 0 and n not in found:
                found.add(n)
                n = self.nodes[n].parent
        return found

    def steps(self, number: int) -> list[tuple[int, int]]:
        """(depth of the branching node, token) pairs of a candidate: what training is about."""
        return [(self.nodes[n].depth, token) for n, token in self._paths[number]]

    def allowed(self, number: int) -> list[list[int]]:
        """The tokens that compete at each step of `steps`."""
        return [list(self.nodes[n].children) for n, _ in self._paths[number]]

    def below(self, top: int) -> list[int]:
        """The nodes that must be fed to the model to know all candidates below `top`, itself first."""
        return [n for n in self._descendants(top) if n in self._fed]

    def chain(self, top: int) -> list[int]:
        """From `top` down to the first node with a choice."""
        nodes = [top]
        while len(self.nodes[nodes[-1]].children) == 1:
            nodes.extend(self.nodes[nodes[-1]].children.values())
        return nodes

    def _descendants(self, top: int) -> list[int]:
        found, at = [top], 0
        while at < len(found):
            found.extend(self.nodes[found[at]].children.values())
            at += 1
        return found


@torch.inference_mode()
def score(
    backbone: Backbone, tries: Sequence[Trie], past: Past, rows: Sequence[Sequence[int]], weights: Weights,
    floor: float = 0.0, watch: Watch | None = None,
) -> list[Tensor]:  # fmt: skip
    """Log-probabilities [K] of all candidates of each row's trie (rows are prompt rests that all follow `past`).

    One forward over the situations, then waves over the tries with tree attention. With `floor` > 0 what lies below a
    node less likely than it is not asked apart, but shares the node's probability evenly; the best candidate is always
    found, and its probability is exact. `watch` sees the states of the rows.
    """
    hidden, new = backbone.after(past, rows, weights, watch)
    asking = [_Asking(trie) for trie in tries]
    _take(backbone, weights, torch.stack([row[-1] for row in hidden]), [(one, 0) for one in asking])
    tree = _Tree(past, new, [len(row) for row in rows])
    while any(waves := [one.wave(floor) for one in asking]):
        layout = tree.grow(tries, waves)
        places = [(one, n) for one, nodes in zip(asking, waves, strict=True) for n in nodes]
        states, more = backbone.hidden([one.trie.nodes[n].token for one, n in places], layout, tree.past, weights)
        tree.past = tree.past.then(more)
        _take(backbone, weights, states, places)
    return [_leaves(one.trie, one.answers) for one in asking]


def _take(backbone: Backbone, weights: Weights, states: Tensor, places: Sequence[tuple[_Asking, int]]) -> None:
    """Note the log-probabilities of the children at every branching node; states [len(places), d]."""
    branching = [i for i, (one, n) in enumerate(places) if len(one.trie.nodes[n].children) > 1]
    if not branching:
        return
    tokens = sorted({token for i in branching for token in places[i][0].trie.nodes[places[i][1]].children})
    column = {token: i for i, token in enumerate(tokens)}
    logits = backbone.logits(states[branching], weights, torch.tensor(tokens, device=backbone.device)).cpu()
    for row, i in enumerate(branching):
        one, n = places[i]
        children = list(one.trie.nodes[n].children)
        logs = logits[row, [column[token] for token in children]].log_softmax(-1).tolist()
        one.answers[n] = dict(zip(children, logs, strict=True))


class _Asking:
    """What one row has asked of the trie so far."""

    def __init__(self, trie: Trie) -> None:
        self.trie = trie
        self.answers: dict[int, dict[int, float]] = {}  # branching node -> log-probability of each child's token
        self._asked: set[int] = {0}

    def wave(self, floor: float) -> list[int]:
        """The nodes to ask next, parents first; empty when nothing that matters is open."""
        frontier = self._open(floor)
        if not frontier:
            return []
        below = [n for top in frontier for n in self.trie.below(top)]
        nodes = below if len(below) <= WAVE else [n for top in frontier for n in self.trie.chain(top)]
        self._asked.update(nodes)
        return nodes

    def _open(self, floor: float) -> list[int]:
        """Unasked nodes that candidates compete below, if likelier than `floor` or than the best candidate so far."""
        trie, best, found = self.trie, -math.inf, []
        limit = math.log(floor) if floor > 0 else -math.inf
        stack: list[tuple[int, float]] = [(0, 0.0)]
        while stack:
            n, log_p = stack.pop()
            node = trie.nodes[n]
            if len(node.leaves) == 1:
                best = max(best, log_p)
            elif n not in self._asked:
                found.append((n, log_p))
            else:
                here = self.answers.get(n)
                for token, child in node.children.items():
                    stack.append((child, log_p + (here[token] if here is not None else 0.0)))
        return sorted(n for n, log_p in found if log_p >= limit or log_p > best)


class _Tree:
    """Which columns of the growing past each row's nodes stand in: a node sees the prompt, its row and its ancestors."""

    def __init__(self, past: Past, rows: Past, lengths: Sequence[int]) -> None:
        self.past = past.then(rows)
        self._sees: list[dict[int, list[int]]] = []  # row -> node -> columns
        self._length = [len(past) + length for length in lengths]
        start = len(past)
        for length in lengths:
            self._sees.append({0: [*range(len(past)), *range(start, start + length)]})
            start += length

    def grow(self, tries: Sequence[Trie], waves: Sequence[Sequence[int]]) -> Layout:
        """Give every node of the wave its column and say what it sees."""
        column, positions, seen = len(self.past), [], []
        for row, nodes in enumerate(waves):
            for n in nodes:
                node = tries[row].nodes[n]
                self._sees[row][n] = [*self._sees[row][node.parent], column]
                positions.append(self._length[row] + node.depth - 1)
                seen.append(self._sees[row][n])
                column += 1
        return layouts.seeing(self.past, positions, seen)


def _leaves(trie: Trie, steps: dict[int, dict[int, float]]) -> Tensor:
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
            stack.append((child, log_p + (here[token] if here is not None else 0.0)))
    return logs
