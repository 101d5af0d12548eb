"""The grammar of clip ids: `<source_id>-<start_ms>-<end_ms>`.

In: a source and a span, or ids. Out: ids, or the sources that lead them. A clip's id is all that its file's
content and its span decide, so equal files share their clips. Never: a table's other columns.
"""

import pyarrow as pa
import pyarrow.compute as pc

SOURCE_ID_CHARS = 16  # hex of the content's sha256


def clip_id(source_id: str, start_s: float, end_s: float) -> str:
    """The id of the clip that lies in `[start_s, end_s)` of a source, to the millisecond."""
    return f"{source_id}-{round(start_s * 1000)}-{round(end_s * 1000)}"


def source_of(clip_id: str) -> str:
    """The source_id that leads a clip id, or a name that begins with one, like a shard member's."""
    return clip_id.partition("-")[0]


def sources_of(clip_ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The source_id that leads each clip id: string [N]."""
    return pc.utf8_slice_codeunits(clip_ids, 0, SOURCE_ID_CHARS)
