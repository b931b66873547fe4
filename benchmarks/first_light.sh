#!/usr/bin/env bash
# First light: what must be seen on a GPU that this project has not met before, in one command and some minutes.
#
# Run it in a checkout with the environment active, on a quiet machine with one NVIDIA GPU:
#
#   DATA=DIR MODEL=MODEL benchmarks/first_light.sh [OUTPUT.json]
#
# DATA is a folder with sst2/{train,validation}, MODEL a small masked language model. Without a GPU, the CPU half runs
# alone and the rest is left out. What is seen goes to the screen and, as JSON, to OUTPUT.json, which is written again
# after each part: on a machine that is lent for minutes, what was seen before it went is there. The page "Hardware" of
# the manual says what each part must show.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${DATA:?DATA is not set: give the folder that holds sst2/train and sst2/validation}"
: "${MODEL:?MODEL is not set: give a small masked language model}"
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
python=$(command -v python || command -v python3) || { echo "error: there is no python on the path" >&2; exit 2; }
# a Python without torch would look like a machine without a GPU
"$python" -c 'import accelerate, datasets, peft, torch, transformers' || {
  echo "error: $python lacks what runs need: pip install -e '.[quickstart,test]'" >&2
  exit 2
}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
seen=$out/seen.jsonl
output=${1:-}
words=(--task sst2 --data-dir "$DATA" --model "$MODEL" --k 16 --seeds 13 --learning-rates 1e-3 --dropout 0
  --max-steps "${STEPS:-100}" --eval-every "${EVERY:-50}" --quiet)
failed=0

# part NAME COMMAND...: one part of first light; its records are shown and kept
part() {
  local name=$1 began=$SECONDS
  shift
  "$@" --output-dir "$out/$name" >"$out/$name.log" 2>&1
  local code=$?
  echo "$name: exit $code after $((SECONDS - began)) s"
  if [ "$code" = 0 ]; then
    grep -aE "^(error|warning)" "$out/$name.log"
  else
    failed=1
    tail -n 40 "$out/$name.log"
  fi
  "$python" benchmarks/first_light_records.py "$name" "$code" "$out/$name" "$seen" "$output"
}
bench() { "$python" harness/run.py "${words[@]}" "$@"; }
host_memory() {
  ACCELERATE_USE_FSDP=true FSDP_VERSION=2 FSDP_AUTO_WRAP_POLICY=TRANSFORMER_BASED_WRAP FSDP_OFFLOAD_PARAMS=true \
    "$python" -m torch.distributed.run --standalone --nproc_per_node 1 harness/run.py "${words[@]}" --data-parallel "$@"
}
digits() { "$python" harness/run.py --task digits --k 5 --seeds 13 --optimizers sgd --learning-rates 0.1 --max-steps 60 --eval-every 30 --quiet "$@"; }

part cpu bench --device cpu
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  nvidia-smi -L
  part gpu bench --device cuda
  part graphs bench --cuda-graphs
  part bf16 bench --precision bf16
  part tf32 bench --precision tf32
  part deterministic bench --deterministic
  part deterministic-workers bench --deterministic --runs-at-a-time 2
  part graphs-dropout bench --dropout 0.1 --cuda-graphs
  part auto bench --seeds 13,21,42 --runs-at-a-time auto
  part host-memory host_memory
  part digits digits
  NVIDIA_TF32_OVERRIDE=0 part digits-without-tf32 digits
  "$python" -m pytest -q -n 0 -p no:cacheprovider tests/training/test_on_a_gpu.py || failed=1
  nvidia-smi --query-gpu=memory.used --format=csv
else
  echo "no GPU here: only the CPU half ran"
fi
"$python" benchmarks/first_light_records.py --check "$seen" "$output" || failed=1
exit "$failed"
