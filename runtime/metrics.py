"""Figures for Prometheus: every stage counts here what it did, and the console serves the numbers at `/metrics`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from runtime import __version__

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# Seconds; from an answer of the table to a reply that is written freely.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

CONTENT = {  # fields of `satisfaction.Measured`
    "rating": "mean rating from -1 to 1",
    "override_rate": "share of the judged decisions that people corrected or overrode",
    "overridden_share": "share of all decisions that people corrected or overrode",
    "left": "share of all decisions that people left as they were",
    "repeated_contacts": "share of the times somebody spoke that came back with the same thing",
}


class Metrics:
    """The counters of one daemon; each has its own registry, so two daemons in one test do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.observations = self._counter("observations", "observations taken in")
        self.duplicates = self._counter("duplicates", "observations that were known already")
        self.quarantined = self._counter("quarantined", "inputs that could not be used")
        self.gaps = self._counter("gaps", "messages that producers numbered and that did not come in time")
        self.shed = self._counter("shed", "messages that were let go because too many came, by what allows it", "of")
        self.feedback = self._counter("feedback", "feedback taken in", "kind")
        self.outcomes = self._counter("outcomes", "what became of decisions", "status")
        self.releases = self._counter("releases", "adapters that began to serve", "why")
        self.cycles = self._counter("cycles", "learning cycles by their state", "state")
        self.drifts = self._counter(
            "drifts", "changes of what people say or of what comes in, that asked for a cycle", "of"
        )
        self.fallbacks = self._counter("fallbacks", "decisions that fell back to `nothing`")
        self._decisions = self._counter("decisions", "decisions by who made them", "by")
        self._seconds = Histogram(
            "corrigible_decision_seconds", "seconds a decision took", ["by"], buckets=BUCKETS, registry=self._registry
        )
        self._content = {
            name: Gauge(
                f"corrigible_satisfaction_{name}",
                f"{what}, last 7 days; NaN = nothing to tell it from",
                registry=self._registry,
            )
            for name, what in CONTENT.items()
        }
        info = Gauge("corrigible_info", "the running version", ["version"], registry=self._registry)
        info.labels(__version__).set(1)
        ProcessCollector(registry=self._registry)

        self.stalls = self._counter(
            "stalls", "times the loop stood still for over a second, by the plugin in it", "plugin"
        )
        self._condition = Gauge("corrigible_condition", "1 = this is how it stands", ["name"], registry=self._registry)
        self._plugins = Gauge(
            "corrigible_plugin_messages_refused", "of isolated plugins: what they may not say, or said too fast",
            ["plugin", "why"], registry=self._registry,
        )  # fmt: skip

    def condition_is(self, names: Sequence[str], now: str) -> None:
        """One of NORMAL, DEGRADED, SAFE, HOLD."""
        for name in names:
            self._condition.labels(name).set(name == now)

    def refused(self, plugin: str, *, rejected: int, shed: int) -> None:
        """What was not taken from an isolated plugin so far."""
        self._plugins.labels(plugin, "rejected").set(rejected)
        self._plugins.labels(plugin, "shed").set(shed)

    def decided(self, by: str, seconds: float) -> None:
        """Count one decision and how long it took."""
        self._decisions.labels(by).inc()
        self._seconds.labels(by).observe(seconds)

    def content(self, measured: Mapping[str, Any]) -> None:
        """How content people are: the fields of `satisfaction.Measured`."""
        for name, gauge in self._content.items():
            gauge.set(math.nan if measured[name] is None else measured[name])

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"corrigible_{name}", help_text, labels, registry=self._registry)
