"""Run an experiment: `python -m experiments.run {fit,validate,test,predict} --config FILE`; alone, list the experiments."""

import sys

from experiments.listing import listing


def main() -> None:
    """Hand over to the command line interface, which takes seconds to import, only where there is something to run."""
    if len(sys.argv) == 1:
        print(listing())
        return
    from experiments.cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
