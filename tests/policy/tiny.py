"""Tiny random models with the real tokenizer: the mechanics of the policy without the cost of a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from runtime.learning.jobs import Base
from runtime.policy import base


def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(base.resolve("smollm2", "float32").directory)


def llama(directory: Path) -> Base:
    """Four layers of 32 in float32, saved in Hugging Face format."""
    return family("llama", directory)


def gpt2(directory: Path) -> Base:
    """The same size in an older architecture, and no chat template."""
    return family("gpt2", directory)


SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {**SHAPE, "tie_word_embeddings": True},
    "mistral": {**SHAPE, "sliding_window": 6},
    "qwen2": {**SHAPE, "tie_word_embeddings": False},
    "qwen3": {**SHAPE, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    "gemma": SHAPE,
    "gemma2": {**SHAPE, "sliding_window": 6, "query_pre_attn_scalar": 10},
    "gemma3_text": {**SHAPE, "sliding_window": 6, "query_pre_attn_scalar": 10, "sliding_window_pattern": 2},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512},
}  # fmt: skip
ENCODERS: dict[str, dict[str, Any]] = {
    **{name: {**SHAPE, "max_position_embeddings": 64} for name in ("bert", "roberta", "mpnet")},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 4, "n_heads": 4, "max_position_embeddings": 64},
}


def family(name: str, directory: Path) -> Base:
    """A random model of an architecture, small enough to train in a test."""
    words = tokenizer()
    if name == "gpt2":
        words.chat_template = None
    config = AutoConfig.for_model(
        name, vocab_size=len(words), bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=None, **FAMILIES[name],
    )  # fmt: skip
    return _saved(AutoModelForCausalLM.from_config, config, words, directory)


def encoder(name: str, directory: Path) -> Base:
    """A random model that reads both ways; its tokenizer adds no marks at the ends of a text."""
    words = tokenizer()
    config = AutoConfig.for_model(name, vocab_size=len(words), **ENCODERS[name])
    return _saved(AutoModel.from_config, config, words, directory)


def _saved(kind: Any, config: Any, words: Any, directory: Path) -> Base:
    torch.manual_seed(0)
    config.initializer_range = 0.2  # so that its answers differ from text to text
    kind(config).save_pretrained(directory)
    words.save_pretrained(directory)
    return Base(directory=str(directory), revision=base.revision(directory), dtype="float32")


def adapter(
    model: Base,
    directory: Path,
    seed: int,
    targets: tuple[str, ...] = ("q_proj", "v_proj"),
    task: str = "CAUSAL_LM",
    layers: list[int] | None = None,
) -> Path:
    """A random LoRA adapter that visibly changes the model."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    kind = AutoModelForCausalLM if task == "CAUSAL_LM" else AutoModel
    plain = kind.from_pretrained(model.directory, dtype=torch.float32)
    config = LoraConfig(
        r=4, lora_alpha=32, target_modules=list(targets), task_type=task, layers_to_transform=layers
    )  # fmt: skip
    wrapped = get_peft_model(plain, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    wrapped.save_pretrained(directory)
    return directory
