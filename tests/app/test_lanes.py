"""How many computations run, how many wait, and how long."""

import threading
import time

import pytest
from prisma_app.lanes import BusyError, Lane


def test_no_more_run_at_once_and_no_more_wait_than_there_are_places() -> None:
    lane = Lane("test", at_once=2, waiting=3, seconds=5)
    running, most, refused, lock, go = [0], [0], [0], threading.Lock(), threading.Event()

    def work() -> None:
        try:
            with lane.place():
                with lock:
                    running[0] += 1
                    most[0] = max(most[0], running[0])
                go.wait(5)
                with lock:
                    running[0] -= 1
        except BusyError:
            with lock:
                refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(9)]
    for thread in threads:
        thread.start()
    while refused[0] < 4:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join()
    assert (most[0], refused[0]) == (2, 4)
    with lane.place():
        pass


def test_waiting_and_running_end() -> None:
    lane = Lane("test", at_once=1, waiting=1, seconds=0.05)
    with lane.place() as expect_time:
        with pytest.raises(BusyError, match="no place became free"), lane.place():
            pass
        with pytest.raises(BusyError, match="this takes longer than the 0 seconds"):
            time.sleep(0.06)
            expect_time()


def test_a_place_is_given_back_after_an_error() -> None:
    lane = Lane("test", at_once=1, waiting=0, seconds=1)
    for _ in range(3):
        with pytest.raises(ValueError), lane.place():
            raise ValueError
