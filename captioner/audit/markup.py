"""HTML building blocks of the report: escaped elements, numbers for people, the page's frame and style.

In: tags, text and numbers. Out: markup. Text is escaped by construction: only `Html`, which `el` makes,
passes as it stands. The page loads nothing, runs no script and says so in its content security policy.
"""

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

Attribute = str | int | float | bool | None
STYLE_PATH = Path(__file__).with_name("style.css")
VOID = frozenset({"br", "img", "link", "meta", "line", "rect", "path", "circle"})


class Html(str):
    """Markup that is safe as it stands."""

    __slots__ = ()


Child = str | Iterable[str]  # an Html is a str: every other str is text


def el(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """One element. `class_` names the attribute class, `aria_label` aria-label; None and False leave an
    attribute out, True gives it without a value.

    >>> el("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    given = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in VOID:
        return Html(f"<{tag}{given}>" if tag in {"br", "img", "link", "meta"} else f"<{tag}{given}/>")
    return Html(f"<{tag}{given}>{join(*children)}</{tag}>")


def join(*children: Child) -> Html:
    """The children one after the other; text is escaped."""
    out: list[str] = []
    for child in children:
        if isinstance(child, Html):
            out.append(child)
        elif isinstance(child, str):
            out.append(html.escape(_printable(child)))
        else:
            out.append(join(*child))
    return Html("".join(out))


def _attribute(name: str, value: Attribute) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(_printable(text))}"'


def _printable(text: str) -> str:
    """Without characters that HTML or UTF-8 refuses (control characters, lone surrogates)."""
    clean = "".join(c if c in "\n\t" or (ord(c) >= 32 and ord(c) != 127) else "\ufffd" for c in text)
    return clean.encode("utf-8", "replace").decode("utf-8")


def data_uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


# -- numbers for people ---------------------------------------------------------------------------


def count(value: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{value:,}"


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits: 0.01234 -> "0.0123"; None and NaN are "–"."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return text.replace("-", "−")


def percent(part: float, whole: float) -> str:
    """One decimal, and never 0 % or 100 % for what is neither."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "<0.1\u00a0%"
    if 99.95 <= share < 100:
        return ">99.9\u00a0%"
    return f"{share:.1f}".removesuffix(".0") + "\u00a0%"


def length_of_time(seconds: float) -> str:
    """4.21 -> "4.2 s"; 75 -> "1 min 15 s"; 5000 -> "1 h 23 min"."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{count(whole // 3600)} h {whole % 3600 // 60} min"


# -- larger blocks --------------------------------------------------------------------------------


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Sequence[int] = ()
) -> Html:
    """A table whose first column names its rows; columns in `numeric` are set flush right."""
    aligned = ["num" if i in numeric else None for i in range(len(head))]
    header = [el("th", h, scope="col", class_=c) for h, c in zip(head, aligned, strict=True)]
    body = []
    for row in rows:
        cells = [el("th", row[0], scope="row", class_=aligned[0])]
        cells += [el("td", v, class_=c) for v, c in zip(row[1:], aligned[1:], strict=True)]
        body.append(el("tr", cells))
    parts = [el("caption", caption), el("thead", el("tr", header)), el("tbody", body)]
    return el("table", parts)


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
    """Name and value pairs on one wrapping line."""
    return el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in pairs], class_="facts")


def folded(summary: str, *children: Child) -> Html:
    return el("details", el("summary", summary), *children)


def section(anchor: str, heading: str, *children: Child) -> Html:
    return el("section", el("h2", heading, id=anchor), *children, aria_labelledby=anchor)


def page(title: str, intro: Child, sections: Sequence[tuple[str, str, Html]]) -> str:
    """The whole document from (anchor, heading, body) sections."""
    style = STYLE_PATH.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("link", rel="icon", href="data:,"),
        el("title", title),
        el("style", Html(style)),
    )
    links = [el("li", el("a", heading, href=f"#{anchor}")) for anchor, heading, _ in sections]
    nav = el("nav", el("ul", links), aria_label="Contents")
    body = [section(anchor, heading, inner) for anchor, heading, inner in sections]
    main = el("main", el("header", el("h1", title), intro, nav), body)
    return f"<!doctype html>\n{el('html', head, el('body', main), lang='en')}\n"
