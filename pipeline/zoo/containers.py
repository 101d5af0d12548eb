"""Containers × codecs: the same second of video in everything that FFmpeg writes.

In: the corners. Out: a case each; what an encoder is missing for is left out by name.
"""

from dataclasses import replace
from fractions import Fraction

from pipeline.zoo.case import FRAME_S, SLACK_S, Case, Corners, one_file, one_scene
from pipeline.zoo.pictures import SIZE, moving
from pipeline.zoo.writer import Coding, write

# container (a muxer), suffix, its codecs: encoder[:pixel format], separated by spaces; 4:2:0 by default
CODED = (
    ("mp4", "mp4", "libx264 libx264:yuv444p libx264:yuv422p10le libx265 libx265:yuv420p10le libsvtav1"),
    ("mp4", "mp4", "libsvtav1:yuv420p10le libvpx-vp9 mpeg4 mpeg2video mpeg1video mjpeg:yuvj420p"),
    ("ipod", "m4v", "libx264 mpeg4"),
    ("3gp", "3gp", "h263 mpeg4 libx264"),
    ("mov", "mov", "libx264 libx265 mpeg4 mjpeg:yuvj422p prores_ks:yuv422p10le prores_aw:yuv444p10le"),
    ("mov", "mov", "qtrle:rgb24 png:rgb24 rawvideo:rgb24 rawvideo:uyvy422 v210:yuv422p10le cfhd:yuv422p10le"),
    ("mov", "mov", "rpza:rgb555le svq1:yuv410p cinepak:rgb24 jpeg2000:rgb24 h263 v308:yuv444p r210:gbrp10le"),
    (
        "matroska",
        "mkv",
        "libx264 libx265 libsvtav1 libvpx libvpx-vp9 libtheora mpeg2video mpeg4 mjpeg:yuvj420p",
    ),
    ("matroska", "mkv", "ffv1 ffv1:yuv444p10le ffv1:bgr0"),
    ("matroska", "mkv", "prores_ks:yuv422p10le rawvideo dirac vc2:yuv420p snow"),
    ("webm", "webm", "libvpx libvpx-vp9 libvpx-vp9:yuv444p libsvtav1"),
    ("avi", "avi", "mpeg4 msmpeg4 msmpeg4v2 mjpeg:yuvj420p rawvideo:bgr24 rawvideo ffv1 huffyuv:yuv422p"),
    ("avi", "avi", "ffvhuff utvideo:gbrp libx264 mpeg2video h263p wmv1 cinepak:rgb24 msvideo1:rgb555le"),
    ("avi", "avi", "zmbv:bgr0 asv1 asv2 png:rgb24 magicyuv:yuv444p cljr:yuv411p ljpeg:yuvj444p zlib:bgr24"),
    ("mpegts", "ts", "libx264 libx265 mpeg2video mpeg1video mpeg4"),
    ("mpeg", "mpg", "mpeg1video mpeg2video"),
    ("vob", "vob", "mpeg2video"),
    ("flv", "flv", "flv libx264 flashsv:bgr24 flashsv2:bgr24"),
    ("ogg", "ogv", "libtheora libvpx"),
    ("mxf", "mxf", "mpeg2video libx264 prores_ks:yuv422p10le"),
    ("nut", "nut", "rawvideo ffv1 libx264 mpeg4 rawvideo:rgb24"),
    ("asf", "wmv", "wmv1 wmv2 msmpeg4 libx264"),
    ("wtv", "wtv", "mpeg2video"),
    ("rm", "rm", "rv10 rv20"),
    ("ivf", "ivf", "libvpx libvpx-vp9 libsvtav1"),
    ("obu", "obu", "libsvtav1"),
    ("h264", "h264", "libx264"),
    ("hevc", "hevc", "libx265"),
    ("mpeg2video", "m2v", "mpeg2video"),
    ("m4v", "m4v", "mpeg4"),
    ("yuv4mpegpipe", "y4m", "wrapped_avframe"),
    ("gif", "gif", "gif:rgb8"),
    ("apng", "apng", "apng:rgb24"),
)
LARGER = {"dnxhd": (256, 128), "dvvideo": (720, 576)}  # codecs with sizes of their own
SIZED: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("mov", "mov", "dnxhd:yuv422p", {"profile": "dnxhr_sq"}),
    ("mxf", "mxf", "dnxhd:yuv422p", {"profile": "dnxhr_sq"}),
    ("dv", "dv", "dvvideo", {}),
    ("avi", "avi", "dvvideo", {}),
    ("mov", "mov", "dvvideo", {}),
)
DV_PAL_ASPECT = Fraction(16, 15)  # of a sample of 4:3 DV at 720x576 (SMPTE 314M; FFmpeg's own table)
H263_ASPECT = Fraction(12, 11)  # of a sample of its standard formats, 128x96 among them (ITU-T H.263, 4.1)
TIMES_PACKETS = ("avi", "mxf", "asf")  # and not pictures: with B-frames the first may stay two frames longer


def cases(corners: Corners) -> list[Case]:
    """A case for each container and codec."""
    listed: list[tuple[str, str, str, dict[str, str]]] = [
        (c, s, codec, {}) for c, s, codecs in CODED for codec in codecs.split()
    ]
    return [_case(corners, *row) for row in [*listed, *SIZED]]


def _case(corners: Corners, container: str, suffix: str, coded: str, options: dict[str, str]) -> Case:
    codec, _, layout = coded.partition(":")
    size = LARGER.get(codec, SIZE)
    coding = Coding(
        codec=codec,
        layout=layout or "yuv420p",
        container=container,
        options={**STRICT.get(codec, {}), **options},
        aspect=DV_PAL_ASPECT if codec == "dvvideo" else None,
    )
    stretch = (
        DV_PAL_ASPECT if codec == "dvvideo" else H263_ASPECT if codec in ("h263", "h263p") else Fraction(1)
    )
    late = codec == "libx264" and container in TIMES_PACKETS
    slack_s = SLACK_S + (2 * FRAME_S if late else 0)
    name = f"containers/{suffix}-{coded.replace(':', '-')}" + ("" if suffix != "m4v" else f"-{container}")
    return one_file(
        name,
        f"video.{suffix}",
        lambda path: write(path, moving(corners, size), coding),
        replace(one_scene(corners, size=(round(size[0] * stretch), size[1])), slack_s=slack_s),
        needs=(codec,),
    )


STRICT = {name: {"strict": "experimental"} for name in ("vc2", "jpegls", "zmbv", "ljpeg", "mpeg1video")}
