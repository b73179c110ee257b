"""Turns a page into the HTML of its site, tidy or broken, in one charset or another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from llmctl.synth.pages import Block, Page
from llmctl.synth.sites import Furniture, Site
from llmctl.synth.skins import SKINS, Skin

_SCRIPTS = (
    "<script>window.dataLayer=window.dataLayer||[];function gtag(){dataLayer.push(arguments)}"
    "gtag('js',new Date());gtag('config','UA-$n-1');</script>",
    "<script src='/js/jquery.min.js'></script><script>$(function(){$('.menu').show();"
    "$('#n$n').hide()});</script>",
    '<script type="text/javascript">var _paq=_paq||[];_paq.push(["trackPageView",$n]);'
    "(function(){var d=document,g=d.createElement('script');g.async=true;g.src='/m.js';"
    "d.head.appendChild(g)})();</script><noscript><img src='/m.gif?n=$n' alt=''></noscript>",
    '<script async src="https://ads.example/show.js?slot=$n"></script>',
)
_TYPOGRAPHIC = str.maketrans({"'": "\u2019"})
_OPENING = re.compile(r'(^|[\s(])"')


def escape(text: str) -> str:
    """Text as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def typographic(text: str) -> str:
    """Curly quotes and apostrophes for straight ones."""
    text = _OPENING.sub("\\1\u201c", text)
    return text.replace('"', "\u201d").translate(_TYPOGRAPHIC)


@lru_cache(maxsize=2 * len(SKINS))
def _pieces(layout: str) -> tuple[str, ...]:
    """A layout cut at its $names: text, name, text, name, ..., text."""
    return tuple(re.split(r"\$(\w+)", layout))


@dataclass(frozen=True)
class Encoding:
    """The bytes' true charset, and what header and meta element say of it ("" = nothing)."""

    charset: str = "utf-8"
    header: str = "utf-8"
    meta: str = "utf-8"

    @property
    def declared(self) -> str:
        return self.header or self.meta


def _content(blocks: list[Block], skin: Skin) -> str:
    parts = []
    in_list = False
    for block in blocks:
        if in_list != (block.kind == "li"):
            parts.append("</ul>" if in_list else "<ul>")
            in_list = not in_list
        text = escape(block.text)
        if block.kind == "h2":
            parts.append(f"{skin.heading[0]}{text}{skin.heading[1]}")
        elif block.kind == "li":
            parts.append(f"<li>{text}</li>")
        elif block.kind == "post":
            parts.append(f"{skin.post[0].replace('$a', block.author)}{text}{skin.post[1]}")
        else:
            parts.append(f"{skin.paragraph[0]}{text}{skin.paragraph[1]}")
    if in_list:
        parts.append("</ul>")
    return "\n".join(parts)


def _links(lines: tuple[str, ...], marks: tuple[str, str, str, str]) -> str:
    start, before, after, end = marks
    items = "".join(
        f"{before.replace('$u', f'l{n}')}{escape(x)}{after}" for n, x in enumerate(lines)
    )
    return f"{start}{items}{end}"


def render(
    page: Page, site: Site, furniture: Furniture, rng: Random, meta: str, date: str
) -> tuple[str, list[str]]:
    """The HTML of a page, and the lines of furniture that stand in it.

    Thin pages get no more than a navigation: an extractor that finds too little text takes the
    furniture instead, and would make whole pages of them.
    """
    skin = SKINS[site.skin]
    number = str(10_000 + int(rng.random() * 90_000))
    script = _SCRIPTS[int(rng.random() * len(_SCRIPTS))].replace("$n", number)
    head = f'<meta charset="{meta}">' if meta and site.skin % 2 == 0 else ""
    if meta and not head:
        head = f'<meta http-equiv="Content-Type" content="text/html; charset={meta}">'
    values = {
        "head": head + '<meta name="viewport" content="width=device-width">',
        "title": escape(page.title),
        "name": escape(site.name),
        "nav": _links(site.nav, skin.nav),
        "cookie": f"<span>{escape(site.cookie)}</span><button>OK</button>",
        "ad": "".join(f"<div>{escape(line)}</div>" for line in furniture.ads),
        "content": _content(page.blocks, skin),
        "related": _links(furniture.related, skin.related),
        "newsletter": f"<p>{escape(site.newsletter)}</p>",
        "share": "".join(f'<a class="share" href="#">{escape(line)}</a> ' for line in site.share),
        "footer": "".join(f"<p>{escape(line)}</p>" for line in site.footer),
        "script": script,
        "date": date,
    }
    pieces = _pieces(skin.layout)
    names = set(pieces[1::2])
    if page.genre == "thin":
        values |= dict.fromkeys(("cookie", "ad", "related", "newsletter", "share", "footer"), "")
        names &= {"nav"}
    html = "".join(values[piece] if at % 2 else piece for at, piece in enumerate(pieces))
    groups: dict[str, tuple[str, ...]] = {
        "nav": site.nav,
        "cookie": (site.cookie,),
        "ad": furniture.ads,
        "related": furniture.related,
        "newsletter": (site.newsletter,),
        "share": site.share,
        "footer": site.footer,
    }
    return html, [line for name, lines in groups.items() if name in names for line in lines]


def break_html(html: str, rng: Random) -> str:
    """Damage that browsers forgive: lost end tags, bad nesting, stray entities, bare attributes."""
    faults = rng.sample(range(6), 3)
    if 0 in faults:
        html = html.replace("</p>", "", html.count("</p>") // 2).replace("</li>", "")
    if 1 in faults:
        html = re.sub(r"(<p[^>]*>)(\w+ \w+)", r"\1<b><i>\2</b></i>", html, count=3)
    if 2 in faults:
        html = html.replace("</body></html>", "").replace("</BODY></HTML>", "")
    if 3 in faults:
        html = re.sub(r'class="([\w-]+)"', r"class=\1", html)
    if 4 in faults:
        html = html.replace("</p>", " &nbsp</p>", 2).replace("<body", "<body <", 1)
    if 5 in faults:
        html = html.replace("<div", "</span><div id=x id=y", 2)
    return html
