"""Draw the charts of the documents: `python -m benchmarks.chart`, twenty seconds; --models.

A server is stopped for 200 ms (SIGSTOP) in the middle of two runs, one in a closed loop, one in an
open loop at half the rate of the first. The chart shows what each of them sees of it. It
is an illustration: a run in which the machine stopped for longer than that is refused. Needs the
extra `report`. No figure is made here: benchmarks.echo does that.

With --models it is the chart of the tutorial: `fastecho models --run`, up to five minutes, as a
picture of what one peer that talks costs among silent ones.
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
from fastecho import models
from fastecho.cli._local import environment
from fastecho.cli._models_run import commands_of
from fastecho.cli._surroundings import raise_descriptor_limit
from fastecho.errors import FastechoError
from fastecho.measure.model_result import ModelRuns
from fastecho.measure.model_runs import measure_models
from fastecho.measure.model_words import sentences
from fastecho.measure.plan import Plan
from fastecho.measure.result import Result
from fastecho.measure.runner import run

ABOUT = "Draw what a closed and an open loop see of a server that stops, or the I/O models."
PICTURE = ROOT / "docs" / "images" / "stalled-server.svg"
MODELS_PICTURE = PICTURE.with_name("models.svg")
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


def measure_all_models(seconds: float) -> ModelRuns:
    """Return what `fastecho models --run` measures."""
    raise_descriptor_limit()
    return measure_models(
        commands_of(models.NAMES), duration=seconds, core="native", environment=environment(),
        on_progress=lambda text, is_step: print(text, file=sys.stderr) if is_step else None,
    )  # fmt: skip


def main() -> int:
    """Measure, write the picture, and print what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=ABOUT)
    parser.add_argument("--models", action="store_true", help="the chart of the tutorial")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: in docs/images")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help="of each run (default: 8; with --models 3)"
    )
    options = parser.parse_args()
    try:
        # First of all: without the extra nothing need be measured.
        from fastecho.measure import model_page, page

        with ended_by_sigterm():
            if options.models:
                out = options.out or MODELS_PICTURE
                runs = measure_all_models(options.seconds or 3.0)
                text, said = model_page.picture(runs), "\n".join(sentences(runs))
            else:
                out = options.out or PICTURE
                results = measure(options.seconds or 8.0)
                text = page.picture([one.to_json() for one in results])
                said = "\n".join(map(str, results))
    except (FastechoError, SetupError) as error:
        print(f"benchmarks.chart: {error}", file=sys.stderr)
        return 4
    except MeasurementError as error:
        print(f"benchmarks.chart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(said)
    print(f"{out}: {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
