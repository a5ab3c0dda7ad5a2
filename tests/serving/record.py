"""Writes recorded.json again: python tests/serving/record.py; look at the difference before."""

import json
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parent)]

import serving  # noqa: E402
import test_protocol  # noqa: E402

TEXT, TEXTS = "hello world", ["hello", "what is this?"]
PAIRS = {
    "mean": [
        ("/v1/embeddings", {"input": TEXT, "model": "any"}),
        ("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64", "dimensions": 3}),
        ("/v1/embeddings", {"input": [5, 6, 7], "user": "someone"}),
        ("/v1/embeddings", {"input": [[5, 6], [7]], "dimensions": 2}),
        ("/v1/embeddings", {"input": []}),
        ("/v1/embeddings", "{"),
        ("/v1/models", None),
        ("/v1/models/tiny/mean", None),
        ("/v1/models/other", None),
        ("/embed", {"inputs": TEXT}),
        ("/embed", {"inputs": TEXTS, "normalize": False, "truncate": None}),
        ("/embed", {"inputs": TEXT, "prompt_name": "query", "unknown": 1}),
        ("/embed", {"inputs": 3}),
        ("/embed_all", {"inputs": "a"}),
        ("/embed_sparse", {"inputs": "a"}),
        ("/similarity", {"inputs": {"source_sentence": TEXT, "sentences": TEXTS}}),
        ("/tokenize", {"inputs": TEXT}),
        ("/tokenize", {"inputs": TEXTS, "add_special_tokens": False, "prompt_name": "query"}),
        ("/decode", {"ids": [[336, 264, 337]], "skip_special_tokens": False}),
        ("/info", None),
        ("/health", None),
        ("/ready", None),
        ("/nothing", None),
        ("/embed", None),
    ],
    "colbert": [
        ("/v1/embeddings", {"input": "a", "is_query": False}),
        ("/embed_all", {"inputs": "a!", "is_query": True}),
        ("/rerank", {"query": TEXT, "texts": TEXTS}),
        ("/info", None),
    ],
    "sparse": [("/embed_sparse", {"inputs": TEXTS}), ("/info", None)],
    "reranker": [
        ("/rerank", {"query": TEXT, "texts": TEXTS, "return_text": True}),
        ("/rerank", {"query": TEXT, "texts": TEXTS, "raw_scores": True}),
        ("/rerank", {"query": TEXT, "texts": []}),
        ("/predict", {"inputs": [TEXT, "hello"]}),
        ("/info", None),
    ],
    "sequence": [
        ("/predict", {"inputs": TEXT}),
        ("/predict", {"inputs": [[TEXT], [TEXT, "hello"]], "raw_scores": True}),
        ("/predict", {"inputs": TEXT, "parameters": {"top_k": 2, "function_to_apply": "none"}}),
        ("/predict", {"inputs": ["a", "b", "c"]}),
        ("/rerank", {"query": TEXT, "texts": TEXTS}),
        ("/info", None),
    ],
    "masked_lm": [
        ("/fill-mask", {"inputs": "hello [MASK]", "parameters": {"top_k": 2}}),
        ("/fill-mask", {"inputs": "[MASK] or [MASK]", "parameters": {"top_k": 1}}),
        ("/fill-mask", {"inputs": "none"}),
    ],
    "token": [
        ("/token-classification", {"inputs": TEXT}),
        (
            "/token-classification",
            {"inputs": TEXTS, "parameters": {"aggregation_strategy": "none", "ignore_labels": []}},
        ),
        ("/", {"inputs": TEXT, "parameters": {"ignore_labels": ["a"]}}),
        ("/token-classification", {"inputs": 3}),
        ("/predict", {"inputs": TEXT}),
        ("/info", None),
    ],
    "span": [
        ("/question-answering", {"inputs": {"question": TEXT, "context": "a b c"}}),
        (
            "/",
            {"inputs": {"question": TEXT, "context": "a b c"}, "parameters": {"top_k": 2}},
        ),
        ("/question-answering", {"inputs": {"question": TEXT}}),
        ("/question-answering", {"inputs": {"question": " ", "context": "a"}}),
        ("/info", None),
    ],
}


def main() -> None:
    """Ask every request, and write what comes back."""
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for model, requests in PAIRS.items():
            made = serving.service(model, Path(folder), real=False)
            with serving.client(made) as http:
                for path, body in requests:
                    method = "GET" if body is None else "POST"
                    clients = {model: http}
                    response = test_protocol.recorded(clients, model, method, path, body)
                    pair = {"model": model, "method": method, "path": path, "body": body}
                    pairs.append({**pair, "response": response})
    text = ",\n".join(json.dumps(pair) for pair in pairs)
    Path(__file__).with_name("recorded.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
