"""The highest open-loop rate at which a limit holds: a search, run by run.

Lives here: which rate is tried next, when it is enough. Does not live here: the runs (runner.py),
the limits (rules.py), how steps are shown (cli/bench.py).

First a short closed loop tells about how much the server can do at all. Then rates are halved or
bisected: a step holds if the limit does, the rate was reached, and nothing failed; one that does
not is tried a second time. What the search finds is a rate that held for as long as a step lasts,
within 5 % of one that did not, twice.
"""

from __future__ import annotations

from fastecho.errors import ConfigError

from .runner import run
from .verdict import met_rate
from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .plan import Plan
    from .result import Interval, Result
    from .rules import Rule

__all__ = ["Found", "Step", "check_limit", "find_max"]

MOST_STEPS = 24
CLOSE = 1.05
"""The search ends when the lowest rate that failed is so near above the highest that held."""
PROBE_SECONDS = 1.0
LOWEST = 1.0
"""Messages a second below which no rate is tried."""


class Step:
    """One rate that was tried.

    Attributes:
        rate: messages a second that were asked for.
        result: what the run found.
        holds: whether the limit held, the rate was reached and nothing failed.
        why: a sentence about that.
    """

    __slots__ = ("holds", "rate", "result", "why")

    def __init__(self, rate: float, result: Result, holds: bool, why: str) -> None:
        self.rate = rate
        self.result = result
        self.holds = holds
        self.why = why

    def to_json(self) -> dict[str, Any]:
        """Return the step without its histograms."""
        return {
            "rate_per_s": self.rate,
            "messages_per_s": round(self.result.messages_per_s, 3),
            "holds": self.holds,
            "why": self.why,
        }

    def __repr__(self) -> str:
        return f"<Step {self.rate:,.0f} messages/s: {self.why}>"


class Found:
    """What a search has found.

    Attributes:
        rule: the limit.
        rate: the highest rate that held, in messages a second; None if none did.
        result: the run at that rate; without one, the last run.
        steps: all that were tried, in order.
    """

    __slots__ = ("rate", "result", "rule", "steps")

    def __init__(self, rule: Rule, steps: list[Step]) -> None:
        held = [one for one in steps if one.holds]
        best = max(held, key=lambda one: one.rate) if held else None
        self.rule = rule
        self.rate = best.rate if best else None
        self.result = best.result if best else steps[-1].result
        self.steps = steps

    def to_json(self) -> dict[str, Any]:
        """Return limit, rate and steps."""
        return {
            "limit": self.rule.text,
            "rate_per_s": self.rate,
            "steps": [one.to_json() for one in self.steps],
        }

    def __repr__(self) -> str:
        rate = "no rate" if self.rate is None else f"{self.rate:,.0f} messages/s"
        return f"<Found {rate} with {self.rule} after {len(self.steps)} steps>"


def check_limit(rule: Rule, plan: Plan) -> None:
    """Raise ConfigError if a rate cannot be searched by this rule and plan."""
    if rule.comparison not in ("<", "<="):
        raise ConfigError(rule.option, rule.text, "must be a limit to hold, such as p99<1ms")
    if not rule.depends_on_rate:
        reason = "limits no latency: a rate is searched by one, such as p99<1ms"
        raise ConfigError(rule.option, rule.text, reason)
    if plan.reconnect:
        raise ConfigError(rule.option, rule.text, "does not go together with --reconnect")
    if plan.udp and plan.depth != 1:
        reason = "does not go together with --depth over UDP: each datagram is sent when it is due"
        raise ConfigError(rule.option, rule.text, reason)
    if plan.messages is not None:
        raise ConfigError(rule.option, rule.text, "needs steps of a --duration, not of --messages")


def find_max(
    plan: Plan,
    rule: Rule,
    on_step: Callable[[Step], object] | None = None,
    on_interval: Callable[[Interval], object] | None = None,
) -> Found:
    """Search the highest open-loop rate that holds a limit such as `p99<1ms`.

    Args:
        plan: each step runs it at its own rate; `plan.rate`, if given, is the highest tried.
        rule: a limit with < or <=.
        on_step: called after each step.
        on_interval: as in run().
    Returns:
        Found: after at most 24 steps of plan.duration each; Ctrl-C, also in a callback, ends the
            search with the steps that were whole.
    Raises:
        ConfigError: the rule is no limit of a latency, or the plan none for an open loop.
        StartError: as run() does.
        KeyboardInterrupt: Ctrl-C came before the first step was whole.
    Thread: as run().   Cost: steps times plan.duration.
    """
    check_limit(rule, plan)
    steps: list[Step] = []
    try:
        _search(plan, rule, steps, on_step, on_interval)
    except KeyboardInterrupt:
        if not steps:
            raise
    return Found(rule, steps)


def _search(
    plan: Plan,
    rule: Rule,
    steps: list[Step],
    on_step: Callable[[Step], object] | None,
    on_interval: Callable[[Interval], object] | None,
) -> None:
    """Append step after step until the highest rate is known."""
    best, failed = 0.0, 0.0  # the highest rate that held, the lowest that did not
    rate = plan.rate or _capacity(plan) / 2
    top = plan.rate or float("inf")
    while len(steps) < MOST_STEPS:
        # A neighbour's second on the CPU must not decide: only two failures in a row are one.
        for _ in range(2):
            step = _try(plan, rule, rate, on_interval)
            steps.append(step)
            if on_step is not None:
                on_step(step)
            if step.holds or len(steps) >= MOST_STEPS:
                break
        if step.holds:
            best = max(best, rate)
        else:
            failed = min(failed or rate, rate)
        if best >= top or (failed and failed <= best * CLOSE) or failed <= LOWEST < 2 * failed:
            break
        rate = _next(best, failed, top)


def _next(best: float, failed: float, top: float) -> float:
    """Return the rate to try, with three digits."""
    if not failed:
        rate = min(best * 1.5, top)
    elif not best:
        rate = max(failed / 2, LOWEST)
    else:
        rate = (best * failed) ** 0.5
    return float(f"{rate:.3g}") if rate < top else top


def _capacity(plan: Plan) -> float:
    """Return about how many messages a second a closed loop gets through."""
    assert plan.duration is not None
    changes: dict[str, Any] = {"rate": None, "schedule": "fixed", "warmup": 0.0, "ramp": 0.0}
    result = run(plan.replace(duration=min(plan.duration, PROBE_SECONDS), **changes))
    if result.interrupted:
        raise KeyboardInterrupt
    return float(f"{max(result.messages_per_s, 2 * LOWEST):.3g}")


def _try(
    plan: Plan, rule: Rule, rate: float, on_interval: Callable[[Interval], object] | None
) -> Step:
    result = run(plan.replace(rate=rate), on_interval)
    if result.interrupted:
        raise KeyboardInterrupt
    value = rule.shown(result)
    if not rule.holds(result):
        return Step(rate, result, False, f"{value}: {rule} does not hold")
    if result.failed:
        return Step(rate, result, False, f"{value}, but {counted(result.failed, 'failure')}")
    if not met_rate(result):
        reached = f"only {result.messages_per_s:,.0f} messages/s were reached"
        return Step(rate, result, False, f"{value}, but {reached}")
    return Step(rate, result, True, f"{value}: holds")
