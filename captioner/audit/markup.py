"""HTML building blocks of the report: escaped elements, numbers for people, the page's frame and style.

In: tags, text and numbers. Out: markup. Text is escaped by construction: only `Html`, which `el` makes,
passes as it stands. The page loads nothing, runs no script and says so in its content security policy.
"""

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence

Attribute = str | int | float | bool | None
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
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
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
        el("style", Html(STYLE)),
    )
    links = [el("li", el("a", heading, href=f"#{anchor}")) for anchor, heading, _ in sections]
    nav = el("nav", el("ul", links), aria_label="Contents")
    body = [section(anchor, heading, inner) for anchor, heading, inner in sections]
    main = el("main", el("header", el("h1", title), intro, nav), body)
    return f"<!doctype html>\n{el('html', head, el('body', main), lang='en')}\n"


STYLE = """
:root{--paper:#fbfaf7;--card:#fff;--ink:#1e2227;--soft:#5b636c;--line:#dfdcd4;--kept:#1d6f8a;
--rejected:#b9701c;--failed:#b3372f;--pending:#8b9198;--faint:#a9c8d3;--link:#14566c}
@media (prefers-color-scheme:dark){:root{--paper:#15181b;--card:#1d2125;--ink:#e6e7e8;--soft:#a4acb4;
--line:#363c42;--kept:#55b1cd;--rejected:#e0a052;--failed:#ee8078;--pending:#7d858d;--faint:#2c5563;
--link:#86cbe0}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);overflow-wrap:anywhere;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:.5rem 0 .25rem;letter-spacing:-.01em}
h2{font-size:1.3rem;margin:3rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1.02rem;margin:1.75rem 0 .5rem}
p{margin:.4rem 0;max-width:72ch}
a{color:var(--link)}
.soft,figcaption,caption,dt,summary{color:var(--soft)}
.note{border-left:3px solid var(--line);padding-left:.75rem;color:var(--soft)}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;list-style:none;padding:0;margin:.9rem 0 0}
.headline{display:grid;grid-template-columns:repeat(auto-fit,minmax(148px,1fr));gap:.75rem;margin:0 0 1.5rem}
.headline div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}
.headline dt{font-size:.86rem}
.headline dd{margin:0;font-size:1.45rem;line-height:1.3;font-weight:600;font-variant-numeric:tabular-nums}
.headline dd small{display:block;font-size:.82rem;font-weight:400;color:var(--soft)}
.bar{margin:.9rem 0}
.bar .name{display:flex;justify-content:space-between;gap:1rem;font-weight:600}
.bar .name span{font-weight:400;color:var(--soft);text-align:right}
.bar svg{display:block;width:100%;height:16px;margin:.25rem 0;border-radius:3px;background:var(--line)}
.bars{display:grid;gap:0 2rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr))}
.bars .bar{margin:.35rem 0}.bars .bar svg{height:8px}.bars .name{font-weight:400}
.key{list-style:none;padding:0;margin:0;display:flex;flex-wrap:wrap;gap:0 1rem;font-size:.88rem}
.key li::before{content:"";display:inline-block;width:.7em;height:.7em;border-radius:2px;margin-right:.4em;
background:currentColor}
.key li span{color:var(--ink)}
li.kept{color:var(--kept)}li.rejected{color:var(--rejected)}li.failed{color:var(--failed)}
li.pending{color:var(--pending)}li.faint{color:var(--faint)}
svg .kept{fill:var(--kept)}svg .rejected{fill:var(--rejected)}svg .failed{fill:var(--failed)}
svg .pending{fill:var(--pending)}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}
svg .axis{stroke:var(--line)}svg .mark{stroke:var(--rejected);stroke-dasharray:3 3}
svg .curve{fill:none;stroke:var(--kept);stroke-width:1.8;stroke-linejoin:round}
svg .curve.faint{stroke:var(--faint);stroke-width:1}
svg .dot{fill:var(--kept)}
.charts{display:grid;gap:.8rem;margin:.6rem 0 1rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,245px),1fr))}
.charts figure,.card{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:0;
padding:.8rem .9rem}
.charts figure svg{display:block;width:100%;height:auto}
.charts figcaption b{color:var(--ink)}
.charts figcaption{font-size:.86rem;line-height:1.45}
table{border-collapse:collapse;margin:1rem 0;width:100%;font-size:.93rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.9rem;padding-bottom:.3rem}
th,td{text-align:left;vertical-align:top;padding:.32rem .6rem .32rem 0;border-bottom:1px solid var(--line)}
th{font-weight:500}th[scope=row]{min-width:5.5em}thead th{color:var(--soft);font-size:.86rem}
.num{text-align:right;overflow-wrap:normal}
th:last-child,td:last-child{padding-right:0}
.card{margin:0 0 1rem}
.card h3{margin:0 0 .5rem;font-size:.86rem;font-weight:500;color:var(--soft);
display:flex;flex-wrap:wrap;gap:0 1rem}
.strip{display:grid;grid-template-columns:repeat(8,1fr);gap:4px;margin:0 0 .6rem}
.strip.tall{grid-template-columns:repeat(8,minmax(0,92px))}
.strip.one{grid-template-columns:minmax(0,320px)}
.strip figure{margin:0;min-width:0}
.strip img{display:block;width:100%;height:auto;border-radius:2px;background:var(--line)}
.strip figcaption{font-size:.72rem;text-align:center;font-variant-numeric:tabular-nums}
.caption{margin:.35rem 0;font-size:1.02rem}
.caption.short{font-size:.93rem;color:var(--soft)}
.facts{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.4rem 0 0;font-size:.85rem}
.facts div{display:flex;gap:.35rem}.facts dd{margin:0;font-variant-numeric:tabular-nums}
.tag{display:inline-block;border:1px solid currentColor;border-radius:99px;padding:0 .55em;
margin:0 .3rem .2rem 0;font-size:.82rem;color:var(--rejected)}
.tag.failed{color:var(--failed)}
.sheet{max-width:100%;height:auto;display:block;border-radius:4px}
.shown{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}
video{max-width:100%;width:288px;border-radius:4px;background:#000}
pre{overflow-x:auto;font-size:.82rem;background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:.8rem}
summary{cursor:pointer}
a:focus-visible,video:focus-visible,summary:focus-visible,pre:focus-visible{
outline:2px solid var(--link);outline-offset:2px}
.words{display:grid;gap:.4rem 2rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr))}
.mosaic{display:grid;gap:4px;grid-template-columns:repeat(8,1fr);margin:1.2rem 0 0}
.mosaic a{display:block;aspect-ratio:4/3}
.mosaic img{display:block;width:100%;height:100%;object-fit:cover;border-radius:3px;background:var(--line)}
@media (max-width:640px){.mosaic{grid-template-columns:repeat(4,1fr)}
.strip,.strip.tall{grid-template-columns:repeat(4,1fr)}
.strip.one{grid-template-columns:minmax(0,220px)}h1{font-size:1.45rem}
th,td{padding-right:.45rem}table{font-size:.87rem}}
"""
