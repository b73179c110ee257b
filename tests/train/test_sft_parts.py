"""What is learned from conversations: the assistant's tokens and nothing else, however packed.

Each law is held against something slow and obvious, or against transformers and TRL.
"""

import dataclasses
import json

import pytest
import torch

from llmctl.artifacts.store import Artifact
from llmctl.core.errors import BadInput, Mismatch, UsageError
from llmctl.data.conversations import parse_source
from llmctl.data.masked import MaskedBatches, MaskedRows, MaskedSequences
from llmctl.model.hf import load_model
from llmctl.model.transformer import Transformer
from llmctl.stages.sft import SftConfig
from llmctl.tokenizer.bpe import Tokenizer
from llmctl.tokenizer.chat import chat_format
from llmctl.train.losses import trained_token_loss
from llmctl.train.sft_data import open_chats, render_all
from llmctl.train.sft_start import open_start, rows_a_step

from . import chats, tiny

SEQ = 64


@pytest.fixture(scope="module")
def format():
    return chats.our_format()


@pytest.fixture(scope="module")
def model(format):
    shape = dataclasses.replace(
        tiny.SHAPE, vocab_size=format.tokenizer.vocab_size, max_seq_len=SEQ, n_layers=2
    )
    made = Transformer(shape)
    made.init_weights(0)
    return made


def pack(rendered, model, **options):
    rows = MaskedRows(
        [MaskedSequences.of(rendered)],
        seq_len=SEQ,
        vocab_size=model.config.vocab_size,
        pad_id=0,
        seed=1,
    )
    return MaskedBatches(rows, rows_per_step=len(rows), **options)


def loss_of(model, batch):
    return trained_token_loss(batch, model.hidden, lambda: model.head_weight, torch.float32)


def slow_loss(model, rendered):
    """Each conversation alone, each target on its own: (sum of nats, targets)."""
    total, count = torch.zeros(()), 0
    for one in rendered:
        logits = model(torch.tensor([one.ids]))[0]
        for at in range(len(one.ids) - 1):
            if one.mask[at + 1]:
                total = total - logits[at].log_softmax(-1)[one.ids[at + 1]]
                count += 1
    return total, count


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {k: p.grad.clone() for k, p in model.named_parameters()}


def test_loss_and_gradient_of_packed_rows_equal_the_slow_reference(format, model):
    rendered = [r for r in format.render_many(chats.conversations(20)) if len(r.ids) <= SEQ]
    [batch] = pack(rendered, model).take(0, 99)
    total, count = loss_of(model, batch)
    expected, targets = slow_loss(model, rendered)
    assert int(count) == targets == sum(sum(r.mask) for r in rendered)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)
    mine, theirs = gradients(model, total), gradients(model, expected)
    for name, grad in mine.items():
        assert torch.allclose(grad, theirs[name], rtol=1e-3, atol=1e-4), name


def test_packed_logits_equal_those_of_a_conversation_alone(format, model):
    rendered = [r for r in format.render_many(chats.conversations(20)) if len(r.ids) <= SEQ]
    batches = pack(rendered, model)
    [batch] = batches.take(0, 99)
    logits = model(batch.ids, segments=batch.segments, bounds=batch.bounds)
    for row in range(len(batch.ids)):
        at = 0
        for member in batches.rows.members(row).tolist():
            ids = torch.tensor([rendered[member].ids])
            part = logits[row, at : at + ids.shape[1]]
            assert torch.allclose(part, model(ids)[0], atol=1e-4)
            at += ids.shape[1]


def test_only_what_the_assistant_says_is_a_target_and_its_end_always_is(format, model):
    messages = chats.conversations(30)
    rendered = [r for r in format.render_many(messages) if len(r.ids) <= SEQ]
    [batch] = pack(rendered, model).take(0, 99)
    ends = int((batch.targets == format.end_id).sum())
    turns = [m for ms in messages for m in ms if m["role"] == "assistant"]
    assert ends == len(turns)  # stopping is learned at every turn
    said = batch.targets[batch.targets >= 0].tolist()
    texts = format.tokenizer.decode(said).split("<|im_end|>")
    assert sorted(t for t in texts if t) == sorted(m["content"] for m in turns)


