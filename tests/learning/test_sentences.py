"""The encoder baseline, where its extra is installed."""

from __future__ import annotations

import pytest

from runtime.learning.sentences import Sentences, available

TAUGHT = [
    ("my card has not come", "card"),
    ("where is my card", "card"),
    ("reset my password", "login"),
    ("I cannot log in", "login"),
]


@pytest.mark.skipif(not available(), reason="pip install 'corrigible[evaluation]'")
def test_what_means_the_same_gets_the_same_label() -> None:
    encoder = Sentences()
    assert encoder.predict(["anything"]) == [""]
    encoder.learn(*TAUGHT[0])
    assert encoder.predict(["anything", "else"]) == ["card", "card"]
    for text, label in TAUGHT[1:]:
        encoder.learn(text, label)
    assert encoder.predict(["the bank card did not arrive", "I forgot the secret word of my account"]) == [
        "card",
        "login",
    ]
    assert encoder.encode(["a", "b"]).shape == (2, 384)


@pytest.mark.skipif(available(), reason="the extra is installed")
def test_without_the_extra_it_says_so() -> None:
    with pytest.raises(ImportError):
        Sentences()
