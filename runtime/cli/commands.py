"""`corrigible`: the list of commands; those that start something are here, the others in `asking`, `reasons`, `teaching`, `keeping` and `switching`."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli import asking, backtesting, chatting, contentment, keeping, link, reasons, show, switching, teaching
from runtime.cli.options import AsJson, ConfigFile


def run(
    safe: Annotated[
        bool,
        typer.Option("--safe", help="In safe mode: no model, no learner, no plugins but MQTT, chat and our rules."),
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C."""
    from runtime import app as daemon
    from runtime import logging

    settings = link.settings(config)
    logging.setup(settings.log, [settings.broker.password.get_secret_value()])
    asyncio.run(daemon.run(settings, safe=safe))


def demo(
    seed: Annotated[int, typer.Option(help="Another seed, another resident.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the journal, the adapters and the picture in this directory.")
    ] = None,
    kill: Annotated[
        int,
        typer.Option(min=0, help="Meanwhile kill -9 the daemon, the model, the trainer and the broker, N times each."),
    ] = 0,
) -> None:
    """Watch a small model being corrected over MQTT and change its behaviour (a few minutes)."""
    if code := importlib.import_module("plugins.house.demo").run(seed=seed, keep=keep, kill=kill):
        raise typer.Exit(code)


def prune(
    source: Annotated[Path, typer.Argument(help="A base model's directory (Hugging Face format).", exists=True)],
    target: Annotated[Path, typer.Argument(help="The directory to write; it must not exist yet.")],
    share: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="Of each layer's weights, the smallest to make zero.")
    ] = 0.3,
) -> None:
    """Copy a base model with its smallest weights made zero."""
    from runtime.learning.sparsity import prune_base

    zeros = prune_base(source, target, share)
    typer.echo(f"{target}: {zeros:.1%} of all weights are zero; set [policy] model to it and let the gate judge")


def topics(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of the screen.")
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Write the MQTT topics of this configuration as an AsyncAPI 3 document."""
    document = importlib.import_module("plugins.asyncapi").document(link.settings(config))
    if output is None:
        show.as_json(document)
        return
    import json

    output.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    show.out.print(f"wrote {show.cell(output)}")


def config(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether it can be used, the plugins included.")
    ] = False,
    reference: Annotated[
        bool, typer.Option("--reference", help="Show every key with its default and meaning.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Show the settings that hold: the file with the environment over it."""
    from runtime.cli import reference as texts

    if reference:
        print(texts.reference(), end="")
        return
    settings = link.settings(config)
    if not check:
        print(texts.dump(settings), end="")
        return
    from runtime.isolation import loading
    from runtime.parts import zone_of
    from runtime.roles import Context

    agent = settings.agent
    context = Context(agent.name, agent.data, settings.broker, zone_of(agent.timezone))
    loaded = asyncio.run(loading.checked(settings.plugin, context))
    show.out.print(f"the configuration can be used; plugins: {show.cell(', '.join(p.name for p in loaded) or 'none')}")


def doctor(config: ConfigFile = None, json: AsJson = False) -> None:
    """Check the journal against the invariants that must hold; exit code 1 if one is broken."""
    from runtime.cli import checking

    if not checking.examine(link.settings(config), json=json):
        raise typer.Exit(1)


app = typer.Typer(
    name="corrigible", help="The agent you correct once.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)  # fmt: skip
FIRST: list[Callable[..., None]] = [
    run, demo, backtesting.backtest, prune, chatting.chat, asking.status, asking.decisions, reasons.explain, asking.feedback, teaching.edit, teaching.forget, teaching.doubts, teaching.vouch,
    teaching.sources, contentment.satisfaction, switching.learn,
]  # fmt: skip
LAST: list[Callable[..., None]] = [
    switching.modes,
    switching.table,
    switching.memory,
    switching.kill,
    switching.safe,
    switching.approve,
    switching.resolve,
    topics,
    config,
    doctor,
    keeping.backup,
    keeping.restore,
]
for command in FIRST:
    app.command()(command)
switching.adapters.command("changes")(reasons.adapters_changes)
app.add_typer(switching.adapters, name="adapters")
for command in LAST:
    app.command()(command)
