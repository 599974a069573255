"""Decoding in processes: equal to decoding here, and no hang, crash or death of the parent leaves anything behind."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import psutil
import pytest
from media import video_fixtures as fixtures
from media.video_stubs import BACKEND

from vlprep.errors import ItemError, MissingDependencyError, SettingsError, VlprepError
from vlprep.media.video.base import DecodeSummary, Frame, FrameStream, VideoInfo
from vlprep.media.video.buffer import Buffer, BufferClosedError
from vlprep.media.video.decode import open_video
from vlprep.media.video.pool import DecoderPool
from vlprep.media.video.wire import parse_frames

SMALL = FrameStream(fps=5, resize=32)
STREAMS = (FrameStream(fps=1, resize=56), FrameStream(fps=24, resize=28, crop=28), FrameStream(fps=20, resize=64))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixtures.write_video(tmp_path_factory.mktemp("plain") / "plain.mp4", options=fixtures.X264_FEW_KEYS)


def named(plain: Path, folder: Path, *names: str) -> list[tuple[str, Path]]:
    """The same video under names that tell the stub what to do."""
    videos = []
    for name in names:
        path = folder / f"{name}.mp4"
        path.hardlink_to(plain)
        videos.append((name, path))
    return videos


def last_words(events) -> dict[str, DecodeSummary | ItemError]:
    ends: dict[str, DecodeSummary | ItemError] = {}
    for video, word in events:
        assert video not in ends, "a word after the last one"
        if isinstance(word, DecodeSummary | ItemError):
            ends[video] = word
    return ends


_OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def _other_tests_may_have_decoders_of_their_own():
    _OTHERS.clear()
    _OTHERS.update(children())


def children() -> set[int]:
    """Decoding processes that this test has started."""
    return {child.pid for child in psutil.Process().children(recursive=True) if is_decoder(child)} - _OTHERS


def is_decoder(process: psutil.Process) -> bool:
    try:
        return any("vlprep.media.video" in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def wait_until(condition, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_frames_are_those_of_this_process(plain, tmp_path):
    videos = named(plain, tmp_path, "a", "b", "c")
    words = defaultdict(list)
    with DecoderPool(processes=2) as pool:
        for video, word in pool.decode(videos, STREAMS):
            words[video].append(word)
    with open_video(plain, STREAMS) as decoding:
        expected = list(decoding)
    for name, _ in videos:
        info, *frames, summary = words[name]
        assert info == decoding.info
        assert summary == decoding.summary
        assert len(frames) == len(expected) == sum(summary.outputs)
        for frame, other in zip(frames, expected, strict=True):
            assert (frame.stream, frame.index, frame.time) == (other.stream, other.index, other.time)
            assert (frame.nominal, frame.source) == (other.nominal, other.source)
            np.testing.assert_array_equal(frame.pixels, other.pixels)
            assert not frame.pixels.flags.writeable


def test_a_hang_a_crash_and_a_bug_cost_only_their_own_videos(plain, tmp_path):
    names = ("a", "hang", "b", "kill", "c", "bug", "d", "print", "e")
    videos = [*named(plain, tmp_path, *names), ("gone", tmp_path / "gone.mp4")]
    with DecoderPool(processes=2, backend=BACKEND, timeout=2) as pool:
        ends = last_words(pool.decode(videos, [SMALL]))
    assert ends.keys() == {*names, "gone"}
    failures = {name: str(end) for name, end in ends.items() if isinstance(end, ItemError)}
    assert failures.keys() == {"hang", "kill", "bug", "gone"}
    assert "hang.mp4" in failures["hang"]
    assert "no sign of life for 2 s" in failures["hang"]
    assert "signal 9" in failures["kill"]
    assert "a bug in a decoder" in failures["bug"]
    assert "No such file" in failures["gone"]
    assert all(end.outputs == (15,) for end in ends.values() if isinstance(end, DecodeSummary))
    assert not children()


def test_a_slow_video_that_shows_life_is_not_killed(plain, tmp_path):
    """Five seconds without a frame, but with packets: a beat comes each second."""
    with DecoderPool(backend=BACKEND, timeout=3) as pool:
        ends = last_words(pool.decode(named(plain, tmp_path, "slow"), [FrameStream(fps=1, resize=32)]))
    assert isinstance(ends["slow"], DecodeSummary)


def test_a_process_that_died_while_idle_costs_no_video(plain, tmp_path):
    with DecoderPool() as pool:
        last_words(pool.decode(named(plain, tmp_path, "a"), [SMALL]))
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        ends = last_words(pool.decode(named(plain, tmp_path, "b"), [SMALL]))
    assert isinstance(ends["b"], DecodeSummary)


def test_processes_live_on_from_one_call_to_the_next(plain, tmp_path):
    with DecoderPool(processes=1) as pool:
        last_words(pool.decode(named(plain, tmp_path, "a"), [SMALL]))
        before = children()
        last_words(pool.decode(named(plain, tmp_path, "b"), STREAMS))
        assert children() == before
    assert not children()


def test_leaving_early_ends_what_is_being_decoded(plain, tmp_path):
    threads = threading.active_count()
    with DecoderPool(processes=2, backend=BACKEND) as pool:
        events = pool.decode(named(plain, tmp_path, "slow-1", "slow-2", "a"), [SMALL])
        assert isinstance(next(word for _, word in events if isinstance(word, Frame)), Frame)
        events.close()
        assert threading.active_count() == threads
        ends = last_words(pool.decode(named(plain, tmp_path, "b"), [SMALL]))
        assert isinstance(ends["b"], DecodeSummary)
    assert not children()


def test_a_pool_decodes_one_list_at_a_time(plain, tmp_path):
    with DecoderPool(backend=BACKEND) as pool:
        events = pool.decode(named(plain, tmp_path, "hang"), [SMALL])
        next(events)
        with pytest.raises(RuntimeError, match="already"):
            next(pool.decode([], [SMALL]))
    assert list(events) == []


def test_no_videos_need_no_process():
    with DecoderPool(processes=4) as pool:
        assert list(pool.decode([], [SMALL])) == []
        assert not children()


def test_decoding_processes_import_nothing_heavy(plain, tmp_path):
    with DecoderPool(backend=BACKEND) as pool:
        (word,) = last_words(pool.decode(named(plain, tmp_path, "modules"), [SMALL])).values()
    modules = set(str(word).split())
    assert "vlprep.media.video.worker" in modules or "vlprep.media.video.decode" in modules
    assert not modules & {"torch", "torchvision", "pyarrow", "PIL.Image", "decord", "multiprocessing"}


def test_wrong_settings_are_told_before_anything_runs():
    with pytest.raises(SettingsError, match="processes"):
        DecoderPool(processes=0)
    with pytest.raises(SettingsError, match="pyav"):
        DecoderPool(backend="opencv")


def test_a_backend_that_cannot_be_loaded_ends_the_run_not_the_videos(plain, tmp_path):
    with DecoderPool(backend="media.no_such_module:open") as pool, pytest.raises(VlprepError, match="no_such_module"):
        list(pool.decode(named(plain, tmp_path, "a"), [SMALL]))
    assert not children()


def test_decoding_processes_end_with_a_parent_that_is_killed(plain, tmp_path):
    """Both kinds: one hangs in a video, one waits for a job."""
    (_, hang), (_, fine) = named(plain, tmp_path, "hang", "a")
    script = textwrap.dedent(f"""
        from pathlib import Path
        import psutil
        from vlprep.media.video.base import DecodeSummary, FrameStream
        from vlprep.media.video.pool import DecoderPool
        pool = DecoderPool(processes=2, backend={BACKEND!r})
        for _, word in pool.decode([("hang", Path({str(hang)!r})), ("a", Path({str(fine)!r}))], [FrameStream(fps=5)]):
            if isinstance(word, DecodeSummary):
                print(*(child.pid for child in psutil.Process().children()), flush=True)
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        parent.kill()
    assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_the_buffer_is_bounded_by_bytes():
    buffer: Buffer[int] = Buffer(100, producers=1)
    produced = []

    def produce() -> None:
        for number in range(10):
            buffer.put(number, 40 if number < 9 else 1000)
            produced.append(number)
        buffer.leave()

    thread = threading.Thread(target=produce)
    thread.start()
    taken = []
    for number in buffer:
        wait_until(lambda: len(produced) >= min(len(taken) + 3, 9), 5)
        assert len(produced) <= len(taken) + 3
        taken.append(number)
    thread.join()
    assert taken == list(range(10))


