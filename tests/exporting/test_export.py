import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import models
import numpy as np
import pytest
import tiny
from jax import export
from program import refused
from safetensors.flax import load_file

from modernbert_jax import ModernBert, convert, quantization
from modernbert_jax.errors import UserError
from modernbert_jax.exporting import folder, run, texts
from modernbert_jax.exporting.programs import Shape

NEEDED = ("jax", "jaxlib", "numpy", "safetensors", "tokenizers", "flatbuffers")
OURS = "modernbert"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def embedding(place):
    """An embedding model and its export for three platforms."""
    source = models.write("mean", place / "model")
    written = folder.write(str(source), place / "export")
    assert written.files == ("cpu.export", "cuda.export", "tpu.export")
    assert written.difference < 1e-5
    return ModernBert.from_pretrained(source), place / "export"


def without_us(directory: Path) -> Path:
    """A folder of links to everything that is installed beside what is needed, but not to us."""
    directory.mkdir()
    specs = [importlib.util.find_spec(name) for name in NEEDED]
    for site in {Path(spec.origin).parents[1] for spec in specs}:
        for entry in site.iterdir():
            if OURS not in entry.name and not (directory / entry.name).exists():
                (directory / entry.name).symlink_to(entry)
    return directory


def test_a_folder_runs_without_this_package(embedding, tmp_path):
    bert, exported = embedding
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "try:\n    import modernbert_jax\nexcept ImportError: pass\nelse: sys.exit('importable')\n"
        "import numpy, run\n"
        "numpy.savetxt(sys.stdout, run.run(sys.argv[2], sys.argv[3:]))\n"
        "assert not any('modernbert' in name for name in sys.modules)\n"
    )
    # -S: no site-packages, and none of the links to a checkout that they may hold.
    command = [sys.executable, "-I", "-S", "-c", code, without_us(tmp_path / "site"), exported]
    output = subprocess.run(
        [*map(str, command), *models.TEXTS],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert output.returncode == 0, output.stderr
    vectors = np.loadtxt(output.stdout.splitlines())
    np.testing.assert_allclose(vectors, bert.encode(models.TEXTS), atol=1e-6)


def test_programs_for_other_platforms_compute_the_same(embedding):
    """StableHLO has no parts of a platform; what would be compiled for it runs here as well."""
    _, exported = embedding
    weights = load_file(exported / "weights.safetensors")
    rows = tiny.rows([(100, 30, 70), (256,)], 256, vocab_size=models.VOCAB)
    results = []
    for platform in ("cpu", "cuda", "tpu"):
        program = export.deserialize(bytearray((exported / f"{platform}.export").read_bytes()))
        assert program.platforms == (platform,)
        if platform != "tpu":  # which is the one for cuda
            here = dataclasses.replace(program, platforms=("cpu",))
            results.append(np.asarray(jax.jit(here.call)(weights, *rows)))
        else:
            calls = re.findall(r"custom_call @([\w.]+)", program.mlir_module())
            # Both belong to open shapes, and are gone when the program is called.
            assert set(calls) <= {"shape_assertion", "stablehlo.dynamic_reduce_window"}
    assert np.abs(results[0][:, :3]).max() > 0.1
    np.testing.assert_allclose(*results, atol=1e-5)


def test_the_manifest_says_what_is_needed(embedding):
    bert, exported = embedding
    manifest = json.loads((exported / "manifest.json").read_text())
    assert manifest["inputs"] == ["weights", "token_ids", "segment_ids", "positions"]
    assert (manifest["program"], manifest["level"]) == ("vectors", "document")
    assert manifest["programs"][1]["output"] == ["b", "64", "32"]
    assert manifest["programs"][1]["attention"] == {"full": "xla_range", "sliding": "two_block"}
    assert manifest["texts"]["query"]["prompt"] == bert.pipeline.prompts["query"]
    assert {*json.loads((exported / "checksums.json").read_text())} == {
        *("manifest.json", "weights.safetensors", "tokenizer.json", "run.py"),
        *("cpu.export", "cuda.export", "tpu.export"),
    }


def expected(bert):
    """Results of the library, with the inputs and the kind of texts for the example."""
    if bert.pipeline is None:
        if bert.labels:
            return [(models.TEXTS, "default", bert.predict(models.TEXTS))]
        logits = bert.mlm_logits([*map(list, bert.tokenizer.encode(models.TEXTS))])
        return [(models.TEXTS, "default", logits)]
    if bert.pipeline.late:
        queries = bert.encode_tokens(models.QUERIES, is_query=True)
        return [
            (models.TEXTS, "document", bert.encode_tokens(models.TEXTS, pool_factor=1.0)),
            (models.QUERIES, "query", queries),
        ]
    if bert.pipeline.splade:
        dense = np.zeros((len(models.TEXTS), bert.config.vocab_size), np.float32)
        for row, (indices, values) in zip(dense, bert.sparse(models.TEXTS), strict=True):
            row[indices] = values
        return [(models.TEXTS, "default", dense)]
    if bert.pipeline.kind == "reranker":
        return [(models.PAIRS, "default", bert.predict(models.PAIRS)[:, None])]
    vectors = bert.encode(models.QUERIES, prompt_name="query")
    return [(models.QUERIES, "query", vectors)]


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("colbert", ["visible"]),
        ("no_prompt", ["skip"]),
        ("reranker_prompt", ["skip"]),
        ("sparse", []),
        ("sequence", []),
        ("masked_lm", []),
        ("multi_vector_min", ["visible"]),
        ("dense", []),
        ("reranker_modules", []),
    ],
)
@pytest.mark.slow
def test_every_kind_of_model(place, name, inputs):
    source = models.write(name, place / name)
    target = place / f"{name}-export"
    fixed = [Shape(2, 128)] if name.startswith("sparse") else []
    folder.write(str(source), target, ("cpu",), fixed, check=False)
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["inputs"][4:] == inputs
    pooled = {"factor": 1.5, "protected": 1, "normalize": True}
    assert manifest["token_pooling"] == (pooled if name == "multi_vector_min" else None)
    bert = ModernBert.from_pretrained(source)
    for given, kind, results in expected(bert):
        for ours, theirs in zip(results, run.run(target, given, kind), strict=True):
            np.testing.assert_allclose(theirs, ours, atol=2e-5)


