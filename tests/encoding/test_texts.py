from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from momentum_bench.harness.data.examples import Example
from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.encoding.label_words import label_word_ids
from momentum_bench.harness.encoding.texts import encode_plain, encode_prompts
from momentum_bench.harness.errors import UserError
from momentum_bench.tasks import get_task

SST2, TREC, SNLI = get_task("sst2"), get_task("trec"), get_task("snli")


@pytest.fixture(scope="module")
def bert(tiny_model: Path):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def byte_level():
    """A tokenizer that, like RoBERTa's, tells a word by the space before it (written as G-dot)."""
    special = ["<s>", "<pad>", "</s>", "<mask>"]
    space = chr(0x120)
    letters = [chr(i) for i in range(33, 127)]
    words = ["It", "was", "good", "film", "great", "terrible", "Really"]
    pieces = [*special, space, *letters]
    merges = []
    for word in words:
        pairs = [(word[:end], word[end]) for end in range(1, len(word))]
        for pair in [*pairs, (space, word)]:
            if pair not in merges:
                merges.append(pair)
                pieces.append("".join(pair))
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
    )


def test_a_prompt_of_roberta_reads_as_in_lm_bff(byte_level):
    encoded = encode_prompts(byte_level, SST2, [Example(("good film",), 1)], 32)
    tokens = byte_level.convert_ids_to_tokens(encoded.input_ids[0])
    space = chr(0x120)
    # *cls**sent_0*_It_was*mask*.*sep+*: the mask takes the place of " great", with its space
    assert tokens == ["<s>", "good", f"{space}film", f"{space}It", f"{space}was", "<mask>", ".", "</s>"]
    assert encoded.read_at == [[5]]
    assert byte_level.convert_ids_to_tokens(label_word_ids(byte_level, SST2)) == [
        f"{space}terrible",
        f"{space}great",
    ]


def test_a_text_after_the_mask_keeps_its_space(byte_level):
    task = TREC.model_copy(update={"label_words": ("It", "was", "good", "film", "great", "terrible")})
    encoded = encode_prompts(byte_level, task, [Example(("good film",), 0)], 32)
    tokens = byte_level.convert_ids_to_tokens(encoded.input_ids[0])
    assert tokens == ["<s>", "<mask>", ":", f"{chr(0x120)}good", f"{chr(0x120)}film", "</s>"]


def test_a_pair_is_filtered_and_joined(byte_level):
    task = SNLI.model_copy(update={"label_words": ("great", "film", "terrible")})
    encoded = encode_prompts(byte_level, task, [Example(("good film.", "Really good"), 0)], 32)
    tokens = byte_level.convert_ids_to_tokens(encoded.input_ids[0])
    text = "".join(tokens).replace(chr(0x120), " ")
    assert text == "<s>good film?<mask>, really good</s>"


def test_long_texts_are_cut_and_counted_and_the_mask_stays(bert):
    examples = [Example(("a " * 100,), 0), Example(("good film",), 1)]
    encoded = encode_prompts(bert, SST2, examples, 16)
    assert len(encoded.input_ids[0]) == 16
    assert encoded.n_truncated == 1
    for ids, (position,) in zip(encoded.input_ids, encoded.read_at or [], strict=True):
        assert ids[position] == bert.mask_token_id
        assert ids.count(bert.mask_token_id) == 1
        assert bert.decode(ids[position - 2 : position + 2]).startswith("it was")


def test_the_tasks_own_limit_cuts_the_first_text(bert):
    words = ("great", "film", "terrible")
    task = SNLI.model_copy(update={"first_limit": 3, "other_limit": 2, "label_words": words})
    encoded = encode_prompts(bert, task, [Example(("a a a a a a", "good good good good"), 0)], 64)
    assert encoded.input_ids[0].count(bert.convert_tokens_to_ids("a")) == 3
    assert encoded.input_ids[0].count(bert.convert_tokens_to_ids("good")) == 2
    assert encoded.n_truncated == 1


def test_a_text_that_spells_the_mask_is_just_text(bert):
    encoded = encode_prompts(bert, SST2, [Example(("a [MASK] film",), 0)], 32)
    assert encoded.input_ids[0].count(bert.mask_token_id) == 1
    assert bert.mask_token_id not in encode_plain(bert, SST2, [Example(("a [MASK]",), 0)], 32).input_ids[0]


def test_what_no_prompt_can_hold_is_an_error(bert):
    with pytest.raises(UserError, match="mask would be lost"):
        encode_prompts(bert, SST2, [Example(("a film",), 0)], 4)
    with pytest.raises(UserError, match="'Description' is 11 tokens"):
        label_word_ids(bert, TREC)
    collide = SST2.model_copy(update={"label_words": ("great", "Great")})
    with pytest.raises(UserError, match="collide"):
        label_word_ids(bert, collide)
    bert_without = PreTrainedTokenizerFast(tokenizer_object=bert.backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(UserError, match="no mask token"):
        encode_prompts(bert_without, SST2, [Example(("a film",), 0)], 32)


def test_a_head_reads_the_models_own_pair_input(bert):
    examples = [Example(("a film", "fun"), 2), Example(("good " * 40, "bad"), 0)]
    encoded = encode_plain(bert, SNLI, examples, 16)
    assert encoded.input_ids[0] == bert("a film", "fun")["input_ids"]
    assert encoded.token_type_ids is not None
    assert encoded.token_type_ids[0][-1] == 1
    assert (len(encoded.input_ids[1]), encoded.n_truncated) == (16, 1)


def test_a_batch_is_padded_to_its_longest(bert):
    examples = [Example((text,), i) for i, text in enumerate(("a", "a good film", "fun"))]
    encoded = encode_prompts(bert, SST2, examples, 32)
    batch = encoded.batch([1, 2], bert.pad_token_id, torch.device("cpu"))
    lengths = [len(encoded.input_ids[i]) for i in (1, 2)]
    assert batch.inputs["input_ids"].shape == (2, max(lengths))
    assert batch.inputs["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch.labels.tolist() == [1, 2]


def test_a_batch_keeps_the_sequences_of_an_example_together():
    encoded = Encoded(
        input_ids=[[1, 2], [3, 4, 5], [6], [7, 8], [9, 9]],
        token_type_ids=None,
        read_at=[[0], [0, 1], [0], [0], [0]],
        labels=[1, 0],
        references=References([1, 0], None, None),
        n_truncated=0,
        targets=[[2], [4, 5], [6], [8], [9]],
        candidates=[3, 2],
    )
    batch = encoded.batch([1, 0], 0, torch.device("cpu"))
    assert batch.inputs["input_ids"].tolist() == [[7, 8, 0], [9, 9, 0], [1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert batch.read_at is not None
    assert [place.tolist() for place in batch.read_at] == [[0, 1, 2, 3, 3, 4], [0, 0, 0, 0, 1, 0]]
    assert batch.targets is not None
    assert batch.targets.tolist() == [8, 9, 2, 4, 5, 6]
    assert (batch.candidates, batch.labels.tolist()) == ([2, 3], [0, 1])
