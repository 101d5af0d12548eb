"""Colour: what the numbers of a decoded picture mean, and its pictures at other sizes and in other layouts.

In: pictures of a codec. Out: the same in the size and pixel format asked for; what is RGB is as a screen for
BT.709 shows it. Never: a file, a colour guessed where a tag says something that cannot be converted.

- Matrix and range are those that the stream states. Reserved values count as unspecified (H.265, E.3.1), so
  does a tag of RGB on a picture that is none. Unspecified is BT.709 or BT.601 by `usual_matrix`; RGB is full
  range, as FFmpeg takes it, and grey too unless it says otherwise.
- High dynamic range and wide gamuts: `pipeline.media.tones`. Other primaries are taken as BT.709's.
- Alpha lies over white, mixed in code values and before anything is scaled, as in stills. It is taken as
  straight (not premultiplied), as ProRes, WebM, PNG and FFV1 have it.
- Luma for measuring is as coded; of HDR it is tone-mapped like the picture: through the whole picture in
  thumbnails, by a table that is exact for greys where only luma is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from pipeline.errors import MediaError
from pipeline.media import tones
from pipeline.media.tones import HDR

HD_WIDTH_PX, HD_HEIGHT_PX = 1280, 720
UNSPECIFIED, BT709, BT601 = 2, 1, 5  # matrix coefficients of H.273, as all numbers of matrices here
NATIVE = {  # those that swscale converts
    BT709: Colorspace.ITU709,
    4: Colorspace.FCC,
    BT601: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
RGB, RESERVED, YCGCO, DERIVED, ICTCP = 0, 3, 8, 12, 14
NAMED = {  # what is refused, by FFmpeg's names
    10: "bt2020c",
    11: "smpte2085",
    13: "chroma-derived-c",
    15: "ipt-c2",
    16: "ycgco-re",
    17: "ycgco-ro",
}
CODES = 1 << 16
LIMITED_16 = 16 << 8, 235 << 8  # black and white of a limited range in 16 bits
YCGCO_RGB = np.array([[1, -1, 1], [1, 1, 0], [1, -1, -1]])  # H.273, equations 53 to 56; columns Y, Cg, Co
DOLBY_VISION = ("dvh1", "dvhe", "dav1")  # no decoder but theirs has to show it right; untagged is profile 5
Decode = Callable[["av.Packet[av.VideoStream]"], list[av.VideoFrame]]
WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders of these leave alpha out


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """How the pictures of one kind are to be read."""

    matrix: int  # of NATIVE, or YCGCO, DERIVED, ICTCP; of RGB and grey BT601, which nothing is read by
    primaries: int  # H.273
    transfer: str  # sdr | pq | hlg
    has_alpha: bool
    limited_grey: bool  # grey from 16 to 235, which swscale takes for full range

    @property
    def plain(self) -> bool:
        """swscale alone converts it."""
        return self.transfer == "sdr" and self.primaries not in tones.WIDE and self.matrix in NATIVE


def usual_matrix(width_px: int, height_px: int) -> int:
    """The matrix of video that states none, by its coded size: BT.709 from 720 lines or 1280 columns on (so
    1280x534, cropped from 720 lines, is high definition), BT.601 below."""
    return BT709 if height_px >= HD_HEIGHT_PX or width_px >= HD_WIDTH_PX else BT601


def alpha_decoder_of(stream: av.VideoStream) -> str:
    """The decoder that shows the alpha of this stream where its own leaves it out; "" where its own will do.
    It knows nothing of the container: its pictures do not carry what stands there."""
    has_alpha = any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items())
    return WITH_ALPHA.get(stream.codec_context.codec.canonical_name, "") if has_alpha else ""


def decoder_of(stream: av.VideoStream) -> Decode:
    """What decodes the packets of this stream: its own decoder, or of WebM with alpha one that shows it.
    MediaError where the colours mean nothing without what no decoder here applies."""
    if stream.codec_tag in DOLBY_VISION and stream.codec_context.colorspace == UNSPECIFIED:
        raise MediaError(
            "Dolby Vision of profile 5, whose colours are ipt-c2", expected="a base layer in BT.2020"
        )
    alpha_decoder = alpha_decoder_of(stream)
    if not alpha_decoder:
        return stream.codec_context.decode
    decoder = cast(av.VideoCodecContext, av.CodecContext.create(alpha_decoder, "r"))
    decoder.extradata = stream.codec_context.extradata
    codec = stream.codec_context.codec.canonical_name

    def pictures_of(packet: "av.Packet[av.VideoStream]") -> list[av.VideoFrame]:
        pictures = decoder.decode(packet)
        for picture in pictures:  # libvpx gives one for a packet, and says neither of these
            picture.key_frame = packet.is_keyframe  # type: ignore[misc]  # PyAV has a setter
            if codec == "vp8":
                picture.colorspace = BT601  # of every size (RFC 6386, 9.2)
        return pictures

    return pictures_of


class Scaler:
    """Converts pictures of one stream. A scaling context costs more than to scale with it: they are kept."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[Any, ...], VideoReformatter] = {}
        self._meanings: dict[tuple[Any, ...], Meaning] = {}
        self._prepared: tuple[av.VideoFrame, av.VideoFrame] | None = None  # the last one, and without alpha

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
        """The picture in this size and pixel format (rgb24, yuv420p, gray); YUV in full range or in its own.
        MediaError where its colours cannot be converted."""
        meaning = self._meaning(picture)
        if meaning.has_alpha or meaning.limited_grey:
            picture = self._over_white(picture, meaning)
            meaning = self._meaning(picture)
        size = width_px, height_px
        if meaning.plain or (layout == "gray" and meaning.transfer == "sdr"):
            return self._scaled(picture, meaning, size, layout, interpolation, full_range=full_range)
        if layout == "gray":
            grey = self._scaled(picture, meaning, size, "gray16le", interpolation, full_range=True)
            return _frame(tones.grey_table(meaning.transfer)[grey.to_ndarray()], "gray")
        shown = _frame(self._standard(picture, meaning, size, interpolation), "rgb24")
        if layout == "rgb24":
            return shown
        return self.convert(shown, *size, layout, interpolation, full_range=full_range)

    def whole(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture at its own size as RGB, to be cut by `cut`: where it is due, 16 bits that are yet to be
        tone-mapped, which costs less once they are scaled down."""
        meaning, size = self._meaning(picture), (picture.width, picture.height)
        if meaning.has_alpha or meaning.limited_grey or meaning.matrix not in NATIVE:
            return self.convert(picture, *size, "rgb24", Interpolation.BILINEAR)
        layout = "rgb24" if meaning.plain else "rgb48le"
        return self._scaled(picture, meaning, size, layout, Interpolation.BILINEAR)

    def _meaning(self, picture: av.VideoFrame) -> Meaning:
        size, tags = (picture.width, picture.height), _tags(picture)
        key = picture.format.name, *size, *tags
        if key not in self._meanings:
            self._meanings[key] = _meaning(picture.format, size, *tags)
        return self._meanings[key]

    def _over_white(self, picture: av.VideoFrame, meaning: Meaning) -> av.VideoFrame:
        """The picture without alpha, or its grey in full range; itself where it is opaque throughout."""
        if self._prepared is None or self._prepared[0] is not picture:
            self._prepared = picture, self._mixed(picture, meaning)
        return self._prepared[1]

    def _mixed(self, picture: av.VideoFrame, meaning: Meaning) -> av.VideoFrame:
        size = picture.width, picture.height
        if meaning.limited_grey:
            grey = self._scaled(picture, meaning, size, "gray16le", Interpolation.AREA).to_ndarray()
            full = (grey.astype(np.float32) - LIMITED_16[0]) * ((CODES - 1) / (LIMITED_16[1] - LIMITED_16[0]))
            return _frame(np.rint(np.clip(full, 0, CODES - 1)).astype(np.uint16), "gray16le")
        rgba = self._scaled(picture, meaning, size, "rgba", Interpolation.BILINEAR).to_ndarray()
        alpha = rgba[..., 3:].astype(np.uint16)  # [H, W, 1]
        if alpha.min() == 255:
            return picture
        rgb = (
            rgba[..., :3] if meaning.plain else self._standard(picture, meaning, size, Interpolation.BILINEAR)
        )
        return _frame(((rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8), "rgb24")

    def _standard(
        self, picture: av.VideoFrame, meaning: Meaning, size: tuple[int, int], interpolation: int
    ) -> np.ndarray:
        """uint8 RGB [H, W, 3] of what swscale alone cannot convert."""
        if meaning.matrix in NATIVE:
            coded = self._scaled(picture, meaning, size, "rgb48le", interpolation).to_ndarray()  # [H, W, 3]
        else:
            planes = self._scaled(picture, meaning, size, "yuv444p16le", interpolation, full_range=True)
            coded = _unmixed(planes.to_ndarray(), meaning)
        if meaning.transfer == "sdr" and meaning.primaries not in tones.WIDE:
            return np.rint(coded / np.float32(257)).astype(np.uint8)
        return tones.to_standard(coded, meaning.transfer, meaning.primaries, lms=meaning.matrix == ICTCP)

    def _scaled(
        self,
        picture: av.VideoFrame,
        meaning: Meaning,
        size: tuple[int, int],
        layout: str,
        interpolation: int,
        *,
        full_range: bool = False,
    ) -> av.VideoFrame:
        """By swscale alone. Luma and chroma stay what they are; only for RGB a matrix is set
        where none is stated."""
        matrix = None  # the stated one
        if picture.colorspace not in NATIVE:
            if layout.startswith("rgb"):
                matrix = NATIVE.get(meaning.matrix)
            elif picture.colorspace > UNSPECIFIED:
                matrix = Colorspace.ITU601  # on both sides: nothing is converted
        key = *size, layout, interpolation, full_range
        try:
            return self._contexts.setdefault(key, VideoReformatter()).reformat(
                picture,
                *size,
                layout,
                src_colorspace=matrix,
                dst_colorspace=matrix,
                interpolation=interpolation,
                dst_color_range=ColorRange.JPEG if full_range else None,
                threads=1,
            )
        except (OSError, ValueError) as error:
            raise MediaError(f"pictures of the format {picture.format.name} cannot be converted") from error


def cut(pixels: np.ndarray, whole: av.VideoFrame) -> av.VideoFrame:
    """Pixels [h, w, 3] of what `Scaler.whole` gave, as a picture whose numbers mean the same."""
    part = _frame(pixels, whole.format.name)
    if whole.format.name == "rgb48le":
        part.color_trc, part.color_primaries = whole.color_trc, whole.color_primaries
    return part


def _meaning(
    layout: av.VideoFormat, size: tuple[int, int], matrix: int, limits: int, transfer: int, primaries: int
) -> Meaning:
    of_transfer = HDR.get(transfer, "sdr")
    is_grey = layout.name.startswith(("gray", "ya", "mono"))
    if layout.is_rgb or layout.has_palette or is_grey:
        known = BT601  # by which nothing is read
    elif matrix in (RGB, UNSPECIFIED, RESERVED):
        known = usual_matrix(*size)
    elif matrix == DERIVED:
        known = {1: BT709, 2: usual_matrix(*size), 9: 9}.get(primaries, DERIVED)
    else:
        known = matrix
    refused = known not in (*NATIVE, YCGCO, DERIVED, ICTCP)
    if refused or (known == DERIVED and primaries not in tones.CHROMATICITIES):
        raise MediaError(
            f"colours of the matrix {NAMED.get(known, known)} (H.273 {matrix})",
            expected="a matrix that can be converted to RGB",
        )
    if known == ICTCP and of_transfer == "sdr":
        raise MediaError("colours of the matrix ictcp without PQ or HLG", expected="one of these transfers")
    return Meaning(
        matrix=known,
        primaries=primaries,
        transfer=of_transfer,
        has_alpha=layout.has_palette or any(part.is_alpha for part in layout.components),
        limited_grey=layout.name.startswith("gray") and limits == ColorRange.MPEG,
    )


def _unmixed(planes: np.ndarray, meaning: Meaning) -> np.ndarray:
    """uint16 R'G'B' (L'M'S' of ICtCp) [H, W, 3] of full-range luma and chroma, uint16 [H, W, 3]."""
    if meaning.matrix == ICTCP:
        matrix = np.linalg.inv(tones.ICTCP[meaning.transfer])
    elif meaning.matrix == YCGCO:
        matrix = YCGCO_RGB
    else:
        red, blue = tones.luma_weights(meaning.primaries)
        green = 1 - red - blue
        to_red, to_blue = 2 * (1 - red), 2 * (1 - blue)
        matrix = np.array(
            [[1, 0, to_red], [1, -blue * to_blue / green, -red * to_red / green], [1, to_blue, 0]]
        )
    zero = np.array([0, CODES // 2, CODES // 2], np.float32)
    mixed = planes - zero  # [H, W, 3]
    return np.rint(np.clip(mixed @ matrix.T.astype(np.float32), 0, CODES - 1)).astype(np.uint16)


def _tags(picture: av.VideoFrame) -> tuple[int, int, int, int]:
    return (
        int(picture.colorspace),
        int(picture.color_range),
        int(picture.color_trc),
        int(picture.color_primaries),
    )


def _frame(pixels: np.ndarray, layout: str) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=layout)
