"""BANKING77 as the file all peers read: the prompts that Corrigible's own `Prompt` makes, as text and as token ids.

Every item has `input` (the customer's words), `text` and `ids` (the rest of the prompt, after `prefix`/`prefix_ids`) and
`answer`/`answer_ids` (with the end token). Peers take the ids, so nobody tokenises differently: words of the customer that
look like a special token stay text, and no token spans the border between prompt and situation.

    python -m tests.benchmarks.peers.data FILE --limit 600 --holdout 300 [--listed]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runtime.backtest import data as history
from runtime.catalogue import Catalogue
from runtime.policy import base, prompt

FOLDER = Path(os.environ.get("BANKING77", Path(__file__).parents[4] / "shared/data/banking77"))
INSTRUCTION = "Sort the message."  # what `corrigible backtest` says to a file of labels
LISTING = 1024  # `catalogue_tokens` where the queues are listed


def write(path: Path, *, limit: int | None, holdout: int | None, listed: bool) -> dict[str, Any]:
    """The first `limit` rows to train on and the first `holdout` to judge by; `listed`: the prompt names all queues."""
    from transformers import AutoTokenizer

    found = base.resolve(base.DEFAULT, "auto")
    tokenizer: Any = AutoTokenizer.from_pretrained(found.directory)
    stream, held = history.read(FOLDER / "stream.jsonl"), history.read(FOLDER / "holdout.jsonl")
    codec = history.Codec(stream)
    listing = prompt.listed(codec.catalogue) if listed else ""
    made = prompt.Prompt(tokenizer, INSTRUCTION, listing)
    contents = {
        "base": msgspec.to_builtins(found),
        "instruction": INSTRUCTION,
        "catalogue": msgspec.to_builtins(codec.catalogue),
        "catalogue_tokens": LISTING if listed else 0,
        "prefix": tokenizer.decode(made.prefix),
        "prefix_ids": made.prefix,
        "train": _items(tokenizer, made, codec, stream[:limit]),
        "held": _items(tokenizer, made, codec, held[:holdout]),
        "answers": [codec.catalogue.render(action) for action in codec.catalogue.finite()],
        "answer_ids": [made.completion(codec.catalogue, action) for action in codec.catalogue.finite()],
    }
    path.write_text(json.dumps(contents), encoding="utf-8")
    return contents


def read(path: Path) -> dict[str, Any]:
    """The file; the base model in the type that this CPU computes in (float32 where bfloat16 is switched off)."""
    contents: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    contents["base"] = msgspec.to_builtins(base.resolve(base.DEFAULT, "auto"))
    return contents


def catalogue(contents: dict[str, Any]) -> Catalogue:
    return msgspec.convert(contents["catalogue"], Catalogue)


def _items(
    tokenizer: Any, made: prompt.Prompt, codec: history.Codec, lines: Sequence[history.Line]
) -> list[dict[str, Any]]:
    items = []
    for line in lines:
        ids, action = made.encode(line.input), codec.action(line.output)
        items.append(
            {
                "input": line.input,
                "text": tokenizer.decode(ids),
                "ids": ids,
                "answer": codec.catalogue.render(action),
                "answer_ids": made.completion(codec.catalogue, action),
            }
        )
    return items


def main() -> None:
    parser = argparse.ArgumentParser(description="BANKING77 for the peers")
    parser.add_argument("path", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--holdout", type=int)
    parser.add_argument("--listed", action="store_true")
    arguments = parser.parse_args()
    made = write(arguments.path, limit=arguments.limit, holdout=arguments.holdout, listed=arguments.listed)
    sizes = {"prefix_tokens": len(made["prefix_ids"]), "train": len(made["train"]), "held": len(made["held"])}
    print(json.dumps(sizes | {"answers": len(made["answers"])}))


if __name__ == "__main__":
    main()
