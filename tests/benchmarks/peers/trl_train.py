"""LoRA training by TRL's `SFTTrainer` with peft, in four recipes.

fp32        as installed: float32 weights, LoRA on all linear layers, batch 8, gradient checkpointing (TRL's own defaults).
            `bf16=False` is the one setting that bears on speed: TRL's default, True, is refused on a machine without a GPU
bf16        the same with bfloat16 weights and TRL's bfloat16 autocast, which takes `use_cpu=True`
tuned       what documented options can do here: bfloat16, adapters only in the layers that Corrigible trains, no gradient
            checkpointing, batches of like length, eager attention, no logging, evaluation or workers
subclassed  tuned, and `compute_loss` overridden as TRL's documentation advises for a loss of one's own: without a GPU TRL
            applies the output head to every position of the prompt, forward and backward; this one to the completion only

Tried on one thread with AVX512-BF16 beside other work. Slower: padding-free, `torch_compile`, padding to a multiple, float32
weights, random batches, checkpointing. Within the noise: the unfused AdamW, bfloat16 adapters, batches of 16 or 32 (`--batch`).

Data are handed over as token ids with a completion mask, which TRL takes as they are. Loss: TRL's, on the completion only.
The learning rate of a run to an accuracy is Corrigible's, with linear warm-up and cosine, for all recipes.

    python -m tests.benchmarks.peers.trl_train --data FILE --recipe tuned [--layers top:8] [--batch 8] --seconds 60
    python -m tests.benchmarks.peers.trl_train --data FILE --recipe tuned --until 0.65 --epochs 3 --out DIR [--resume]
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import common, data

WARM_UP = 2  # steps that a throughput does not count
PARTS = 2  # checkpoints an epoch
LEARNING_RATE, SHARE_WARM_UP = 2e-3, 0.06
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
QUICK = {
    "gradient_checkpointing": False,
    "train_sampling_strategy": "group_by_length",
    "dataloader_pin_memory": False,
    "dataloader_num_workers": 0,
}


@dataclass(frozen=True)
class Recipe:
    model: dict[str, Any]  # how it is loaded
    options: dict[str, Any] = field(default_factory=dict)
    tops: bool = False  # adapters in the top layers only
    own_loss: bool = False


RECIPES = {
    "fp32": Recipe({"dtype": "float32"}, {"bf16": False}),
    "bf16": Recipe({"dtype": "bfloat16"}),
    "tuned": Recipe({"dtype": "bfloat16", "attn_implementation": "eager"}, QUICK, tops=True),
    "subclassed": Recipe({"dtype": "bfloat16", "attn_implementation": "eager"}, QUICK, tops=True, own_loss=True),
}


def main() -> None:
    arguments = _parser().parse_args()
    common.prepare(arguments)
    common.set_threads(arguments)
    contents = data.read(arguments.data)
    contents["train"] = contents["train"][: arguments.train]
    if arguments.seconds:
        common.emit(throughput(contents, arguments))
    else:
        common.emit(to_accuracy(contents, arguments))


def _parser() -> argparse.ArgumentParser:
    parser = common.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=int, help="only so many of the training items")
    parser.add_argument("--recipe", choices=RECIPES, required=True)
    parser.add_argument("--layers", default="top:8", help="of the tuned recipes; `all` or `top:K`")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=LEARNING_RATE)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--seconds", type=float, help="measure the throughput for about so long")
    mode.add_argument("--until", type=float, help="train to this accuracy on the held items")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the checkpoints of --until go")
    parser.add_argument("--resume", action="store_true", help="go on from the last judged checkpoint in --out")
    return parser


def throughput(contents: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    from tests.benchmarks.peers.callbacks import Pace

    pace = Pace(arguments.seconds, WARM_UP)
    with tempfile.TemporaryDirectory() as scratch:
        made = trainer(
            contents,
            arguments,
            Path(scratch),
            num_train_epochs=1000,
            save_strategy="no",
            include_num_input_tokens_seen="non_padding",
        )
        made.add_callback(pace)
        made.train()
    rate = pace.tokens / pace.elapsed
    return {
        "examples_per_second": round(rate / _tokens(contents), 3),
        "steps": pace.steps,
        "seconds": round(pace.elapsed, 2),
        "tokens_per_second": round(rate, 1),
        "recipe": arguments.recipe,
        "batch": arguments.batch,
    }


def _tokens(contents: dict[str, Any]) -> float:
    """Of an average training item. Examples a second follow from tokens: batches of like length begin with the longest."""
    prefix, items = len(contents["prefix_ids"]), contents["train"]
    return prefix + sum(len(item["ids"]) + len(item["answer_ids"]) for item in items) / len(items)


def to_accuracy(contents: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    from tests.benchmarks.peers.callbacks import Judged, read_times
    from tests.benchmarks.peers.judge import Judge

    steps = -(-len(contents["train"]) // arguments.batch)
    made = trainer(
        contents, arguments, arguments.out, num_train_epochs=arguments.epochs, save_steps=max(1, steps // PARTS),
        save_strategy="steps",
    )  # fmt: skip
    times = read_times(arguments.out) if arguments.resume else []
    judged = Judged(Judge(contents, arguments.threads), arguments.until, arguments.out, times)
    if not judged.reached:
        made.add_callback(judged)
        made.train(resume_from_checkpoint=times[-1]["adapter"] if times else None)
    return {
        "recipe": arguments.recipe,
        "until": arguments.until,
        "reached_seconds": judged.reached,
        "times": judged.times,
    }


def trainer(contents: dict[str, Any], arguments: argparse.Namespace, out: Path, **options: Any) -> Any:
    """TRL's trainer over the training items, as the recipe says."""
    import torch
    from trl import SFTConfig  # type: ignore[import-not-found,import-untyped,attr-defined,unused-ignore]

    recipe = RECIPES[arguments.recipe]
    config = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=arguments.batch,
        learning_rate=arguments.lr,
        lr_scheduler_type="cosine",
        warmup_steps=SHARE_WARM_UP,
        completion_only_loss=True,  # TRL's default for data with a prompt and a completion
        model_init_kwargs=recipe.model,
        use_cpu=not torch.cuda.is_available(),
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=arguments.seed,
        **(recipe.options | options),
    )
    return _class(recipe)(
        model=contents["base"]["directory"],
        args=config,
        train_dataset=_dataset(contents),
        peft_config=_lora(contents, recipe, arguments.layers),
    )