@pytest.mark.slow
def test_weights_in_fewer_bits(place):
    source = models.write("cls", place / "cls")
    sizes = {}
    for weights, tolerance in (("float32", 1e-6), ("bfloat16", 1e-6), ("int8", 1e-6)):
        written = folder.write(str(source), place / weights, ("cpu",), weights=weights)
        sizes[weights] = written.nbytes
        bert = ModernBert.from_pretrained(source, weights=weights)
        vectors = run.run(place / weights, models.TEXTS)
        np.testing.assert_allclose(vectors, bert.encode(models.TEXTS), atol=tolerance)
    assert sizes["int8"] < 0.35 * sizes["float32"] and sizes["bfloat16"] < 0.55 * sizes["float32"]


def test_int8_matrices_have_their_scales_beside_them(tmp_path):
    checkpoint = convert.load(models.write("dense", tmp_path / "model"))
    stored = folder.stored(checkpoint, "int8")
    names = [name for name, x in stored.items() if x.dtype == np.int8]
    assert len(names) > 8 and all(f"{name}.scales" in stored for name in names)
    assert quantization.nbytes(stored) < 0.4 * checkpoint.nbytes


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (
            "mean",
            {"fixed": [Shape(1, 4096)]},
            "1x4096: rows of 4096 tokens; the model has 128",
        ),
        ("mean", {"program": "logits"}, "the model has no program 'logits'"),
        ("mean", {"platforms": ("rocm",)}, "platform 'rocm'; known: cpu, cuda, tpu"),
        ("sparse", {}, "a sparse model needs fixed shapes"),
    ],
)
def test_what_cannot_be_exported(tmp_path, model, options, message):
    source = models.write(model, tmp_path / "model")
    with pytest.raises(UserError, match=message):
        folder.write(str(source), tmp_path / "export", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_shapes_are_read():
    assert Shape.parse("8x512") == (8, 512)
    for wrong in ("8", "0x512", "8x", "8x512x2", "8×512"):
        with pytest.raises(UserError, match="it must be ROWSxLENGTH"):
            Shape.parse(wrong)


def test_a_query_of_late_interaction_is_described(tmp_path):
    described = texts.described(convert.load(models.write("colbert", tmp_path / "model")))
    assert [*described] == ["document", "query"]
    query, document = described["query"], described["document"]
    assert query["fill_to"] > 0 and query["filler"] is not None and not query["attend"]
    assert document["fill_to"] == 0 and document["skip"]


def test_the_command_refuses_a_bad_shape(tmp_path, capsys):
    source = models.write("mean", tmp_path / "model")
    command = ["export", "--model", source, "--output", tmp_path / "out", "--shapes", "512"]
    assert "shape '512'; it must be ROWSxLENGTH" in refused(capsys, *command)
    assert not (tmp_path / "out").exists()
