"""`python -m modernbert_jax`: the program."""

from modernbert_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
