"""URL block lists: datatrove's URLFilter without a cache folder or 4.6 million strings in memory.

The list of domains ships in datatrove's wheel, sorted; it is unpacked once a run and searched
where it lies, so all workers share one copy in the page cache. The public suffix list is the
snapshot in tldextract's wheel.
"""

import mmap
import shutil
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters.url_filter import URLFilter, get_list, normalize, normalizer
from datatrove.utils._import_utils import ASSETS_PATH

from llmctl.core.files import temporary_name
from llmctl.web.blocks import Drop, Step, Task

LISTS = "url_filterblacklistsv0_3_0.tar.gz"
MAX_URL = 2048  # characters; longer ones are cut before anything looks at them


def unpack_lists(folder: Path) -> None:
    """Write `domains` (sorted by bytes) and `urls` of datatrove's lists into a folder, once."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(Path(ASSETS_PATH) / LISTS, "r:gz") as tar:
        for member in tar:
            path = folder / member.name
            if member.name not in ("urls", "domains") or path.exists():
                continue
            packed = tar.extractfile(member)
            assert packed is not None
            temporary = temporary_name(path)
            with temporary.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
            if member.name == "domains" and not _is_sorted(temporary):
                lines = set(temporary.read_bytes().split(b"\n")) - {b""}
                temporary.write_bytes(b"\n".join(sorted(lines)) + b"\n")
            temporary.rename(path)  # without fsync: the lists outlive no run


def _is_sorted(path: Path) -> bool:
    """Whether the lines ascend, looked at in a thousand places."""
    lines = []
    with path.open("rb") as handle:
        for at in range(0, path.stat().st_size, max(path.stat().st_size // 1000, 1)):
            handle.seek(at)
            handle.readline()
            lines.append(handle.readline())
    lines = [line for line in lines if line]
    return all(a <= b for a, b in zip(lines, lines[1:]))


class SortedLines:
    """Membership in a sorted file of lines, by bisection over its bytes."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as handle:
            self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)

    def __contains__(self, word: str) -> bool:
        wanted, data = word.encode(), self._map
        if not wanted or b"\n" in wanted:
            return False
        low, high = 0, len(data)  # both always at the start of a line
        while low < high:
            middle = (low + high) // 2
            start = data.rfind(b"\n", low, middle) + 1 or low
            end = data.find(b"\n", start)
            end = len(data) if end < 0 else end
            line = data[start:end]
            if line == wanted:
                return True
            if line < wanted:
                low = end + 1
            else:
                high = start
        return False


@cache
def suffixes() -> Any:
    """The public suffix list of tldextract's own snapshot; one a process."""
    from tldextract import TLDExtract

    return TLDExtract(suffix_list_urls=(), cache_dir=None)


class UrlFilter(Step, URLFilter):
    """Drops pages by block-listed domain, subdomain, URL, or words in the URL."""

    name = "😈 Url-filter"
    step = "url"

    def __init__(self, task: Task, lists: Path, extra_domains: Iterable[str] = ()) -> None:
        URLFilter.__init__(self)
        self.task = task
        self.lists = lists
        self.own_domains = frozenset(extra_domains)
        self.tldextractor: Any = None  # made in the worker: it holds locks

    def download_data(self) -> None:
        """Open the lists that `unpack_lists` wrote; nothing is downloaded."""
        if self.tldextractor is not None:
            return
        self.tldextractor = suffixes()
        self.block_listed_domains = SortedLines(self.lists / "domains")
        self.block_listed_url = get_list(str(self.lists), "urls", set(), do_normalize=False)
        self.banned_words = get_list(ASSETS_PATH, "banned_words.txt", set())
        self.banned_subwords = get_list(ASSETS_PATH, "banned_subwords.txt", set())
        self.soft_banned_words = get_list(ASSETS_PATH, "soft_banned_words.txt", set())
        for word in sorted(self.banned_subwords):
            self.banned_subwords_automaton.add_word(word, len(self.banned_subwords_automaton))
        self.banned_subwords_automaton.make_automaton()

    def judge(self, doc: Document) -> Drop | None:
        url = doc.metadata.get("url")
        if not url:  # a document of one's own without an address has nothing to be listed by
            return None
        self.download_data()
        parts = self.tldextractor(url)
        registered = f"{parts.domain}.{parts.suffix}" if parts.domain and parts.suffix else ""
        fqdn = parts.fqdn
        if registered in self.block_listed_domains or registered in self.own_domains:
            return Drop("domain")
        if fqdn in self.block_listed_domains or fqdn in self.own_domains:
            return Drop("subdomain")
        if url in self.block_listed_url:
            return Drop("url")
        words = set(normalizer.split(url))
        if not words.isdisjoint(self.banned_words):
            return Drop("hard_blacklisted")
        soft = len(words & self.soft_banned_words)
        if soft >= self.soft_word_threshold:
            return Drop("soft_blacklisted", soft, self.soft_word_threshold)
        if next(self.banned_subwords_automaton.iter(normalize(url)), False):
            return Drop("blacklisted_subword")
        return None
