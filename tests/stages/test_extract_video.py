"""The video stage whole, with encoders that need no network: rows, several stores, failures, resume."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import counting_decoder
import inline_engine
import numpy as np
import pytest
from dummy_encoder import CLIPS, DIM, FRAMES, DummyEncoder
from media import video_stubs
from media.video_fixtures import write_video
from video_folder import break_videos, choice, make_red, make_videos, run_settings, settings

from vlprep.clips.windows import cut
from vlprep.engines.base import ItemPoisoned
from vlprep.errors import SettingsError
from vlprep.media.video.decode import open_video
from vlprep.media.video.pool import DecoderPool
from vlprep.shards import Status, StoreReader
from vlprep.shards.verify import verify
from vlprep.stages import run
from vlprep.stages.extract_video import EncoderChoice, VideoSettings, dry_run, extract_video


@pytest.fixture
def _inline(monkeypatch):
    monkeypatch.setattr(run, "run_parts", inline_engine.run_parts)


inline = pytest.mark.usefixtures("_inline")


@pytest.fixture
def decodes(monkeypatch, tmp_path):
    """How often each file was opened."""
    log = tmp_path / "decodes.log"
    log.touch()
    monkeypatch.setenv("DECODES", str(log))
    return lambda: Counter(log.read_text().split("\n")[:-1])


def reasons(status: Status) -> dict[str, str]:
    return {failure.id: failure.message for failure in status.failures}


def rows_of(store: Path) -> dict[str, object]:
    return {row["id"]: row for row in StoreReader(store)}


@inline
def test_rows_are_what_decoder_recipe_and_encoder_say(tmp_path):
    ids = make_videos(tmp_path / "data")
    report = extract_video(tmp_path / "data", settings(choice(), choice("frames")), run_settings())
    assert report.folder == tmp_path / "data" / "vlprep"
    assert (report.done, report.status.rows, report.status.pending) == (6, 6, 0)
    for name, spec in (("clips", CLIPS), ("frames", FRAMES)):
        reader = StoreReader(report.folder / f"dummy_encoder.{name}")
        assert reader.ids == ids
        assert verify(reader.folder) == []
        for row in reader:
            with open_video(tmp_path / "data" / row["id"], [spec.frame_stream()]) as decoding:
                clips = list(cut(decoding, spec))
            expected = DummyEncoder(spec, None).encode(np.stack([clip.frames_THW3 for clip in clips])).numpy()
            np.testing.assert_array_equal(row["features"][:, : DIM - 1], expected[:, : DIM - 1])
            np.testing.assert_array_equal(row["times"], [(clip.start, clip.end) for clip in clips])
            assert (row["status"], row["errors"], row["path"]) == ("ok", 0, row["id"])
            assert row["source_id"] == Path(row["id"]).stem
            assert (row["frames"], row["duration"], row["fps"]) == (
                decoding.summary.frames,
                decoding.info.duration,
                decoding.info.fps,
            )


@inline
def test_short_videos_share_batches(tmp_path):
    make_videos(tmp_path, seconds=(1,) * 9)
    report = extract_video(tmp_path, settings(), run_settings(part_size=9))
    sizes = [int(size) for row in StoreReader(report.folder) for size in row["features"][:, -1]]
    assert sizes == [18] * 18


@inline
def test_two_encoders_share_one_decode_and_give_what_each_gives_alone(tmp_path, decodes):
    ids = make_videos(tmp_path / "data")
    decoder = counting_decoder.BACKEND
    both = extract_video(tmp_path / "data", settings(choice(), choice("frames"), decoder=decoder), run_settings())
    assert decodes() == {Path(name).name: 1 for name in ids}
    for kind in ("clips", "frames"):
        alone = extract_video(
            tmp_path / "data", settings(choice(kind), decoder=decoder), run_settings(out=tmp_path / kind)
        )
        assert contents(alone.folder) == contents(both.folder / f"dummy_encoder.{kind}")
    assert set(decodes().values()) == {3}


def contents(store: Path) -> dict[str, bytes]:
    """The plan and the data; the marks differ in their seconds."""
    return {path.name: path.read_bytes() for path in sorted(store.glob("*.arrow"))}


@inline
def test_a_store_that_is_behind_catches_up_with_one_decode_for_what_both_miss(tmp_path, decodes):
    ids = make_videos(tmp_path / "data")
    decoder = counting_decoder.BACKEND
    extract_video(tmp_path / "data", settings(decoder=decoder), run_settings(shard_of="1/2"))
    assert decodes() == {Path(name).name: 1 for name in ids[:3]}
    report = extract_video(tmp_path / "data", settings(choice(), choice("frames"), decoder=decoder), run_settings())
    assert decodes() == {Path(name).name: 2 if name in ids[:3] else 1 for name in ids}
    assert (report.done, report.status.rows) == (6, 6)
    write_video(tmp_path / "data" / "a new one.mp4", options={"preset": "ultrafast"})
    report = extract_video(tmp_path / "data", settings(choice(), choice("frames"), decoder=decoder), run_settings())
    assert (report.done, report.status.rows) == (1, 7)
    assert decodes()["a new one.mp4"] == 1
    assert extract_video(tmp_path / "data", settings(choice("frames"), decoder=decoder), run_settings()).done == 0


@inline
def test_the_order_of_decoding_leaves_no_trace(tmp_path, monkeypatch):
    """Four decoding processes give the bytes of one."""
    make_videos(tmp_path / "data")
    folders = []
    for processes in (1, 4):
        pool = partial(DecoderPool, backend="pyav", timeout=60, processes=processes)
        monkeypatch.setattr("vlprep.stages.video_worker.DecoderPool", lambda pool=pool, **_: pool())
        run_here = run_settings(part_size=6, out=tmp_path / str(processes))
        folders.append(extract_video(tmp_path / "data", settings(), run_here).folder)
    assert contents(folders[0]) == contents(folders[1])


@inline
def test_broken_videos_are_failures_with_their_reason(tmp_path):
    ids = make_videos(tmp_path)
    expected = break_videos(tmp_path)
    whole = (tmp_path / ids[0]).read_bytes()
    middle = len(whole) // 2
    (tmp_path / "rotten.mp4").write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
    report = extract_video(tmp_path, settings(choice(), choice("frames")), run_settings())
    failed = reasons(report.status)
    assert failed.keys() == expected.keys()
    for name, words in expected.items():
        assert words in failed[name]
    assert report.status.rows == len(ids) + 1
    rotten = rows_of(report.folder / "dummy_encoder.clips")["rotten.mp4"]
    assert rotten["status"] == "partial"
    assert rotten["errors"] > 0


@inline
def test_a_decoder_that_hangs_or_dies_costs_one_video(tmp_path):
    for name in ("a", "hang", "kill", "z"):
        write_video(tmp_path / f"{name}.mp4", options={"preset": "ultrafast"})
    stubborn = settings(decoder=video_stubs.BACKEND)
    report = extract_video(tmp_path, stubborn, run_settings(part_size=4, item_timeout=2.0))
    failed = reasons(report.status)
    assert failed.keys() == {"hang.mp4", "kill.mp4"}
    assert "no sign of life for 2 s" in failed["hang.mp4"]
    assert "signal 9" in failed["kill.mp4"]
    assert rows_of(report.folder).keys() == {"a.mp4", "z.mp4"}


@inline
def test_a_row_that_one_store_cannot_keep_is_a_failure_there_only(tmp_path):
    ids = make_videos(tmp_path, seconds=(1, 1))
    make_red(tmp_path / "red.mp4")
    chosen = settings(choice(weights="red:overflow"), choice("frames"), store_dtype="float16")
    report = extract_video(tmp_path, chosen, run_settings())
    assert "beyond float16" in reasons(report.status)["red.mp4"]
    assert rows_of(report.folder / "dummy_encoder.clips").keys() == set(ids)
    assert rows_of(report.folder / "dummy_encoder.frames").keys() == {*ids, "red.mp4"}


@inline
def test_failures_are_tried_again_when_asked(tmp_path):
    ids = make_videos(tmp_path)
    whole = (tmp_path / ids[4]).read_bytes()
    (tmp_path / ids[4]).write_bytes(whole[:100])
    chosen = settings(choice(), choice("frames"))
    assert extract_video(tmp_path, chosen, run_settings()).status.failed == 1
    (tmp_path / ids[4]).write_bytes(whole)
    report = extract_video(tmp_path, chosen, run_settings(retry_failed=True))
    assert (report.done, report.status.failed, report.status.rows) == (1, 0, 6)


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["kill", "hang"])
def test_a_video_that_ends_the_network_is_a_failure(tmp_path, deed):
    make_videos(tmp_path)
    make_red(tmp_path / "red.mp4")
    events: list[object] = []
    chosen = settings(choice(weights=f"red:{deed}"))
    report = extract_video(tmp_path, chosen, run_settings(item_timeout=3.0), events.append)
    assert reasons(report.status).keys() == {"red.mp4"}
    assert report.status.rows == 6
    assert [event.item for event in events if isinstance(event, ItemPoisoned)] == ["red.mp4"]


@inline
def test_other_settings_are_refused_and_named(tmp_path):
    make_videos(tmp_path, seconds=(1,))
    extract_video(tmp_path, settings(), run_settings())
    with pytest.raises(SettingsError, match=r"encoder\.fps: the store has \"10\", this run \"5\""):
        extract_video(tmp_path, settings(choice(overrides={"fps": 5})), run_settings())
    extract_video(tmp_path, settings(choice(overrides={"fps": 5})), run_settings(overwrite=True))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"encoders": ()}, "--model names no encoder"),
        ({"encoders": (choice(), choice())}, "each once"),
        ({"precision": "fp8"}, "--precision fp8"),
        ({"decoder": "ffmpeg"}, "decoder 'ffmpeg' is unknown"),
    ],
)
def test_wrong_settings_say_which(chosen, message):
    with pytest.raises(SettingsError, match=message):
        VideoSettings(**chosen)


@pytest.mark.parametrize("name", ["no_such_module:build", "dummy_encoder:nothing"])
def test_own_encoders_that_cannot_be_imported(tmp_path, name):
    make_videos(tmp_path, seconds=(1,))
    with pytest.raises(SettingsError, match=f"--model {name}: not one of ours"):
        extract_video(tmp_path, settings(EncoderChoice(name=name)), run_settings())


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="no videos"):
        extract_video(tmp_path, settings(), run_settings())


@inline
def test_a_dry_run_leaves_no_trace_and_knows_what_each_store_misses(tmp_path):
    make_videos(tmp_path)
    chosen = settings(choice(), choice("frames"))
    before = sorted(tmp_path.rglob("*"))
    plan = dry_run(tmp_path, chosen, run_settings())
    assert sorted(tmp_path.rglob("*")) == before
    assert (plan.items, plan.parts, plan.measured, plan.failed) == (6, 2, 6, 0)
    assert plan.bytes > 0
    extract_video(tmp_path, settings(), run_settings())
    assert dry_run(tmp_path, settings(), run_settings()).items == 0
    assert dry_run(tmp_path, chosen, run_settings()).items == 6


def test_features_of_a_long_video_take_no_frames_along(tmp_path, monkeypatch):
    """Whatever the length, no more clips are held than fill a batch."""
    write_video(tmp_path / "long.mp4", pts=range(25 * 40), size=(32, 32), options={"preset": "ultrafast"})
    monkeypatch.setattr(run, "run_parts", inline_engine.run_parts)
    monkeypatch.setattr("vlprep.stages.video_worker._BATCH_PIXELS", {"cpu": 4 * 8 * 32 * 32})
    seen: list[int] = []
    encode = DummyEncoder.encode
    monkeypatch.setattr(DummyEncoder, "encode", lambda self, clips: seen.append(len(clips)) or encode(self, clips))
    report = extract_video(tmp_path, settings(), run_settings())
    assert seen == [4] * 12 + [2]
    assert StoreReader(report.folder)[0]["features"].shape == (50, DIM)
