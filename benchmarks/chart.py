"""Draw the README's chart: `python -m benchmarks.chart`, twenty seconds.

A server is stopped for 200 ms (SIGSTOP) in the middle of two runs, one in a closed loop, one in an
open loop at half the rate of the first. The chart shows what each of them sees of it. It
is an illustration: a run in which the machine stopped for longer than that is refused. Needs the
extra `report`. No figure is made here: benchmarks.echo does that.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from benchmarks import _programs
from benchmarks._command import check_installation, ended_by_sigterm
from benchmarks._errors import MeasurementError, SetupError
from benchmarks._plan import cores
from benchmarks._servers import ROOT, Server, pinned
from fastecho.errors import FastechoError
from fastecho.measure.plan import Plan
from fastecho.measure.result import Result
from fastecho.measure.runner import run

ABOUT = "Stop a server for 200 ms under load and draw what a closed and an open loop see of it."
PICTURE = ROOT / "docs" / "images" / "stalled-server.svg"
CONNECTIONS = 32
STOPPED_S = 0.2


def stalled(server: Server, plan: Plan) -> Result:
    """Run the plan and stop the server once, in the middle."""
    assert plan.duration is not None
    middle = plan.duration / 2
    ended = threading.Event()

    def stop() -> None:
        if not ended.wait(middle):
            os.kill(server.process.pid, signal.SIGSTOP)
            ended.wait(STOPPED_S)
            os.kill(server.process.pid, signal.SIGCONT)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        result = run(plan)
    finally:
        ended.set()
        stopper.join()
    if result.failed:
        raise MeasurementError(f"{plan.label}: {result.failed} failures: {result.described}")
    longest = result.percentile(100.0) or 0.0
    if longest > STOPPED_S * 1.25:
        raise MeasurementError(f"{plan.label}: other programs stopped it as well: {longest:.3g} s")
    return result


def measure(seconds: float) -> list[Result]:
    """Return a run in a closed loop, and one in an open loop at half its rate."""
    check_installation()
    server_core, load_core = cores()
    with (
        Server("fastecho", _programs.fastecho().command, [server_core]) as server,
        pinned([load_core]),
    ):
        host, port = server.address
        closed = Plan(
            f"{host}:{port}", connections=CONNECTIONS, duration=seconds, label="closed loop"
        )
        first = stalled(server, closed)
        rate = round(first.messages_per_s / 2, -3)
        return [first, stalled(server, closed.replace(rate=rate, label="open loop"))]


def main() -> int:
    """Measure, write the picture, and print the two runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=ABOUT)
    parser.add_argument(
        "--out", type=Path, default=PICTURE, metavar="FILE", help="default: docs/images"
    )
    parser.add_argument(
        "--seconds", type=float, default=8.0, metavar="S", help="of each run (default: 8)"
    )
    options = parser.parse_args()
    try:
        from fastecho.measure.page import picture

        with ended_by_sigterm():
            results = measure(options.seconds)
    except (FastechoError, SetupError) as error:
        print(f"benchmarks.chart: {error}", file=sys.stderr)
        return 4
    except MeasurementError as error:
        print(f"benchmarks.chart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(picture([one.to_json() for one in results]), encoding="utf-8")
    for one in results:
        print(one)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
