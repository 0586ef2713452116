"""Catalogue -> grammar: one branch a tool, optional arguments in their declared order, strings written freely or copied.

The grammar (llguidance's Lark dialect) accepts exactly the texts that `Catalogue.parse` reads, so whatever is decoded
under it is a valid action.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import llguidance.hf
from llguidance import LLMatcher, LLTokenizer

from runtime.catalogue import Catalogue, Schema, Tool
from runtime.errors import BadConfig

FREE = r"/[^\n\r]{1,400}/"  # a free single argument, to the end of the line
LIST_LIMIT = 16  # items of a list argument


def tokenizer(hf_tokenizer: Any, vocabulary: int) -> LLTokenizer:
    """llguidance's view of the tokenizer (about a second to build)."""
    return llguidance.hf.from_tokenizer(hf_tokenizer, n_vocab=vocabulary)


@lru_cache(maxsize=256)
def written(encoded: bytes, situation: str) -> str:
    """The grammar of a catalogue (msgspec-encoded, so that it can be a cache key). `situation` matters only to
    arguments that copy from it."""
    import msgspec

    catalogue = msgspec.json.decode(encoded, type=Catalogue)
    rules = [f"start: {' | '.join(f't{i}' for i in range(len(catalogue.tools)))}"]
    for i, tool in enumerate(catalogue.tools):
        rules.extend(_tool(f"t{i}", tool, situation))
    return "\n".join(rules) + "\n"


def copies(catalogue: Catalogue) -> bool:
    """True if some argument is copied from the situation, so that the grammar differs from text to text."""
    return any(schema.get("copied") for tool in catalogue.tools for schema in tool.arguments.values())


def check(catalogue: Catalogue, llt: LLTokenizer) -> None:
    """Raises BadConfig with llguidance's reason if a schema cannot be a grammar."""
    import msgspec

    error = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(written(msgspec.json.encode(catalogue), "x")), llt)
    if error:
        raise BadConfig(f"the catalogue cannot be turned into a grammar: {error}")


def _tool(rule: str, tool: Tool, situation: str) -> list[str]:
    name = _literal(tool.name)
    if not tool.arguments:
        return [f"{rule}: {name}"]
    if tool.single is not None:
        value = _single(tool.arguments[tool.single], situation)
        return [f'{rule}: {name} " " {value}']
    bare = f"{rule}: {name}" if not tool.required else ""
    opened = f'{name} " {{" {rule}a0n'.replace('" {"', '" {"')
    rules = [f"{bare} | {opened}" if bare else f"{rule}: {opened}"]
    names = list(tool.arguments)
    for i, argument in enumerate(names):
        for state in ("n", "s"):  # nothing written yet, something written: then a comma is due
            comma = _literal(",") + " " if state == "s" else ""
            key = _literal(json.dumps(argument, ensure_ascii=False) + ":")
            take = f"{comma}{key} {rule}v{i} {rule}a{i + 1}s"
            skip = f" | {rule}a{i + 1}{state}" if argument not in tool.required else ""
            rules.append(f"{rule}a{i}{state}: {take}{skip}")
        rules.append(f"{rule}v{i}: {_value(tool.arguments[argument], situation)}")
    rules.extend(f"{rule}a{len(names)}{state}: {_literal('}')}" for state in ("n", "s"))
    return rules


def _single(schema: Schema, situation: str) -> str:
    if "enum" in schema:
        return _any(v if isinstance(v, str) else json.dumps(v) for v in schema["enum"])
    if schema.get("type") == "string":
        return _copied(situation) if schema.get("copied") else FREE
    return _value(schema, situation)


def _value(schema: Schema, situation: str) -> str:
    if "anyOf" in schema:
        return "(" + " | ".join(_value(option, situation) for option in schema["anyOf"]) + ")"
    if "enum" in schema:
        return _any(json.dumps(v, ensure_ascii=False) for v in schema["enum"])
    kind = schema.get("type")
    if kind == "string" and schema.get("copied"):
        return f'"\\"" {_copied(situation)} "\\""'
    if kind == "string":
        return r'/"[^"\\\x00-\x1f]{0,200}"/'
    if kind == "boolean":
        return '("true" | "false")'
    if kind == "array":
        item = _value(schema["items"], situation)
        return f'"[" ({item} ("," {item}){{0,{LIST_LIMIT - 1}}})? "]"'
    limits = {key: schema[key] for key in ("minimum", "maximum") if key in schema}
    return f"%json {json.dumps({'type': kind, **limits})}"


def _copied(situation: str) -> str:
    """A piece of the situation (`window` of `windows` too), without characters that JSON would have to escape."""
    piece = "".join(c for c in situation if c >= " " and c not in '"\\') or "x"
    return "%regex " + json.dumps({"substring_chars": piece})


def _any(texts: Any) -> str:
    return "(" + " | ".join(_literal(text) for text in texts) + ")"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