def test_every_frame_counts_with_its_bytes(plain, tmp_path, monkeypatch):
    sizes = []
    put = Buffer.put

    def recorded(self, item, size=0):
        sizes.append((type(item[1]), size))
        put(self, item, size)

    monkeypatch.setattr(Buffer, "put", recorded)
    with DecoderPool(buffer_bytes=1) as pool:
        last_words(pool.decode(named(plain, tmp_path, "a"), [SMALL]))
    assert Counter(sizes) == {(VideoInfo, 0): 1, (Frame, 48 * 32 * 3): 15, (DecodeSummary, 0): 1}


def test_a_closed_buffer_wakes_its_producers():
    buffer: Buffer[int] = Buffer(1, producers=1)
    buffer.put(0, 1)
    outcome = []

    def produce() -> None:
        try:
            buffer.put(1, 1)
        except BufferClosedError:
            outcome.append("closed")

    thread = threading.Thread(target=produce)
    thread.start()
    buffer.close()
    thread.join(10)
    assert outcome == ["closed"]


@pytest.mark.parametrize("block", [0, 200])
def test_frames_outside_of_their_memory_are_nonsense(block):
    header = struct.pack("<HqddqHH", 0, 0, 0.0, 0.0, 0, 60_000 if block == 0 else 2, 60_000)
    with pytest.raises(ValueError, match="memory"):
        next(parse_frames(memoryview(bytes([block]) + header), None, -1))


