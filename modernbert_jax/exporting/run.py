"""Run an exported model: python run.py FOLDER TEXT...

It needs jax, flatbuffers, numpy, safetensors and tokenizers. In Python: run(FOLDER, TEXTS).
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export
from safetensors.flax import load_file
from tokenizers import Tokenizer


def run(folder, texts, kind=None):
    """One array for each text, or pair of texts; `kind` names an entry of the manifest's texts."""
    folder = Path(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    how = manifest["texts"][kind or next(iter(manifest["texts"]))]
    documents = tokenize(Tokenizer.from_file(str(folder / "tokenizer.json")), texts, how)
    return compute(folder, manifest, documents, how)


def tokenize(tokenizer, texts, how):
    """Token ids of each text."""
    tokenizer.enable_truncation(how["max_length"], direction=how["truncation_side"])

    def prepared(text, prompt):
        text = (prompt + text).strip() if how["strip"] else prompt + text
        return how["prefix"] + (text.lower() if how["lower_case"] else text)

    texts = [
        prepared(t, how["prompt"])
        if isinstance(t, str)
        else (prepared(t[0], how["prompt"]), prepared(t[1], ""))
        for t in texts
    ]
    ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    inserted = [] if how["insert"] is None else [how["insert"]]
    return [[*i[:1], *inserted, *i[1:]] for i in ids]


def compute(folder, manifest, documents, how):
    """Results of documents of token ids, packed into rows."""
    hidden = [0 if how["attend"] else max(how["fill_to"] - len(ids), 0) for ids in documents]
    documents = [ids + [how["filler"]] * (how["fill_to"] - len(ids)) for ids in documents]
    on = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    longest = max(map(len, documents))
    programs = [p for p in manifest["programs"] if p["platform"] == on]
    program = min(
        (p for p in programs if (p["length"] or longest) >= longest), key=lambda p: p["length"] or 0
    )
    step = manifest["multiple"]
    length = program["length"] or max(manifest["shortest"], -(-longest // step) * step)
    rows, room = [], 0
    for i, ids in enumerate(documents):
        if not rows or len(ids) > room or len(rows[-1]) == manifest["documents"]:
            rows, room = [*rows, []], length
        rows[-1].append(i)
        room -= len(ids)

    call = jax.jit(export.deserialize(bytearray((folder / program["file"]).read_bytes())).call)
    weights = load_file(folder / "weights.safetensors")
    results, size = {}, program["rows"] or len(rows)
    for start in range(0, len(rows), size):
        arrays, places = np.zeros((4, size, length), np.int32), []
        for r, row in enumerate(rows[start : start + size]):
            at = 0
            for s, i in enumerate(row):
                n = len(documents[i])
                shown = np.arange(n) < n - hidden[i]
                arrays[:, r, at : at + n] = documents[i], np.full(n, s + 1), np.arange(n), shown
                places.append((i, r, s if manifest["level"] == "document" else slice(at, at + n)))
                at += n
        more = {"visible": arrays[3] > 0, "skip": np.int32(how["prompt_tokens"])}
        extra = [more[name] for name in manifest["inputs"] if name in more]
        values = np.asarray(call(weights, *arrays[:3], *extra))
        results |= {i: values[r, where] for i, r, where in places}
    if how["skip"]:
        kept = [~np.isin(ids, how["skip"]) for ids in documents]
        results = {i: value[kept[i]] for i, value in results.items()}
    return [results[i] for i in range(len(documents))]


if __name__ == "__main__":
    for result in run(sys.argv[1], sys.argv[2:]):
        print(result.shape, result.ravel()[:8])
