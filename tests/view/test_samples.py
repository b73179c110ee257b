"""What `inspect` shows of files: rows of parquet and JSONL, parameters, and no traceback."""

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from llmctl.core.errors import BadInput, Mismatch
from llmctl.model.tensor_file import write_tensors
from llmctl.view.samples import parameter_table, sample_rows


def test_rows_of_parquet_and_jsonl_are_shown(tmp_path):
    when = datetime.datetime(2026, 1, 2, 3, 4, 5)
    for i in range(2):
        table = pa.table({"text": [f"row {i}{j}" for j in range(3)], "at": [when] * 3})
        pq.write_table(table, tmp_path / f"part-{i:05d}.parquet")
    lines = [json.dumps({"messages": [{"role": "user", "content": f"c{i}"}]}) for i in range(5)]
    (tmp_path / "chat.jsonl").write_text("\n\n".join(lines))
    (tmp_path / "more-1.jsonl.gz").write_bytes(gzip.compress(b'{"lone": "\\ud800"}\n7\n'))
    (tmp_path / ".hidden.jsonl").write_text("{")
    shown = sample_rows(tmp_path, 2)
    assert "part: 6 rows in 2 files" in shown and "row 01" in shown and "row 02" not in shown
    assert "at: 2026-01-02 03:04:05" in shown.replace('"', "")
    assert "chat: JSONL in 1 file" in shown and "c1" in shown and "c2" not in shown
    assert "more: JSONL in 1 file" in shown and "value: 7" in shown
    shown.encode()


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"text": "a\n')
    with pytest.raises(BadInput, match=name):
        sample_rows(tmp_path, 2)


def test_parameters_are_folded_by_layer(tmp_path):
    tensors = {f"layers.{i}.w": torch.zeros(4, 3, dtype=torch.bfloat16) for i in range(3)}
    write_tensors(tmp_path / "model.safetensors", tensors)
    shown = parameter_table(tmp_path)
    assert all(word in shown for word in ("layers.N.w", "4 x 3", "BF16", "36"))
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(Mismatch, match="model.safetensors"):
        parameter_table(tmp_path)
