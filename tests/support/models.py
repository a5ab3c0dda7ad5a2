"""Small checkpoints of every format, head and family, written without the code under test.

Weights follow from a tensor's name, so only outputs are stored; see `goldens/make_models.py`.
Directories have the layout of the libraries that write them.
"""

import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np
from safetensors.numpy import save_file

from modernbert_jax.tokenizer import Tokenizer, train

GOLDENS = Path(__file__).parents[1] / "goldens"
TOKENIZER = GOLDENS / "tokenizer.json"

TEXTS = [
    "hello",
    "hello world, hello there: a b c d!",
    '(naive) "cafe" - 12 + 30 = 42.',
    "the quick brown fox jumps over the lazy dog, and a b c d; again and again",
]
QUERIES = ["who is there?", "a b c d e f g", "hello world, what is this about and why not"]
PAIRS = [(q, t) for q in QUERIES for t in TEXTS[:2]] + [(QUERIES[0], TEXTS[3] * 4)]

LENGTHS = (1, 7, 40, 90)
"""Lengths in tokens of the documents for Hugging Face models."""

VOCAB = 384
_ROPE = {"rope_type": "default"}


def _config(**changes: Any) -> dict[str, Any]:
    """Return flat keys, as in published files."""
    return {
        "model_type": "modernbert",
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160000.0,
        "local_rope_theta": 10000.0,
        "local_attention": 16,
        "max_position_embeddings": 128,
        "bos_token_id": 336,
        "cls_token_id": 336,
        "eos_token_id": 337,
        "sep_token_id": 337,
        "pad_token_id": 338,
        "norm_eps": 1e-5,
        "torch_dtype": "float32",
        **changes,
    }


def _decoder(**changes: Any) -> dict[str, Any]:
    # transformers 4 reads one window key and saves the other; version 5 reads either.
    # transformers 4 uses the global theta in all layers.
    defaults = {
        "model_type": "modernbert-decoder",
        "sliding_window": 8,
        "local_rope_theta": 160000.0,
    }
    return _config(**defaults | changes)


_BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
_LABELS = {"id2label": {"0": "no", "1": "yes", "2": "maybe"}, "problem_type": None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A directory to write."""

    architecture: str
    config: dict[str, Any]
    labels: int = 0
    dtype: str = "float32"
    modules: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """Class, folder and configuration of each module after the Transformer."""
    settings: dict[str, Any] | None = None
    transformer: dict[str, Any] | None = None
    first: str = "models.Transformer"
    """Class of the first module in the older layout."""
    added: tuple[str, ...] = ()
    """Tokens added to the tokenizer."""

    @property
    def kind(self) -> str:
        """Kind of output: "hf", "embedding", "reranker", "late" or "sparse"."""
        if "sentence_transformers" in self.config:
            return "reranker"
        named = (self.settings or {}).get("model_type", "")
        late = named in ("ColBERT", "MultiVectorEncoder")
        others = {"CrossEncoder": "reranker", "SparseEncoder": "sparse"}
        return "late" if late else others.get(named, "embedding" if self.settings else "hf")

    @property
    def old(self) -> bool:
        """Whether transformers 4 and sentence-transformers 5 read it correctly."""
        local, everywhere = self.config["local_rope_theta"], self.config["global_rope_theta"]
        return not self.native and ("sliding_window" not in self.config or local == everywhere)

    @property
    def native(self) -> bool:
        """Whether it has the layout that only sentence-transformers 6 reads."""
        return "transformer_task" in (self.transformer or {})

    @property
    def expressible(self) -> bool:
        """Whether sentence-transformers 5 or PyLate has all that it consists of."""
        expansion = (self.transformer or {}).get("query_expansion", {})
        reranker = self.kind == "reranker" and bool(self.modules)
        return not reranker and expansion.get("strategy") != "min"


def _hf(head: str, labels: int = 0, **changes: Any) -> Model:
    return Model(architecture=f"ModernBert{head}", config=_config(**changes), labels=labels)


_MEAN = {f"pooling_mode_{k}": k == "mean_tokens" for k in (
    "cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens",
    "lasttoken",
)}  # fmt: skip
_TANH = "torch.nn.modules.activation.Tanh"
_GELU = "torch.nn.modules.activation.GELU"
_NONE = "torch.nn.modules.linear.Identity"
_OLD = {"max_seq_length": 24, "do_lower_case": False}
_NEW = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
_PROMPTS = {"prompts": {"query": "query: ", "document": "doc: "}, "default_prompt_name": None}
_ST = "sentence_transformers."
_OF_VECTORS = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
_OF_TOKENS = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}


def _pooling(*modes: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
    keys = {**dict.fromkeys(_MEAN, False), **{f"pooling_mode_{m}": True for m in modes}}
    config = {"word_embedding_dimension": 32, **keys, "include_prompt": True, **more}
    return (f"{_ST}models.Pooling", "1_Pooling", config)


def _dense(
    number: int,
    inputs: int,
    outputs: int,
    activation: str = _NONE,
    kind: str = f"{_ST}models.Dense",
    bias: bool = False,
    **more: Any,
) -> tuple[str, str, dict[str, Any]]:
    config = {"in_features": inputs, "out_features": outputs, "bias": bias}
    return (kind, f"{number}_Dense", {**config, "activation_function": activation, **more})


def _embedding(*modules: Any, settings: dict[str, Any] | None = None, **more: Any) -> Model:
    versions = {"sentence_transformers": "3.4.1", "transformers": "4.48.0", "pytorch": "2.5.1"}
    return Model(
        architecture="ModernBertModel",
        # One row per added prefix. The window is wide, so that tokens that fill up queries see some
        # of the others.
        config=_config(vocab_size=VOCAB + len(more.get("added", ())), local_attention=32),
        modules=modules,
        settings={"__version__": versions, **_PROMPTS, "similarity_fn_name": "cosine"}
        | (settings or {}),
        **{"transformer": _OLD} | more,
    )


def _cross_encoder(*modules: Any, **settings: Any) -> Model:
    """A reranker with modules, as sentence-transformers 6 writes it."""
    defaults = {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None}
    return Model(
        architecture="ModernBertModel",
        config=_config(),
        modules=modules,
        settings=defaults | settings,
        transformer=_NEW,
    )


def _late(*modules: Any, **settings: Any) -> Model:
    return _embedding(
        *modules,
        settings={
            "model_type": "ColBERT",
            "prompts": {"query": "", "document": ""},
            "similarity_fn_name": "MaxSim",
            "query_prefix": "[Q] ",
            "document_prefix": "[D] ",
            "query_length": 16,
            "document_length": 30,
            "attend_to_expansion_tokens": False,
            "skiplist_words": list("!\"'(),-.:;?"),
            "do_query_expansion": True,
            **settings,
        },
        transformer={"max_seq_length": 29, "do_lower_case": False},
        added=("[Q] ", "[D] "),
    )


def _sparse(
    *modules: Any, settings: dict[str, Any], transformer: dict[str, Any], first: str = "",
    **changes: Any,
) -> Model:  # fmt: skip
    return Model(
        architecture="ModernBertForMaskedLM",
        config=_config(**changes),
        modules=modules,
        settings={"model_type": "SparseEncoder", **settings},
        transformer=transformer,
        first=first,
    )


def _splade(
    kind: str, strategy: str = "max", activation: str = "relu", **more: int
) -> tuple[str, str, dict[str, Any]]:
    config = {"pooling_strategy": strategy, "activation_function": activation, **more}
    return (f"{_ST}sparse_encoder.{kind}", "1_SpladePooling", config)


def _later_pooling(mode: str, include_prompt: bool = True) -> tuple[str, str, dict[str, Any]]:
    config = {"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": include_prompt}
    return (f"{_ST}sentence_transformer.modules.pooling.Pooling", "1_Pooling", config)


_LAYER_NORM = (f"{_ST}sentence_transformer.modules.layer_norm.LayerNorm", "3_LayerNorm",
               {"dimension": 32})  # fmt: skip
_PYLATE = "pylate.models.Dense.Dense"
_NORMALIZE = (f"{_ST}models.Normalize", "2_Normalize", {})
_RERANKER = {"version": "4.1.0", "activation_fn": "torch.nn.modules.activation.Sigmoid"}

MODELS: dict[str, Model] = {
    # Hugging Face heads
    "base": _hf("Model"),
    "masked_lm": _hf("ForMaskedLM", **_BIASES),
    "sequence": _hf("ForSequenceClassification", 3, classifier_pooling="mean", **_LABELS),
    "sequence_cls": _hf("ForSequenceClassification", 3, classifier_pooling="cls", **_LABELS),
    "token": _hf("ForTokenClassification", 3, **_LABELS),
    "span": _hf("ForQuestionAnswering", 2),
    "choice": _hf("ForMultipleChoice", 1, classifier_pooling="cls"),
    # decoders
    "decoder": Model(architecture="ModernBertDecoderModel", config=_decoder()),
    "causal_lm": Model(
        architecture="ModernBertDecoderForCausalLM",
        config=_decoder(num_hidden_layers=4),
    ),
    "causal_biases": Model(
        architecture="ModernBertDecoderForCausalLM",
        config=_decoder(**_BIASES, tie_word_embeddings=False, local_rope_theta=10000.0),
    ),
    "causal_sequence": Model(
        architecture="ModernBertDecoderForSequenceClassification",
        config=_decoder(**_LABELS),
        labels=3,
    ),
    # families, in small: their distinguishing settings
    "ettin": _hf(
        "ForMaskedLM",
        local_rope_theta=160000.0,
        max_position_embeddings=7999,
        position_embedding_type="sans_pos",
        num_hidden_layers=4,
    ),
    "mmbert": _hf(
        "ForMaskedLM",
        vocab_size=256000,
        local_rope_theta=160000.0,
        bos_token_id=2,
        cls_token_id=1,
        eos_token_id=1,
        sep_token_id=1,
        pad_token_id=0,
    ),
    "granite_small": _hf(
        "Model",
        hidden_size=64,
        intermediate_size=256,
        global_rope_theta=80000.0,
        hidden_activation="silu",
        classifier_pooling="cls",
    ),
    "modernbert_ja": _hf("ForMaskedLM", intermediate_size=128, vocab_size=1024, pad_token_id=3),
    "camembert": _hf("ForMaskedLM", norm_eps=1e-7, mlp_dropout=0.1, attention_dropout=0.1),
    "odd_window": _hf("ForMaskedLM", local_attention=13, hidden_activation="gelu_pytorch_tanh"),
    "untied": _hf("ForMaskedLM", tie_word_embeddings=False, decoder_bias=False),
    "half": dataclasses.replace(_hf("ForMaskedLM", torch_dtype="float16"), dtype="float16"),
    "brain": dataclasses.replace(_hf("Model", torch_dtype="bfloat16"), dtype="bfloat16"),
    # embedding models
    "mean": _embedding(_pooling("mean_tokens"), _NORMALIZE),
    "cls": _embedding(_pooling("cls_token"), settings={"default_prompt_name": "query"}),
    "several": _embedding(_pooling("max_tokens", "mean_tokens", "weightedmean_tokens")),
    "last": _embedding(_pooling("lasttoken", "mean_sqrt_len_tokens")),
    "no_prompt": _embedding(
        _pooling("mean_tokens", include_prompt=False),
        settings={"prompts": {"query": "query:"}},  # a trailing space matters only in version 6
    ),
    "dense": _embedding(
        _pooling("mean_tokens"),
        _dense(2, 32, 20, _TANH, bias=True),
        (f"{_ST}models.Normalize", "3_Normalize", {}),
    ),
    "normed": _embedding(
        _pooling("mean_tokens"),
        _dense(2, 32, 20, _GELU),
        (f"{_ST}models.LayerNorm", "3_LayerNorm", {"dimension": 20}),
    ),
    "native": _embedding(
        _later_pooling("mean"),
        _dense(2, 32, 20, _GELU, f"{_ST}base.modules.dense.Dense", **_OF_VECTORS),
        (f"{_ST}base.modules.normalize.Normalize", "3_Normalize", _OF_VECTORS),
        settings={"model_type": "SentenceTransformer"},
        transformer=_NEW,
    ),
    # rerankers
    "reranker": Model(
        architecture="ModernBertForSequenceClassification",
        config=_config(
            classifier_pooling="mean", id2label={"0": "LABEL_0"}, sentence_transformers=_RERANKER
        ),
        labels=1,
    ),
    "reranker_raw": Model(
        architecture="ModernBertForSequenceClassification",
        config=_config(
            id2label={"0": "LABEL_0"},
            sentence_transformers={"version": "4.1.0", "activation_fn": _NONE},
        ),
        labels=1,
    ),
    "reranker_native": Model(
        architecture="ModernBertForSequenceClassification",
        config=_config(classifier_pooling="cls", id2label={"0": "LABEL_0"}),
        labels=1,
        settings={
            "model_type": "CrossEncoder",
            "prompts": {},
            "default_prompt_name": None,
            "activation_fn": "torch.nn.modules.activation.Sigmoid",
        },
        transformer={
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "scores",
        },
    ),
    # the layout of the published ettin-reranker models
    "reranker_modules": _cross_encoder(
        _later_pooling("cls"),
        _dense(2, 32, 32, _GELU, f"{_ST}base.modules.dense.Dense", **_OF_VECTORS),
        _LAYER_NORM,
        _dense(4, 32, 1, _NONE, f"{_ST}base.modules.dense.Dense", bias=True,
               **{**_OF_VECTORS, "module_output_name": "scores"}),
        activation_fn=_NONE,
    ),
    "reranker_prompt": _cross_encoder(
        _later_pooling("mean", include_prompt=False),
        _dense(2, 32, 1, _NONE, f"{_ST}base.modules.dense.Dense", bias=True,
               **{**_OF_VECTORS, "module_output_name": "scores"}),
        activation_fn="torch.nn.modules.activation.Sigmoid",
        prompts={"web": "find: "},
        default_prompt_name="web",
    ),
    # sparse models
    "sparse": _sparse(
        _splade("models.SpladePooling", word_embedding_dimension=VOCAB),
        settings={**_PROMPTS, "default_prompt_name": "query", "similarity_fn_name": "dot"},
        transformer=_OLD,
        first="sparse_encoder.models.MLMTransformer",
    ),
    "sparse_sum": _sparse(
        _splade("models.SpladePooling", "sum", "log1p_relu"),
        settings={**_PROMPTS, "similarity_fn_name": "cosine"},
        transformer=_OLD,
        first="sparse_encoder.models.MLMTransformer",
        tie_word_embeddings=False,
    ),
    "sparse_native": _sparse(
        _splade("modules.splade_pooling.SpladePooling", embedding_dimension=VOCAB),
        settings={**_PROMPTS, "similarity_fn_name": None, "max_active_dims": 30},
        transformer={
            "transformer_task": "fill-mask",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "token_embeddings",
        },
    ),
    # late interaction
    "colbert": _late(_dense(1, 32, 24, kind=_PYLATE, use_residual=False)),
    "colbert_stack": _late(
        _dense(1, 32, 48, _GELU, kind=_PYLATE, use_residual=True),
        _dense(2, 48, 48, kind=_PYLATE, use_residual=True),
        _dense(3, 48, 16, kind=_PYLATE, use_residual=False),
        attend_to_expansion_tokens=True,
    ),
    "colbert_plain": _late(_dense(1, 32, 24, kind=_PYLATE), do_query_expansion=False),
    "multi_vector": _embedding(
        _dense(1, 32, 24, kind=f"{_ST}base.modules.dense.Dense", **_OF_TOKENS),
        (f"{_ST}multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
         "2_MultiVectorMask",
         {"skiplist_words": list("!,."), "skiplist_tasks": ["document"],
          "keep_only_token_ids": None}),
        (f"{_ST}base.modules.normalize.Normalize", "3_Normalize", _OF_TOKENS),
        settings={
            "model_type": "MultiVectorEncoder",
            "prompts": {"query": "[Q] ", "document": "[D] "},
            "similarity_fn_name": None,
        },
        transformer={
            **_NEW,
            "document_length": 30,
            "query_expansion": {"strategy": "fixed", "attend": False, "token": None, "length": 16},
        },
        added=("[Q] ", "[D] "),
    ),
    "multi_vector_min": _embedding(
        _dense(1, 32, 48, _GELU, f"{_ST}base.modules.dense.Dense", use_residual=True, **_OF_TOKENS),
        _dense(2, 48, 16, kind=f"{_ST}base.modules.dense.Dense", **_OF_TOKENS),
        (f"{_ST}multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
         "3_MultiVectorMask",
         {"skiplist_words": list("!,."), "skiplist_tasks": ["document"],
          "keep_only_token_ids": None}),
        (f"{_ST}base.modules.normalize.Normalize", "4_Normalize", _OF_TOKENS),
        (f"{_ST}multi_vector_encoder.modules.token_pooling.HierarchicalTokenPooling",
         "5_HierarchicalTokenPooling",
         {"pool_factor": 1.5, "num_protected_tokens": 1, "normalize_embeddings": True,
          "tasks": ["document"]}),
        settings={
            "model_type": "MultiVectorEncoder",
            "prompts": {"query": "query: ", "document": "doc: "},
            "similarity_fn_name": "meanmaxsim",
        },
        transformer={
            **_NEW,
            "query_length": 16,
            "query_expansion": {"strategy": "min", "attend": False, "token": "[SEP]", "length": 12},
        },
    ),
}  # fmt: skip


def tokenizer(model: Model) -> dict[str, bytes]:
    """Return the files of the stored tokenizer, with the tokens that the model adds."""
    config = {
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "mask_token": "[MASK]",
        "unk_token": "[UNK]",
        "clean_up_tokenization_spaces": True,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 24 if model.native and model.kind == "embedding" else 128,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    content = json.loads(TOKENIZER.read_bytes())
    for word in model.added:
        content["added_tokens"].append(
            {"id": max(t["id"] for t in content["added_tokens"]) + 1, "content": word,
             "single_word": False, "lstrip": False, "rstrip": False, "normalized": True,
             "special": False}
        )  # fmt: skip
    return {
        "tokenizer.json": json.dumps(content).encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }


def make_tokenizer() -> Tokenizer:
    """Train the tokenizer that is stored as `TOKENIZER`."""
    return train([*TEXTS, *QUERIES] * 4, 340)  # [unusedN] follow, up to VOCAB


def tensors(name: str) -> dict[str, np.ndarray]:
    """Return the model's weights by their names in transformers."""
    model = MODELS[name]
    shapes = _shapes(model)
    return {n: weight(name, n, shape).astype(model.dtype) for n, shape in shapes.items()}


def weight(name: str, tensor: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a tensor of a scale at which every entry matters."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(tensor.encode())])
    noise = rng.standard_normal(shape, np.float32)
    if len(shape) == 1:
        norm = tensor.endswith("weight")
        return np.float32(norm) + np.float32(0.3) * noise
    return np.float32(shape[1] ** -0.5) * noise


def documents(name: str) -> list[list[int]]:
    """Draw token ids for Hugging Face models, without padding."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    vocab = MODELS[name].config["vocab_size"]
    return [rng.integers(4, vocab if vocab > 1000 else 335, n).tolist() for n in LENGTHS]


def write(name: str, directory: Path) -> Path:
    """Write the directory and return it."""
    model = MODELS[name]
    directory.mkdir(parents=True)
    save_file(tensors(name), directory / "model.safetensors", metadata={"format": "pt"})
    config = {"architectures": [model.architecture], **model.config}
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    for file, content in tokenizer(model).items():
        (directory / file).write_bytes(content)
    if model.settings is None:
        return directory
    kind = f"{_ST}base.modules.transformer.Transformer" if model.native else f"{_ST}{model.first}"
    listed = [{"idx": 0, "name": "0", "path": "", "type": kind}]
    for number, (kind, path, config) in enumerate(model.modules, start=1):
        listed.append({"idx": number, "name": str(number), "path": path, "type": kind})
        (directory / path).mkdir()
        if config:
            (directory / path / "config.json").write_text(json.dumps(config, indent=4))
        if shapes := _module_shapes(config):
            held = {n: weight(name, f"{path}/{n}", shape) for n, shape in shapes.items()}
            save_file(held, directory / path / "model.safetensors", metadata={"format": "pt"})
    (directory / "modules.json").write_text(json.dumps(listed, indent=2))
    settings, transformer = json.dumps(model.settings, indent=2), json.dumps(model.transformer)
    (directory / "config_sentence_transformers.json").write_text(settings)
    (directory / "sentence_bert_config.json").write_text(transformer)
    return directory


def _module_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a Dense or a LayerNorm."""
    if "dimension" in config:
        return dict.fromkeys(("norm.weight", "norm.bias"), (config["dimension"],))
    if "in_features" not in config:
        return {}
    d, e = config["in_features"], config["out_features"]
    shapes = {"linear.weight": (e, d)} | ({"linear.bias": (e,)} if config["bias"] else {})
    projected = config.get("use_residual") and d != e
    return shapes | ({"residual.weight": (e, d)} if projected else {})


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """List names and shapes of transformers' tensors, by hand."""
    c, decoder = model.config, "Decoder" in model.architecture
    v, d, f = c["vocab_size"], c["hidden_size"], c["intermediate_size"]
    linears = {}
    norms = ["embeddings.norm", "final_norm"]
    for i in range(c["num_hidden_layers"]):
        layer = f"layers.{i}"
        qkv = {f"{layer}.attn.{x}_proj": (d, d) for x in "qkv"}
        linears |= qkv if decoder else {f"{layer}.attn.Wqkv": (3 * d, d)}
        linears |= {f"{layer}.attn.Wo": (d, d)}
        linears |= {f"{layer}.mlp.Wi": (2 * f, d), f"{layer}.mlp.Wo": (d, f)}
        norms += [f"{layer}.mlp_norm", *([f"{layer}.attn_norm"] if i else [])]
    shapes = {"embeddings.tok_embeddings.weight": (v, d)}
    for name, shape in linears.items():
        shapes[f"{name}.weight"] = shape
        if c.get("attention_bias" if ".attn." in name else "mlp_bias"):
            shapes[f"{name}.bias"] = shape[:1]
    shapes |= _norms(norms, c)
    if model.architecture.endswith("Model"):
        return shapes
    shapes = {f"model.{name}": shape for name, shape in shapes.items()}
    causal = model.architecture.endswith("CausalLM")
    head = "lm_head" if causal else "head"
    shapes |= {f"{head}.dense.weight": (d, d), **_norms([f"{head}.norm"], c)}
    shapes |= {f"{head}.dense.bias": (d,)} if c.get("classifier_bias") else {}
    if causal or model.architecture.endswith("MaskedLM"):
        shapes |= {} if c.get("tie_word_embeddings", True) else {"decoder.weight": (v, d)}
        return shapes | ({"decoder.bias": (v,)} if c.get("decoder_bias", True) else {})
    biased = not decoder or c.get("classifier_bias")
    shapes |= {"classifier.weight": (model.labels, d)}
    return shapes | ({"classifier.bias": (model.labels,)} if biased else {})


def _norms(names: list[str], config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    ends = ("weight", "bias") if config.get("norm_bias") else ("weight",)
    return {f"{name}.{end}": (config["hidden_size"],) for name in names for end in ends}
