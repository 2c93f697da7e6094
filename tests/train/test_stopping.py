"""A signal stops a run after its state was saved, so that it goes on to the same bits."""

import signal
import threading
from pathlib import Path

import pytest

from prisma.train import Recipe, train
from prisma.train.metrics_log import MetricsLog
from prisma.train.stopping import SIGNALS, Stopping
from tests.run_edits import timeless


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("number", SIGNALS)
def test_the_state_is_saved_first(
    tiny: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def stop(*_: object) -> None:
        raise StoppedError

    write = MetricsLog.write

    def signalled(log: MetricsLog, line: dict[str, float]) -> None:
        write(log, line)
        if line["step"] == 37:
            signal.raise_signal(number)

    before = signal.signal(number, stop)
    try:
        with monkeypatch.context() as patch, pytest.raises(StoppedError):
            patch.setattr(MetricsLog, "write", signalled)
            train(tiny, tmp_path / "run", device="cpu", progress=False)
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes().count(b"\n") == 38
    assert b'"step":"38"' in (tmp_path / "run" / "state.safetensors").read_bytes()[:20_000]
    train(tiny, tmp_path / "run", resume=True, device="cpu", progress=False)
    for name in ("model.safetensors", "state.safetensors", "metrics.jsonl", "results.json"):
        assert timeless(tmp_path / "run" / name) == timeless(whole / name)


def test_a_second_signal_acts_at_once_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        assert stopping.wanted
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_signal_stays_ignored_and_other_threads_change_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping() as stopping:
            signal.raise_signal(signal.SIGHUP)
            assert not stopping.wanted
    finally:
        signal.signal(signal.SIGHUP, before)
    found = []

    def elsewhere() -> None:
        with Stopping():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
