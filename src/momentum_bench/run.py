"""`accelerate launch -m momentum_bench.run --task sst2`: the same as `momentum-bench run --task sst2`.

The function `momentum_bench.run` is another thing: it is in `harness/api/run.py`.
"""

import sys

from momentum_bench.harness.cli.main import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
