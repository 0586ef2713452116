"""`config.toml` -> frozen settings: checked at start, an unknown key is an error naming the nearest, the environment wins.

Every key can be set from the environment: `CORRIGIBLE_LEARNER__EPOCHS=3` overrides `epochs` under `[learner]`.
The comments here are the config reference in the README (a test keeps the two alike).
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from runtime.errors import BadConfig
from runtime.hours import spans

SECRET = ("password", "token", "secret")  # parts of names whose values no error repeats
Mode = Literal["observe", "apprentice", "confirm", "act"]


def _hours(text: str) -> str:
    spans(text)
    return text


Hours = Annotated[str, AfterValidator(_hours)]  # spans of the day; a mistake in them is told at the start


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AgentConfig(Section):
    name: str = Field(
        "corrigible", pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$", description="part of the MQTT topics and the client id"
    )
    data: Path = Field(Path("data"), description="directory of the journal, the adapters and the control token")
    timezone: str = Field("", description="IANA name such as `Europe/Vienna`; empty = the machine's")
    instruction: str = Field("You run a home. Choose what to do.", description="the system prompt")


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level that is logged")
    format: Literal["auto", "text", "json"] = Field(
        "auto", description="`auto`: key-value on a terminal, JSON otherwise"
    )


class HttpConfig(Section):
    host: str = Field(
        "127.0.0.1", description="address of the page and the control interface; only loopback is accepted"
    )
    port: int = Field(8765, ge=0, le=65535, description="0 = any free port, written to `data/http.port`")


class BrokerConfig(Section):
    mode: Literal["auto", "configured", "mosquitto", "embedded", "none"] = Field(
        "auto",
        description="`auto`: the configured host, else mosquitto on PATH, else the embedded broker; `none`: no MQTT at all",
    )
    host: str = Field("", description="your own broker's host; empty = start one on loopback")
    port: int = Field(
        1883,
        ge=0,
        le=65535,
        description="of a broker that we start: 0 = any free port; in `auto` another one if it is taken",
    )
    username: str = Field("", description="login at the broker")
    password: SecretStr = Field(SecretStr(""), description="better in CORRIGIBLE_BROKER__PASSWORD than in the file")
    tls: bool = Field(False, description="use TLS")
    ca_file: str = Field("", description="the authority to trust; empty = the system's")
    cert_file: str = Field("", description="client certificate")
    key_file: str = Field("", description="its key")
    keepalive: int = Field(15, ge=5, le=600, description="seconds")
    session_expiry: int = Field(604800, ge=0, description="seconds the broker keeps our session while we are away")
    settings_file: str = Field(
        "",
        description="your broker's mosquitto.conf, to check what it may lose; empty = the usual place, if it runs here",
    )


class JournalConfig(Section):
    ballast: int = Field(16, ge=0, description="megabytes set aside for a full disk, so that what is under way is kept")
    backup_every: float = Field(24.0, ge=0, description="hours between two backups into `data/backups`; 0 = none")
    backups: int = Field(7, ge=1, description="newest backups that are kept there")
    keep_days: float = Field(
        0.0,
        ge=0,
        description="days after which what nobody ever put a word to is removed; what was corrected, rated or learnt from never is; 0 = everything is kept",
    )
    anchors: str = Field(
        "",
        description="file in which the daemon notes once a minute how far the journal's hash chain has come, best on another disk; empty = `data/anchors.jsonl`",
    )


class PerceptionConfig(Section):
    timer: float = Field(0.0, ge=0, description="seconds between timer percepts of every scope; 0 = none")
    deadband: float = Field(0.02, ge=0, description="relative change of a number below which it is noise")
    quiet: float = Field(0.0, ge=0, description="seconds a scope waits after a sensor percept before the next one")
    numbers: bool = Field(False, description="put the number behind its word")
    bands: dict[str, list[str | float]] = Field(
        {}, description='quantity -> words and their limits, such as `light = ["dark", 10, "dim", 200, "bright"]`'
    )
    names: dict[str, str] = Field({}, description="topic or sensor name -> the name you want to read")
    scopes: dict[str, str] = Field({}, description="sensor name pattern -> scope; default: the first part of the name")
    shared: list[str] = Field(
        ["house/*", "outside/*"], description="sensor name patterns that every scope sees, and that wake none"
    )
    ignore: list[str] = Field([], description="sensor name patterns that are neither shown nor wake a percept")
    clock: list[str] = Field(
        ["house/clock"], description="sensors that tell a simulated or recorded local time (ISO 8601)"
    )


class PolicyConfig(Section):
    model: str = Field(
        "smollm2",
        description="`smollm2` (inside the installed wheel), a directory or a hub id; an encoder (BERT and its relatives) picks among finite actions only",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="`auto`: bfloat16 where the CPU computes in it"
    )
    threads: int = Field(1, ge=1, description="CPU threads of the policy worker")
    table: bool = Field(True, description="answer exact repeats of a correction from the table")
    memory: bool = Field(True, description="let what was taught in similar situations join the decision")
    consolidate: float = Field(
        1.0,
        gt=0,
        le=1,
        description="part of its weight in the memory that a lesson keeps once the weights that serve are sure of it; below 1, answers got worse (DECISIONS.md) and a cycle has to ask for every lesson",
    )
    features: str = Field(
        "model",
        description="what the memory compares situations by: `model` = the model's own lower layers; `sentences` = a sentence encoder beside them (the extra of that name, 90 MB more memory), which knows a paraphrase after one correction far more often; or the directory of an encoder",
    )
    explore: float = Field(0.0, ge=0, le=0.5, description="chance to try another action of `explore_among`")
    explore_among: list[str] = Field([], description="tools that may be tried; empty = none")
    ask: Literal["never", "speech", "always"] = Field(
        "speech",
        description="ask a person instead of guessing, once weights are trained: `speech` = where somebody spoke, `always` = of sensors too",
    )
    ask_below: float = Field(0.5, ge=0, le=1, description="chance of being right below which it is unsure")
    ask_share: float = Field(0.1, ge=0, le=1, description="share of the last 200 decisions that may be questions")
    unsure: Literal["act", "nothing"] = Field(
        "act", description="what it does when it is unsure and has asked enough: what it believes, or `nothing`"
    )
    miss: float = Field(
        0.1, gt=0, lt=1, description="chance that the right action is not among those that are said to be plausible"
    )
    reply_tokens: int = Field(64, ge=1, le=1024, description="longest free text, in tokens")
    free_below: float = Field(
        0.5, ge=0, le=1, description="decode a reply freely if the best known one is less likely than this per token"
    )
    catalogue_tokens: int = Field(
        0, ge=0, description="list the catalogue in the prompt if it fits in this many tokens"
    )
    timeout: float = Field(60.0, gt=0, description="seconds after which a decision falls back to `nothing`")


class LearnerConfig(Section):
    enabled: bool = Field(True, description="learn in the background")
    preset: str = Field(
        "",
        description="a recipe to start from: `plain` (GPT-2's: everything, Adam 1e-5, 3 epochs), `quick`, `thorough`, `head`; keys given beside it win",
    )
    every: float = Field(3600.0, ge=0, description="seconds between cycles if there is new feedback; 0 = never by time")
    after: int = Field(20, ge=0, description="new feedbacks that start a cycle; 0 = never by count")
    idle: float = Field(
        0.0, ge=0, description="seconds without a decision that start a cycle if there is new feedback; 0 = off"
    )
    drift: bool = Field(
        True, description="start a cycle as soon as people correct more than before, or unfamiliar situations come in"
    )
    hours: Hours = Field(
        "", description="when cycles may start by themselves, such as `22:00-06:00, 12:00-13:00`; empty = always"
    )
    max_load: float = Field(
        0.0, ge=0, description="no cycle starts by itself while the machine's load average is above; 0 = any"
    )
    adapter: Literal["lora", "full_delta", "head_only"] = Field(
        "lora",
        description="`lora`: thin factors, for nearly everything; `full_delta`: all weights of the layers, for thousands of examples; `head_only`: output rows, for a few fixed answers in seconds",
    )
    layers: str = Field(
        "top:15",
        pattern=r"^(all|top:[1-9][0-9]*)$",
        description="which layers are trained: `all` or `top:K`; fewer are faster, more learn more",
    )
    targets: list[str] = Field([], description="modules that get LoRA factors; empty = all linear layers of a layer")
    rank: int = Field(16, ge=1, le=512, description="LoRA rank; more for many examples")
    alpha: int = Field(32, ge=1, description="LoRA alpha; the update is scaled by alpha / rank")
    dropout: float = Field(0.1, ge=0, lt=1, description="LoRA dropout; a little helps when examples repeat themselves")
    start: str = Field(
        "", description="directory of an adapter of another house or task to start from; empty = the base model"
    )
    objective: Literal["candidates", "sft", "dpo", "kto", "reward"] = Field(
        "candidates",
        description="`candidates`: the right answer against its rivals; `sft`: its text; `dpo`: right over wrong pairs, for style; `kto`: liked and disliked; `reward`: by rating",
    )
    beta: float = Field(0.1, gt=0, description="how closely `dpo` and `kto` hold to the base model")
    optimiser: Literal["adamw", "adam", "sgd", "adafactor"] = Field(
        "adamw", description="`sgd` and `adafactor` need less memory and another lr"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of `sgd`")
    weight_decay: float = Field(0.0, ge=0, description="of `adamw`, `sgd` and `adafactor`")
    lr: float = Field(2e-3, gt=0, description="learning rate; about 1e-5 for `full_delta` of everything")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="how the learning rate falls")
    warm_up: float = Field(0.06, ge=0, le=1, description="share of the steps over which it rises first")
    floor: float = Field(0.1, ge=0, le=1, description="share of it that is left at the end")
    clip: float = Field(1.0, ge=0, description="largest norm of a gradient; 0 = any")
    epochs: int = Field(
        4, ge=1, le=100, description="passes over the examples, at most; over few examples more, see `seen`"
    )
    seen: int = Field(
        10000,
        ge=0,
        description="examples a cycle sees at least, every pass counted, as long as it needs no more than three times `epochs` for it",
    )
    refit: int = Field(
        2,
        ge=0,
        description="passes over all examples, the held-out ones too, once the candidate was judged; 0 = what is held out is never learnt by the weights",
    )
    min_steps: int = Field(80, ge=0, description="steps a cycle makes at least: with few examples it makes more passes")
    batch: int = Field(8, ge=1, description="examples computed at once")
    accumulate: int = Field(1, ge=1, description="such batches a step, for a larger batch in the same memory")
    l1: float = Field(0.0, ge=0, description="weight of the sum of |update|, which makes it sparse")
    l2: float = Field(
        0.0, ge=0, description="weight of the squared norm of the update, which holds it near the base model"
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of a running mean of the weights that is kept instead of the last; 0 = off"
    )
    patience: int = Field(
        2,
        ge=1,
        description="with a `constant` schedule: epochs of a held-out accuracy clearly below the best before it stops early",
    )
    prune: float = Field(
        1.0, gt=0, le=1, description="share of the adapter's energy that is kept (SVD); below 1 its rank shrinks"
    )
    augment: int = Field(
        0,
        ge=0,
        le=10,
        description="variants of an example with another room, number or word of the schema in text and answer",
    )
    word_drop: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="share of a situation's words that is left out, others in every epoch, so that no single one is all it goes by; 0 = none",
    )
    tune: bool = Field(
        False, description="search lr, rank and layers by successive halving in cycles that start by `idle`"
    )
    budget: float = Field(
        0.0,
        ge=0,
        description="seconds a cycle should train: if all examples would take longer, go on from what serves with the new ones and a sample of the old; 0 = always all",
    )
    holdout: float = Field(0.1, ge=0, lt=0.9, description="share of the examples kept for the gate, never trained on")
    holdout_limit: int = Field(100, ge=0, description="most examples kept for the gate")
    window: int = Field(10000, ge=1, description="newest examples that are trained on")
    half_life: float = Field(0.0, ge=0, description="examples after which an old one counts half; 0 = all alike")
    balance: float = Field(
        4.0,
        ge=0,
        description="an answer with more than this many times the usual number of examples counts less an example, but a third at least; 0 = all alike",
    )
    source_cap: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of what is learnt that one person's words may make up where three or more teach, as far as no word counts less than a third for it; 1 = any",
    )
    threads: int = Field(1, ge=1, description="CPU threads of the trainer")
    nice: int = Field(10, ge=0, le=19, description="niceness of the trainer")
    pause: bool = Field(True, description="let the trainer stand still while a decision is made")
    warm: bool = Field(True, description="keep the next trainer ready, with the model loaded")
    cache: int = Field(512, ge=0, description="megabytes of frozen states kept on disk from cycle to cycle; 0 = none")
    timeout: float = Field(7200.0, gt=0, description="seconds after which a cycle is given up")
    seed: int = Field(0, ge=0, description="seed of the split, the order and the initial weights")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:
        """The recipe's keys under those that are given."""
        if not isinstance(given, dict) or not given.get("preset"):
            return given
        recipes = presets()
        if given["preset"] not in recipes:
            raise ValueError(f"there is no preset {given['preset']!r}{nearest(str(given['preset']), list(recipes))}")
        return {**recipes[given["preset"]], **given}


