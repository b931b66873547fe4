"""`accelerate launch harness/run.py --task sst2` does the same as `momentum-bench run --task sst2`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts a script's own folder first on sys.path, and there the names of our folders could hide
    # modules of other packages. So the package of this clone takes that place.
    sys.path[0] = str(Path(__file__).resolve().parent.parent / "src")
    from momentum_bench.harness.cli.main import main

    main(["run", *sys.argv[1:]])
