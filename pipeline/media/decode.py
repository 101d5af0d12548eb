"""The only code that touches a video codec: files in, upright frames with times out, and small videos
written.

In: a local path. Out: `MediaInfo`, frames in display orientation and display order, or an encoded file.
Times are seconds after the first frame. Never: a network protocol, a playlist, a damaged frame passed on
as a good one, or a process that has imported torch (PyAV's frame threads and torch can hang at exit):
everything outside the decoding child goes through `pipeline.sandbox.sandbox`. Stills are read by
`pipeline.media.stills`.

A stream that begins inside a group of pictures (a broadcast, cut anywhere) begins at the first picture that
can be decoded right, and says so (`Damage.begins_inside`). Leading pictures of an open group at its start are
left out by design, without a word: their references are no part of the file. H.264's decoder knows by itself
when a gradual refresh has come round; of every other codec nothing before the first keyframe is believed.
"""

from collections.abc import Callable, Iterator
from enum import Flag
from itertools import chain
from pathlib import Path
from typing import Any, cast

import av
from av.format import Flags
from av.sidedata.sidedata import Type as SideDataType

from pipeline.errors import MediaError
from pipeline.media import stills
from pipeline.media.clock import Clock
from pipeline.media.colour import Scaler, alpha_decoder_of, decoder_of
from pipeline.media.frames import Damage, Frame, MediaInfo
from pipeline.media.orientation import AS_CODED, Orientation, of_matrix
from pipeline.media.tones import HDR

# Containers that carry their own pictures. Playlists (hls, concat, dash) can name other files and hosts.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,ivf,gif,apng,flv,live_flv,asf,"
    "ogg,mxf,nut,dv,rm,wtv,yuv4mpegpipe"
)
OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
USUAL_FPS = 25.0  # of a stream that states neither a rate nor times, as FFmpeg takes it to be
WITHHOLDING = (
    "h264"  # whose decoder gives no picture before it is whole, and whole ones that are no keyframes
)
CLOCK_S = 1e-3  # times no further apart are one: Matroska and FLV count in milliseconds
TS_DISCONT = cast(Flag, Flags.ts_discont).value  # of a container's format: its clock may jump
THREADS = 2  # a decoder's: workers come one to a core; good files give the same frames with any number


def probe(path: str | Path) -> MediaInfo:
    """What the header says, with the orientation that the first frame carries."""
    if stills.is_animation(path):
        return _animation_info(path)
    with open_container(path) as container:
        stream = video_stream(container, path)
        first = next(_decoded(container, stream, Damage()), None)
        return _info(container, stream, _Turns(first, stream).now if first else AS_CODED)


def decode(path: str | Path, damage: Damage, *, max_pixels: int, threads: int = THREADS) -> Iterator[Frame]:
    """Every good frame, in order, with strictly increasing times that begin at 0.

    `damage` is filled as it goes, to be read when the frames have ended; a frame says itself when it follows
    a gap (`after_gap`). After damage everything up to the next keyframe is left out; which frames
    those are depends on the thread count, so a caller that sees damage decodes again with `threads=1`.
    """
    if stills.is_animation(path):
        scaler, info = Scaler(), _animation_info(path)
        for index, (time_s, pixels) in enumerate(stills.frames(path, max_pixels)):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            yield Frame(index, time_s, AS_CODED, picture, scaler, info)
        return
    with open_container(path) as container:
        stream = video_stream(container, path)
        declared = stream.codec_context.width * stream.codec_context.height
        if declared > max_pixels:
            raise MediaError(f"too many pixels: {declared}", expected=f"at most {max_pixels} per frame")
        _set_threads(stream, threads)
        yield from _timed(container, stream, damage)


