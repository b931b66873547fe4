"""`accelerate launch harness/run.py --task sst2`: the same as `momentum-bench run --task sst2`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts a script's own folder first on sys.path, where the names of our rooms would hide the
    # modules of others. The package of this clone stands there instead.
    sys.path[0] = str(Path(__file__).resolve().parent.parent / "src")
    from momentum_bench.harness.cli.main import main

    main(["run", *sys.argv[1:]])
