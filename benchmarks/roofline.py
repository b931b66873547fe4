"""What a training step costs in FLOPs and bytes, and what this machine does in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from momentum_bench.harness.data.task_kinds import References
from momentum_bench.harness.encoding.batch import Encoded
from momentum_bench.harness.models.files import resolve_model
from momentum_bench.harness.models.forward import read
from momentum_bench.harness.models.packing import with_packing
from momentum_bench.harness.models.pretrained import load_model, load_tokenizer

GEMM = 1024, 4096
"""Side of the square matrices whose product is timed, on a CPU and on a GPU."""
COPIED_BYTES = 2**28


def machine(threads: int, bf16: bool) -> dict[str, float]:
    """The best of several timings: FLOP/s of a matrix product, bytes/s read and written by a copy."""
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = GEMM[device == "cuda"]
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    x = torch.empty(COPIED_BYTES // 4, device=device)
    y = torch.empty_like(x)
    return {
        "gemm_flops_per_second": 2 * side**3 / best_seconds(lambda: a @ a),
        "copy_bytes_per_second": 2 * COPIED_BYTES / best_seconds(lambda: y.copy_(x)),
    }


def best_seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """The best of several timings of `repeats` calls in a row, for one call."""
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - started) / repeats)
    return min(seconds)


def step_costs(
    model_folder: Path, n_labels: int, lengths: list[list[int]], padded_to: int
) -> dict[str, float]:
    """Mean over batches of sequences of these lengths: FLOPs as we run a step, and as padded to 128.

    Bytes are a lower bound of what an SGD step must move: the weights read forward and backward, the
    gradient written and read, the weights read and written by the update; all in fp32.
    """
    source = resolve_model(str(model_folder))
    loaded = load_model(source, "head", n_labels, 0.0)
    loaded = with_packing(loaded, load_tokenizer(source), is_head=True)
    ours, padded = [], []
    for of in lengths:
        for layout, to, found in ((loaded.packing, 0, ours), (None, padded_to, padded)):
            ids = [[5] * max(length, to) for length in of]
            labels = [0] * len(of)
            encoded = Encoded(ids, None, None, labels, References([*labels], None, None), n_truncated=0)
            batch = encoded.batch(range(len(of)), 0, torch.device("cpu"), layout)
            with FlopCounterMode(display=False) as counter:
                read(loaded, batch).sum().backward()
            found.append(counter.get_total_flops())
    n_bytes = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
    return {
        "flops_per_step": sum(ours) / len(ours),
        "flops_per_padded_step": sum(padded) / len(padded),
        "least_bytes_per_step": 6.0 * n_bytes,
    }
