"""What a run says about itself: whose limit its figures show, and whether there was an echo at all.

Lives here: sentences made of counts. Does not live here: counting (runner.py, the load), what is
printed around them (cli/_summary.py).
"""

from __future__ import annotations

import errno

from fastecho.errors import StartError

from .datagrams import percent_text
from .oneway import no_service
from .preflight import names_of
from .result import FAILURES_OF_MESSAGES
from .values import seconds_text
from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import Plan
    from .result import Interval, Result

__all__ = ["BUSY", "MET", "met_rate", "no_echo", "verdict", "wrong_bytes"]

BUSY = 0.9
"""From this share on the generator is taken for the limit: a thread that shares its CPU with the
kernel's own work never quite reaches 1."""
MET = 0.99
"""A rate counts as reached from this share on."""
PAUSE = 0.01
"""Seconds that any machine may pause for, at the end of the window as well."""
HELD = 0.01
"""Share of all messages from which on those that waited for a connection are spoken of."""
USUAL_RATE = 1000
"""Datagrams a second that a fastecho server answers a source address by default, in each thread."""
MOST_LIMITS = 64
"""So many threads' limits together are thought of."""
NEAR = 0.15
"""A rate of replies that is off by less is taken for that of a limit."""
STEADY = 0.05
"""Rates that differ by less are the same."""
BURST = 1.2
"""A first interval with so many times the replies of the later ones was a limit's burst."""
NOTABLE_LOSS = 0.5
"""Percent of loss from which on a limit is thought of."""
WAITING = 0.25
"""Share of a closed loop's time, spent waiting for what was lost, from which on a limit is thought
of whatever the loss: each keeps its place for the timeout, and a limit recovers meanwhile."""
LATE = 50e3
"""Nanoseconds at the median from which on it is said that the generator sent late."""


def wrong_bytes(counts: Mapping[str, int]) -> int:
    """Return how many answers were not what was sent."""
    return counts["corrupt"] + counts["misplaced"] + (1 if counts["extra_bytes"] else 0)


def no_echo(plan: Plan, counts: Mapping[str, int], described: list[str]) -> StartError:
    """Return the error of a run that had failures and not one right reply."""
    names = names_of(plan)
    if plan.is_one_way and (error := no_service(names, plan, counts, described)) is not None:
        return error
    first = f" ({described[0]})" if described else ""
    span = seconds_text(plan.timeout)
    if wrong_bytes(counts):
        text = f"{names} answered, but not with what was sent: no echo server{first}"
        return StartError(errno.EPROTO, text)
    if counts["refused"]:
        return StartError(errno.ECONNREFUSED, f"{names} refused the connection")
    if counts["connect_timed_out"]:
        return StartError(errno.ETIMEDOUT, f"{names} did not answer a connect within {span}")
    if counts["timed_out"]:
        return StartError(
            errno.ETIMEDOUT, f"{names} took the connection, but nothing came back within {span}"
        )
    if counts["reset"] or counts["closed"]:
        return StartError(
            errno.ECONNRESET, f"{names} ended the connections without an answer{first}"
        )
    return StartError(errno.EIO, f"not one message came back from {names}{first}")


def met_rate(result: Result) -> bool:
    """Tell whether an open loop reached its rate, but for replies still under way at the end."""
    rate = result.plan.rate
    if rate is None or not result.elapsed:
        return True
    due = rate * result.elapsed
    missing = due - result.messages_in_window
    # At the end some are under way: at least for the shortest time that any took. More than that
    # is a queue. And a Poisson schedule has more or fewer by chance.
    fastest = result.percentile(0) or 0.0
    chance = 3 * due**0.5 if result.plan.schedule == "poisson" else 1
    return missing <= due * (1 - MET) + rate * (fastest + PAUSE) + chance


def verdict(result: Result) -> str:
    """Return what the figures of a finished run are limited by, in a sentence or two."""
    busy = result.generator.busy
    said = _ended_early(result) + _about_datagrams(result)
    if not result.messages and result.plan.udp:
        pass
    elif not met_rate(result):
        rate = result.plan.rate
        assert rate is not None
        said.append(f"the rate was not met: {result.messages_per_s:,.0f} of {rate:,.0f} messages/s")
        lost = result.failures["lost"]
        gone = result.datagrams["lost"] if result.datagrams is not None else 0
        if lost > HELD * result.sent:
            said.append(
                f"{counted(lost, 'message')} were lost with connections, or while none was open"
            )
        elif gone > HELD * result.sent:
            said.append(f"{percent_text(result.lost_percent or 0.0)} of the datagrams were lost")
        elif busy < BUSY and result.held > HELD * result.sent:
            said.append(
                f"{counted(result.held, 'message')} waited because every connection had "
                f"{result.plan.depth} outstanding: the server's limit, or too few connections"
            )
    if busy >= BUSY:
        more = "" if result.plan.threads > 1 else " (-t adds threads)"
        said.append(
            f"the generator was busy {busy:.0%}: this is its limit, not the server's{more}".replace(
                "%", " %"
            )
        )
    error = result.schedule_error
    if error is not None and error.count and error.percentile(50) > LATE:
        said.append(
            f"half of all messages were sent more than {error.percentile(50) / 1e3:,.0f} us after "
            "their time: their latencies hold that too"
        )
    if any(f"errno {errno.EADDRNOTAVAIL}" in one for one in result.described):
        said.append("local ports ran out: more by --source, or --close reset")
    if not said:
        said.append(f"the generator was busy {busy * 100:.0f} %: it was not the limit")
    return "; ".join(said)


