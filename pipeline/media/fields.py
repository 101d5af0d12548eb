"""Interlaced pictures → one field of them.

In: a decoded picture. Out: itself, or, where the codec says that two fields are woven in it, its upper field:
every second line. Scaled to the size asked for, that is a deinterlacer that looks at no other picture: what
it shows does not depend on where decoding began. The lines between are interpolated by the scaler, and the
picture stands half a line lower than it did. What is measured on the pixel grid (combing, noise) sees the
picture as it was coded. Never: a copy of a progressive picture, a second in time from one picture: a clip has
as many pictures as its file.
"""

import av
import numpy as np

from pipeline.media.colour import UNSPECIFIED, usual_matrix

LEAST_LINES = 4  # of a picture that is split


def shown_picture(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture, without combs. Its lines may be half as many; colours and times stay."""
    if not picture.interlaced_frame:
        return picture
    layout = picture.format
    if layout.has_palette or picture.height < LEAST_LINES:
        return picture
    field = av.VideoFrame(picture.width, (picture.height + 1) // 2, layout.name)
    for ours, woven in zip(field.planes, picture.planes, strict=True):
        lines = np.frombuffer(memoryview(woven), np.uint8).reshape(woven.height, -1)[::2]  # [H / 2, bytes]
        target = np.frombuffer(memoryview(ours), np.uint8).reshape(ours.height, -1)
        wide = min(lines.shape[1], target.shape[1])
        high = min(len(lines), len(target))
        target[:high, :wide] = lines[:high, :wide]
        target[high:, :wide] = lines[-1, :wide]
    field.colorspace, field.color_range = picture.colorspace, picture.color_range
    if picture.colorspace == UNSPECIFIED and not layout.is_rgb:
        field.colorspace = usual_matrix(picture.width, picture.height)  # by the size of the whole picture
    field.color_trc, field.color_primaries = picture.color_trc, picture.color_primaries
    field.pts, field.time_base = picture.pts, picture.time_base
    return field
