"""`python -m modernbert_jax.train.bench.device`: the command where tyro is not installed."""

import argparse
import sys
from pathlib import Path

from modernbert_jax.errors import UserError

from . import command


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code of `modernbert-jax bench device`."""
    parser = argparse.ArgumentParser(
        prog="python -m modernbert_jax.train.bench.device",
        description=(command.device.__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--minutes", type=float, default=command.MINUTES, metavar="N")
    parser.add_argument("--output", type=Path, default=Path("device.json"), metavar="FILE.json")
    parser.add_argument("--parts", nargs="*", default=(), metavar="PART")
    parser.add_argument("--record", type=Path, metavar="FILE.json")
    try:
        return command.device(**vars(parser.parse_args(arguments)))
    except UserError as error:
        print(f"bench device: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
