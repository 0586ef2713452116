"""Corrigible's own side of a decision: the scorer as the policy worker uses it, on the peers' file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtime.catalogue import Catalogue
from tests.benchmarks.peers import common
from tests.benchmarks.peers import data as peer_data


def scorer(contents: dict[str, Any], threads: int, serving: bool = True) -> Any:
    import msgspec

    from runtime.learning.jobs import Base
    from runtime.policy.backbone import Backbone
    from runtime.policy.scoring import Scorer

    backbone = Backbone(msgspec.convert(contents["base"], Base), threads, serving=serving)
    return Scorer(
        backbone,
        contents["instruction"],
        reply_tokens=64,
        free_below=0.5,
        catalogue_tokens=contents["catalogue_tokens"],
    )


def many(catalogue: Catalogue, count: int) -> Catalogue:
    """The catalogue with more actions, named by recombining the words of its own."""
    import itertools

    from runtime.catalogue import Tool

    names = [tool.name for tool in catalogue.tools]
    words = sorted({word for name in names for word in name.split("_")})
    more = ("_".join(pair) for pair in itertools.permutations(words, 2))
    added = [name for name in more if name not in names][: count - len(names)]
    return Catalogue(tools=(*catalogue.tools, *(Tool(name=name) for name in added)))


def measure(made: Any, contents: dict[str, Any], catalogue: Catalogue, adapter: str, count: int) -> dict[str, Any]:
    """Milliseconds of decisions one after the other, as a live request makes them."""
    from runtime.policy.client import LIVE_FLOOR

    texts = {tuple(contents["prefix_ids"] + item["ids"]): item["input"] for item in contents["held"]}

    def answer(ids: list[int]) -> str:
        row = made.score_together([(texts[tuple(ids)], catalogue)], adapter, LIVE_FLOOR)[0]
        return catalogue.render(row.chosen)

    return common.decide(contents, count, answer)


def main() -> None:
    parser = common.decision_parser(__doc__)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--actions", type=int, default=0, help="add queues with names of the same kind up to so many")
    asked = parser.parse_args()
    common.prepare(asked)
    contents = peer_data.read(asked.data)
    made = scorer(contents, asked.threads)
    name = "base"
    if asked.adapter:
        name = "adapter"
        made.backbone.load(name, asked.adapter)
    catalogue = many(peer_data.catalogue(contents), asked.actions) if asked.actions else peer_data.catalogue(contents)
    common.emit(measure(made, contents, catalogue, name, asked.decisions))


if __name__ == "__main__":
    main()
