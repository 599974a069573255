"""The local engine with real processes that die, hang, raise and are killed from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil
import pytest

from vlprep.engines.base import ItemPoisoned, ItemsDone, Job, PartFinished, WorkerDied, WorkerSpec
from vlprep.engines.local import run_parts
from vlprep.engines.slot import Slot
from vlprep.errors import VlprepError

HERE = Path(__file__).parent
PARTS, PART_SIZE = 4, 6


@pytest.fixture(autouse=True)
def _workers_find_this_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


def spec(folder: Path, tricks: dict[str, str] | None = None, target: str = "DummyWorker") -> WorkerSpec:
    arguments = {"folder": str(folder), "part_size": PART_SIZE, "tricks": tricks or {}}
    return WorkerSpec(f"dummy_workers:{target}", arguments)


def run(spec: WorkerSpec, *, workers: int = 1, item_timeout: float = 30.0) -> list[object]:
    events: list[object] = []
    run_parts(spec, range(PARTS), devices=("cpu",), workers=workers, item_timeout=item_timeout, on_event=events.append)
    return events


def committed(folder: Path) -> dict[str, str]:
    """What each item became, from the files of all parts."""
    lines = [line for part in range(PARTS) for line in (folder / f"part-{part}.txt").read_text().splitlines()]
    accounts = dict(line.split(" ", 1) for line in lines)
    assert len(accounts) == len(lines) == PARTS * PART_SIZE
    return accounts


def failures(folder: Path) -> dict[str, str]:
    return {item: what for item, what in committed(folder).items() if what != "row"}


def poisoned(events: list[object]) -> dict[str, str]:
    return {event.item: event.what for event in events if isinstance(event, ItemPoisoned)}


def alive(folder: Path) -> list[int]:
    """Workers of this folder that still run."""
    pids = [int(path.name.removeprefix("pid-")) for path in folder.glob("pid-*")]
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_all_parts_are_done_and_counted(tmp_path, capfd):
    events = run(spec(tmp_path), workers=2)
    assert failures(tmp_path) == {}
    finished = [event.done for event in events if isinstance(event, PartFinished)]
    assert sorted(done.part for done in finished) == list(range(PARTS))
    assert [event.count for event in events if isinstance(event, ItemsDone)][-1] == PARTS * PART_SIZE
    assert alive(tmp_path) == []
    out, err = capfd.readouterr()
    assert out == "", "a worker's print would spoil --json"
    assert "built on cpu with" in err
    assert "CUDA ''" in err


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_from_outside_costs_nothing(tmp_path, workers):
    events = run(spec(tmp_path, {"1/3": f"signal-once {signal.SIGKILL.value}"}), workers=workers)
    assert failures(tmp_path) == {}
    [death] = [event for event in events if isinstance(event, WorkerDied)]
    assert (death.part, death.in_hand, death.cause) == (1, ("1/3",), "killed its worker (signal 9)")
    assert len(list(tmp_path.glob("pid-*"))) in ({2} if workers == 1 else {2, 3})


@pytest.mark.parametrize(
    ("trick", "what"),
    [
        (f"signal {signal.SIGSEGV.value}", "killed its worker (signal 11)"),
        ("exit 3", "made its worker exit (code 3)"),
        ("raise", "raised ValueError: cannot add apples"),
    ],
)
def test_a_poison_item_becomes_a_failure_row(tmp_path, trick, what):
    events = run(spec(tmp_path, {"2/4": trick}))
    assert failures(tmp_path) == {"2/4": f"failed: {what}"}
    assert poisoned(events) == {"2/4": what}


def test_a_hanging_item_is_named_at_once(tmp_path):
    events = run(spec(tmp_path, {"0/2": "sleep 600"}), workers=2, item_timeout=1.0)
    assert failures(tmp_path) == {"0/2": "failed: took longer than 1 s"}
    assert len([event for event in events if isinstance(event, WorkerDied)]) == 1


def test_several_bad_items_on_two_workers(tmp_path):
    tricks = {"0/0": "exit 1", "0/1": "exit 1", "1/5": "sleep 600", "3/2": "raise"}
    run(spec(tmp_path, tricks), workers=2, item_timeout=1.0)
    assert set(failures(tmp_path)) == set(tricks)


def test_an_error_of_the_run_ends_it(tmp_path):
    with pytest.raises(VlprepError, match="the disk is full"):
        run(spec(tmp_path, {"1/1": "fatal"}), workers=2)
    assert alive(tmp_path) == []


def test_a_worker_that_cannot_be_built_ends_the_run():
    with pytest.raises(VlprepError, match="cpu failed 2 times to start: raised RuntimeError: no such model"):
        run(WorkerSpec("dummy_workers:never_built", {}))


def test_deaths_between_items_end_the_run(tmp_path):
    with pytest.raises(VlprepError, match=r"killed its worker \(signal 9\) 2 times with no item in hand"):
        run(spec(tmp_path, target="DiesBetweenItems"))


DRIVER = """
    import sys
    from vlprep.engines.base import WorkerSpec
    from vlprep.engines.local import run_parts

    if __name__ == "__main__":
        tricks = {{f"{{part}}/1": "sleep 60" for part in range(4)}}
        arguments = {{"folder": {folder!r}, "part_size": 6, "tricks": tricks}}
        spec = WorkerSpec("dummy_workers:DummyWorker", arguments)
        try:
            run_parts(spec, range(4), devices=("cpu",), workers=2, item_timeout=600, on_event=print)
        except KeyboardInterrupt:
            sys.exit(130)
"""


@pytest.fixture
def driver(tmp_path):
    """A driver process whose two workers sleep on an item."""
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER.format(folder=str(tmp_path))))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
    time.sleep(0.3)
    yield process
    process.kill()
    process.communicate()


def until(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("waited 30 s in vain")


def test_no_orphans_when_the_driver_is_killed(tmp_path, driver):
    assert len(alive(tmp_path)) == 2
    driver.kill()
    driver.wait()
    until(lambda: not alive(tmp_path))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_run_and_its_workers(tmp_path, driver, number, code):
    os.killpg(driver.pid, number)  # as a terminal and most schedulers do: the workers get it, too
    _, messages = driver.communicate(timeout=30)
    assert driver.returncode == code
    assert "Traceback" not in messages
    assert alive(tmp_path) == []
    assert not list(tmp_path.glob("part-*"))


def test_a_suspended_driver_ages_no_item(tmp_path):
    """Ctrl-Z and fg: the items in hand are not to blame for the time in between."""
    from vlprep.engines.local import _WatchClock

    clock = _WatchClock()
    clock._last -= 3600
    assert clock.look() < 5


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_while_a_worker_is_being_started_ends_the_run_cleanly(tmp_path, monkeypatch, when):
    start = SpawnProcess.start

    def interrupted(process: SpawnProcess) -> None:
        if when == "after":
            start(process)
        raise SystemExit(143)

    monkeypatch.setattr(SpawnProcess, "start", interrupted)
    before = set(psutil.Process().children())
    with pytest.raises(SystemExit):
        run(spec(tmp_path))
    _, alive = psutil.wait_procs(set(psutil.Process().children()) - before, timeout=60)
    assert not alive


def test_a_worker_that_died_idle_is_nothing_to_wait_on(tmp_path: Path) -> None:
    slot = Slot("cpu", "cpu", 1, spec(tmp_path))
    slot.give(Job(0))
    assert len(slot.handles()) == 2
    process = slot._process
    assert process is not None
    slot.job = None  # as after its last part
    process.kill()
    process.join()
    assert slot.handles() == []
    slot.stop_by(time.monotonic())