def presets() -> dict[str, dict[str, Any]]:
    """The shipped recipes for `[learner]`, by name."""
    return tomllib.loads((Path(__file__).parent / "presets.toml").read_text(encoding="utf-8"))


class GateConfig(Section):
    must_pass: str = Field(
        "",
        description="file of situations with actions that are required or forbidden; a candidate that fails one is never served",
    )
    min_holdout: int = Field(20, ge=1, description="with fewer held-out items a release is provisional")
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the decisions that a provisional version makes; the others are made by the one it has to prove itself against",
    )
    shadow: int = Field(
        10,
        ge=0,
        description="situations in which a provisional version is asked in silence, while the one before it decides, until it takes its share; 0 = none",
    )
    drift: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of the reference decisions that one release may change, beyond the share of the examples that are new, until it has to prove itself first; 1 = any",
    )
    margin: float = Field(0.0, ge=0, le=1, description="accuracy a candidate may lose on the held-out items")
    min_recall: float = Field(
        0.7, ge=0, le=1, description="with few held-out items: share of the training answers it must give"
    )
    keep: int = Field(20, ge=2, description="adapters kept on disk; the serving one and its predecessor always are")


class Interlock(Section):
    """What a sensor has to say before an action may be carried out."""

    actions: list[str] = Field(min_length=1, description="patterns of the actions as text, such as `saw on`")
    sensor: str = Field(min_length=1, description="the reading's name, such as `workshop/hood`")
    equals: list[str | bool | float] = Field([], description="values that will do")
    at_least: float | None = Field(None, description="least number that will do")
    at_most: float | None = Field(None, description="greatest number that will do")
    within: float = Field(60.0, ge=0, description="seconds after which its word is too old; 0 = its last one will do")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.equals and self.at_least is None and self.at_most is None:
            raise ValueError("an interlock needs `equals`, `at_least` or `at_most`")
        return self


