"""Make the golden files from transformers: `python tests/goldens/make.py [CASE ...]`.

Needs torch and transformers 5. Every document runs alone, unpadded, in float64; the tests run the
same documents packed. A file holds `hidden` and `logits` of `cases.stored_positions`, the `loss`,
and for each tensor under its Hugging Face name `grad/NAME` (`cases.stored_entries`) and its norm.
"""

import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import cases
import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding


def main(names: list[str]) -> None:
    for name in names or cases.CASES:
        result = run(name, torch.float64)
        stored = cases.stored_positions(name)
        arrays = {key: result[key][stored].astype(np.float32) for key in ("hidden", "logits")}
        arrays["loss"] = np.float64(result["loss"])
        for tensor, grad in result["grads"].items():
            entries = cases.stored_entries(name, tensor, grad.size)
            arrays[f"grad/{tensor}"] = grad.reshape(-1)[entries].astype(np.float32)
            arrays[f"norm/{tensor}"] = np.float64(np.linalg.norm(grad))
        np.savez_compressed(cases.FOLDER / f"{name}.npz", **arrays)
        spread = {key: round(float(result[key].std()), 2) for key in ("hidden", "logits")}
        print(name, "loss", round(float(result["loss"]), 4), spread)
    if not names:
        np.savez_compressed(cases.FOLDER / "rope.npz", **ropes())


def run(name: str, dtype: torch.dtype) -> dict:
    """Hidden states and logits of all documents in a row, the mean loss, and all gradients."""
    model = ModernBertForMaskedLM(ModernBertConfig(**cases.hf_config(name)))
    model.config._attn_implementation = "sdpa"
    with torch.no_grad():
        for tensor, value in model.named_parameters():
            value.copy_(torch.from_numpy(cases.weight(name, tensor, tuple(value.shape))))
    model = model.to(dtype).eval()
    documents = cases.documents(name)
    count = sum(int((d.labels != -100).sum()) for d in documents)
    hidden, logits, loss = [], [], 0.0
    for document in documents:
        h = model.model(torch.from_numpy(document.token_ids).long()[None]).last_hidden_state[0]
        scores = model.decoder(model.head(h))
        labels = torch.from_numpy(document.labels).long()
        part = torch.nn.functional.cross_entropy(scores, labels, reduction="sum") / count
        part.backward()
        loss += part.item()
        hidden.append(h.detach().numpy())
        logits.append(scores.detach().numpy())
    return {
        "hidden": np.concatenate(hidden),
        "logits": np.concatenate(logits),
        "loss": loss,
        "grads": {tensor: value.grad.numpy() for tensor, value in model.named_parameters()},
    }


def ropes() -> dict[str, np.ndarray]:
    """Plain frequencies; scaled ones, with the factor on cosines and sines."""
    tables = {}
    for theta, width in itertools.product(cases.THETAS, cases.HEAD_DIMS):
        config = SimpleNamespace(
            rope_parameters={"full_attention": {"rope_theta": theta}}, head_dim=width
        )
        plain = ModernBertRotaryEmbedding.compute_default_rope_parameters
        tables[f"plain/{theta:g}/{width}"] = plain(config, layer_type="full_attention")[0].numpy()
    for name, parameters in cases.ROPES.items():
        config = SimpleNamespace(
            rope_parameters=dict(parameters),
            hidden_size=64,
            num_attention_heads=1,
            max_position_embeddings=8192,
            standardize_rope_params=lambda: None,
        )
        frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, device="cpu")
        tables[name], tables[f"{name}/factor"] = frequencies.numpy(), np.float64(factor)
    return tables


if __name__ == "__main__":
    main(sys.argv[1:])
