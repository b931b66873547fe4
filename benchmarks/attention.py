"""How fast and how exact the ways to compute attention over packed rows are on this machine: one JSON line.

    python benchmarks/attention.py [--output FILE]

Batches of sentences of different lengths, 16 heads of 64, forward and backward. On a CPU: a loop over the
sequences, and all sequences side by side with padding inside attention alone. On an NVIDIA GPU: the latter
by each of torch's kernels, and torch's `varlen_attn`, which needs no padding but takes half precision alone
and has no dropout. Each is held against attention in float64. On a GPU three more things are looked at: what
the first call of a new shape costs, whether a repeated backward pass gives the same bits, and whether the
step can be recorded.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from roofline import best_seconds  # noqa: E402
from whole_grid import _hardware, write_line  # noqa: E402

from momentum_bench.harness.encoding.packed_rows import Segments  # noqa: E402
from momentum_bench.harness.models.packed_attention import Attention, attend  # noqa: E402

Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Queries, keys and values of 1 x heads x N x D in, 1 x N x heads x D out."""

HEADS, WIDTH = 16, 64
BATCHES = {
    "train, 8 sentences": (8, 8, 60),
    "train, 8 texts": (8, 60, 256),
    "score, 64 sentences": (64, 8, 60),
}
"""Number of sequences, and the least and the most tokens of one."""

KERNELS = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)


def lengths_of(batch: tuple[int, int, int]) -> list[int]:
    """The same lengths in each process."""
    n, low, high = batch
    draw = random.Random(0)
    return [draw.randint(low, high) for _ in range(n)]


def ways(lengths: list[int], dtype: torch.dtype, device: torch.device) -> Iterator[tuple[str, Way]]:
    """The ways that this device has, by name."""

    def ours(longest: int | None) -> Way:
        segments = Segments(tuple(lengths), tuple((0,) for _ in lengths), device, longest)
        how = Attention(segments, rows_read=False, causal=False, dropout=0.0, scaling=None)
        return lambda query, key, value: attend(query, key, value, how)

    if device.type == "cpu":
        yield "one by one", ours(None)
        yield "side by side", ours(max(lengths))
        return
    for kernel in KERNELS:
        yield f"side by side, {kernel.name.lower()}", _by(kernel, ours(None))
    if dtype == torch.bfloat16:
        yield "varlen_attn", _varlen(lengths, device)


def _by(kernel: SDPBackend, way: Way) -> Way:
    def call(*tensors: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(kernel):
            return way(*tensors)

    return call


def _varlen(lengths: list[int], device: torch.device) -> Way:
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
    longest = max(lengths)

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        query, key, value = (x[0].transpose(0, 1) for x in tensors)
        return varlen_attn(query, key, value, ends, ends, longest, longest)[None]

    return call


def exact(lengths: list[int], *tensors: torch.Tensor) -> torch.Tensor:
    """Attention of each sequence to itself alone, in float64."""
    parts = zip(*(x.detach().double().split(lengths, 2) for x in tensors), strict=True)
    return torch.cat([scaled_dot_product_attention(*part) for part in parts], 2).transpose(1, 2)


def microseconds(work: Callable[[], object], repeats: int) -> float:
    return round(best_seconds(work, repeats) * 1e6, 1)


def measured(
    batch: tuple[int, int, int], dtype: torch.dtype, device: torch.device, repeats: int
) -> dict[str, Any]:
    """Facts of each way for one batch; a way that this machine refuses has the reason."""
    lengths = lengths_of(batch)
    torch.manual_seed(0)
    shape = 1, HEADS, sum(lengths), WIDTH
    tensors = [torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)]
    gradient = torch.randn(1, shape[2], HEADS, WIDTH, device=device, dtype=dtype)
    wanted = exact(lengths, *tensors)
    found: dict[str, Any] = {}
    for name, way in ways(lengths, dtype, device):

        def step(way: Way = way) -> None:
            for x in tensors:
                x.grad = None
            way(*tensors).backward(gradient)

        try:
            error = (way(*tensors).double() - wanted).norm() / wanted.norm()
            found[name] = {
                "microseconds": microseconds(step, repeats),
                "error": float(f"{error:.2g}"),
            }
            if device.type == "cuda":
                found[name] |= _on_a_gpu(step, tensors)
        except (RuntimeError, ImportError) as error:
            found[name] = {"refused": str(error).splitlines()[0]}
    return found


def _on_a_gpu(step: Callable[[], None], tensors: list[torch.Tensor]) -> dict[str, Any]:
    step()
    first = [x.grad.clone() for x in tensors if x.grad is not None]
    repeated = 0
    for _ in range(10):
        step()
        repeated += all(
            torch.equal(x.grad, y) for x, y in zip(tensors, first, strict=True) if x.grad is not None
        )
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(graph, stream=stream):
            step()
        recorded: Any = microseconds(graph.replay, 20)
    except RuntimeError as error:
        recorded = str(error).splitlines()[0]
    return {"repeats_equal_of_10": repeated, "recorded_microseconds": recorded}


def first_calls(device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of the first forward and backward pass of each of eight new shapes, in bf16, by kernel."""
    found: dict[str, list[float]] = {}
    for kernel in KERNELS[:2]:
        for longest in range(33, 41):
            x = torch.randn(8, HEADS, longest, WIDTH, device=device, dtype=torch.bfloat16, requires_grad=True)
            mask = torch.arange(longest, device=device) < longest - 3
            torch.cuda.synchronize()
            started = time.perf_counter()
            with sdpa_kernel(kernel):
                scaled_dot_product_attention(x, x, x, attn_mask=mask).sum().backward()
            torch.cuda.synchronize()
            milliseconds = round((time.perf_counter() - started) * 1e3, 1)
            found.setdefault(kernel.name.lower(), []).append(milliseconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--output", type=Path, help="file for the JSON line")
    a = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {"hardware": _hardware(), "torch": torch.__version__, "ways": {}}
    for name, batch in BATCHES.items():
        for dtype in (torch.float32, torch.bfloat16):
            of_batch = measured(batch, dtype, device, a.repeats)
            result["ways"][f"{name}, {str(dtype).removeprefix('torch.')}"] = of_batch
    if device.type == "cuda":
        result["first_calls_milliseconds"] = first_calls(device)
    write_line(result, a.output)


if __name__ == "__main__":
    main()