class GuardConfig(Section):
    allow: list[str] = Field(["*"], description="actuator patterns that may be commanded at all")
    rate: int = Field(12, ge=0, description="commands a minute and actuator, at most")
    budget: int = Field(600, ge=0, description="commands a minute to all actuators together, at most")
    slew: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="`actuator.argument` -> how far it may move in a minute from the value sent before"
    )
    dwell: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="actuator pattern -> seconds it keeps what it was told before it may be told something else"
    )
    quiet: dict[str, Hours] = Field(
        {}, description="actuator pattern -> hours in which it is told nothing, such as `22:00-06:30`, whoever asks"
    )
    interlock: list[Interlock] = Field(
        [],
        description='what sensors have to say first: `{actions = ["saw on"], sensor = "workshop/hood", equals = ["closed"], within = 30}`; also `at_least`, `at_most`; no word of it in that time refuses',
    )
    expiry: float = Field(30.0, gt=0, description="seconds after which a command is too old to send")
    ranges: dict[str, tuple[float, float]] = Field(
        {}, description="`actuator.argument` -> least and greatest value, on top of the tool's own"
    )
    apprentice_bound: float = Field(
        0.8,
        ge=0.5,
        le=0.99,
        description="share of the cases in which people must be shown to do the same before an action is carried out in mode `apprentice`; 0.8 takes 20 cases without a miss",
    )
    approval: float = Field(120.0, gt=0, description="seconds a held command waits for a person; then it is denied")