def _about_datagrams(result: Result) -> list[str]:
    """Return what the counts of datagrams mean, a sentence each."""
    counts = result.datagrams
    if counts is None:
        return []
    said = []
    if not result.messages:
        where, within = names_of(result.plan), seconds_text(result.plan.timeout)
        if wrong_bytes(result.failures):
            said.append(f"{where} answered, but not with what was sent: no echo server")
        elif result.failures["refused"]:
            said.append(f"{where} refused: ICMP says that nothing listens there")
        else:
            said.append(f"not one datagram came back from {where} within {within}")
    if counts["overflows"]:
        said.append(
            f"{counted(counts['overflows'], 'reply was', 'replies were')} dropped in our own "
            "receive buffers: that loss is the generator's, not the path's"
        )
    if _looks_limited(result):
        rate = _later_rate(result) or result.messages_per_s
        said.append(
            f"replies came at {rate:,.0f}/s beside losses, which looks like a rate limit for each "
            f"source address at the server (fastecho's own is --udp-rate, {USUAL_RATE:,} a second "
            "for each thread by default; --server udp starts one without)"
        )
    return said


def _looks_limited(result: Result) -> bool:
    """Tell whether losses and the rate of replies look like a server's limit for our address.

    That is a guess: a path that loses as much can look the same. It is not made of what our own
    receive buffers dropped, nor where the generator itself was the limit.
    """
    counts = result.datagrams or {}
    lost = counts["lost"] - counts["overflows"]
    if lost <= 0 or not result.messages or result.generator.busy >= BUSY:
        return False
    plan = result.plan
    if plan.rate is None:
        places = plan.connections * plan.depth
        waited = lost * plan.timeout / (places * result.elapsed) if result.elapsed else 0.0
        if waited >= WAITING:
            return True
    if (result.lost_percent or 0.0) < NOTABLE_LOSS:
        return False
    rates = (result.messages_per_s, _later_rate(result))
    return any(rate is not None and _is_usual(rate) for rate in rates) or _began_with_burst(result)


def _is_usual(rate: float) -> bool:
    """Tell whether so many replies a second are near what some threads allow by default."""
    threads = round(rate / USUAL_RATE)
    limit = threads * USUAL_RATE
    return 1 <= threads <= MOST_LIMITS and abs(rate - limit) <= NEAR * limit


def _later(result: Result) -> list[Interval]:
    """Return the intervals in which a burst of a second, which a limit allows, is over."""
    return [one for one in result.intervals if one.start >= 2 and one.elapsed >= 0.5]


def _later_rate(result: Result) -> float | None:
    """Return the replies a second when a burst was over; None of a short run."""
    later = _later(result)
    if len(later) < 2:
        return None
    return sum(one.messages for one in later) / sum(one.elapsed for one in later)


def _began_with_burst(result: Result) -> bool:
    """Tell whether replies came at a higher rate at first, and at a steady one from then on.

    Sockets may be spread unevenly over a server's threads: not all reach their limit then, and
    the rate is no multiple of it.
    """
    rate = _later_rate(result)
    if not rate:
        return False
    steady = all(abs(one.messages_per_s - rate) < STEADY * rate for one in _later(result))
    return steady and result.intervals[0].messages_per_s >= BURST * rate


def _ended_early(result: Result) -> list[str]:
    """Return a sentence for a run that was broken off, or none."""
    plan = result.plan
    # Each message that was due has become one of these.
    due = result.messages + sum(result.failures[name] for name in FAILURES_OF_MESSAGES)
    if result.datagrams is not None:
        due += result.datagrams["lost"] + result.datagrams["not_sent"]
    if plan.messages is not None and due >= plan.messages:
        return []
    if plan.duration is None:
        return [f"ended early: after {due:,} of {plan.messages:,} messages"]
    if result.elapsed < 0.99 * plan.duration:
        return [f"ended early: after {result.elapsed:.3g} of {seconds_text(plan.duration)}"]
    return []
