"""How far the gradient of Corrigible's step is from that of the plain loop, on the default model in float32.

The plain loop: transformers and PEFT, every example alone, its whole text at once, all logits (`tests/learning/test_boundary`
does the same on tiny models of every family).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import torch
from msgspec.structs import replace

from runtime.learning.jobs import Job


def main() -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from runtime.learning import jobs
    from runtime.learning.candidate import LoraCandidate
    from runtime.learning.run import Run
    from tests.benchmarks.own import write_job

    parser = argparse.ArgumentParser(description="gradient against the plain loop")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=6)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        directory = write_job(asked.data, Path(scratch) / "job", train=asked.examples, held=0, layers="top:8")
        job, taught, held = jobs.read(directory)
        jobs.write(directory, _float32(job), taught, held)
        run = Run(directory)
        assert isinstance(run.candidate, LoraCandidate)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in run.candidate.parameters:
                parameter.normal_(std=0.02)
        run._keep(run.forward)
        ours = torch.autograd.grad(run.fit._loss(range(len(run.items))), run.candidate.parameters)
        run.candidate.save(Path(scratch) / "adapter")
        base = AutoModelForCausalLM.from_pretrained(
            job.base.directory, dtype=torch.float32, attn_implementation="eager"
        )
        model = PeftModel.from_pretrained(base, Path(scratch) / "adapter", is_trainable=True).eval()
        for item, prefix in zip(run.items, run.prefixes, strict=True):
            logits = model(torch.tensor([[*prefix, *item.ids]])).logits[0, len(prefix) :].float()
            losses = [
                -logits[at][list(rivals)].log_softmax(-1)[rivals.index(token)] for at, token, rivals in item.steps
            ]
            (item.weight * torch.stack(losses).sum()).backward()  # type: ignore[no-untyped-call]
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        names = [
            f"base_model.model.{path}.lora_{part}.default.weight" for path in run.candidate._factors for part in "AB"
        ]
        a, b = torch.cat([g.flatten() for g in ours]), torch.cat([found[name].flatten() for name in names])
    print(json.dumps({"gradient_error": float((a - b).norm() / b.norm())}))


def _float32(job: Job) -> Job:
    return replace(job, base=replace(job.base, dtype="float32"))


if __name__ == "__main__":
    main()