def test_one_step_is_the_same_in_any_micro_batches_and_ranks(format, model):
    rendered = [r for r in format.render_many(chats.conversations(40)) if len(r.ids) <= SEQ]
    batches = pack(rendered, model)

    def whole(parts):
        losses = [loss_of(model, batch) for batch in parts]
        total, count = (sum(x) for x in zip(*losses))
        return gradients(model, total / count), float(total / count), int(count)

    first = whole(batches.take(0, 99))
    for parts in (
        list(batches.take(0, 1)),
        [b for r in (0, 1) for b in _share(batches.rows, r).take(0, 3)],
    ):
        grads, loss, count = whole(parts)
        assert count == first[2] and loss == pytest.approx(first[1], rel=1e-5)
        for name, grad in grads.items():
            assert torch.allclose(grad, first[0][name], rtol=1e-3, atol=1e-6), name


def _share(rows, rank):
    n = len(rows) + len(rows) % 2
    return MaskedBatches(_Cut(rows, len(rows)), rows_per_step=n, rank=rank, world_size=2)


class _Cut:
    """Rows of which those after the first epoch hold no target."""

    def __init__(self, rows, n):
        self.rows, self.n, self.seq_len = rows, n, rows.seq_len

    def read(self, positions):
        from llmctl.data.masked import without_targets

        kept = sum(p < self.n for p in positions)
        return without_targets(self.rows.read(positions), kept)


