"""Whatever is written under a grammar is a valid action, and every valid action can be written."""

from __future__ import annotations

import msgspec
import pytest
import torch
from llguidance import LLMatcher

from runtime.catalogue import DO_NOTHING, REPLY, Catalogue, Tool
from runtime.messages import Action
from runtime.policy import decoding, grammar
from runtime.policy.backbone import Backbone
from runtime.policy.scoring import Scorer

STRUCTURED = Catalogue(
    tools=(
        Tool(
            name="HassTurnOn",
            arguments={
                "area": {"type": "string"},
                "domain": {"enum": ["light", "fan", 'odd "name"']},
                "brightness": {"type": "integer", "minimum": 0, "maximum": 100},
                "names": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            },
        ),
        Tool(
            name="HassTimer",
            arguments={"minutes": {"type": "number"}, "name": {"type": "string"}},
            required=("minutes",),
        ),
        Tool(name="note", arguments={"text": {"type": "string"}}, required=("text",)),
        Tool(name="quiet", arguments={"on": {"type": "boolean"}}, required=("on",)),
        DO_NOTHING,
    )
)
ACTIONS = [
    Action(tool="HassTurnOn"),
    Action(tool="HassTurnOn", arguments={"area": "Küche 2"}),
    Action(tool="HassTurnOn", arguments={"domain": 'odd "name"', "brightness": 100}),
    Action(tool="HassTurnOn", arguments={"area": "hall", "names": ["a", "b c"]}),
    Action(tool="HassTurnOn", arguments={"names": "今天"}),
    Action(tool="HassTimer", arguments={"minutes": 2.5, "name": "pizza"}),
    Action(tool="HassTimer", arguments={"minutes": 5}),
    Action(tool="note", arguments={"text": "buy milk, 2 l"}),
    Action(tool="quiet", arguments={"on": True}),
    Action(tool="nothing"),
]
REFUSED = [
    'HassTurnOn {"brightness":101}',
    'HassTimer {"name":"x"}',
    "note",
    'HassTurnOn {"domain":"fan","area":"x"}',
    "quiet maybe",
]
TEXTS = ["turn on the light in the hall", "x", "a timer for the pizza, five minutes, please, and hurry"]


def accepts(backbone: Backbone, catalogue: Catalogue, text: str, situation: str = "") -> bool:
    llt = grammar.tokenizer(backbone.tokenizer, backbone.model.config.vocab_size)
    matcher = LLMatcher(llt, LLMatcher.grammar_from_lark(grammar.written(msgspec.json.encode(catalogue), situation)))
    ids = backbone.tokenizer(text, add_special_tokens=False)["input_ids"]
    return matcher.validate_tokens(ids) == len(ids) and matcher.consume_tokens(ids) and bool(matcher.is_accepting())


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: STRUCTURED.render(a))
def test_every_valid_action_is_in_the_grammar(backbone: Backbone, action: Action) -> None:
    assert STRUCTURED.parse(STRUCTURED.render(action)) == action
    assert accepts(backbone, STRUCTURED, STRUCTURED.render(action))


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_catalogue_refuses_the_grammar_refuses(backbone: Backbone, text: str) -> None:
    assert not accepts(backbone, STRUCTURED, text)


def test_what_a_random_model_writes_is_valid(scorer: Scorer) -> None:
    for row in scorer.score(TEXTS, STRUCTURED, "base"):
        STRUCTURED.check(row.chosen)
        assert row.free
        assert row.log_p <= 0


def test_rows_written_together_are_the_rows_written_alone(scorer: Scorer) -> None:
    together = scorer.score(TEXTS, STRUCTURED, "base")
    alone = [scorer.score([text], STRUCTURED, "base")[0] for text in TEXTS]
    assert [row.chosen for row in together] == [row.chosen for row in alone]
    assert [row.log_p for row in together] == pytest.approx([row.log_p for row in alone], abs=1e-2)


def test_copied_arguments_are_pieces_of_the_situation(scorer: Scorer) -> None:
    tool = Tool(name="go", arguments={"to": {"type": "string", "copied": True}}, required=("to",))
    catalogue = Catalogue(tools=(tool, DO_NOTHING))
    for text, row in zip(TEXTS, scorer.score(TEXTS, catalogue, "base"), strict=True):
        if row.chosen.tool == "go":
            assert row.chosen.arguments["to"].strip() in text


def test_a_singular_can_be_copied_from_a_plural(backbone: Backbone) -> None:
    tool = Tool(name="open", arguments={"what": {"type": "string", "copied": True}, "n": {"type": "integer"}})
    catalogue, text = Catalogue(tools=(tool,)), 'open the "windows" in the Küche'
    for value, possible in [("window", True), ("Küche", True), ("in the Küche", True), ("door", False)]:
        rendered = catalogue.render(Action(tool="open", arguments={"what": value}))
        assert accepts(backbone, catalogue, rendered, text) == possible


def test_free_text_equals_plain_greedy_decoding(backbone: Backbone, scorer: Scorer) -> None:
    catalogue = Catalogue(tools=(REPLY,))
    prompt = scorer.prompt(catalogue)
    prefix = backbone.prefix(prompt.prefix, backbone.weights("base"))
    rows = [prompt.encode(text) for text in TEXTS]
    writers = [decoding.Writer(prompt.end) for _ in rows]
    decoding.write(backbone, prefix, rows, writers, 8, backbone.weights("base"))
    for row, writer in zip(rows, writers, strict=True):
        ids = prompt.prefix + row
        for _ in range(8):
            with torch.no_grad():
                ids.append(int(backbone.model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == prompt.end:
                break
        assert writer.ids == ids[len(prompt.prefix) + len(row) :]
