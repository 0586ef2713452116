"""`corrigible`: the list of commands; those that start something are here, the others in `asking`, `reasons`, `teaching` and `switching`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli import asking, chatting, contentment, link, reasons, show, switching, teaching
from runtime.cli.options import AsJson, ConfigFile

DataFile = Annotated[
    Path,
    typer.Argument(help="Labelled history: JSON lines {input, output, domain?} or CSV.", exists=True, dir_okay=False),
]


def run(config: ConfigFile = None) -> None:
    """Run the daemon until SIGTERM or Ctrl-C."""
    from runtime import app as daemon
    from runtime import logging

    settings = link.settings(config)
    logging.setup(settings.log)
    asyncio.run(daemon.run(settings))


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
    _finish(importlib.import_module("plugins.house.demo").run(seed=seed, keep=keep, kill=kill))


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


def backtest(
    stream: DataFile,
    holdout: Annotated[
        Path, typer.Option(help="Labelled rows that are only scored, never learnt from.", exists=True, dir_okay=False)
    ],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N events of the stream.")] = None,
    per_class: Annotated[int | None, typer.Option(min=1, help="At most N events of one output.")] = None,
    learn_every: Annotated[
        int | None, typer.Option(min=1, help="Learn after every N events; default: at 100, 200, 400 ...")
    ] = None,
    holdout_limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows of the holdout.")] = None,
    instruction: Annotated[str, typer.Option(help="The system prompt; default: the configured one.")] = "",
    actions: Annotated[
        Path | None, typer.Option(help="A file with the actions, if the stream does not show all.", exists=True)
    ] = None,
    mqtt: Annotated[bool, typer.Option("--mqtt", help="Send events and feedback over the broker.")] = False,
    teacher: Annotated[
        str, typer.Option(help="What people say: `correct` (the right answer), `rate` or `override`.")
    ] = "correct",
    noise: Annotated[float, typer.Option(min=0, max=1, help="Share of corrections that are wrong.")] = 0.0,
    hostile: Annotated[
        float, typer.Option(min=0, max=1, help="Share of feedback from people who lie, always alike.")
    ] = 0.0,
    sources: Annotated[int, typer.Option(min=1, help="How many people teach.")] = 10,
    hostile_sources: Annotated[int, typer.Option(min=1, help="How many of them lie, with --hostile.")] = 2,
    typos: Annotated[float, typer.Option(min=0, max=1, help="Share of the words that are mistyped or misheard.")] = 0.0,
    oos: Annotated[
        Path | None,
        typer.Option(
            help="Rows it should not answer: half of them choose when to refuse, half are scored.", exists=True
        ),
    ] = None,
    must_pass: Annotated[
        Path | None, typer.Option(help="Situations that every version has to pass, as `[gate] must_pass`.", exists=True)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    report: Annotated[Path | None, typer.Option(help="Write the report to this JSON file.")] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Put your own labelled history through the whole loop and see what the weights have learnt."""
    from runtime import logging

    module = importlib.import_module("runtime.backtest")
    options = module.Options(
        stream=stream, holdout=holdout, limit=limit, per_class=per_class, learn_every=learn_every, holdout_limit=holdout_limit,
        instruction=instruction, actions=actions, mqtt=mqtt, teacher=teacher,
        noise=noise, hostile=hostile, sources=sources, hostile_sources=hostile_sources, typos=typos, oos=oos, must_pass=must_pass, seed=seed, report=report, config=config or link.default_file(),
    )  # fmt: skip
    log = link.settings(config).log
    if log.level == "info":  # hundreds of events a minute; the progress lines tell the story
        log = log.model_copy(update={"level": "warning"})
    logging.setup(log)
    _finish(module.run(options, show.progress), json=json or report is None)


def _finish(result: Any, *, json: bool = False) -> None:
    """Wait for a coroutine; a number that is not 0 is the exit code, a report is printed if asked for."""
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    if isinstance(result, dict):
        if json:
            show.as_json(result)
    elif isinstance(result, int) and result:
        raise typer.Exit(result)


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
    from runtime import plugins
    from runtime.app import zone_of
    from runtime.roles import Context

    agent = settings.agent
    loaded = plugins.load(settings.plugin, Context(agent.name, agent.data, settings.broker, zone_of(agent.timezone)))
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
    run, demo, backtest, prune, chatting.chat, asking.status, asking.decisions, reasons.explain, asking.feedback, teaching.edit, teaching.forget, teaching.doubts, teaching.vouch,
    teaching.sources, contentment.satisfaction, switching.learn,
]  # fmt: skip
LAST: list[Callable[..., None]] = [
    switching.modes,
    switching.table,
    switching.memory,
    switching.kill,
    switching.approve,
    topics,
    config,
    doctor,
]
for command in FIRST:
    app.command()(command)
switching.adapters.command("changes")(reasons.adapters_changes)
app.add_typer(switching.adapters, name="adapters")
for command in LAST:
    app.command()(command)