def decode_from(path: str | Path, time_s: float, *, max_pixels: int) -> Iterator[Frame]:
    """Frames from a keyframe at or before `time_s` on, with the times that `decode` gives them; MediaError
    where there is no such keyframe, at damage, when times jump or do not rise, and in every container whose
    clock may be discontinuous: there a place has no time but by what precedes it. In others a jump ahead of
    `time_s` is not noticed, and some streams give garbage after a seek without any error: compare with what
    is known."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        if stream.codec_context.width * stream.codec_context.height > max_pixels or stream.time_base is None:
            raise MediaError("cannot seek")
        if _may_jump(container):
            raise MediaError("cannot seek: the clock may jump")
        _set_threads(stream, THREADS)
        first, seconds = next(_decoded(container, stream, Damage()), None), _seconds_of(stream)
        if first is None or (origin_s := seconds(first)) is None:
            raise MediaError("cannot seek: no times")
        try:
            container.seek(int((origin_s + time_s) / stream.time_base), stream=stream)
        except av.FFmpegError as error:
            raise MediaError(f"cannot seek: {error.strerror}") from error
        damage, scaler, last_s, turns = Damage(), Scaler(), -1.0, _Turns(first, stream)
        clock, info = _clock(container, stream), _info(container, stream, turns.now)
        for index, picture in enumerate(_decoded(container, stream, damage)):
            own_s = seconds(picture)
            if (
                own_s is None
                or damage.dropped
                or (picture.width, picture.height) != (first.width, first.height)
            ):
                raise MediaError("damaged after a seek")
            now_s = own_s - origin_s
            if now_s <= last_s or (index == 0 and not (picture.key_frame and now_s <= time_s + CLOCK_S)):
                raise MediaError("no keyframe to decode from")
            clock.time_s(own_s)
            if clock.jumps:
                raise MediaError("the clock jumps")
            last_s = now_s
            yield Frame(index, now_s, turns.of(picture), picture, scaler, info)
        if damage.dropped:
            raise MediaError("damaged after a seek")


def within(frames: Iterator[Frame], max_frames: int) -> Iterator[Frame]:
    """The same frames; MediaError at the first beyond `max_frames`."""
    for frame in frames:
        if frame.index >= max_frames:
            raise MediaError(f"more than {max_frames} frames", fix="--set analyze.max_frames=…")
        yield frame


def open_container(path: str | Path) -> av.container.InputContainer:
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


def video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The first stream of moving pictures; cover art is not one."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            if stream.codec_context is None:
                raise MediaError("no decoder for the video stream")
            if not stream.codec_context.width or not stream.codec_context.height:
                raise MediaError("the video stream has no picture size")
            return stream
    raise MediaError("no video stream")


def _info(
    container: av.container.InputContainer, stream: av.VideoStream, orientation: Orientation
) -> MediaInfo:
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 0.1 < aspect < 10:  # a damaged header
        aspect = 1.0
    width, height = orientation.size(round(stream.codec_context.width * aspect), stream.codec_context.height)
    declared = stream.duration * stream.time_base if stream.duration and stream.time_base else 0
    whole_s = container.duration / av.time_base if container.duration else 0.0
    return MediaInfo(
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        width=width,
        height=height,
        rotation=orientation.degrees,
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        stream_duration_s=float(declared),
        container_duration_s=float(whole_s),
        has_audio=bool(container.streams.audio),
        clock_may_jump=_may_jump(container),
        transfer=HDR.get(stream.codec_context.color_trc, "sdr"),
    )


def _animation_info(path: str | Path) -> MediaInfo:
    codec, width, height, rotation = stills.animation_header(path)
    return MediaInfo(
        container=codec,
        codec=codec,
        width=width,
        height=height,
        rotation=rotation,
        fps=0.0,
        stream_duration_s=0.0,
        container_duration_s=0.0,
        has_audio=False,
        transfer=stills.transfer(path),
    )


def _set_threads(stream: av.VideoStream, threads: int) -> None:
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads


class _Turns:
    """The orientation of each picture: what it carries; of one that carries nothing that of the picture
    before. Side data cost more to read than all else of a frame: they are read again where the angle
    differs."""

    def __init__(self, first: av.VideoFrame, stream: av.VideoStream) -> None:
        self._degrees, self.now = first.rotation, _orientation(first, _beside_alpha(stream))

    def of(self, picture: av.VideoFrame) -> Orientation:
        if picture.rotation != self._degrees:
            self._degrees, self.now = picture.rotation, _orientation(picture, self.now)
        return self.now


def _beside_alpha(stream: av.VideoStream) -> Orientation:
    """What the container states, where the decoder that shows alpha does not hand it on."""
    if not alpha_decoder_of(stream):
        return AS_CODED
    path = stream.container.name.removeprefix("file:")
    with open_container(path) as container:
        own = next(container.decode(video_stream(container, path)), None)
        return _orientation(own, AS_CODED) if own else AS_CODED


def _unnamed(kinds: type[SideDataType], number: int) -> SideDataType:
    """A kind of side data that PyAV has no name for (EXIF, the views of spatial video). It raises at them,
    and the display matrix that lies beside them could not be read."""
    kind: Any = object.__new__(kinds)
    kind._name_, kind._value_ = f"UNNAMED_{number}", number
    return cast(SideDataType, kind)


SideDataType._missing_ = classmethod(_unnamed)  # type: ignore[assignment]


def _orientation(picture: av.VideoFrame, before: Orientation) -> Orientation:
    matrix: Any = picture.side_data.get("DISPLAYMATRIX")
    return before if matrix is None else of_matrix(bytes(matrix))


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, damage: Damage
) -> Iterator[av.VideoFrame]:
    """Frames as the decoder gives them; after damage, and at a start inside a group of pictures, nothing
    until the next keyframe."""
    waiting, whole = False, None  # whole: pictures come as they should; None: no packet yet
    pictures_of, may_jump = decoder_of(stream), _may_jump(container)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            if whole is None:
                whole = packet.is_keyframe
                damage.begins_inside = not whole
                waiting = not whole and stream.codec_context.name != WITHHOLDING
            if packet.is_corrupt and not may_jump:  # cut off; in transport streams the pictures tell
                damage.dropped += bool(whole)
                waiting = True
                continue
            pictures = pictures_of(packet)
        except StopIteration:
            return
        except av.EOFError:
            return
        except av.InvalidDataError:
            damage.dropped += bool(whole)
            waiting = True
            continue
        except av.FFmpegError as error:
            raise MediaError(f"cannot decode: {error.strerror}") from error
        for picture in pictures:
            if picture.is_corrupt or (waiting and not picture.key_frame):
                damage.dropped += bool(whole)
                waiting = True
                continue
            waiting, whole = False, True
            yield picture


def _timed(container: av.container.InputContainer, stream: av.VideoStream, damage: Damage) -> Iterator[Frame]:
    clock, scaler, seconds, dropped = _clock(container, stream), Scaler(), _seconds_of(stream), 0
    pictures = _decoded(container, stream, damage)
    first = next(pictures, None)
    if first is None:
        return
    turns, coded = _Turns(first, stream), (first.width, first.height)
    info, shown = _info(container, stream, turns.now), turns.now.size(*coded)
    for index, picture in enumerate(chain([first], pictures)):
        orientation, size = turns.of(picture), (picture.width, picture.height)
        if size != coded or orientation.size(*size) != shown:
            now = orientation.size(*size)
            damage.size_change = f"picture size changes from {shown[0]}x{shown[1]} to {now[0]}x{now[1]}"
            return
        time_s = clock.time_s(seconds(picture))
        damage.clock_jumps = clock.jumps
        after_gap = damage.dropped > dropped and index > 0
        dropped = damage.dropped
        yield Frame(index, time_s, orientation, picture, scaler, info, after_gap)


def _clock(container: av.container.InputContainer, stream: av.VideoStream) -> Clock:
    step_s = 1 / float(stream.average_rate or stream.guessed_rate or USUAL_FPS)
    return Clock(step_s=step_s, may_jump=_may_jump(container))


def _may_jump(container: av.container.InputContainer) -> bool:
    return bool(container.format.flags & TS_DISCONT)


def _seconds_of(stream: av.VideoStream) -> Callable[[av.VideoFrame], float | None]:
    """Reads the time that a picture of the stream carries: the same as pts times the time base."""
    base = stream.time_base
    if base is None:
        return lambda picture: None
    ticks, a_second = base.numerator, base.denominator
    return lambda picture: None if picture.pts is None else picture.pts * ticks / a_second
