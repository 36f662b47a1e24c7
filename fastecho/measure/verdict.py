"""What a run says about itself: whose limit its figures show, and whether there was an echo at all.

Lives here: sentences made of counts. Does not live here: counting (runner.py, the load), what is
printed around them (cli/_summary.py).
"""

from __future__ import annotations

import errno

from fastecho.errors import StartError

from .datagrams import percent_text
from .preflight import names_of
from .result import FAILURES_OF_MESSAGES
from .values import seconds_text
from .words import counted

TYPE_CHECKING = False  # typing itself costs 5 ms at import
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import Plan
    from .result import Result

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
MOST_LIMITS = 4
"""So many threads' limits together are told from other rates."""
STEADY = 0.05
"""Rates that differ by less are the same."""
NOTABLE_LOSS = 0.5
"""Percent of loss from which on a rate limit is thought of."""
LATE = 50e3
"""Nanoseconds at the median from which on it is said that the generator sent late."""


def wrong_bytes(counts: Mapping[str, int]) -> int:
    """Return how many answers were not what was sent."""
    return counts["corrupt"] + counts["misplaced"] + (1 if counts["extra_bytes"] else 0)


def no_echo(plan: Plan, counts: Mapping[str, int], described: list[str]) -> StartError:
    """Return the error of a run that had failures and not one right reply."""
    names = names_of(plan)
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
    if (limit := _usual_limit(result)) is not None:
        said.append(
            f"replies came at a steady {limit:,}/s beside losses: a rate limit, it seems, as a "
            f"fastecho server has for each source address ({USUAL_RATE:,}/s and thread, --udp-rate)"
        )
    return said


def _usual_limit(result: Result) -> int | None:
    """Return the rate of replies if it looks like the one that our server allows by default.

    From the third second on: a burst of a second is allowed before.
    """
    if (result.lost_percent or 0.0) < NOTABLE_LOSS:
        return None
    later = [one for one in result.intervals if one.start >= 2 and one.elapsed >= 0.5]
    if len(later) < 2:
        return None
    rate = sum(one.messages for one in later) / sum(one.elapsed for one in later)
    limit = round(rate / USUAL_RATE) * USUAL_RATE
    steady = all(abs(one.messages_per_s - rate) < STEADY * rate for one in later)
    if 0 < limit <= MOST_LIMITS * USUAL_RATE and steady and abs(rate - limit) < STEADY * limit:
        return limit
    return None


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
