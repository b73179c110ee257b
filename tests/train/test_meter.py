"""The table, the curve and the record that a person looks at."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

from llmctl.train.curve import svg_curve, text_curve, thin
from llmctl.train.meter import Meter, duration
from llmctl.train.metrics import MetricsFile, read_metrics

ROW = {"step": 5, "loss": 2.0, "bits_per_byte": 1.0, "lr": 1e-3, "grad_norm": 0.5, "memory": 2e9}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59, "59s"), (61, "1m01s"), (3660, "1h01m"), (-1, "0s")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_speed_share_of_the_peak_and_cost(monkeypatch):
    clock = iter(float(t) for t in range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    meter = Meter(
        steps=10, done=0, flops_per_token=2.0, peak=1000.0, bytes_per_token=4.0, price=3600.0
    )  # starts at 0 s
    meter.measure(100)  # 1 s
    facts = meter.facts(1)  # 2 s
    assert (facts["tokens_per_s"], facts["mfu"]) == (100.0, 0.2)
    assert (facts["seconds_left"], facts["cost"]) == (9.0, 2.0)


def test_the_table_has_its_columns(capsys):
    meter = Meter(steps=10, done=0, flops_per_token=1, peak=0, bytes_per_token=0, price=0)
    meter.show({**ROW, **meter.facts(5)}, stay=True)
    header, line = capsys.readouterr().err.splitlines()
    assert len(header) == len(line)
    assert "5/10" in line and "2.0000" in line and "2.00 GB" in line


def test_a_record_is_cut_at_the_checkpoint_and_forgives_half_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in range(1, 6)) + '{"step": 6, "')
    assert [r["step"] for r in read_metrics(path)] == [1, 2, 3, 4, 5]
    record = MetricsFile(path, done=3)
    record.append({"step": 4, "loss": float("nan")})
    record.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2}, {"step": 3}, {"step": 4, "loss": None}]


def test_a_curve_falls_from_left_to_right():
    points = [(float(i), 10.0 - i) for i in range(11)]
    lines = text_curve(points, height=4).splitlines()
    assert lines[0].startswith("  10.000 ┤█") and lines[3].startswith("   0.000 ┤")
    assert len(lines[0]) < len(lines[1]) < len(lines[2]) < len(lines[3])
    assert text_curve([]) == "no losses to draw"


def test_thinning_keeps_means_and_drops_what_is_no_number():
    points = [(1.0, 1.0), (2.0, 3.0), (3.0, float("nan")), (4.0, 5.0), (5.0, 7.0)]
    assert thin(points, 2) == [(2.0, 2.0), (5.0, 6.0)]


@pytest.mark.parametrize(
    "points", [[], [(1.0, 2.0)], [(float(i), 1 / (i + 1)) for i in range(999)]]
)
def test_the_svg_is_well_formed(points):
    root = ElementTree.fromstring(svg_curve({"train": points, "val <&>": points}, title="a < b"))
    assert root.tag.endswith("svg")