class SupervisionConfig(Section):
    safe: bool = Field(
        False, description="start in safe mode: no model, no learner, no plugins but MQTT, chat and rules of ours"
    )
    crashes: int = Field(3, ge=1, description="starts in a row that did not live, after which the next is in safe mode")
    lived: float = Field(60.0, gt=0, description="seconds after which a start has lived")
    stable: float = Field(
        600.0, ge=0, description="seconds in safe mode until it tries again by itself; 0 = a person has to"
    )


class Config(BaseSettings):
    """The whole file. `plugin` is a list of tables: `use`, an optional `name`, and the plugin's own keys."""

    model_config = SettingsConfigDict(env_prefix="CORRIGIBLE_", env_nested_delimiter="__", frozen=True, extra="forbid")

    agent: AgentConfig = AgentConfig()
    log: LogConfig = LogConfig()
    http: HttpConfig = HttpConfig()
    broker: BrokerConfig = BrokerConfig()
    journal: JournalConfig = JournalConfig()
    perception: PerceptionConfig = PerceptionConfig()
    policy: PolicyConfig = PolicyConfig()
    learner: LearnerConfig = LearnerConfig()
    gate: GateConfig = GateConfig()
    guard: GuardConfig = GuardConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    modes: dict[str, Mode] = Field({}, description="actuator pattern -> `observe`, `apprentice`, `confirm` or `act`")
    plugin: list[dict[str, Any]] = Field([], description="the plugins, in order")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.model_config.get("toml_file"))
        return init_settings, env_settings, toml


