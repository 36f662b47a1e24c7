"""Limits that a result is held against: `p99>2ms`, `failures>0`, `service.p99<=500us`.

Lives here: reading a rule, its value in a result, whether it is true. Does not live here: what
follows from that (cli/bench.py fails, search.py goes on).
"""

from __future__ import annotations

import operator
import re

from fastecho.errors import ConfigError

from .result import FAILURES, PERCENTILES
from .values import UNITS, read_number

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .plan import Plan
    from .result import Result

__all__ = ["Rule"]

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_HISTOGRAMS = {
    "latency": "latency",
    "service": "service",
    "connect": "connect",
    "schedule": "schedule_error",
}
_RATES = {"rate": ("", "/s"), "throughput": ("", "/s", "B/s")}
"""What counts a second, and the units that may be written."""
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
DATAGRAMS = ("duplicates", "reordered", "foreign", "not_sent")
"""Counts that only datagrams have."""
_FIGURES = (*(f"p{percent:g}" for percent in PERCENTILES), "max", "mean")
_RULE = re.compile(
    r"\s*([a-z_.0-9]+)\s*(<=|>=|<|>)\s*([0-9.,_]+)\s*([kMG]?)(B?[a-zµ]*(?:/s)?|%)\s*"
)
_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")


class Rule:
    """A limit, such as `p99>2ms`.

    Metrics: p50, p75, p90, p95, p99, p99.9, p99.99, max and mean of the latency; the same of
    another histogram (service.p99, connect.p99, schedule.p50); rate (right messages a second, each
    on a connection of its own with --reconnect); throughput (bytes a second);
    failures (of all kinds) and each kind by its name; loss, in percent; over UDP also duplicates,
    reordered and foreign. Times need a unit: ns, us, ms, s, m or h.

    Args:
        text: the rule.
        option: what an error names.
        without: metrics and histograms that the result will not have: none is suggested.
    Attributes:
        text: the rule as it was written; also str(rule).
        metric, comparison, limit: its parts; a time in seconds.
    Raises:
        ConfigError: the text is no rule; it names `option`.
    Thread: any; immutable.   Cost: microseconds.
    """

    __slots__ = ("_figure", "_histogram", "comparison", "limit", "metric", "option", "text")

    def __init__(self, text: str, option: str = "rule", without: Sequence[str] = ()) -> None:
        found = _RULE.fullmatch(str(text))
        if found is None:
            raise ConfigError(option, text, "must be METRIC>VALUE or METRIC<VALUE, such as p99>2ms")
        self.text = text.strip()
        self.option = option
        self.metric = found[1]
        self.comparison = found[2]
        self._histogram, self._figure = self._parts(found[1], without)
        number = read_number(found[3].replace(",", ""))
        if "," in found[3] and not _THOUSANDS.fullmatch(found[3]):
            raise ConfigError(option, text, "has a comma that groups no thousands: write 2.5")
        if number is None:
            raise ConfigError(option, text, "has no number to compare with, such as p99>2ms")
        scale = {"k": 1e3, "M": 1e6, "G": 1e9}.get(found[4], 1.0)
        self.limit = number * scale * self._unit(found[4], found[5])

    def _parts(self, metric: str, without: Sequence[str]) -> tuple[str, str]:
        """Return the histogram ("" for a count or rate) and the figure that a metric means."""
        if metric in (*_RATES, "failures", "loss", *FAILURES, *DATAGRAMS):
            return "", metric
        name, dot, figure = metric.partition(".")
        if name in _HISTOGRAMS and dot and figure in _FIGURES:
            return _HISTOGRAMS[name], figure
        if metric in _FIGURES:
            return "latency", metric
        from difflib import get_close_matches

        def there(*names: str) -> list[str]:
            return [one for one in names if one.partition(".")[0] not in without]

        counts = (*_RATES, "failures", "loss", *FAILURES, *DATAGRAMS)
        known = there(*counts, *_FIGURES, *(f"{h}.p99" for h in _HISTOGRAMS))
        near = get_close_matches(metric, known, n=1)
        some = there(*_RATES, "failures", "service.p99", "connect.p99", "schedule.p50")
        hint = f"there are p50 to p99.99, max, mean, {', '.join(some)}"
        hint = f"did you mean {near[0]}?" if near else hint
        raise ConfigError(self.option, self.text, f"has no metric {metric!r}: {hint}")

    def _unit(self, scale: str, unit: str) -> float:
        """Return what a unit multiplies by, or refuse it."""
        if self._histogram:
            if unit not in UNITS or scale:
                raise ConfigError(self.option, self.text, "needs a unit of time: us, ms, s, m or h")
            return UNITS[unit]
        if self.metric == "loss":
            if unit not in ("", "%"):
                raise ConfigError(self.option, self.text, "takes % or no unit after its number")
            return 1.0
        units = _RATES.get(self.metric, ("",))
        if unit not in units:
            what = " or ".join([*units[1:], "no unit"])
            raise ConfigError(self.option, self.text, f"takes {what} after its number")
        return 1.0

    @property
    def depends_on_rate(self) -> bool:
        """Whether a higher rate of an open loop can make the metric worse."""
        return self.metric == "loss" or self._histogram in ("latency", "service", "schedule_error")

    def check_plan(self, plan: Plan) -> None:
        """Raise ConfigError if a run of this plan has no such metric."""
        if plan.is_one_way and (self.metric == "rate" or self._histogram not in ("", "connect")):
            reason = (
                f"is not measured with --{plan.loop}: write throughput, failures or connect.p99"
            )
            raise ConfigError(self.option, self.text, reason)
        if (self.metric == "loss" or self.metric in DATAGRAMS) and not plan.udp:
            raise ConfigError(self.option, self.text, "needs datagrams: a target udp://HOST:PORT")
        if (self.metric == "foreign" or self._histogram == "connect") and plan.udp:
            raise ConfigError(self.option, self.text, "is not measured by a load over UDP")
        if self._histogram in ("service", "schedule_error") and plan.rate is None:
            reason = "needs an open loop (--rate)"
            if plan.reconnect:
                reason = "is not measured with --reconnect: write p99 or connect.p99"
            raise ConfigError(self.option, self.text, reason)

    def value(self, result: Result) -> float | None:
        """Return the metric's value in a result, in seconds if it is a time; None without any."""
        if self.metric == "rate":
            return result.messages_per_s
        if self.metric == "throughput":
            return result.bytes_per_s
        if self.metric == "failures":
            return float(result.failed)
        if self.metric == "loss" or self.metric in DATAGRAMS:
            share = getattr(result, "lost_percent", None)
            counts = {**result.failures, **(getattr(result, "datagrams", None) or {})}
            count = share if self.metric == "loss" else counts.get(self.metric)
            return None if count is None else float(count)
        if not self._histogram:
            of_datagrams = getattr(result, "datagrams", None) or {}
            return float(result.failures[self.metric] + of_datagrams.get(self.metric, 0))
        histogram = getattr(result, self._histogram)
        if histogram is None or not histogram.count:
            return None
        if self._figure in ("max", "mean"):
            return float(getattr(histogram, self._figure)) / 1e9
        return float(histogram.percentile(float(self._figure[1:]))) / 1e9

    def holds(self, result: Result) -> bool:
        """Tell whether the comparison is true of a result; without a value it is not."""
        value = self.value(result)
        return value is not None and _COMPARISONS[self.comparison](value, self.limit)

    def fails(self, result: Result) -> bool:
        """Tell whether a result is to be failed by this rule: it is true, or has no value."""
        return self.value(result) is None or self.holds(result)

    def shown(self, result: Result) -> str:
        """Return metric and value as text: `p99 is 2.31 ms`."""
        return f"{self.metric} is {self.text_of(self.value(result))}"

    def text_of(self, value: float | None) -> str:
        """Return a value of this metric with its unit."""
        if value is None:
            return "unknown"
        if self.metric == "loss":
            return f"{value:.6g}%"
        if not self._histogram:
            if self.metric == "throughput":
                return _bytes_per_second(value)
            return f"{value:,.0f}{_RATES.get(self.metric, ('',))[-1]}"
        for unit, size in (("s", 1.0), ("ms", 1e-3)):
            if value >= size:
                return f"{value / size:.4g} {unit}"
        return f"{value * 1e6:.4g} us"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Rule({self.text!r})"


def _bytes_per_second(value: float) -> str:
    """Return a throughput with four digits and its unit, of decimal thousands."""
    size, unit = next((pair for pair in _BYTES if value >= pair[0]), (1.0, "B"))
    return f"{value / size:.4g} {unit}/s"
