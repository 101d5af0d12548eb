"""A path with wildcards: the folder that it begins with, and a pattern for what is below.

In: a path, and a question whether a folder of a name is there. Out: a folder and a regular expression.
"""

import re
from collections.abc import Callable

TOKEN = re.compile(r"(\*\*/?|\*|\?|\[(?:![^/]|[^/!])[^\]/]*\])")
WORDS = {"*": "[^/]*", "?": "[^/]", "**": "(?s:.*)", "**/": "(?s:.*/)?"}


def split_glob(path: str, is_folder: Callable[[str], bool]) -> tuple[str, re.Pattern[str] | None]:
    """(folder to walk, pattern of the paths below it, None for all). A part with `*`, `?` or `[` is itself
    where a folder of that name is there, and a wildcard only where none is."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        if re.search(r"[*?\[]", part) and not is_folder("/".join(parts[: number + 1])):
            folder = "/".join(parts[:number])
            return folder or ("/" if number else "."), translate("/".join(parts[number:]))
    return path, None


def translate(glob: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` does not; `[a-c]`, `[!a]`, `[]a]` are one character of those, or
    of all others; a `[` without an end is itself."""
    return re.compile("".join(WORDS.get(t) or _one_of(t) or re.escape(t) for t in TOKEN.split(glob)))


def _one_of(token: str) -> str:
    if not TOKEN.fullmatch(token):
        return ""
    others, body = token[1] == "!", token[2 if token[1] == "!" else 1 : -1]
    ranges = "".join(
        re.escape(one) if one else f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
        for first, last, one in re.findall(r"(?s)(.)-(.)|(.)", body)
    )
    if not ranges:
        return "[^/]" if others else "(?!)"
    return f"(?!/)[{'^' if others else ''}{ranges}]"
