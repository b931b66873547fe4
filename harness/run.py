"""`accelerate launch harness/run.py --task sst2`: the same as `momentum-bench run --task sst2`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # A script's own folder leads sys.path; the rooms are packages of the folder above it.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from momentum_bench.harness.cli.main import main

    main(["run", *sys.argv[1:]])