def endure(videos: int, plain: Path, folder: Path) -> tuple[Counter[str], dict[str, list[int]]]:
    """Decode one video so many times, and look at what is in use after a tenth and at the end."""
    broken = folder / "broken.mp4"
    broken.write_bytes(b"not a video")
    jobs = [(str(number), broken if number % 50 == 25 else plain) for number in range(videos)]
    used: dict[str, list[int]] = defaultdict(list)
    outcomes: Counter[str] = Counter()
    with DecoderPool(processes=1) as pool:
        for _, word in pool.decode(jobs, [SMALL]):
            if isinstance(word, VideoInfo | Frame):
                continue
            outcomes[type(word).__name__] += 1
            if outcomes.total() in (videos // 10, videos - 1):
                us = psutil.Process()
                (child,) = map(psutil.Process, children())
                for who, process in (("parent", us), ("child", child)):
                    used[f"{who} handles"].append(process.num_fds())
                    used[f"{who} threads"].append(process.num_threads())
                    used[f"{who} memory"].append(process.memory_info().rss)
    return outcomes, used


def assert_flat(used: dict[str, list[int]], growth: float) -> None:
    for what, (early, late) in used.items():
        # One handle more: the child may be looked at between two videos or within one.
        assert late <= (early * growth if "memory" in what else early + 1), f"{what}: {early} became {late}"


def test_many_short_videos_leak_nothing(tmp_path):
    tiny = fixtures.write_video(tmp_path / "tiny.mp4", size=(32, 32), pts=range(10), options={"preset": "ultrafast"})
    outcomes, used = endure(200, tiny, tmp_path)
    assert outcomes == {"DecodeSummary": 196, "ItemError": 4}
    assert_flat(used, 1.1)
    assert not children()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_short_videos_leak_nothing(tmp_path):
    tiny = fixtures.write_video(tmp_path / "tiny.mp4", size=(32, 32), pts=range(10), options={"preset": "ultrafast"})
    outcomes, used = endure(10_000, tiny, tmp_path)
    assert outcomes == {"DecodeSummary": 9800, "ItemError": 200}
    assert_flat(used, 1.05)


def peak_memory(path: Path) -> dict[str, int]:
    """Largest resident memory of a fresh decoding process, and ours when it is done, in bytes."""
    with DecoderPool() as pool:
        last_words(pool.decode([("video", path)], STREAMS))
        (child,) = map(psutil.Process, children())
        status = Path(f"/proc/{child.pid}/status").read_text()
        peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
        return {"child": peak, "parent": psutil.Process().memory_info().rss}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_hours_need_no_more_memory_than_two_minutes(tmp_path):
    def make(seconds: int) -> Path:
        options = {"preset": "ultrafast", "g": "250"}
        return fixtures.write_video(tmp_path / f"{seconds}.mp4", pts=range(seconds * fixtures.RATE), options=options)

    short, long = peak_memory(make(120)), peak_memory(make(7200))
    assert long["child"] <= 1.2 * short["child"]
    assert long["parent"] <= 1.2 * short["parent"]


def test_a_missing_library_is_told_where_the_pool_is_made(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install decord"):
        DecoderPool(backend="decord")
