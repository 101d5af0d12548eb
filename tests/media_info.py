"""What frames say of their source, for tests whose frames come from no file."""

from pipeline.media.frames import MediaInfo

INFO = MediaInfo(
    container="",
    codec="",
    width=0,
    height=0,
    rotation=0,
    fps=0.0,
    stream_duration_s=0.0,
    container_duration_s=0.0,
    has_audio=False,
)