def test_a_micro_batch_without_targets_has_a_loss_of_zero_and_zero_gradients(format, model):
    from llmctl.data.masked import without_targets

    rendered = [r for r in format.render_many(chats.conversations(5)) if len(r.ids) <= SEQ]
    [batch] = pack(rendered, model).take(0, 99)
    total, count = loss_of(model, without_targets(batch, 0))
    assert float(total) == 0.0 and int(count) == 0
    assert all(not grad.any() for grad in gradients(model, total).values())


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder that holds our chat format, as sft writes it."""
    folder = tmp_path_factory.mktemp("tuned") / "model"
    return chats.base_model(folder, tokenizer=chats.our_format().tokenizer)


def test_the_loss_equals_transformers_with_labels_from_its_own_mask(tuned):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tuned, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tuned)
    model, format = load_model(tuned), chat_format(Tokenizer.load(tuned))
    rendered, total, count = [], 0.0, 0
    for messages in chats.conversations(12):
        encoded = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, return_tensors="pt"
        )
        mask = encoded["assistant_masks"].bool()
        labels = encoded["input_ids"].masked_fill(~mask, -100)
        n = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += n * float(theirs(input_ids=encoded["input_ids"], labels=labels).loss)
        count += n
        one = format.render(messages)
        assert one.ids == encoded["input_ids"][0].tolist()
        assert one.mask == mask[0].tolist()
        rendered.append(one)
    [batch] = pack([r for r in rendered if len(r.ids) <= SEQ], model).take(0, 99)
    ours, n = loss_of(model, batch)
    assert int(n) == count
    assert float(ours) == pytest.approx(total, rel=1e-4)


def test_the_loss_equals_trls_with_assistant_only_loss(tuned, tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    datasets.disable_progress_bars()
    messages = chats.conversations(6)
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(tuned, dtype=torch.float32),
        args=trl.SFTConfig(
            output_dir=str(tmp_path),
            assistant_only_loss=True,
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_train_batch_size=6,
            max_length=SEQ,
            disable_tqdm=True,
            dataset_num_proc=None,
        ),
        train_dataset=datasets.Dataset.from_list([{"messages": m} for m in messages]),
        processing_class=transformers.AutoTokenizer.from_pretrained(tuned),
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        theirs = float(trainer.compute_loss(trainer.model, inputs))
    model, format = load_model(tuned), chat_format(Tokenizer.load(tuned))
    [batch] = pack(format.render_many(messages), model).take(0, 99)
    total, count = loss_of(model, batch)
    assert int(count) == int((inputs["labels"][:, 1:] != -100).sum())
    assert float(total / count) == pytest.approx(theirs, rel=1e-4)


def open_data(path, format, *words, **options):
    given = dict(
        seq_len=SEQ, vocab_size=10**6, pad_id=0, val_fraction=0.2, seed=0, max_bad=0.1, **options
    )
    return open_chats([parse_source(f"{path}{w}") for w in words or ("",)], format, **given)


def test_long_conversations_are_cut_after_a_whole_answer_and_counted(tmp_path, format):
    short = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "rain"}]
    long = {"role": "assistant", "content": "the river " * 80}
    path = chats.write_jsonl(
        tmp_path / "c.jsonl",
        [
            *[short] * 8,
            [*short, {"role": "user", "content": "and"}, long],  # cut after the first answer
            [{"role": "user", "content": "tell"}, long],  # no answer fits
        ],
    )
    found = open_data(path, format)
    [source] = found.sources
    assert source.cut == 1 and dict(source.dropped) == {"no whole answer fits 64 tokens": 1}
    assert len(source.train) + len(source.val) == 9
    expected = format.render(short).ids
    sequences = [source.train, source.val]
    kept = [s.ids[a:b].tolist() for s in sequences for a, b in zip(s.offsets, s.offsets[1:])]
    assert kept == [expected] * 9  # the cut one too
    assert not (len(source.train) and len(source.val))  # one text is never on both sides
    assert "1 cut" in source.line() and "1 dropped: no whole answer fits" in source.line()


def test_weights_and_splits_reach_the_mixture(tmp_path, format):
    path = chats.write_jsonl(tmp_path / "c.jsonl", chats.conversations(100))
    once, twice = open_data(path, format), open_data(path, format, "=2")
    assert twice.train.n_targets == 2 * once.train.n_targets
    assert 5 < len(once.sources[0].val) < 40
    assert once.val.n_tokens == int(once.sources[0].val.lengths.sum())
    assert once.hash != twice.hash and once.hash == open_data(path, format).hash


def test_paths_of_a_tree_and_phrasings_of_a_fact_stay_on_one_side(tmp_path, format):
    def exchange(question, answer):
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    starts = chats.conversations(40, turns=1)
    trees = [[*start, *exchange(word, "rain")] for start in starts for word in ("bread", "mill")]
    path = chats.write_jsonl(tmp_path / "trees.jsonl", trees)
    rows = [
        {"messages": exchange(f"{word} {i}", f"river {i}"), "fact_id": f"e{i}"}
        for i in range(40)
        for word in ("old", "men")
    ]
    facts = tmp_path / "facts.jsonl"
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for file in (path, facts):
        [source] = open_data(file, format).sources
        assert 2 <= len(source.val) < 40
        train, val = (first_answers(format, side) for side in (source.train, source.val))
        assert not train & val


def first_answers(format, side):
    """The first thing that the assistant says in each sequence."""
    parts = [side.ids[a:b].tolist() for a, b in zip(side.offsets, side.offsets[1:])]
    texts = map(format.tokenizer.decode, parts)
    return {text.split("assistant<|im_sep|>")[1].split("<|im_end|>")[0] for text in texts}


def test_a_template_that_marks_nothing_as_the_assistants_is_refused(tmp_path):
    end = "{{ m.content + '<|im_end|>' }}"
    blind = chats.CHATML.replace(
        f"{{% generation %}}{end}", f"{{% generation %}}{{% endgeneration %}}{end}"
    )
    blind = blind.replace("{% endgeneration %}{% else %}", "{% else %}")
    folder = chats.chat_model(tmp_path / "m", template=blind)
    path = chats.write_jsonl(tmp_path / "c.jsonl", chats.conversations(10))
    start = open_start(Artifact(folder, "foreign"), 0)
    with pytest.raises((BadInput, Mismatch)):
        open_data(path, start.format)


def test_conversations_that_have_no_place_in_the_format_are_counted(tmp_path, format):
    from llmctl.data.conversations import Conversation

    two = [{"type": "function", "function": {"name": "f", "arguments": {}}}] * 2
    bad = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": two},
    ]
    rows = [Conversation(m, "here") for m in (*chats.conversations(3), bad)]
    found = list(render_all(rows, format))
    assert [isinstance(f, str) for f in found] == [False, False, False, True]
    assert "2 calls in one turn" in found[3]


@pytest.mark.parametrize("family", ["qwen3", "llama", "gpt2"])
def test_a_base_model_of_any_family_gets_our_format(tmp_path, family):
    folder = chats.base_model(tmp_path / "m", family)
    start = open_start(Artifact(folder, "foreign"), 0)
    assert start.grown and start.format.own
    assert start.shape.eos_ids == (start.format.end_id, start.tokenizer.eot_id)
    assert start.shape.pad_id == start.tokenizer.eot_id != start.format.end_id


def test_a_chat_model_keeps_its_own_and_begins_with_one_bos(tmp_path):
    folder = chats.chat_model(tmp_path / "m")
    before = json.loads((folder / "config.json").read_text())["vocab_size"]
    start = open_start(Artifact(folder, "foreign"), 0)
    assert not start.grown and not start.format.own
    assert start.shape.vocab_size == before
    ids = start.format.render(chats.conversations(1)[0]).ids
    assert ids[0] == start.tokenizer.eot_id and ids.count(start.tokenizer.eot_id) == 1


def test_a_longer_context_is_for_rotary_positions_only(tmp_path):
    rope = chats.base_model(tmp_path / "rope")
    assert open_start(Artifact(rope, "foreign"), 128).shape.max_seq_len == 128
    assert open_start(Artifact(rope, "foreign"), 32).shape.max_seq_len == 64
    learned = chats.base_model(tmp_path / "learned", "gpt2")
    with pytest.raises(UsageError, match="seq_len=128: .* has 64 positions"):
        open_start(Artifact(learned, "foreign"), 128)


def test_tokenizer_and_template_must_be_those_the_model_was_tuned_with(tuned):
    chat = {"tokenizer": Tokenizer.load(tuned).hash, "template": chats.our_format().hash}
    manifest = {"id": "x", "stats": {"chat": chat}, "files": [], "inputs": []}
    assert not open_start(Artifact(tuned, "model", manifest), 0).grown
    for what in chat:
        other = {**manifest, "stats": {"chat": {**chat, what: "0" * 64}}}
        with pytest.raises(Mismatch, match=f"tuned with another {what}"):
            open_start(Artifact(tuned, "model", other), 0)


def test_a_folder_without_tokenizer_or_with_too_small_an_embedding_is_refused(tmp_path):
    folder = chats.base_model(tmp_path / "m", vocab_size=128)
    with pytest.raises(Mismatch, match="its embedding only 128"):
        open_start(Artifact(folder, "foreign"), 0)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(Mismatch, match=r"no tokenizer.json beside the weights"):
        open_start(Artifact(folder, "foreign"), 0)


def test_nonsense_is_refused_with_both_numbers():
    with pytest.raises(UsageError, match=r"batch_tokens=100 is not a multiple of seq_len=64"):
        rows_a_step(SftConfig(batch_tokens=100), 64)
    with pytest.raises(UsageError, match="epochs=0 and steps=0"):
        SftConfig(epochs=0.0)
    with pytest.raises(UsageError, match="val_fraction=1.0"):
        SftConfig(val_fraction=1.0)
