"""Twelve designs of sites: from tidy HTML5 to the table layouts of long ago.

The layouts lie in layouts/*.html, with $names that html.py fills: $head, $title, $name, $nav,
$cookie, $ad, $content, $related, $newsletter, $share, $footer, $script, $date.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources


def _layout(name: str) -> str:
    file = resources.files("llmctl.synth").joinpath("layouts", f"{name}.html")
    return file.read_text("utf-8").strip()


@dataclass(frozen=True)
class Skin:
    """How a site marks up its pages; $u is a link's address, $a a post's author."""

    layout: str
    paragraph: tuple[str, str] = ("<p>", "</p>")
    heading: tuple[str, str] = ("<h2>", "</h2>")
    nav: tuple[str, str, str, str] = ("<ul>", "<li><a href='/$u'>", "</a></li>", "</ul>")
    related: tuple[str, str, str, str] = ("<ul>", '<li><a href="/$u">', "</a></li>", "</ul>")
    post: tuple[str, str] = (
        '<div class="post"><span class="author">$a wrote:</span><p>',
        "</p></div>",
    )


SKINS = (
    Skin(_layout("html5")),
    Skin(_layout("blog")),
    Skin(
        _layout("soup"),
        related=("<div class='links'>", "<div class='link'><a href='/$u'>", "</a></div>", "</div>"),
    ),
    Skin(
        _layout("tables"),
        paragraph=("<P>", "</P>"),
        heading=("<H3>", "</H3>"),
        nav=("", "<A HREF='/$u'>", "</A><BR>", ""),
        related=("", "<A HREF='/$u'>", "</A><BR>", ""),
        post=("<P>", "</P>"),
    ),
    Skin(
        _layout("portal"),
        paragraph=('<p class="text">', "</p>"),
        heading=('<h2 class="crosshead">', "</h2>"),
    ),
    Skin(_layout("wiki")),
    Skin(
        _layout("board"),
        post=(
            '<div class="post-body"><p class="author">$a</p><div class="post-text"><p>',
            "</p></div></div>",
        ),
    ),
    Skin(
        _layout("magazine"),
        paragraph=('<p class="lead-text">', "</p>"),
        related=("", '<div class="card"><a href="/$u">', "</a></div>", ""),
    ),
    Skin(_layout("shop"), nav=("", "<li><a href='/$u'>", "</a></li>", "")),
    Skin(
        _layout("handmade"),
        paragraph=("<p align=justify>", "</p>"),
        heading=("<h3>", "</h3>"),
        nav=("", "[<a href='$u.html'>", "</a>] ", ""),
        related=("<ul>", "<li><a href=$u.html>", "</a>", "</ul>"),
    ),
    Skin(_layout("news"), heading=("<h2><strong>", "</strong></h2>")),
    Skin(_layout("script"), paragraph=('<p class="rt-p">', "</p>")),
)
