"""What `first_light.sh` reads from records, and what it compares.

first_light_records.py NAME EXIT_CODE RESULTS SEEN.jsonl [OUTPUT.json]   add the records of one part
first_light_records.py --check SEEN.jsonl [OUTPUT.json]   compare the parts; exit code 1 if one is wrong
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

LOSSES = {
    "gpu": 1e-3,
    "graphs": 1e-3,
    "tf32": 1e-2,
    "bf16": 1e-2,
    "deterministic": 1e-3,
    "host-memory": 1e-3,
}
"""How far the training losses of a part may be from those of the CPU."""

EQUAL = (("deterministic", "deterministic-workers"), ("digits", "digits-without-tf32"))
"""Parts whose parameters must have the same hashes: equal bits in a worker, and fp32 that is no TF32."""

AUTOCAST = {"bf16": "bfloat16"}

PARAMETERS_IN = {"host-memory": "cpu"}
"""Where a part keeps its parameters, if not where it computes."""


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a record."""
    live, costs = record["read_back"] or {}, record["costs"] or {}
    return {
        "optimizer": record["spec"]["optimizer"],
        "seed": record["spec"]["seed"],
        "status": record["status"],
        "failure": record["failure"],
        "device": live.get("device"),
        "autocast": live.get("autocast_dtype"),
        "convolutions": live.get("convolution_precision"),
        "is_packed": "packed_scores" in live.get("layout", {}),
        "parameters_in": live.get("layout", {}).get("parameters_in"),
        "losses": [round(e["train_loss"], 5) for e in record["evaluations"]],
        "hash": record["parameters_hash"],
        "train_seconds": costs.get("train_seconds"),
        "peak_memory_bytes": costs.get("peak_memory_bytes"),
    }


def problems(parts: dict[str, dict[str, Any]]) -> list[str]:
    """What is not as it must be, one line each."""
    return [
        *(text for name, part in parts.items() for text in _of_a_part(name, part)),
        *_of_losses(parts),
        *_of_hashes(parts),
    ]


def _of_a_part(name: str, part: dict[str, Any]) -> list[str]:
    wrong, device = [], "cpu" if name == "cpu" else "cuda"
    if part["exit_code"] or not part["runs"]:
        wrong.append(f"{name}: exit code {part['exit_code']} and {len(part['runs'])} record(s)")
    for run in part["runs"]:
        if (run["status"], run["device"]) != ("done", device):
            wrong.append(f"{name}: {run['optimizer']} is {run['status']} on {run['device']}")
        if run["autocast"] != AUTOCAST.get(name):
            wrong.append(f"{name}: autocast is {run['autocast']}")
        if run.get("parameters_in") != PARAMETERS_IN.get(name):
            wrong.append(f"{name}: the parameters are in the memory of {run['parameters_in']}")
        if not name.startswith("digits") and not run["is_packed"]:
            wrong.append(f"{name}: the batches are padded")
    return wrong


def _of_losses(parts: dict[str, dict[str, Any]]) -> list[str]:
    wrong = []
    for name in LOSSES.keys() & parts.keys():
        for run, on_cpu in zip(parts[name]["runs"], parts["cpu"]["runs"], strict=False):
            pairs = zip(run["losses"], on_cpu["losses"], strict=False)
            apart = max((abs(a - b) for a, b in pairs), default=0.0)
            if apart > LOSSES[name]:
                wrong.append(f"{name}: losses of {run['optimizer']} are {apart:.1e} from the CPU's")
    return wrong


def _of_hashes(parts: dict[str, dict[str, Any]]) -> list[str]:
    wrong = []
    for pair in EQUAL:
        one, other = ([run["hash"] for run in parts.get(name, {}).get("runs", [])] for name in pair)
        if one != other:
            wrong.append(f"{pair[0]} and {pair[1]} have other parameters")
    return wrong


def add(name: str, exit_code: str, results: str, seen: str, output: str = "") -> None:
    """Keep the records of one part, show them, and write to `output`, if given, all that was seen so far."""
    paths = sorted(Path(results).glob("runs/*/record.json"))
    runs = [facts(json.loads(path.read_text())) for path in paths]
    runs.sort(key=lambda run: (run["optimizer"], run["seed"]))
    for run in runs:
        print(" ", *(f"{key}={value}" for key, value in run.items() if value is not None))
    with Path(seen).open("a") as file:
        file.write(json.dumps({"part": name, "exit_code": int(exit_code), "runs": runs}) + "\n")
    compared(seen, output)


def check(seen: str, output: str = "") -> int:
    """Compare the parts, write them to `output` if it is given, and return the exit code."""
    wrong = compared(seen, output)
    print("\n".join(wrong) if wrong else "all parts are as they must be")
    return int(bool(wrong))


def compared(seen: str, output: str) -> list[str]:
    """What is wrong so far; `output`, if it is given, receives this and all that was seen."""
    lines = [json.loads(line) for line in Path(seen).read_text().splitlines()]
    wrong = problems({line["part"]: line for line in lines})
    has_gpu = torch.cuda.is_available()
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "card": torch.cuda.get_device_name() if has_gpu else None,
        "built_for": torch.cuda.get_arch_list() if has_gpu else None,
        "parts": lines,
        "problems": wrong,
    }
    if output:
        Path(output).write_text(json.dumps(found, indent=1) + "\n")
    return wrong


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(check(*words[1:]) if words[0] == "--check" else add(*words))
