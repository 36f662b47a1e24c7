"""Scenes, interrupted at one moment after the other: a program of its own.

Lives here: playing a scene, and the look at what it has left. Does not live here: the scenes
(scenes.py), who counts what was found (interrupted.py).

Arguments: the first moment, the step to the next one, and the scenes. Printed is a JSON object a
line: {"place": ..., "number": ..., "wrong": ...} for each moment after which something was left,
and behind those of a scene {"scene": ..., "tried": ..., "raised": ..., "excused": ...}.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import signal
import sys
import tempfile
import time
import warnings
from asyncio import CancelledError
from pathlib import Path
from typing import Any

from conftest import open_descriptors, running_threads
from moments import Interruption
from scenes import EXCUSED, SCENES, Scene, Stage

import fastecho
from fastecho import process

HANGS = 20
"""Seconds after which one scene is taken to hang: the process prints its stacks, and ends."""
SETTLE = 2.0
"""Seconds that threads and descriptors have to go away."""
HANDLERS: dict[signal.Signals, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}


class Belongings:
    """What the process holds, to be compared with what it held before."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptors = open_descriptors()
        self._threads = running_threads()
        self._servers = len(process._living)

    def left(self) -> str:
        """Tell what is there and was not, '' for nothing."""
        descriptors = {
            number: what
            for number, what in open_descriptors().items()
            if self._descriptors.get(number) != what
        }
        threads = {n: name for n, name in running_threads().items() if n not in self._threads}
        found = {
            "descriptors": list(descriptors.values()),
            "threads": list(threads.values()),
            "file": self._file.exists(),
            "servers": len(process._living) - self._servers,
        }
        return ", ".join(f"{what} {value}" for what, value in found.items() if value)

    def left_at_last(self) -> str:
        """Tell what does not go away."""
        deadline, pause = time.monotonic() + SETTLE, 0.0005
        while left := self.left():
            if time.monotonic() > deadline:
                return left
            gc.collect()  # a traceback is a ring of references
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return ""


def changed_handlers() -> str:
    """Tell which signals are not handled as before, and handle them so again."""
    changed = [
        number.name for number, handler in HANDLERS.items() if signal.getsignal(number) != handler
    ]
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)
    if signal.set_wakeup_fd(-1) != -1:
        changed.append("the wakeup descriptor")
    return f"handlers of {', '.join(changed)}" if changed else ""


def play(scene: Scene, stage: Stage, number: int) -> tuple[Interruption, str]:
    """Play a scene with an interruption; how it ended: "", "raised" or what was wrong.

    The collector rests meanwhile: it runs finalizers between any two instructions, so the same
    number would not be the same moment; and CPython 3.11 loses its place in a `with` statement
    whose trace ends in one of them ("TypeError: 'traceback' object is not callable").
    """
    scene.before(stage)
    interruption = Interruption(number, scene.folder)
    ended = ""
    gc.disable()
    try:
        with interruption:
            scene.act(stage)
    except (KeyboardInterrupt, CancelledError):
        ended = "raised"
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"
    finally:
        gc.enable()
    scene.after(stage)
    stage.others.close()
    stage.runner.close()
    return interruption, ended


def echoes(path: Path) -> str:
    """Tell what goes wrong when a server is started in the same place, '' for nothing."""
    try:
        with (
            fastecho.Server(f"unix:{path}", drain_idle=0.0) as server,
            fastecho.Client(server.address, timeout=5) as client,
        ):
            return "" if client.echo(b"again") == b"again" else "other bytes came back"
    except Exception as error:
        return f"a later start: {type(error).__name__}: {error}"


def tell(**facts: object) -> None:
    """Print a line."""
    print(json.dumps(facts), flush=True)


class Player:
    """Plays scenes, in one folder, beside one server that is somebody else's."""

    def __init__(self, folder: str, elsewhere: fastecho.Server) -> None:
        self._path = Path(folder) / "s"
        self._elsewhere = elsewhere
        self._before = Belongings(self._path)

    def _play(self, scene: Scene, number: int) -> tuple[Interruption, str]:
        return play(scene, Stage(self._path, self._elsewhere.address), number)

    def _left(self) -> str:
        """Tell what was left, and remove it."""
        left = self._before.left_at_last()
        if left:
            for server in list(process._living.values()):
                if server is not self._elsewhere:
                    server.abort()
            self._path.unlink(missing_ok=True)
            self._before = Belongings(self._path)
        return left

    def run(self, name: str, first: int, step: int) -> None:
        """Interrupt a scene until it has no moment of that number any more."""
        scene = SCENES[name]
        for _ in range(2):  # what is imported or made only once
            self._play(scene, 0)
            echoes(self._path)
        changed_handlers()
        self._before = Belongings(self._path)
        number, tried, raised, excused = first, 0, 0, 0
        while True:
            signal.alarm(HANGS)
            interruption, ended = self._play(scene, number)
            if not interruption.place:
                break
            tried += 1
            raised += ended == "raised"
            left = self._left()
            if any(interruption.place.endswith(place) for place in EXCUSED):
                excused += bool(left)
                left = ""
            wrong = [ended] if ended not in ("", "raised") else []
            wrong += filter(None, [left, changed_handlers(), echoes(self._path)])
            if wrong:
                tell(place=interruption.place, number=number, wrong="; ".join(wrong))
            number += step
        tell(scene=name, tried=tried, raised=raised, excused=excused)


def main() -> None:
    """Play every scene that is named."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)
    # Where CPython does not let an exception through, in a weak reference's callback, it tells so.
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore", ResourceWarning)
    first, step = int(sys.argv[1]), int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder, fastecho.Server() as elsewhere:
        player = Player(folder, elsewhere)
        for name in sys.argv[3:]:
            player.run(name, first, step)
        signal.alarm(0)


if __name__ == "__main__":
    main()
