"""The only code that touches a video codec: files in, upright frames with times out, and small videos
written.

In: a local path. Out: `MediaInfo`, frames in display orientation and display order, or an encoded file.
Times are seconds after the first frame. Never: a network protocol, a playlist, a damaged frame passed on
as a good one, or a process that has imported torch (PyAV's frame threads and torch can hang at exit):
everything outside the decoding child goes through `pipeline.sandbox.sandbox`. Stills are read by
`pipeline.media.stills`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from pipeline.dedup.prints import hamming, perceptual_hash
from pipeline.errors import MediaError, UsageError
from pipeline.media import stills

# Containers that carry their own pictures. Playlists (hls, concat, dash) can name other files and hosts.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,ivf,gif,apng,flv,live_flv,asf,"
    "ogg,mxf,nut,dv,rm,wtv,yuv4mpegpipe"
)
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
PLANAR_8_BIT = ("yuv4", "yuvj4", "nv", "gray")  # names of layouts with a luma plane, if it has 8 bits
HDR = {16: "pq", 18: "hlg"}  # transfer characteristics (ITU-T H.273): SMPTE ST 2084, ARIB STD-B67
BICUBIC = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND)
THREADS = 2  # a decoder's: workers come one to a core; good files give the same frames with any number
SEEK_AFTER_S = 4.0  # spans that begin earlier are decoded from the start: a seek saves nothing
SEEK_BITS = 16  # a sought frame further than this from the expected hash (of 64 bits) is not trusted


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What the header says. Size is as displayed; frame counts in headers are not worth reading."""

    container: str
    codec: str
    width: int
    height: int
    rotation: int  # degrees counter-clockwise, already applied to width and height
    fps: float  # 0 when the header has no rate
    duration_s: float  # declared for the video stream; 0 when unknown
    length_s: float  # the same, or else declared for the whole file
    has_audio: bool
    transfer: str = "sdr"  # or pq, hlg: high dynamic range, whose pictures are not tone-mapped


