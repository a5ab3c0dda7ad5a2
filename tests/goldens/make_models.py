"""Make `models.npz`: outputs of transformers and sentence-transformers for `support/models.py`.

Needs torch, transformers 5 and sentence-transformers 6, which load every layout that there is.
`python tests/goldens/make_models.py [MODEL ...]`; without names also the shared tokenizer.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import models
import torch
import transformers


def main(names: list[str]) -> None:
    arrays = {}
    if names:
        stored = np.load(models.GOLDENS / "models.npz")
        arrays = {k: stored[k] for k in stored if k.split("/")[0] not in names}
    else:
        models.TOKENIZER.write_bytes(models.make_tokenizer().files["tokenizer.json"])
    with tempfile.TemporaryDirectory() as folder:
        for name in names or models.MODELS:
            directory = models.write(name, Path(folder) / name)
            for key, array in run(name, directory).items():
                arrays[f"{name}/{key}"] = array.astype(np.float32)
            print(name, {k: v.shape for k, v in arrays.items() if k.startswith(f"{name}/")})
    np.savez_compressed(models.GOLDENS / "models.npz", **arrays)


def run(name: str, directory: Path) -> dict[str, np.ndarray]:
    """Outputs of this environment's libraries for a directory."""
    run = {
        "hf": _hf,
        "embedding": _embedding,
        "reranker": _reranker,
        "late": _late,
        "sparse": _sparse,
    }
    return run[models.MODELS[name].kind](name, directory)


def _hf(name: str, directory: Path) -> dict[str, np.ndarray]:
    kind = getattr(transformers, models.MODELS[name].architecture)
    model, report = kind.from_pretrained(
        directory, output_loading_info=True, attn_implementation="sdpa", dtype=torch.float32
    )
    problems = {k: v for k, v in report.items() if v}
    assert not problems, problems
    model.eval()
    outputs = {"hidden": [], "logits": []}
    for document in models.documents(name):
        ids = torch.tensor([document])
        batch = ids[None] if "MultipleChoice" in kind.__name__ else ids
        with torch.no_grad():
            out = model(batch, attention_mask=torch.ones_like(batch))
        if hasattr(out, "last_hidden_state"):
            outputs["hidden"].append(out.last_hidden_state[0, [0, -1]])
        elif "QuestionAnswering" in kind.__name__:
            outputs["logits"].append(torch.stack([out.start_logits, out.end_logits], -1)[0])
        else:
            logits = out.logits[0] if out.logits.ndim == 3 else out.logits
            # Both ends of a large vocabulary are enough.
            large = logits.shape[-1] > 10
            outputs["logits"].append(
                logits[[0, -1]][:, :: logits.shape[-1] // 64] if large else logits
            )
    return {k: torch.cat(v).numpy() for k, v in outputs.items() if v}


def _embedding(name: str, directory: Path) -> dict[str, np.ndarray]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(directory), device="cpu")
    return {
        "default": model.encode(models.TEXTS),
        "query": model.encode(models.QUERIES, prompt_name="query"),
    }


def _reranker(name: str, directory: Path) -> dict[str, np.ndarray]:
    from sentence_transformers import CrossEncoder

    return {"scores": np.asarray(CrossEncoder(str(directory), device="cpu").predict(models.PAIRS))}


def _sparse(name: str, directory: Path) -> dict[str, np.ndarray]:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(directory), device="cpu")
    vectors = {
        "queries": model.encode_query(models.QUERIES),
        "documents": model.encode_document(models.TEXTS),
        "default": model.encode(models.TEXTS[:1]),
    }
    similarities = model.similarity(vectors["queries"], vectors["documents"])
    dense = {k: v.to_dense().numpy() for k, v in vectors.items()}
    return {**dense, "similarities": similarities.numpy()}


def _late(name: str, directory: Path) -> dict[str, np.ndarray]:
    if transformers.__version__.startswith("4."):
        from pylate import models as pylate

        model = pylate.ColBERT(str(directory), device="cpu")
        queries = model.encode(models.QUERIES, is_query=True)
        documents = model.encode(models.TEXTS, is_query=False)
    else:
        from sentence_transformers import MultiVectorEncoder

        model = MultiVectorEncoder(str(directory), device="cpu")
        queries = model.encode_query(models.QUERIES)
        documents = model.encode_document(models.TEXTS)
    vectors = {"queries": queries, "documents": documents}
    vectors = {k: [np.asarray(x) for x in v] for k, v in vectors.items()}
    lengths = {f"{k}_lengths": np.array([len(x) for x in v]) for k, v in vectors.items()}
    return {k: np.concatenate(v) for k, v in vectors.items()} | lengths


if __name__ == "__main__":
    main(sys.argv[1:])
