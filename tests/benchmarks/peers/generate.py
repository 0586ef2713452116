"""Decisions by `transformers.generate`, with a LoRA adapter of peft if one is given.

Used as the documentation shows it: base model in its own dtype, `PeftModel.from_pretrained`, greedy, `use_cache`, the whole
prompt fed for every decision, because `generate` keeps nothing between two calls. Two documented improvements are options:
`--merge` folds the adapter into the weights (as one does who serves a single adapter and never swaps it), `--cached` hands
`generate` a copy of the shared prompt's KV. Nothing keeps the answer inside the list: `accuracy` is by exact match.

    python -m tests.benchmarks.peers.generate --data FILE [--adapter DIR] [--merge] [--cached] [--decisions 40]
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import common, data


def main() -> None:
    parser = common.decision_parser(__doc__)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--cached", action="store_true")
    arguments = parser.parse_args()
    common.prepare(arguments)
    common.set_threads(arguments)
    contents = data.read(arguments.data)
    writer = Writer(contents, load(contents, arguments.adapter, merge=arguments.merge), cached=arguments.cached)
    common.emit(common.decide(contents, arguments.decisions, writer))


def load(contents: dict[str, Any], adapter: Path | None, *, merge: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    base = contents["base"]
    model: Any = AutoModelForCausalLM.from_pretrained(base["directory"], dtype=getattr(torch, base["dtype"]))
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
        if merge:
            model = model.merge_and_unload()
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


class Writer:
    """Prompt ids -> the text the model writes."""

    def __init__(self, contents: dict[str, Any], model: Any, *, cached: bool) -> None:
        from transformers import AutoTokenizer

        self.model = model
        self.tokenizer: Any = AutoTokenizer.from_pretrained(contents["base"]["directory"])
        self.longest = max(map(len, contents["answer_ids"]))
        self.prefix = self._prefix(contents["prefix_ids"]) if cached else None

    def _prefix(self, ids: list[int]) -> Any:
        import torch
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        with torch.no_grad():
            self.model(input_ids=torch.tensor([ids], device=self.model.device), past_key_values=cache)
        return cache

    def __call__(self, ids: list[int]) -> str:
        import torch

        prompt = torch.tensor([ids], device=self.model.device)
        more = {} if self.prefix is None else {"past_key_values": copy.deepcopy(self.prefix)}
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self.longest,
                do_sample=False,
                use_cache=True,
                pad_token_id=self.tokenizer.eos_token_id,
                **more,
            )
        said: str = self.tokenizer.decode(out[0, len(ids) :], skip_special_tokens=True)
        return said


if __name__ == "__main__":
    main()
