"""The commands that measure speed."""

import dataclasses
import json as json_module
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from modernbert_jax.io.files import write_json

from . import Options, rows, run


def bench(
    suites: Positional[tuple[str, ...]],
    input: tuple[str, ...] = (),
    tokenizer: Path | None = None,
    megabytes: float = 12.0,
    repeats: int = 3,
    json: Path | None = None,
) -> None:
    """Measures speed beside a peer in the same run.

    Args:
        suites: What to measure: data, encode, train.
        input: Files or globs of text. By default the sources of Python's standard library.
        tokenizer: Directory with tokenizer.json. By default one is trained on the text.
        megabytes: Text that is used, at most.
        repeats: Turns of each side, of which the best counts.
        json: File to write the numbers to.
    """
    options = Options(input=input, tokenizer=tokenizer, megabytes=megabytes, repeats=repeats)
    found = run(suites, options)
    if json is not None:
        write_json(json, list(rows(found)))


def kernels(
    length: tuple[int, ...] = (),
    tokens: int | None = None,
    heads: int = 12,
    head_dim: int = 64,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    repeats: int = 7,
    sweep: bool = True,
    output: Path | None = None,
) -> None:
    """Times every implementation of attention on this device.

    Recommends one.

    Args:
        length: Tokens in a row; one or several. By default 512 to 8192, and on CPU to 1024.
        tokens: Tokens of a call, in as many rows as they make; 16384, and 1024 on CPU.
        heads: Heads of a layer.
        head_dim: Width of a head.
        dtype: By default bfloat16, and float32 on CPU.
        repeats: Timed calls, of which the median counts.
        sweep: Whether to try block sizes of our kernels first.
        output: Tuning file to write; MODERNBERT_JAX_TUNING names it to other commands.
    """
    from . import kernels as timing

    given = {"lengths": length or None, "tokens": tokens, "dtype": dtype}
    shape = dataclasses.replace(
        timing.default_shape(),
        heads=heads,
        head_dim=head_dim,
        **{name: value for name, value in given.items() if value is not None},
    )
    times = timing.measure(shape, repeats, sweep, lambda line: print(line, file=sys.stderr))
    timing.show(times)
    table = timing.recommend(times, shape)
    if output is None:
        print(json_module.dumps(table, indent=2))
    else:
        write_json(output, table)
        print(f"{output}: written; use it with MODERNBERT_JAX_TUNING={output}")


def finetune(args: Sequence[str], parse: Callable[..., Any]) -> int:
    """Compares fine-tuning with its peers: bench finetune CONFIG [--field.path value ...]."""
    from ..finetune import presets

    default, kind, args = presets.first("bench finetune", args)

    def arguments(
        config: kind = default,
        seeds: tuple[int, ...] = (0, 1, 2),
        sides: tuple[str, ...] = ("ours", "random", "words", "trainer"),
        cpu_devices: int = 1,
        json: Path | None = None,
    ) -> dict[str, Any]:
        """Fine-tunes beside transformers' Trainer, random weights and a bag of words.

        All sides have the Trainer's settings: AdamW, linear decay, gradients clipped, no dropout.

        Args:
            config: The run; its --validation is what is compared on.
            seeds: One turn for each. The bag of words has no seed, and takes one turn.
            sides: Of ours, random, words and trainer those to compare.
            cpu_devices: Devices that a CPU poses as; the Trainer takes all cores anyway.
            json: File to write the numbers to.
        """
        return locals()

    given = parse(arguments, "bench finetune CONFIG", args)
    from ..engine.distributed import Launch
    from . import finetune as suite

    Launch(cpu_devices=given["cpu_devices"]).join()
    config, turns = given["config"], []
    for turn in suite.compare(config, given["seeds"], given["sides"]):
        score = turn.metrics[config.task.best_metric]
        name = suite.TITLES[turn.side]
        said = f"{name}, seed {turn.seed}: {config.task.best_metric} {score:.4f}"
        print(f"{said}, {turn.seconds:.1f} s", file=sys.stderr, flush=True)
        turns.append(turn)
        if given["json"] is not None:
            write_json(given["json"], [dataclasses.asdict(t) for t in turns])
    suite.show(turns, config.task.best_metric)
    return 0
