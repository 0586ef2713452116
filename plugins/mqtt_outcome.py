"""What became of a command that the MQTT plugin was given."""

from __future__ import annotations

import time

from runtime.messages import Command, Outcome, OutcomeStatus, new_id


def outcome(command: Command, status: OutcomeStatus, reason: str) -> Outcome:
    return Outcome(
        id=new_id("oc"),
        decision_id=command.decision_id,
        command_id=command.id,
        status=status,
        reason=reason,
        at=time.time(),
    )


def stopped(sent: bool, reason: str) -> tuple[OutcomeStatus, str]:
    """The guard said no between two attempts."""
    return ("uncertain", f"sent, not confirmed, and not sent again: {reason}") if sent else ("refused", reason)
