"""The depth dial and the arithmetic of --dry-run."""

import pytest

from llmctl.core.errors import UsageError
from llmctl.core.hardware import find_gpu
from llmctl.train.estimate import estimate
from llmctl.train.plan import auto_micro_batch, dial, divisor_at_most, horizon, make_plan


def test_gpt2_has_its_published_number_of_parameters():
    assert dial("gpt2", 50_257, 12).n_params() == 124_439_808
    assert dial("gpt2", 50_257, 48, width=1600, seq_len=1024).n_params() == 1_557_611_200


def test_depth_12_is_gpt2s_shape_batch_and_context():
    model = dial("gpt2", 50_304, 12)
    plan = make_plan(model)
    assert (model.d_model, model.n_heads, model.d_ff) == (768, 12, 3072)
    assert (plan.seq_len, plan.batch_tokens) == (1024, 524_288)


def test_depth_4_suits_a_laptop():
    model = dial("qwen3", 4096, 4)
    plan = make_plan(model, train_tokens=2_000_000)
    assert (model.d_model, model.n_heads, model.n_kv_heads, model.d_ff) == (256, 4, 2, 704)
    assert plan.seq_len == 256 and plan.batch_tokens == 2048
    assert plan.tokens == pytest.approx(8_000_000, rel=0.01) and "4 epochs" in plan.reason


def test_the_horizon_is_twenty_tokens_a_parameter_while_the_data_lasts():
    assert horizon(1000, 0).tokens == 20_000
    assert horizon(1000, 6000).tokens == 20_000
    assert horizon(1000, 4000).tokens == 16_000


def test_little_data_gets_a_small_batch():
    plan = make_plan(dial("qwen3", 4096, 4), train_tokens=100_000)
    assert plan.steps >= 500 and plan.batch_tokens == 512


def test_every_value_can_be_given():
    plan = make_plan(
        dial("llama", 512, 2, seq_len=32), steps=10, batch_tokens=64, lr=0.5, warmup=0.2, decay=0.5
    )
    assert (plan.steps, plan.batch_tokens, plan.lr) == (10, 64, 0.5)
    assert (plan.warmup_steps, plan.decay_steps, plan.stable_end) == (2, 5, 5)


def test_a_batch_of_broken_rows_is_refused_with_both_numbers():
    with pytest.raises(UsageError, match="batch_tokens=100 is not a multiple of seq_len=32; 128"):
        make_plan(dial("qwen3", 512, 1, seq_len=32), batch_tokens=100)


def test_a_width_without_heads_is_refused():
    with pytest.raises(UsageError, match="width=100 is not a multiple of head_dim=64"):
        dial("qwen3", 512, 4, width=100)


def test_the_batch_doubles_with_each_layer():
    tokens = [make_plan(dial("qwen3", 4096, d)).batch_tokens for d in (2, 4, 5, 8, 12, 16)]
    assert tokens == [2048, 2048, 4096, 32_768, 524_288, 1_048_576]


def test_the_learning_rate_falls_with_width():
    narrow, wide = (make_plan(dial("qwen3", 4096, d)) for d in (4, 16))
    assert narrow.lr == pytest.approx(4 * wide.lr)


def test_gpt2_xl_on_eight_h100s_costs_what_it_cost():
    model = dial("gpt2", 50_304, 48, width=1600, seq_len=1024)
    plan = make_plan(model, steps=32_000, batch_tokens=1 << 20)
    gpu = find_gpu("NVIDIA H100 80GB HBM3")
    rows = dict(estimate(model, plan, gpu=gpu, gpus=8, mfu=0.487, price=3.0))
    assert rows["tokens"] == 33_554_432_000
    assert rows["seconds an update"] == "2.8"  # llm.c measured 2.80
    assert rows["hours"].startswith("24.9") and rows["money"].startswith("$596.8")


def test_micro_batches_divide_the_batch():
    assert divisor_at_most(12, 5) == 4
    assert divisor_at_most(7, 3) == 1
    model = dial("gpt2", 50_304, 12)
    assert 512 % auto_micro_batch(model, 512, 1024, 80e9) == 0
    assert auto_micro_batch(model, 512, 1024, 80e9) > auto_micro_batch(model, 512, 1024, 24e9)
