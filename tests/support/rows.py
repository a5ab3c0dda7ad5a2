"""Prepared folders with components of random token ids, written without tokenising."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import corpus
import numpy as np

from modernbert_jax.io import checksums
from modernbert_jax.io.files import write_json
from modernbert_jax.packing import pack
from modernbert_jax.train.rows import manifest as manifests
from modernbert_jax.train.rows.records import row_record, write_records


def prepared(
    folder: Path,
    components: Mapping[str, int],
    *,
    lengths: Sequence[int] = (64,),
    files: int = 3,
    weights: Mapping[str, float] | None = None,
    epochs: Mapping[str, float] | None = None,
    validation: int = 0,
) -> Path:
    """Write a folder of components, given as name -> number of documents."""
    tokenizer = corpus.make_tokenizer()
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    rng = np.random.default_rng(0)
    described = {}
    for name, count in components.items():
        described[name] = manifests.Component(
            weight=(weights or {}).get(name),
            epochs=(epochs or {}).get(name),
            field="text",
            sources=(),
            documents={"train": count},
            duplicates=0,
            tokenless=0,
            tokens={"train": 0},
            unknown=0,
            special=0,
            document_lengths={},
            lengths={
                str(length): {
                    split: _rows(folder, f"{name}/{length}/{split}", length, n, files, rng)
                    for split, n in (("train", count), ("validation", validation))
                    if n
                }
                for length in lengths
            },
        )
    manifest = manifests.Manifest(
        tokenizer_sha256="",
        vocab_size=tokenizer.vocab_size,
        dtype="uint16",
        chunking="",
        deduplicate=False,
        validation=0.0,
        seed=0,
        packer="",
        window_documents=count,
        window_tokens=count,
        components=described,
    )
    write_json(folder / manifests.NAME, manifest.to_json())
    return folder


def _rows(folder, stem, length, count, files, rng) -> manifests.PackedRows:
    """Pack random documents and write them into files."""
    documents = [
        rng.integers(0, 315, n, dtype=np.uint16) for n in rng.integers(3, length // 2, count)
    ]
    rows = pack([len(d) for d in documents], length)
    (folder / stem).parent.mkdir(parents=True, exist_ok=True)
    shards = []
    for number, part in enumerate(np.array_split(np.arange(len(rows)), min(files, len(rows)))):
        name = f"{stem}-{number:05d}.arrayrecord"
        records = [row_record([documents[i] for i in rows[r]], np.dtype(np.uint16)) for r in part]
        write_records(folder / name, records)
        size = (folder / name).stat().st_size
        digest = checksums.sha256(folder / name)
        shards.append(manifests.Shard(file=name, rows=len(part), bytes=size, sha256=digest))
    tokens = sum(map(len, documents))
    return manifests.PackedRows(
        rows=len(rows),
        samples=count,
        tokens=tokens,
        efficiency=tokens / (len(rows) * length),
        sample_lengths=manifests.histogram(np.array([len(d) for d in documents])),
        shards=tuple(shards),
    )
