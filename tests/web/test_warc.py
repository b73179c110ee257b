"""The WARC reader: what is whole comes out, what is broken costs itself and nothing else."""

import gzip
import random
import tracemalloc
from collections import Counter

import pytest
import warcs

from llmctl.web.source import Source, kind_of
from llmctl.web.warc import Record, records


def read(path, start=0, stop=None, max_bytes=8 << 20) -> tuple[list[Record], Counter]:
    damage: Counter = Counter()
    with Source(str(path)) as source:
        found = list(
            records(
                source,
                lambda headers: headers.get("warc-type") == "response",
                lambda reason, offset: damage.update([reason]),
                max_bytes,
                start,
                stop,
            )
        )
    return found, damage


def urls(found) -> list[str]:
    return [r.headers["warc-target-uri"] for r in found if r.block is not None]


@pytest.fixture(scope="module")
def members() -> list[bytes]:
    return warcs.pages_warc(40)


def wanted(n: int) -> list[str]:
    return [f"http://pages.example.net/{i}" for i in range(n)]


@pytest.mark.parametrize("shape", ["members", "one stream", "plain", "blocks of 1000 bytes"])
def test_reads_every_way_of_packing(tmp_path, members, shape):
    plain = b"".join(gzip.decompress(m) for m in members)
    data = {
        "members": b"".join(members),
        "one stream": warcs.member(plain),
        "plain": plain,
        "blocks of 1000 bytes": b"".join(
            warcs.member(plain[i : i + 1000]) for i in range(0, len(plain), 1000)
        ),
    }[shape]
    path = tmp_path / "x.warc"
    path.write_bytes(data)
    found, damage = read(path)
    assert urls(found) == wanted(40) and not damage
    assert found[7].block == warcs.http(warcs.page(warcs.prose(7), "Page 7"))


def test_a_flipped_bit_loses_at_most_one_record(tmp_path, members):
    data, rng = b"".join(members), random.Random(1)
    noticed = 0
    for trial in range(60):
        broken = bytearray(data)
        bit = rng.randrange(len(data) * 8)
        broken[bit // 8] ^= 1 << bit % 8
        path = tmp_path / f"{trial}.warc.gz"
        path.write_bytes(broken)
        found, damage = read(path)
        assert len(set(urls(found)) & set(wanted(40))) >= 39
        noticed += bool(damage) or urls(found) == wanted(40)  # some header bits mean nothing
    assert noticed == 60


def test_a_cut_is_noticed_and_keeps_the_complete_records(tmp_path, members):
    data, rng = b"".join(members), random.Random(2)
    for trial in range(40):
        cut = rng.randrange(20, len(data))
        path = tmp_path / f"{trial}.warc.gz"
        path.write_bytes(data[:cut])
        complete, end = 0, 0
        while end + len(members[complete]) <= cut:
            end += len(members[complete])
            complete += 1
        found, damage = read(path)
        assert urls(found) == wanted(complete)
        assert bool(damage) == (end != cut)


@pytest.mark.parametrize("lie", ["3", "99999999", "-5", "x", "9" * 19, ""])
@pytest.mark.parametrize("packed", [True, False])
def test_a_lying_content_length_costs_its_record(tmp_path, lie, packed):
    good = [warcs.record(f"http://a.example/{i}", warcs.http(b"<html>hi")) for i in range(4)]
    good[1] = warcs.record("http://a.example/1", warcs.http(b"<html>hi"), content_length=lie)
    path = tmp_path / "x.warc"
    path.write_bytes(b"".join(map(warcs.member, good) if packed else good))
    found, damage = read(path)
    assert urls(found) == [f"http://a.example/{i}" for i in (0, 2, 3)]
    assert damage.total() == 1


def test_a_bomb_is_left_alone_in_little_memory(tmp_path, members):
    bomb = warcs.member(warcs.record("http://bomb.example/", warcs.http(bytes(300 << 20))))
    path = tmp_path / "x.warc.gz"
    path.write_bytes(members[0] + bomb + members[1])
    tracemalloc.start()
    found, damage = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert urls(found) == wanted(2) and damage.total() == 1
    assert peak < 20 << 20


def test_a_large_page_is_skipped_by_its_length(tmp_path):
    rng = random.Random(0)
    large = warcs.record("http://a.example/large", warcs.http(rng.randbytes(3 << 20)))
    small = warcs.record("http://a.example/small", warcs.http(b"<html>hi"))
    for pack in (warcs.member, bytes):
        path = tmp_path / "x.warc"
        path.write_bytes(pack(small) + pack(large) + pack(small))
        found, damage = read(path, max_bytes=1 << 20)
        assert urls(found) == ["http://a.example/small"] * 2 and damage == {"too_big": 1}


def test_shares_of_a_file_add_up_to_it(tmp_path, members):
    data = b"".join(members)
    path = tmp_path / "x.warc.gz"
    path.write_bytes(data)
    for step in (500, 3001, len(data) - 1):
        parts = []
        for start in range(0, len(data), step):
            parts += urls(read(path, start, min(start + step, len(data)))[0])
        assert parts == wanted(40)


def test_padding_is_silent_and_garbage_is_not(tmp_path, members):
    path = tmp_path / "x.warc.gz"
    path.write_bytes(members[0] + bytes(5000))
    assert read(path)[1] == {}
    path.write_bytes(members[0] + b"garbage" + members[1] + b"more garbage")
    found, damage = read(path)
    assert urls(found) == wanted(2) and damage == {"trailing_garbage": 2}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (bytes(100), "zeros"),
        (b"<html><body>404", "html"),
        (gzip.compress(b"<html><body>404"), "gzip-html"),
        (b"filedesc://x.arc 0.0.0.0", "arc"),
        (b"WARC/1.0\r\n", "warc"),
        (gzip.compress(b"WARC/1.0\r\n"), "gzip-warc"),
        (b'{"text": 1}', "json"),
        (b"PAR1....", "parquet"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
        (b"\x1f\x8b\x08garbage", "gzip-damaged"),
        (b"some words", "unknown"),
    ],
)
def test_kind_is_read_from_the_bytes(tmp_path, data, kind):
    path = tmp_path / "misnamed.warc.gz"
    path.write_bytes(data)
    with Source(str(path)) as source:
        assert kind_of(source) == kind


def test_random_bytes_never_raise(tmp_path):
    rng = random.Random(3)
    seed = b"".join(warcs.pages_warc(3))
    plain = gzip.decompress(seed)
    for trial in range(150):
        base = bytearray(seed if trial % 2 else plain)
        for _ in range(rng.randint(1, 30)):
            at = rng.randrange(len(base))
            base[at : at + rng.randint(0, 40)] = rng.randbytes(rng.randint(0, 40))
        path = tmp_path / "x"
        path.write_bytes(base)
        read(path)
