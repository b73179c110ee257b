"""One shard of the web: a WARC file and its part of the truth, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from llmctl.core.files import atomic_write
from llmctl.synth import pii
from llmctl.synth.foreign import foreign_page
from llmctl.synth.genres import genre_of
from llmctl.synth.grammar import expand
from llmctl.synth.html import Encoding, break_html, render, typographic
from llmctl.synth.pages import Block, Page, write_page
from llmctl.synth.plan import COPIES, Plan, cast_of
from llmctl.synth.planted import (
    blocked_url,
    list_page,
    near_duplicate,
    placeholder_page,
    repetitive_page,
    thin_page,
)
from llmctl.synth.sites import Site, address, furnish, site_of
from llmctl.synth.truth import TRUTH, write_parquet
from llmctl.synth.warc import Response, WarcWriter

_WRONG = (  # (true charset, what header and meta element say)
    Encoding("windows-1252", "utf-8", "utf-8"),
    Encoding("windows-1252", "", ""),
    Encoding("windows-1252", "utf-8", "utf-8"),
    Encoding("iso-8859-1", "utf-8", ""),
    Encoding("utf-8", "iso-8859-1", "iso-8859-1"),
)
_MAKERS = {
    "thin": thin_page,
    "list": list_page,
    "repetitive": repetitive_page,
    "placeholder": placeholder_page,
}
_GOOD, _OTHER = 1, 2  # streams of randomness: good pages by their own number, the rest by place


def _stream(plan: Plan, kind: int, number: int) -> Random:
    return Random((plan.seed * 8 + kind) * (1 << 44) + number)


@dataclass
class Fetched:
    """A page with its address and bytes, ready for the WARC and the truth."""

    page: Page
    site: Site
    url: str
    body: bytes
    encoding: Encoding
    boilerplate: list[str]
    broken: bool = False


def warc_name(index: int) -> str:
    """The file of a shard."""
    return f"web-{index:05d}.warc.gz"


def _dress(page: Page, plan: Plan, number: int, rng: Random, encoding: Encoding) -> Fetched:
    """Put a page on a site."""
    world, _, _ = cast_of(plan)
    site = site_of(world, int(rng.random() * plan.n_sites()))
    return _publish(page, site, plan, number, rng, encoding)


def _publish(
    page: Page,
    site: Site,
    plan: Plan,
    number: int,
    rng: Random,
    encoding: Encoding,
    damage: float = 0,
) -> Fetched:
    world, _, _ = cast_of(plan)
    date = f"{1 + number % 28} May {2001 + number % 24}"
    html, lines = render(page, site, furnish(world, rng), rng, encoding.meta, date)
    broken = rng.random() < damage
    if broken:
        html = break_html(html, rng)
    body = html.encode(encoding.charset, "xmlcharrefreplace")
    return Fetched(page, site, address(site, page.title, number), body, encoding, lines, broken)


def _good(plan: Plan, good: int, number: int) -> Fetched:
    """The good page with this number among good pages."""
    world, _, mentions = cast_of(plan)
    rng = _stream(plan, _GOOD, good)
    page = write_page(world, genre_of(good), mentions.get(good, []), rng)
    site = site_of(world, int(rng.random() * plan.n_sites()))
    context = world.cast(rng)
    texts = [block for block in page.blocks if block.kind != "h2"]
    for kind in pii.KINDS:
        if rng.random() < plan.shares.pii:
            sentence, value = pii.sentence(kind, rng, context, site.host)
            block = texts[int(rng.random() * len(texts))]
            block.text = f"{block.text} {sentence}"
            page.pii.append((kind, value))
    encoding = Encoding()
    if rng.random() < plan.shares.wrong_charset:
        encoding = _WRONG[int(rng.random() * len(_WRONG))]
        block = texts[-1]
        block.text = f"{block.text} {expand('pii.cafe', rng, context, set())}"
        if encoding.charset != "iso-8859-1":
            for block in page.blocks:
                block.text = typographic(block.text)
    return _publish(page, site, plan, number, rng, encoding, plan.shares.broken)


def _copy(plan: Plan, name: str, original: Fetched, number: int) -> Fetched:
    """Another copy of a page: the same bytes elsewhere, a few words changed, or a mirror."""
    rng = _stream(plan, _OTHER, number)
    if name == "exact_duplicate":
        mark = "&" if "?" in original.url else "?"
        url = f"{original.url}{mark}utm_source=feed{number % 9}"
        same = original
        return Fetched(
            same.page, same.site, url, same.body, same.encoding, same.boilerplate, same.broken
        )
    page = original.page
    if name == "near_duplicate":
        page = near_duplicate(page, rng)
    return _dress(page, plan, number, rng, original.encoding)


def _planted(plan: Plan, name: str, number: int) -> Fetched:
    world, _, _ = cast_of(plan)
    rng = _stream(plan, _OTHER, number)
    if name == "foreign":
        page, encoding = foreign_page(world, rng)
        return _dress(page, plan, number, rng, encoding)
    if name != "blocked":
        return _dress(_MAKERS[name](world, rng), plan, number, rng, Encoding())
    # The text of block-listed pages is as good as any: only their address gives them away.
    page = write_page(world, genre_of(int(rng.random() * 997)), [], rng)
    page.blocks.append(Block("p", expand("spam", rng, world.cast(rng), set())))
    fetched = _dress(page, plan, number, rng, Encoding())
    fetched.url = blocked_url(rng, number)
    return fetched


def _nonpage(plan: Plan, number: int) -> Response:
    """A style sheet, an image, a PDF, a redirect or a missing page."""
    world, _, _ = cast_of(plan)
    rng = _stream(plan, _OTHER, number)
    site = site_of(world, int(rng.random() * plan.n_sites()))
    base = f"https://{site.host}/{number}"
    kind = int(rng.random() * 5)
    if kind == 0:
        css = f"body{{margin:{number % 40}px}}\n.nav li{{display:inline}}\n".encode()
        return Response(f"{base}.css", css, content_type="text/css", identified="text/css")
    if kind == 1:
        png = b"\x89PNG\r\n\x1a\n" + rng.randbytes(200 + number % 300)
        return Response(f"{base}.png", png, content_type="image/png", identified="image/png")
    if kind == 2:
        pdf = b"%PDF-1.4\n" + rng.randbytes(400) + b"\n%%EOF\n"
        mime = "application/pdf"
        return Response(f"{base}.pdf", pdf, content_type=mime, identified=mime)
    if kind == 3:
        moved = b"<html><head><title>301 Moved Permanently</title></head><body>Moved</body></html>"
        to = (("Location", f"{base}/new"),)
        return Response(f"{base}/old", moved, "301 Moved Permanently", "text/html", to)
    missing = "<html><head><title>404</title></head><body><h1>Not found</h1></body></html>"
    return Response(f"{base}/gone", missing.encode(), "404 Not Found", "text/html")


def _row(
    name: str, warc: str, fetched: Fetched, record_id: str, original: str | None
) -> dict[str, Any]:
    page = fetched.page
    return {
        "url": fetched.url,
        "record_id": record_id,
        "warc": warc,
        "class": name,
        "kept_expected": name == "good",
        "dup_of": original,
        "language": page.language,
        "charset": fetched.encoding.charset,
        "declared_charset": fetched.encoding.declared,
        "main_text": page.main_text,
        "boilerplate": fetched.boilerplate,
        "pii": [{"kind": kind, "value": value} for kind, value in page.pii],
        "facts": page.facts,
        "broken": fetched.broken,
        "genre": page.genre,
        "html_bytes": len(fetched.body),
    }


def _nonpage_row(warc: str, response: Response, record_id: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(TRUTH.names)
    row |= {"url": response.url, "record_id": record_id, "warc": warc, "class": "nonpage"}
    row |= {"kept_expected": False, "main_text": "", "boilerplate": [], "pii": [], "facts": []}
    return row | {"broken": False, "html_bytes": len(response.body)}


def write_shard(plan: Plan, index: int, warc_folder: Path, truth_part: Path) -> int:
    """Write a shard's WARC, then its part of the truth, each by atomic rename. Returns its pages.

    A shard is complete when its part of the truth exists.
    """
    name = warc_name(index)
    order = plan.order(index)
    last_use = {original: at for at, (_, original) in enumerate(order) if original is not None}
    kept: dict[int, Fetched] = {}  # originals that still wait for their copy
    rows: list[dict[str, Any]] = []
    good, number = plan.upto("good", index), plan.first_page(index)
    with atomic_write(warc_folder / name) as handle:
        writer = WarcWriter(handle, name, Random(f"warc {plan.seed} {index}"))
        for at, (kind, original) in enumerate(order):
            if kind == "nonpage":
                response = _nonpage(plan, number)
                rows.append(_nonpage_row(name, response, writer.write(response)[0]))
                number += 1
                continue
            source = kept.pop(original) if original is not None else None
            if kind == "good":
                fetched = _good(plan, good, number)
                good += 1
                if last_use.get(at):
                    kept[at] = fetched
            elif source is not None and kind in COPIES:
                fetched = _copy(plan, kind, source, number)
            else:
                fetched = _planted(plan, kind, number)
            header = fetched.encoding.header
            mime = f"text/html; charset={header}" if header else "text/html"
            record_id, _ = writer.write(Response(fetched.url, fetched.body, content_type=mime))
            rows.append(_row(kind, name, fetched, record_id, source.url if source else None))
            number += 1
    write_parquet(truth_part, TRUTH, [rows])
    return len(order)