def load(path: Path | None, **overrides: Any) -> Config:
    """Read the file (None = defaults only), then the environment, then `overrides`. Raises BadConfig in one sentence."""
    if path is not None:
        _check_readable(path)

    class FromFile(Config):
        model_config = SettingsConfigDict(toml_file=path)

    try:
        return FromFile(**overrides)
    except ValidationError as error:
        raise BadConfig(explain(error, str(path or "the environment"))) from None
    except SettingsError as error:  # a variable that should be JSON; the text names it, without its value
        raise BadConfig(f"the environment: {error}") from None


def _check_readable(path: Path) -> None:
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfig(f"cannot read {path}: {error.strerror}; give another file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path} is not valid TOML: {error}") from None


def explain(error: ValidationError, where: str) -> str:
    """One sentence for the first problem, with the nearest valid key if a key is unknown."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}{nearest(path[-1], _keys(path[:-1]))}"
    if any(part in key.lower() for part in SECRET) or isinstance(first["input"], dict | list):
        return f"{where}: {key}: {first['msg']}"
    return f"{where}: {key}: {first['msg']} (it is {first['input']!r:.100})"


def nearest(key: str, valid: list[str]) -> str:
    """`; did you mean 'x'?` or the list of what there is."""
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid keys are {', '.join(sorted(valid))}"


def _keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = Config
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        model = field.annotation
    return list(model.model_fields)
