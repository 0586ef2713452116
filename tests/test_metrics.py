"""The figures: counted where they happen, readable by Prometheus, not shared between daemons."""

from __future__ import annotations

from runtime.metrics import Metrics


def test_counts_appear_with_their_labels() -> None:
    metrics = Metrics()
    metrics.observations.inc()
    metrics.feedback.labels("correction").inc(2)
    metrics.decided("table", 0.002)
    text = metrics.text().decode()
    assert "corrigible_observations_total 1.0" in text
    assert 'corrigible_feedback_total{kind="correction"} 2.0' in text
    assert 'corrigible_decisions_total{by="table"} 1.0' in text
    assert 'corrigible_decision_seconds_bucket{by="table",le="0.0025"} 1.0' in text


def test_two_daemons_do_not_share_figures() -> None:
    first, second = Metrics(), Metrics()
    first.quarantined.inc()
    assert "corrigible_quarantined_total 0.0" in second.text().decode()
