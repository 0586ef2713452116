"""`corrigible backtest`: its options, and the run."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli import link, show
from runtime.cli.options import AsJson, ConfigFile

Stream = Annotated[
    Path,
    typer.Argument(help="Labelled history: JSON lines {input, output, domain?} or CSV.", exists=True, dir_okay=False),
]
Holdout = Annotated[
    Path, typer.Option(help="Labelled rows that are only scored, never learnt from.", exists=True, dir_okay=False)
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first N events of the stream.")]
PerClass = Annotated[int | None, typer.Option(min=1, help="At most N events of one output.")]
LearnEvery = Annotated[
    int | None, typer.Option(min=1, help="Learn after every N events; default: at 100, 200, 400 ...")
]
HoldoutLimit = Annotated[int | None, typer.Option(min=1, help="Only the first N rows of the holdout.")]
Instruction = Annotated[str, typer.Option(help="The system prompt; default: the configured one.")]
Actions = Annotated[
    Path | None, typer.Option(help="A file with the actions, if the stream does not show all.", exists=True)
]
Mqtt = Annotated[bool, typer.Option("--mqtt", help="Send events and feedback over the broker.")]
Teacher = Annotated[str, typer.Option(help="What people say: `correct` (the right answer), `rate` or `override`.")]
Noise = Annotated[float, typer.Option(min=0, max=1, help="Share of corrections that are wrong.")]
Hostile = Annotated[float, typer.Option(min=0, max=1, help="Share of feedback from people who lie, always alike.")]
Sources = Annotated[int, typer.Option(min=1, help="How many people teach.")]
HostileSources = Annotated[int, typer.Option(min=1, help="How many of them lie, with --hostile.")]
Typos = Annotated[float, typer.Option(min=0, max=1, help="Share of the words that are mistyped or misheard.")]
Oos = Annotated[
    Path | None,
    typer.Option(help="Rows it should not answer: half of them choose when to refuse, half are scored.", exists=True),
]
MustPass = Annotated[
    Path | None, typer.Option(help="Situations that every version has to pass, as `[gate] must_pass`.", exists=True)
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]
Report = Annotated[Path | None, typer.Option(help="Write the report to this JSON file.")]


def backtest(
    stream: Stream,
    holdout: Holdout,
    limit: Limit = None,
    per_class: PerClass = None,
    learn_every: LearnEvery = None,
    holdout_limit: HoldoutLimit = None,
    instruction: Instruction = "",
    actions: Actions = None,
    mqtt: Mqtt = False,
    teacher: Teacher = "correct",
    noise: Noise = 0.0,
    hostile: Hostile = 0.0,
    sources: Sources = 10,
    hostile_sources: HostileSources = 2,
    typos: Typos = 0.0,
    oos: Oos = None,
    must_pass: MustPass = None,
    seed: Seed = 0,
    report: Report = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Put your own labelled history through the whole loop and see what the weights have learnt."""
    given = {**locals(), "config": config or link.default_file()}
    module = importlib.import_module("runtime.backtest")
    options = module.Options(**{field.name: given[field.name] for field in fields(module.Options)})
    _quietly(config)
    found = asyncio.run(module.run(options, show.progress))
    if json or report is None:
        show.as_json(found)


def _quietly(config: Path | None) -> None:
    """Hundreds of events a minute; the progress lines tell the story."""
    from runtime import logging

    log = link.settings(config).log
    logging.setup(log.model_copy(update={"level": "warning"}) if log.level == "info" else log)
