"""The folder of an exported model: programs, weights, tokenizer, manifest and an example."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import numpy as np

from modernbert_jax import convert, quantization
from modernbert_jax.config import Dtype
from modernbert_jax.convert import lazy, names
from modernbert_jax.convert.huggingface import safetensors_file
from modernbert_jax.embedder import embedder_params
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference import shapes
from modernbert_jax.io import checksums, outputs
from modernbert_jax.io.files import whole_directory, write_json
from modernbert_jax.quantization import Int8, Weights

from . import comparison, programs, texts
from .programs import Exportable, Platform, Shape

MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
EXAMPLE = Path(__file__).with_name("run.py")

FORMAT = 1
"""Version of the manifest."""

Report = Callable[[str], None]


class Export(NamedTuple):
    """What was written."""

    program: str
    files: tuple[str, ...]
    """Program files."""
    nbytes: int
    """Bytes of the weights."""
    difference: float | None
    """Largest difference from the model; None where no program could run here."""


def write(
    model: str,
    output: Path,
    platforms: Sequence[Platform] = get_args(Platform),
    fixed: Sequence[Shape] = (),
    *,
    program: str | None = None,
    dtype: Dtype = "float32",
    weights: Weights = "float32",
    check: bool = True,
    report: Report = lambda line: None,
) -> Export:
    """Export a model into a new folder, whole or not at all.

    Args:
        model: checkpoint of any format, or the name of one on the hub.
        output: the folder; must be empty or not there yet.
        platforms: a program is written for each.
        fixed: shapes of the rows, with a program for each. None is one program for any shape.
        program: a key of `BatchRunner.programs`; None is what the model is for.
        dtype: of the computation.
        weights: type of the stored matrices.
        check: whether programs that can run here are compared with the model.
        report: is passed a line for each program.

    Raises:
        UserError: a model, folder, program or shape that cannot be used.
        RuntimeError: a program and the model differ.
    """
    outputs.check_new_folder(output)
    for name in platforms:
        if name not in (known := get_args(Platform)):
            raise UserError(f"platform {name!r}; {did_you_mean(name, known)}")
    path = convert.locate(model)
    with lazy.finite(path):
        checkpoint = convert.load(path, later=True)
        _check_lengths(checkpoint, fixed)
        arrays = stored(checkpoint, weights)
    types = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    with whole_directory(output) as folder:
        written, difference, made = [], None, None
        for platform in platforms:
            made = programs.exportable(checkpoint, platform, dtype, program)
            for shape in fixed or (None,):
                exported = programs.lowered(made, types, platform, shape)
                file = f"{platform}.export" if shape is None else f"{platform}-{shape}.export"
                (folder / file).write_bytes(exported.serialize())
                written.append(_entry(file, platform, shape, exported))
                report(f"{file}: {made.name} for {platform}")
                if check and programs.DEVICES[platform] == jax.default_backend():
                    found = comparison.difference(checkpoint, made, exported, arrays, shape)
                    difference = max(found, difference or 0.0)
        assert made is not None
        safetensors_file.write(folder / WEIGHTS, arrays)
        manifest = _manifest(checkpoint, made, written, dtype, weights)
        write_json(folder / MANIFEST, manifest)
        if checkpoint.tokenizer:
            backend = checkpoint.tokenizer.backend
            (folder / "tokenizer.json").write_text(backend.to_str(), encoding="utf-8")
        shutil.copyfile(EXAMPLE, folder / EXAMPLE.name)
        checksums.write(folder)
    size = sum(x.nbytes for x in arrays.values())
    return Export(made.name, tuple(entry["file"] for entry in written), size, difference)


def stored(checkpoint: convert.Checkpoint, weights: Weights) -> dict[str, np.ndarray]:
    """Arrays of the weights by name; an int8 matrix has its scales beside it."""
    params = checkpoint.params
    if checkpoint.pipeline and checkpoint.pipeline.layers:
        params = dict(embedder_params(params))
    arrays: dict[str, np.ndarray] = {}
    for path, leaf in names.flatten(params).items():
        name = "/".join(path)
        value = quantization.stored(name, np.asarray(leaf), weights)
        if isinstance(value, Int8):
            arrays[name], arrays[name + programs.SCALES] = value.values, value.scales
        else:
            arrays[name] = value
    return arrays


def _check_lengths(checkpoint: convert.Checkpoint, fixed: Sequence[Shape]) -> None:
    """Raise `UserError` for rows that are longer than the model's longest input."""
    limit = checkpoint.config.max_position_embeddings
    for shape in fixed:
        if shape.length > limit:
            raise UserError(f"shape {shape}: rows of {shape.length} tokens; the model has {limit}")


def _entry(file: str, platform: Platform, shape: Shape | None, exported: Any) -> dict[str, Any]:
    """Description of a program in the manifest."""
    return {
        "file": file,
        "platform": platform,
        "rows": shape and shape.rows,
        "length": shape and shape.length,
        "output": [str(size) for size in exported.out_avals[0].shape],
        "attention": programs.attention_on(platform),
        "calling_convention": exported.calling_convention_version,
    }


def _manifest(
    checkpoint: convert.Checkpoint,
    made: Exportable,
    written: Sequence[Mapping[str, Any]],
    dtype: Dtype,
    weights: Weights,
) -> dict[str, Any]:
    pipeline = checkpoint.pipeline
    clusters = pipeline and pipeline.token_pooling
    return {
        "format": FORMAT,
        "jax": jax.__version__,
        "kind": pipeline.kind if pipeline else checkpoint.head,
        "program": made.name,
        "level": made.level,
        "inputs": ["weights", "token_ids", "segment_ids", "positions", *made.extra],
        "documents": shapes.DOCUMENTS,
        "multiple": programs.MULTIPLE,
        "shortest": programs.SHORTEST,
        "dtype": dtype,
        "weights": weights,
        "labels": list(checkpoint.label_names),
        "similarity": pipeline and pipeline.similarity,
        "token_pooling": clusters and dataclasses.asdict(clusters),
        "texts": texts.described(checkpoint),
        "programs": list(written),
        "config": json.loads(json.dumps(checkpoint.config.to_hf())),
    }