def _class(recipe: Recipe) -> Any:
    if recipe.own_loss:
        from tests.benchmarks.peers.own_loss import CompletionHead

        return CompletionHead
    from trl import SFTTrainer  # type: ignore[import-not-found,import-untyped,attr-defined,unused-ignore]

    return SFTTrainer


def _dataset(contents: dict[str, Any]) -> Any:
    from datasets import Dataset  # type: ignore[import-not-found,import-untyped,attr-defined,unused-ignore]

    rows = []
    for item in contents["train"]:
        prompt, completion = contents["prefix_ids"] + item["ids"], item["answer_ids"]
        rows.append({"input_ids": prompt + completion, "completion_mask": [0] * len(prompt) + [1] * len(completion)})
    return Dataset.from_list(rows)


def _lora(contents: dict[str, Any], recipe: Recipe, layers: str) -> Any:
    from peft import LoraConfig

    where = _top(contents, int(layers.removeprefix("top:"))) if recipe.tops and layers != "all" else None
    return LoraConfig(
        r=16,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules=list(LINEAR),  # all linear layers of a block; a list, because `layers_to_transform` needs one
        layers_to_transform=where,
        task_type="CAUSAL_LM",
    )


def _top(contents: dict[str, Any], count: int) -> list[int]:
    from transformers import AutoConfig

    total = AutoConfig.from_pretrained(contents["base"]["directory"]).num_hidden_layers
    return list(range(total - count, total))


if __name__ == "__main__":
    main()
