"""`corrigible demo`: a home, a daemon and a broker as processes that talk only over MQTT, and the story of what is learnt.

First wrong decision -> correction -> right at once -> cycle -> swap -> table off, still right -> the habits change ->
... -> rollback shows the old behaviour, promote the new one. Ends with a table on unseen situations and a picture.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from plugins.house import judging, verdict
from plugins.house import settings as home
from plugins.house.nemesis import VICTIMS, Nemesis
from plugins.house.processes import TRIES, Daemon, Home, free_port
from runtime.config import load
from runtime.errors import CorrigibleError, Unavailable
from runtime.journal import doctor

COUNT = 240  # situations; the habits change after half of them
EARLY = 30  # situations before the change (and the end) that are still played while the cycle runs
UNSEEN = 160  # situations the end is judged on
ASKED = 10  # corrected situations that are asked again with the table off
SHOWN = 2  # of them are shown one by one
AGENT = "demo"
INSTRUCTION = "You run a home. Choose what to do."


def run(seed: int = 0, keep: Path | None = None, kill: int = 0) -> int:
    """Exit code 0 only if the weights alone beat the base by 20 points, persistence, and naive Bayes on what people say.

    With `kill`, each process is killed so often meanwhile, and the journal must be without fault as well."""
    console = Console(highlight=False)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        return asyncio.run(Demo(seed + 1, keep, console, kill).run())
    with tempfile.TemporaryDirectory(prefix="corrigible-demo-") as scratch:
        return asyncio.run(Demo(seed + 1, Path(scratch), console, kill).run())


class Demo:
    """One telling of the story."""

    def __init__(self, seed: int, folder: Path, console: Console, kill: int = 0) -> None:
        self.seed, self.folder, self.console = seed, folder, console
        self.data = folder / "data"
        self.port = free_port()
        self.daemon = Daemon(folder / "demo.toml", self.data)
        self.home = Home(self.port, AGENT, seed, COUNT, self._heard)
        self.kill = kill
        self.nemesis = Nemesis(self.daemon, dict.fromkeys(VICTIMS, kill), seed, self.tell)
        self.taught: dict[int, str] = {}  # situation -> what was right, where the agent was wrong and heard of it
        self.cases: dict[int, dict[str, Any]] = {}
        self.right: list[bool] = []
        self.safe: set[str] = set()  # ids of messages that the agent acknowledged
        self.started = time.monotonic()

    async def run(self) -> int:
        self.data.mkdir(parents=True, exist_ok=True)
        (self.folder / "demo.toml").write_text(settings(self.port, self.data), encoding="utf-8")
        self.tell("Starting broker, daemon and a simulated home; they talk only over MQTT.")
        async with self.daemon.running():
            status = await self.daemon.ask("GET", "/api/status")
            self.tell(
                f"The daemon is ready (process {status['pid']}); {len(status['modes'])} actuators in 5 rooms. Page: http://127.0.0.1:{self._page()}/"
            )
            async with self.home.running(self.folder / "home.log"):
                await self.story()
        return await self.judge()

    async def story(self) -> None:
        first = await self.first_mistake()
        killing = asyncio.create_task(self.nemesis.run(), name="demo: nemesis")
        await self.play_and_learn(COUNT // 2, "the old habits", [first])
        self.tell("\n[bold]The habits of the house change.[/bold] Half of what was right is now wrong.")
        answered = await self.play_and_learn(COUNT, "the new habits")
        await killing
        await self.daemon.ready()
        await self.back_and_forth([number for number, right in answered.items() if right][:SHOWN])

    async def first_mistake(self) -> int:
        """Play until the first wrong decision is put right; then show the same situation again."""
        while not self.taught and self.home.position < COUNT // 2:
            await self.home.order(next=1)
        number = next(iter(self.taught), -1)
        if number < 0:
            raise Unavailable("the base model made no mistake that anybody corrected; try another --seed")
        self.tell(f"\n[bold]First mistake.[/bold] {self._picture(number)}")
        self.tell(
            f"  The model chose [red]{self.cases[number]['action']}[/red]; the resident wants [green]{self.taught[number]}[/green] and says so."
        )
        self._show("The same situation again, at once", await self.again(number))
        return number

    async def play_and_learn(self, upto: int, what: str, first: Sequence[int] = ()) -> dict[int, bool]:
        """Play on, learn while still playing, swap, and ask again with the table off."""
        begun = self.home.position
        await self._play(upto - EARLY)
        self.tell(f"\nLearning {what} in the background; the house goes on living meanwhile.")
        cycle, _ = await asyncio.gather(self._learn(), self._play(upto))
        self.tell(f"  {cycle['state']}: {cycle['reason']}")
        self.tell(
            f"  {cycle['examples']} examples, {_seconds(cycle)} s from start to live; serving {cycle['adapter'] or 'as before'}"
        )
        taught = [number for number in self.taught if begun <= number < upto - EARLY and number not in first]
        return await self._weights_alone([*first, *taught[-ASKED:]])

    async def back_and_forth(self, numbers: Sequence[int]) -> None:
        """Rollback shows the old behaviour on some situations, promote brings the new one back."""
        adapter = (await self.daemon.ask("GET", "/api/status"))["adapter"]
        released = await self.daemon.ask("POST", "/api/rollback", {})
        self.tell(f"\n[bold]Rollback[/bold] to {released['adapter']}.")
        await self._weights_alone(numbers)
        await self.daemon.ask("POST", f"/api/adapters/{adapter}/promote", {})
        self.tell(f"[bold]Promote[/bold] {adapter} again.")
        await self._weights_alone(numbers)

    async def _weights_alone(self, numbers: Sequence[int]) -> dict[int, bool]:
        """Ask situations again with the table off, show the first ones; which of them were answered right."""
        await self.daemon.ask("POST", "/api/table", {"on": False})
        answered: dict[int, bool] = {}
        for number in numbers:
            made = await self.again(number)
            if len(answered) < SHOWN:
                self.tell(f"  Table off. {self._picture(number)}")
                self._show(f"  right is {self.taught[number]}; the weights alone say", made)
            answered[number] = made is not None and bool(made["right"])
        self.tell(f"  Of {len(answered)} corrected situations the weights alone get {sum(answered.values())} right.")
        await self.daemon.ask("POST", "/api/table", {"on": True})
        return answered

    async def again(self, number: int) -> dict[str, Any] | None:
        """What the agent decides now on a situation from before; nobody answers it."""
        events = await self.home.order(again=number)
        return next((e for e in events if e.get("event") == "decision" and e.get("number") == number), None)

    def _show(self, title: str, made: dict[str, Any] | None) -> None:
        if made is None:
            self.tell(f"  {title}: no decision came")
            return
        colour = "green" if made["right"] else "red"
        self.tell(f"  {title}: [{colour}]{made['action']}[/{colour}], by {made['by']}, serving {made['adapter']}")

    async def _play(self, upto: int) -> None:
        while self.home.position < upto:
            await self.home.order(next=min(20, upto - self.home.position))
            recent = self.right[-20:]
            self.tell(
                f"  {self.home.position} of {COUNT} situations; of the last {len(recent)} decisions {sum(recent)} were right"
            )

    async def _learn(self) -> dict[str, Any]:
        """Ask for a cycle until one ends with a verdict: one whose trainer or daemon is killed is begun again."""
        for _ in range(TRIES + 4 * self.kill):
            with suppress(httpx.HTTPError, CorrigibleError):
                await self.daemon.ready()
                known = {row["id"] for row in await self.daemon.ask("GET", "/api/cycles")}
                await self.daemon.ask("POST", "/api/learn", {})
                cycle = await self._cycle(known)
                if cycle["state"] != "failed":
                    return cycle
                self.tell(f"  cycle failed: {cycle['reason']}")
        raise Unavailable("no cycle came to a verdict; `corrigible status` of a kept demo shows why")

    async def _cycle(self, known: set[str]) -> dict[str, Any]:
        """Wait for the verdict on the cycle that is not among the known ones."""
        while True:
            cycles = await self.daemon.ask("GET", "/api/cycles")
            ended = [c for c in cycles if c["id"] not in known and c["state"] != "running"]
            if ended:
                return dict(ended[0])
            await asyncio.sleep(0.5)

    def _heard(self, event: dict[str, Any]) -> None:
        number = event.get("number", -1)
        match event.get("event"):
            case "situation":
                self.cases[number] = {**event, "action": self.cases.get(number, {}).get("action", "")}
            case "decision":
                self.cases[number]["action"] = event["action"]
                self.right.append(bool(event["right"]))
            case "override" | "correction":
                self.taught.setdefault(number, event["right"])
            case "safe":
                self.safe.add(event["id"])

    # --- the end ------------------------------------------------------------------------------------------------

    async def judge(self) -> int:
        self.tell(f"\nThe daemon has stopped. Judging on {UNSEEN} unseen situations under the new habits ...")
        judged = await judging.judge(load(self.folder / "demo.toml"), self.seed, COUNT, UNSEEN)
        self.console.print(judged.as_table())
        picture = Path("build/demo.png") if Path("Makefile").exists() else self.folder / "demo.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        verdict.picture(picture, judged.curve, judged.bayes, judged.keep)
        reasons = [*judged.shortfalls(), *self._faults()]
        self.tell(f"Learning curve: {picture}   ({time.monotonic() - self.started:.0f} s in all)")
        for reason in reasons:
            self.tell(f"[red]Not reached:[/red] {reason}")
        if not reasons:
            self.tell(
                "[green]The weights alone beat the base model, persistence, and naive Bayes on what people say.[/green]"
            )
        return 1 if reasons else 0

    def _faults(self) -> list[str]:
        """What is wrong with the journal after everything that happened."""
        path = self.data / "journal.db"
        broken = [finding for finding in doctor.examine(path) if finding.state == "broken"]
        lost = doctor.missing(path, self.safe)
        self.tell(
            f"The daemon started {self.daemon.starts} times; the doctor finds {len(broken) or 'no'} broken invariants; "
            f"of {len(self.safe)} messages the home was told are safe, {len(lost) or 'none'} are missing."
        )
        return [f"{f.invariant} {f.title}: {f.detail}" for f in broken] + [f"lost: {id}" for id in lost[:3]]

    def tell(self, text: str) -> None:
        self.console.print(text)

    def _page(self) -> str:
        return (self.data / "http.port").read_text().strip()

    def _picture(self, number: int) -> str:
        case = self.cases[number]
        says = f', {case["who"]} says: "{case["says"]}"' if case.get("says") else ""
        return f"{case['room']}, {str(case['clock'])[11:]}, {', '.join(case['feels'])}{says}"


def _seconds(cycle: dict[str, Any]) -> str:
    return f"{(cycle['ended_at'] or cycle['started_at']) - cycle['started_at']:.0f}"


def settings(port: int, data: Path) -> str:
    """The demo's config.toml: every device of the home by its MQTT topics."""
    return f"""# written by `corrigible demo`
[agent]
name = "{AGENT}"
data = "{data}"
timezone = "UTC"
instruction = "{INSTRUCTION}"

[http]
port = 0

[broker]
port = {port}

[learner]
after = 0      # the demo asks for its two cycles itself
drift = false
every = 0
layers = "top:8"
batch = 4
epochs = 11
seen = 0       # 11 passes are what was measured
word_drop = 0  # a reading is one word: nothing may be missing
dropout = 0
half_life = 60
min_steps = 120

[gate]
min_recall = 0.5
shadow = 0     # what was learnt is seen at once

[guard]
rate = 600     # the simulated home lives fast

[supervision]
crashes = 1000 # it is killed on purpose

{home.as_toml()}"""
