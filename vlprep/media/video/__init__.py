"""Videos in, frames out: one decode feeds every stream of frames that is asked for, in processes that may die.

`DecoderPool` (in `pool`) is what stages use; `open_video` (in `decode`) does the same in this process. Nothing here
imports torch, and nothing at the top of this package imports a decoder.
"""

from vlprep.media.video.base import DecodeSummary, Frame, FrameStream, VideoInfo

__all__ = ["DecodeSummary", "Frame", "FrameStream", "VideoInfo"]
