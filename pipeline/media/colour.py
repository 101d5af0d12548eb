"""Colour: what the numbers of a decoded picture mean, and its pictures at other sizes and in other layouts.

In: pictures of a codec. Out: pictures in the size and pixel format asked for. Never: a file.
"""

import av
from av.video.reformatter import ColorRange, VideoReformatter


class Scaler:
    """Converts pictures of one stream. A scaling context costs more than to scale with it: they are kept."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[int, int, str, int, bool], VideoReformatter] = {}

    def convert(
        self,
        picture: av.VideoFrame,
        width_px: int,
        height_px: int,
        layout: str,
        interpolation: int,
        *,
        full_range: bool = False,
    ) -> av.VideoFrame:
        """The picture in this size and pixel format; YUV in full range or in its own."""
        key = width_px, height_px, layout, interpolation, full_range
        return self._contexts.setdefault(key, VideoReformatter()).reformat(
            picture,
            width_px,
            height_px,
            layout,
            interpolation=interpolation,
            dst_color_range=ColorRange.JPEG if full_range else None,
            threads=1,
        )
