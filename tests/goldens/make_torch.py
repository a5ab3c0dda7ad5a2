"""Make `torch/`: small files that torch itself writes, and digests of their contents.

`python tests/goldens/make_torch.py`; needs torch.
"""

import collections
import datetime
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "torch"


def main() -> None:
    (FOLDER / "sharded").mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    digests = {}
    for file, value in files().items():
        torch.serialization.set_crc32_options(file != "unchecked.bin")
        torch.save(value, FOLDER / file)
        digests[file] = {name: facts(x) for name, x in value.items()}
    torch.serialization.set_crc32_options(True)
    (FOLDER / "digests.json").write_text(json.dumps(digests, indent=1) + "\n")
    shards = {"a": torch.arange(6.0).reshape(2, 3)}, {"b": torch.ones(4, dtype=torch.bfloat16)}
    where = {}
    for k, shard in enumerate(shards, start=1):
        name = f"pytorch_model-{k:05}-of-00002.bin"
        torch.save(shard, FOLDER / "sharded" / name)
        where |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": 32}, "weight_map": where}
    (FOLDER / "sharded/pytorch_model.bin.index.json").write_text(json.dumps(index) + "\n")
    torch.save(training_state(), FOLDER / "run.pt")


def files() -> dict[str, dict[str, torch.Tensor]]:
    layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    table = torch.randn(5, 4)
    dtypes = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    return {
        "module.bin": layers.state_dict(),  # an ordered dict with attributes
        "parameters.bin": dict(layers.named_parameters()),
        "dtypes.bin": {str(d): torch.randn(2, 3).to(d) for d in dtypes},
        "views.bin": {
            "table": table,
            "tied": table,
            "row": table[2],
            "transposed": table.T,
            "part": table[1:3, ::2],
            "scalar": torch.tensor(3.0),
        },
        "unchecked.bin": {"a": torch.randn(3)},
    }


def facts(x: torch.Tensor) -> list:
    array = x.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    dtype = str(x.dtype).removeprefix("torch.")
    return [dtype, [*x.shape], hashlib.sha256(array.tobytes()).hexdigest()]


def training_state() -> dict:
    """A checkpoint of the research code's shape with all that a run has beside its weights."""
    size, width = 32, 16
    norm, square = torch.ones(width), torch.randn(width, width)
    table = torch.randn(size, width)
    model = collections.OrderedDict(
        {
            "model.bert.embeddings.tok_embeddings.weight": table,
            "model.bert.embeddings.norm.weight": norm,
            "model.bert.encoder.layers.0.attn.Wqkv.weight": torch.randn(3 * width, width),
            "model.bert.encoder.layers.0.attn.Wo.weight": square,
            "model.bert.encoder.layers.0.mlp_norm.weight": norm,
            "model.bert.encoder.layers.0.mlp.Wi.weight": torch.randn(16, width),
            "model.bert.encoder.layers.0.mlp.Wo.weight": torch.randn(width, 8),
            "model.bert.final_norm.weight": norm,
            "model.head.dense.weight": square,
            "model.head.norm.weight": norm,
            "model.decoder.weight": table,
            "model.decoder.bias": torch.randn(size),
        }
    )
    content = {
        "_name_or_path": "bert-base-uncased",
        "attention_layer": "rope",
        "bert_layer": "prenorm",
        "embed_norm": True,
        "embedding_layer": "sans_pos",
        "final_norm": True,
        "global_attn_every_n_layers": 3,
        "head_pred_act": "gelu",
        "hidden_act": "gelu",
        "hidden_size": width,
        "intermediate_size": 8,
        "local_attn_rotary_emb_base": -1,
        "mlp_layer": "glu",
        "norm_kwargs": {"bias": False, "eps": 1e-5},
        "normalization": "layernorm",
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "pad_token_id": 0,
        "rotary_emb_base": 10000.0,
        "skip_first_prenorm": True,
        "sliding_window": 128,
        "vocab_size": size,
    }
    tokenizer = {
        "tokenizer": {"file_extension": ".json", "content": tokenizer_json()},
        "tokenizer_config": {
            "file_extension": ".json",
            "content": {"cls_token": "[CLS]", "model_max_length": 1024, "name_or_path": "x"},
        },
        "vocab": {"file_extension": ".txt", "content": ["a", "b"]},
        "../../evil": {"file_extension": ".json", "content": {}},
    }
    about = {"file_extension": ".json", "content": content}
    about["class"] = "src.bert_layers.model.FlexBertForMaskedLM"
    moments = {n: {"step": torch.tensor(3.0), "exp_avg": x * 0} for n, x in model.items()}
    return {
        "state": {
            "model": model,
            "optimizers": {"Adam": {"state": moments, "param_groups": [{"lr": 1e-3}]}},
            "timestamp": {"Timestamp": {"batch": 3, "total_wct": datetime.timedelta(seconds=5)}},
            "integrations": {"huggingface": {"model": {"config": about}, "tokenizer": tokenizer}},
            "metadata": {"torch_version": torch.__version__, "device": torch.device("cpu")},
            "run_name": "run",
        },
        "rng": [
            {
                "python": random.Random(0).getstate(),
                "numpy": np.random.RandomState(0).get_state(),
                "torch": torch.get_rng_state(),
            }
        ],
    }


def tokenizer_json() -> dict:
    added = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": 26 + i,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, token in enumerate(added)
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {chr(97 + i): i for i in range(26)},
            "merges": [],
        },
    }


if __name__ == "__main__":
    main()
