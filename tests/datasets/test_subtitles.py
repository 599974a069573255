"""SubRip and WebVTT, plain and as YouTube's automatic captions roll."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlprep.datasets.subtitles import read_subtitles
from vlprep.errors import SettingsError

ROLLING_VTT = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.629 align:start position:0%
 
so<00:00:00.480><c> now</c><00:00:00.800><c> the</c><00:00:01.000><c> pan</c>

00:00:02.629 --> 00:00:02.639 align:start position:0%
so now the pan
 

00:00:02.639 --> 00:00:05.000 align:start position:0%
so now the pan
is<00:00:02.900><c> hot</c><00:00:03.100><c> &amp;</c><00:00:03.500><c> ready</c>

00:00:05.000 --> 00:00:05.010 align:start position:0%
is hot &amp; ready
 

00:00:05.010 --> 00:00:07.000 align:start position:0%
is hot &amp; ready
no

00:00:07.000 --> 00:00:07.010 align:start position:0%
no
 

00:00:07.010 --> 00:00:09.000 align:start position:0%
no
no<00:00:08.000>
"""

ROLLED = [
    (0.16, 2.629, "so now the pan"),
    (2.639, 5.0, "is hot & ready"),
    (5.01, 7.0, "no"),
    (7.01, 9.0, "no"),
]

ROLLING_SRT = """1
00:00:00,160 --> 00:00:02,629
so now the pan

2
00:00:02,629 --> 00:00:02,639
so now the pan

3
00:00:02,639 --> 00:00:05,000
so now the pan
is hot & ready

4
00:00:05,000 --> 00:00:05,010
is hot & ready

5
00:00:05,010 --> 00:00:07,000
is hot & ready
no

6
00:00:07,000 --> 00:00:07,010
no

7
00:00:07,010 --> 00:00:09,000
no
no
"""

PLAIN_VTT = """\ufeffWEBVTT - a title

STYLE
::cue { color: red }

NOTE 00:01 is not a cue

chapter one
00:01.500 --> 00:03.000 line:0
<v Anna>Hello <i>there</i>,
two lines

01:00:03.000 --> 01:00:04.250
Stop!

01:00:04.250 --> 01:00:05.000
Stop!

01:00:05.000 --> 01:00:05.000
Go!
"""


def written(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(("name", "text"), [("a.vtt", ROLLING_VTT), ("a.srt", ROLLING_SRT)])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_rolling_captions_give_each_line_once(tmp_path: Path, name: str, text: str, line_end: str) -> None:
    assert read_subtitles(written(tmp_path, name, text.replace("\n", line_end))) == ROLLED


def test_repeated_lines_of_ordinary_subtitles_stay(tmp_path: Path) -> None:
    assert read_subtitles(written(tmp_path, "a.vtt", PLAIN_VTT)) == [
        (1.5, 3.0, "Hello there, two lines"),
        (3603.0, 3604.25, "Stop!"),
        (3604.25, 3605.0, "Stop!"),
        (3605.0, 3605.0, "Go!"),
    ]


def test_srt_without_last_line_end_and_with_positions(tmp_path: Path) -> None:
    top = "1\n00:00:01,000 --> 00:00:02,500 X1:40 X2:600\n{\\an8}<font color='red'>Top</font>\n\n\n"
    text = f"{top}2\n0:1:2,5 --> 0:1:3,25\nEnd"
    assert read_subtitles(written(tmp_path, "a.srt", text)) == [(1.0, 2.5, "Top"), (62.5, 63.25, "End")]


@pytest.mark.parametrize("text", ["", "WEBVTT\n", "WEBVTT\n\n"])
def test_no_speech_is_no_error(tmp_path: Path, text: str) -> None:
    assert read_subtitles(written(tmp_path, "a.vtt", text)) == []


@pytest.mark.parametrize(
    ("text", "reason"), [("<html>Not Found</html>", "no cue"), ("1\n\xe9".encode("latin-1"), "not UTF-8")]
)
def test_what_is_no_subtitle(tmp_path: Path, text: str | bytes, reason: str) -> None:
    path = written(tmp_path, "a.srt", text)
    with pytest.raises(SettingsError, match=reason) as caught:
        read_subtitles(path)
    assert str(path) in str(caught.value)
