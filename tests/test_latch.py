"""Latch: what happens once, and those who wait for it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastecho.latch import Latch


def test_waiting_ends_when_it_opens_and_at_once_from_then_on() -> None:
    latch = Latch()
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(latch.wait) for _ in range(20)]
        assert not latch.is_open()
        latch.open()
        assert [one.result(10) for one in waiting] == [True] * 20
    assert latch.is_open()
    assert latch.wait() is True
    latch.open()


def test_waiting_ends_in_time_when_it_does_not_open() -> None:
    latch = Latch()
    begun = time.monotonic()
    assert latch.wait(0.05) is False
    assert time.monotonic() - begun >= 0.05
    assert latch.wait(0) is False
    assert latch._calls == []


def test_what_is_to_be_called_is_called_once_by_who_opens_it() -> None:
    latch = Latch()
    called: list[threading.Thread] = []
    with latch.calling(lambda: called.append(threading.current_thread())):
        thread = threading.Thread(target=latch.open)
        thread.start()
        thread.join()
        latch.open()
        assert called == [thread]


def test_who_has_left_is_not_called() -> None:
    latch = Latch()
    called: list[int] = []
    with latch.calling(lambda: called.append(1)):
        pass
    with pytest.raises(KeyError), latch.calling(lambda: called.append(2)):
        raise KeyError
    latch.open()
    with latch.calling(lambda: called.append(3)):
        pass
    assert called == []
