"""The baseline learns, one example at a time."""

from __future__ import annotations

from runtime.learning.naive_bayes import NaiveBayes


def test_words_and_word_pairs_decide() -> None:
    bayes = NaiveBayes()
    assert bayes.predict("anything") == ""
    for text, label in [
        ("it is dark", "lamp"),
        ("so dark here", "lamp"),
        ("i am cold", "heat"),
        ("cold night", "heat"),
    ]:
        bayes.learn(text, label)
    assert bayes.predict("Dark, dark room!") == "lamp"
    assert bayes.predict("what a cold room") == "heat"
    assert bayes.predict("cold", frozenset({"lamp"})) == "lamp"


def test_pairs_tell_apart_what_words_cannot() -> None:
    bayes = NaiveBayes()
    bayes.learn("not warm but cold", "heat")
    bayes.learn("not cold but warm", "cool")
    assert bayes.predict("not warm") == "heat"
    assert bayes.predict("not cold") == "cool"


def test_the_majority_without_words() -> None:
    bayes = NaiveBayes()
    for label in ("a", "b", "b"):
        bayes.learn("", label)
    assert bayes.majority == bayes.predict("unseen words") == "b"
