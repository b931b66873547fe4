"""`python -m momentum_bench`: the same as `momentum-bench`."""

from momentum_bench.harness.cli.main import main

if __name__ == "__main__":
    main()