@dataclass(slots=True, kw_only=True)
class Damage:
    """What a decode had to leave out."""

    dropped: int = 0  # packets or frames that could not be trusted
    gaps: list[int] = field(default_factory=list)  # indices of the frames that follow what was left out
    size_change: str = ""  # the picture size changed: the frames from there on are left out


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


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture; pixels are converted only when asked for, scaled inside the converter."""

    index: int
    time_s: float
    rotation: int
    picture: av.VideoFrame
    scaler: Scaler

    def yuv(self, width_px: int, height_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Upright planes at about this display size: luma [H, W], chroma [H/2, W/2] twice; 8 bit, full
        range."""
        size = self._coded(width_px, height_px)
        small = self.scaler.convert(
            self.picture, *size, "yuv420p", Interpolation.FAST_BILINEAR, full_range=True
        )
        y, u, v = (_plane(plane) for plane in small.planes)
        return self._upright(y), self._upright(u), self._upright(v)

    def luma(self, width_px: int, height_px: int) -> np.ndarray:
        """Upright 8-bit full-range luma [H, W]."""
        size = self._coded(width_px, height_px)
        small = self.scaler.convert(self.picture, *size, "gray", Interpolation.AREA, full_range=True)
        return self._upright(_plane(small.planes[0]))

    def coded_luma(self) -> tuple[np.ndarray, bool]:
        """The luma plane as it was coded, uint8 [H, W] not turned and not to be written, and whether its
        range is full (else 16 to 235). Costs nothing for 8-bit planar video: it is the decoder's own memory.
        """
        layout = self.picture.format
        if layout.name.startswith(PLANAR_8_BIT) and layout.components[0].bits == 8:
            full = self.picture.color_range == ColorRange.JPEG or layout.name.startswith(("yuvj", "gray"))
            return _plane(self.picture.planes[0]), full
        size = self.picture.width, self.picture.height
        grey = self.scaler.convert(self.picture, *size, "gray", Interpolation.AREA, full_range=True)
        return _plane(grey.planes[0]), True

    def upright_profile(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What belongs to the rows and columns of the coded picture, for those of the upright one."""
        turned = {90: (columns[::-1], rows), 180: (rows[::-1], columns[::-1]), 270: (columns, rows[::-1])}
        return turned.get(self.rotation, (rows, columns))

    def small_rgb(self, width_px: int, height_px: int) -> np.ndarray:
        """Upright uint8 RGB [H, W, 3], scaled down by area averages: half the cost of `rgb`."""
        size = self._coded(width_px, height_px)
        return self._upright(
            self.scaler.convert(self.picture, *size, "rgb24", Interpolation.AREA).to_ndarray()
        )

    def rgb(self, width_px: int, height_px: int, crop: Sequence[float] = (0.0, 0.0, 1.0, 1.0)) -> np.ndarray:
        """Upright uint8 RGB [H, W, 3] of a part of the picture: crop is x, y, w, h as fractions of it."""
        picture = self.picture
        if tuple(crop) != (0.0, 0.0, 1.0, 1.0):
            pixels = self._upright(picture.to_ndarray(format="rgb24"))  # [H0, W0, 3]
            high, wide, _ = pixels.shape
            x, y = round(crop[0] * wide), round(crop[1] * high)
            w, h = max(1, round(crop[2] * wide)), max(1, round(crop[3] * high))
            part = np.ascontiguousarray(pixels[y : y + h, x : x + w])  # [h, w, 3]
            small = av.VideoFrame.from_ndarray(part, format="rgb24")
            return self.scaler.convert(small, width_px, height_px, "rgb24", BICUBIC).to_ndarray()
        size = self._coded(width_px, height_px)
        return self._upright(self.scaler.convert(picture, *size, "rgb24", BICUBIC).to_ndarray())

    def _coded(self, width_px: int, height_px: int) -> tuple[int, int]:
        return (height_px, width_px) if self.rotation % 180 else (width_px, height_px)

    def _upright(self, pixels: np.ndarray) -> np.ndarray:
        return np.rot90(pixels, self.rotation // 90) if self.rotation else pixels


def probe(path: str | Path) -> MediaInfo:
    """What the header says, with the rotation that the first frame carries."""
    if stills.is_animation(path):
        return _animation_info(path)
    with _open(path) as container:
        stream = _video_stream(container, path)
        rotation = 0
        for frame in _decoded(container, stream, Damage()):
            rotation = _quarter(frame.rotation)
            break
        return _info(container, stream, rotation)


def decode(path: str | Path, damage: Damage, *, max_pixels: int, threads: int = THREADS) -> Iterator[Frame]:
    """Every good frame, in order, with strictly increasing times that begin at 0.

    `damage` is filled as it goes. After damage everything up to the next keyframe is left out; which frames
    those are depends on the thread count, so a caller that sees damage decodes again with `threads=1`.
    """
    if stills.is_animation(path):
        scaler = Scaler()
        for index, (time_s, pixels) in enumerate(stills.frames(path, max_pixels)):
            yield Frame(index, time_s, 0, av.VideoFrame.from_ndarray(pixels, format="rgb24"), scaler)
        return
    with _open(path) as container:
        stream = _video_stream(container, path)
        declared = stream.codec_context.width * stream.codec_context.height
        if declared > max_pixels:
            raise MediaError(f"too many pixels: {declared}", expected=f"at most {max_pixels} per frame")
        _set_threads(stream, threads)
        yield from _timed(container, stream, damage)


def decode_from(path: str | Path, time_s: float, *, max_pixels: int) -> Iterator[Frame]:
    """Frames from a keyframe at or before `time_s` on, with the times that `decode` gives them; MediaError
    where there is no such keyframe, at damage, and when times do not rise. Some streams give garbage after a
    seek without any error: compare with what is known."""
    with _open(path) as container:
        stream = _video_stream(container, path)
        if stream.codec_context.width * stream.codec_context.height > max_pixels or stream.time_base is None:
            raise MediaError("cannot seek")
        _set_threads(stream, THREADS)
        first = next(_decoded(container, stream, Damage()), None)
        if first is None or (origin_s := _seconds(first)) is None:
            raise MediaError("cannot seek: no times")
        try:
            container.seek(int((origin_s + time_s) / stream.time_base), stream=stream)
        except av.FFmpegError as error:
            raise MediaError(f"cannot seek: {error.strerror}") from error
        damage, scaler, last_s = Damage(), Scaler(), -1.0
        for index, picture in enumerate(_decoded(container, stream, damage)):
            shown_s = _seconds(picture)
            if (
                shown_s is None
                or damage.dropped
                or (picture.width, picture.height) != (first.width, first.height)
            ):
                raise MediaError("damaged after a seek")
            now_s = shown_s - origin_s
            if now_s <= last_s or (index == 0 and not (picture.key_frame and now_s <= time_s + 1e-3)):
                raise MediaError("no keyframe to decode from")
            last_s = now_s
            yield Frame(index, now_s, _quarter(picture.rotation), picture, scaler)
        if damage.dropped:
            raise MediaError("damaged after a seek")


def read_span(
    path: str | Path,
    times_s: Sequence[float],
    crop: Sequence[int],
    width_px: int,
    height_px: int,
    *,
    max_pixels: int,
    expected_phash: int | None = None,
) -> np.ndarray:
    """The frames shown at these (ascending) times: uint8 [T, H, W, 3] RGB of `crop`, [x, y, w, h] display
    pixels.

    With `expected_phash` (hash of the clip's first filmstrip frame) it seeks, and believes what it finds
    only when
    the first frame looks like it: some streams give garbage after a seek without any error. Otherwise,
    and for
    spans near the start, it decodes from the first frame.
    """
    info = probe(path)
    part = [v / side for v, side in zip(crop, (info.width, info.height) * 2, strict=True)]  # now fractions
    size = (width_px, height_px)
    if expected_phash is not None and times_s[0] > SEEK_AFTER_S:
        try:
            found = _pick(decode_from(path, times_s[0], max_pixels=max_pixels), times_s, part, size)
        except MediaError:
            found = []
        if found and hamming(perceptual_hash(found[0]), expected_phash) <= SEEK_BITS:
            return np.stack(found)  # [T, H, W, 3]
    damage = Damage()
    found = _pick(decode(path, damage, max_pixels=max_pixels), times_s, part, size)
    if damage.dropped:
        found = _pick(decode(path, Damage(), max_pixels=max_pixels, threads=1), times_s, part, size)
    if not found:
        raise MediaError(f"no frame at {times_s[0]:.3f} s")
    return np.stack(found)  # [T, H, W, 3]


def thumbnails(path: str | Path, width_px: int, height_px: int, *, max_pixels: int) -> np.ndarray:
    """Every good frame, the same ones that the analysis sees: uint8 [N, H, W, 3] RGB."""
    for threads in (THREADS, 1):  # of a damaged file the surviving frames depend on the threads
        damage = Damage()
        frames = decode(path, damage, max_pixels=max_pixels, threads=threads)
        found = [frame.rgb(width_px, height_px) for frame in frames]
        if not damage.dropped:
            break
    if not found:
        raise MediaError("no frame can be decoded")
    return np.stack(found)  # [N, H, W, 3]


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], fps: Fraction, crf: int = 16, preset: str = "veryfast"
) -> None:
    """Encode uint8 RGB frames [H, W, 3] (even sizes) to H.264 in MP4: atomic, and the same bytes every
    time."""
    final = Path(path)
    temporary = final.with_name(f".tmp-{os.getpid()}-{final.name}")
    try:
        with av.open(
            str(temporary), "w", format="mp4", container_options={"fflags": "+bitexact"}
        ) as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.pix_fmt = "yuv420p"
            # One thread and no macroblock tree: x264's bytes depend on its thread count, and with mbtree they
            # differed from run to run on small frames (96x64, x264 core 165, AVX-512 assembly).
            stream.codec_context.thread_count = 1
            stream.options = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=0"}
            for index, pixels in enumerate(frames):
                height_px, width_px, _ = pixels.shape
                if index == 0:
                    if height_px % 2 or width_px % 2:
                        raise UsageError(
                            f"frames of {width_px}x{height_px}", expected="even width and height"
                        )
                    stream.width, stream.height = width_px, height_px
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts = index
                frame.time_base = 1 / fps
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def loop_video(path: str | Path, out: str | Path, duration_s: float) -> None:
    """Writes the video stream of `path` over and over, packet by packet, for about `duration_s`."""
    with _open(path) as container:
        stream = _video_stream(container, path)
        packets = [p for p in container.demux(stream) if p.size and p.pts is not None and p.dts is not None]
        if not packets or stream.time_base is None:
            raise MediaError("no packets with times")
        whole = [
            (bytes(p), int(p.pts or 0), int(p.dts or 0), int(p.duration or 1), p.is_keyframe) for p in packets
        ]
        span = max(pts + ticks for _, pts, _, ticks, _ in whole) - min(pts for _, pts, _, _, _ in whole)
        turns = max(1, round(duration_s / float(span * stream.time_base)))
        with av.open(str(out), "w", format="matroska") as target:
            copy = target.add_stream_from_template(stream)
            for turn in range(turns):
                for data, pts, dts, ticks, key in whole:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base, packet.is_keyframe = copy, stream.time_base, key
                    packet.pts, packet.dts, packet.duration = pts + turn * span, dts + turn * span, ticks
                    target.mux(packet)


def _open(path: str | Path) -> av.container.InputContainer:
    file = Path(path)
    if not file.is_file():
        raise MediaError("no such file")
    if file.stat().st_size == 0:
        raise MediaError("empty file")
    try:
        return av.open(f"file:{file}", container_options=OPEN_OPTIONS, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        with file.open("rb") as stream:
            if stream.read(12)[4:8] == b"ftyp":
                raise MediaError("no index: the moov box is missing or damaged") from error
        raise MediaError("not a video: no known container inside") from error


def _video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The first stream of moving pictures; cover art is not one."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise MediaError("no decoder for the video stream")
            if not stream.codec_context.width or not stream.codec_context.height:
                raise MediaError("the video stream has no picture size")
            return stream
    raise MediaError("no video stream")


def _info(container: av.container.InputContainer, stream: av.VideoStream, rotation: int) -> MediaInfo:
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 0.1 < aspect < 10:  # a damaged header
        aspect = 1.0
    width, height = round(stream.codec_context.width * aspect), stream.codec_context.height
    declared = stream.duration * stream.time_base if stream.duration and stream.time_base else 0
    whole_s = container.duration / av.time_base if container.duration else 0.0
    return MediaInfo(
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        width=height if rotation % 180 else width,
        height=width if rotation % 180 else height,
        rotation=rotation % 360,
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        duration_s=float(declared),
        length_s=float(declared) or whole_s,
        has_audio=bool(container.streams.audio),
        transfer=HDR.get(stream.codec_context.color_trc, "sdr"),
    )


def _animation_info(path: str | Path) -> MediaInfo:
    codec, width, height = stills.header(path)
    return MediaInfo(
        container=codec,
        codec=codec,
        width=width,
        height=height,
        rotation=0,
        fps=0.0,
        duration_s=0.0,
        length_s=0.0,
        has_audio=False,
    )


def _set_threads(stream: av.VideoStream, threads: int) -> None:
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads


def _quarter(degrees: int) -> int:
    return round(degrees / 90) % 4 * 90


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, damage: Damage
) -> Iterator[av.VideoFrame]:
    """Frames as the decoder gives them; after damage nothing until the next keyframe."""
    waiting = False
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            pictures = packet.decode()
        except StopIteration:
            return
        except av.EOFError:
            return
        except av.InvalidDataError:
            damage.dropped += 1
            waiting = True
            continue
        except av.FFmpegError as error:
            raise MediaError(f"cannot decode: {error.strerror}") from error
        for picture in pictures:
            if picture.is_corrupt or (waiting and not picture.key_frame):
                damage.dropped += 1
                waiting = True
                continue
            waiting = False
            yield picture


def _timed(container: av.container.InputContainer, stream: av.VideoStream, damage: Damage) -> Iterator[Frame]:
    step_s = 1 / float(stream.average_rate or stream.guessed_rate or 25)
    origin_s, last_s, size, lost, scaler = 0.0, -step_s, None, 0, Scaler()
    for index, picture in enumerate(_decoded(container, stream, damage)):
        if size is None:
            size = (picture.width, picture.height)
            origin_s = _seconds(picture) or 0.0
        if (picture.width, picture.height) != size:
            damage.size_change = (
                f"picture size changes from {size[0]}x{size[1]} to {picture.width}x{picture.height}"
            )
            return
        shown_s = _seconds(picture)
        time_s = last_s + step_s if shown_s is None else shown_s - origin_s
        if index and time_s <= last_s:  # timestamps that stand still or start again
            time_s = last_s + step_s
        last_s = time_s if index else 0.0
        if damage.dropped > lost and index:
            damage.gaps.append(index)
        lost = damage.dropped
        yield Frame(index, last_s, _quarter(picture.rotation), picture, scaler)


def _pick(
    frames: Iterator[Frame], times_s: Sequence[float], crop: Sequence[float], size: tuple[int, int]
) -> list[np.ndarray]:
    """The picture on screen at each time: the last frame that begins at or before it (within 1 ms)."""
    found: list[np.ndarray] = []
    shown: Frame | None = None
    for frame in frames:
        due = sum(time_s < frame.time_s - 1e-3 for time_s in times_s[len(found) :])
        if due:
            found += [(shown or frame).rgb(*size, crop)] * due
        if len(found) == len(times_s):
            return found
        shown = frame
    if shown is not None:
        found += [shown.rgb(*size, crop)] * (len(times_s) - len(found))
    return found


def _seconds(picture: av.VideoFrame) -> float | None:
    return (
        None if picture.pts is None or picture.time_base is None else float(picture.pts * picture.time_base)
    )


def _plane(plane: av.video.plane.VideoPlane) -> np.ndarray:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
