"""Adapter files of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modernbert_jax.convert import lazy, names
from modernbert_jax.convert.huggingface import safetensors_file
from modernbert_jax.errors import UserError
from modernbert_jax.io import files
from modernbert_jax.io.json_reader import read_json

from .lora import ALL_LINEAR, Adapters, Lora
from .parameter_selection import Rows, in_order

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""Prefix of tensor names: the path of the model in PEFT's wrapper."""

LAYER_MATRICES = ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo")
DECODER_MATRICES = ("attn.q_proj", "attn.k_proj", "attn.v_proj", *LAYER_MATRICES[1:])

TASKS = {
    "none": "FEATURE_EXTRACTION",
    "sequence_classification": "SEQ_CLS",
    "token_classification": "TOKEN_CLS",
    "question_answering": "QUESTION_ANS",
}
"""PEFT's task type for each of our heads; it has none for multiple choice."""


def save(folder: str | Path, adapters: Adapters, trained: Any, rows: Rows, head: str, base: str):
    """Write a folder that `PeftModel.from_pretrained` loads onto the base model.

    Without a head that is the bare encoder. Layers after it, such as a projection, are left out,
    because no class of transformers has them.

    Args:
        folder: the folder to write, empty or absent.
        adapters: the locations of the adapters.
        trained: the trained tree: numpy arrays of adapters and of modules trained in full.
        rows: the tensors of the model.
        head: the head of the model.
        base: path or hub name of the base model.
    """
    lora = adapters.lora
    matrices = LAYER_MATRICES if any("Wqkv" in name for name in rows) else DECODER_MATRICES
    # PEFT's all-linear includes the head, so the matrices are listed.
    targets: Sequence[str] = matrices if ALL_LINEAR in lora.targets else lora.targets
    if any(lora.is_whole(name) for name in rows if ".layers." in name):
        # PEFT would also put adapters into modules that are trained in full.
        adapted = [name for name, row in rows.items() if _entry(adapters.places, row) is not None]
        targets = [name.removesuffix(".weight") for name in adapted if name.endswith(".weight")]
    whole: Sequence[str] = lora.whole
    if head == "none":
        rows = {_in_encoder(n): row for n, row in rows.items() if n.startswith(names.PREFIX)}
        targets = [_in_encoder(name) for name in targets]
        whole = [_in_encoder(name) for name in whole if name.startswith(names.PREFIX)]
    config = {
        "peft_type": "LORA",
        "task_type": TASKS.get(head),
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(targets),
        "modules_to_save": list(whole),
        "init_lora_weights": True if lora.init == "kaiming" else "gaussian",
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "inference_mode": True,
    }
    with files.whole_directory(folder) as temporary:
        files.write_json(temporary / CONFIG, config)
        safetensors_file.write(temporary / WEIGHTS, to_tensors(adapters, trained, rows))


def export(
    folder: Path, adapters: Adapters, trained: Any, rows: Rows, head: str, base: str
) -> None:
    """Write the adapters of a run with `save`, in process 0, unless the folder exists."""
    if jax.process_index() == 0 and not folder.exists():
        save(folder, adapters, trained, rows, head, base)


def to_tensors(adapters: Adapters, trained: Any, rows: Rows) -> dict[str, np.ndarray]:
    """Return PEFT's tensors: A [rank, inputs], B [outputs, rank], and modules trained in full."""
    tensors = {}
    for name, row in rows.items():
        if (entry := _entry(adapters.wholes, row)) is not None:
            array = np.asarray(names.leaf(trained, row.path))[entry]
            array = array if row.part is None else array[row.part]
            tensors[PREFIX + name] = np.ascontiguousarray(row.transform.to_foreign(array))
        elif (entry := _entry(adapters.places, row)) is not None:
            a, b = (
                np.asarray(names.leaf(trained, (*row.path[:-1], leaf)))[entry]
                for leaf in ("lora_A", "lora_B")
            )
            b = b if row.part is None else b[row.part]
            module = PREFIX + name.removesuffix(".weight")
            tensors[f"{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
            tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(row.transform.to_foreign(b))
    return tensors


def load(folder: str | Path, rows: Rows) -> tuple[Adapters, Any]:
    """Read adapters from a folder that PEFT or `save` wrote.

    Args:
        folder: the folder to read.
        rows: the tensors of the model; those of a bare encoder have no prefix, `names.table(config,
            "none", prefix="")`.

    Returns:
        The locations of the adapters, and the tree to train.

    Raises:
        UserError: files that are missing or damaged, an adapter other than plain LoRA, or tensors
            that do not fit the model.
    """
    folder = Path(folder)
    lora = _lora(folder / CONFIG, read_json(folder / CONFIG))
    # PEFT also lists classifier names of other architectures; tensors are compared below.
    known = (w for w in lora.whole if any(Lora(whole=(w,)).is_whole(name) for name in rows))
    lora = dataclasses.replace(lora, whole=tuple(known))
    adapters = Adapters.of(lora, rows)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder / WEIGHTS}: no such file")
    tensors, problems = safetensors_file.scan(folder / WEIGHTS)
    if problems:
        raise UserError(f"{folder}: {'; '.join(problems)}")
    names.check(
        {name: x.shape for name, x in tensors.items()}, _shapes(adapters, rows), folder / WEIGHTS
    )
    trained: dict[str, Any] = {}
    stacks: dict[tuple[str, ...], dict[int | None, list[np.ndarray]]] = {}
    for name, row in rows.items():
        if _entry(adapters.wholes, row) is not None:
            array = row.transform.to_ours(_array(tensors, PREFIX + name))
            stacks.setdefault(row.path, {}).setdefault(row.index, []).append(array)
        elif _entry(adapters.places, row) is not None:
            module = PREFIX + name.removesuffix(".weight")
            a, b = (_array(tensors, f"{module}.lora_{x}.weight") for x in "AB")
            a, b = a.T, row.transform.to_ours(b)
            path = (*row.path[:-1], "lora_A")
            shared = stacks.setdefault(path, {}).setdefault(row.index, [a])[0]
            if not np.array_equal(shared, a):
                raise UserError(f"{folder}: {module}.lora_A differs from that of its neighbours")
            path = (*row.path[:-1], "lora_B")
            stacks.setdefault(path, {}).setdefault(row.index, []).append(b)
    for path, entries in stacks.items():
        joined = {i: np.stack(x) if len(x) > 1 else x[0] for i, x in entries.items()}
        array = np.array(in_order(joined))
        names.put(trained, path, np.ascontiguousarray(array))
    return adapters, trained


def _in_encoder(name: str) -> str:
    """The name of a tensor or module in a bare encoder."""
    return name.removeprefix(names.PREFIX)


def _entry(places: Mapping[tuple[str, ...], np.ndarray | None], row: names.Row) -> Any:
    """Return a tensor's index among the trained entries of its stack.

    Args:
        places: `Adapters.places` or `Adapters.wholes`.
        row: the tensor.

    Returns:
        The index, () for a parameter that is not stacked, None for a tensor that is not trained.
    """
    if row.path not in places:
        return None
    entries = places[row.path]
    if entries is None:
        return ()
    return int(np.flatnonzero(entries == row.index)[0]) if row.index in entries else None


def _shapes(adapters: Adapters, rows: Rows) -> dict[str, tuple[int, ...]]:
    """Return the shapes of PEFT's tensors, by name."""
    shapes = {}
    for name, row in rows.items():
        if _entry(adapters.wholes, row) is not None:
            shapes[PREFIX + name] = row.shape
        elif _entry(adapters.places, row) is not None:
            module, (outputs, inputs) = PREFIX + name.removesuffix(".weight"), row.shape
            shapes[f"{module}.lora_A.weight"] = (adapters.lora.rank, inputs)
            shapes[f"{module}.lora_B.weight"] = (outputs, adapters.lora.rank)
    return shapes


def _lora(path: Path, config: dict[str, Any]) -> Lora:
    """Return the options of a PEFT configuration.

    Raises:
        UserError: a configuration that is not supported.
    """
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type is {config.get('peft_type')!r}; it must be LORA")
    for key, plain in {"bias": "none", "use_rslora": False, "use_dora": False}.items():
        if config.get(key, plain) != plain:
            raise UserError(f"{path}: {key} is {config[key]!r}; only {plain!r} is supported")
    for key in ("rank_pattern", "alpha_pattern", "layers_to_transform"):
        if config.get(key):
            raise UserError(f"{path}: {key} is not supported")
    targets, whole = config.get("target_modules"), config.get("modules_to_save") or []
    if not isinstance(targets, list) or type(config.get("r")) is not int:
        raise UserError(f"{path}: r and a list of target_modules are needed")
    if not isinstance(whole, list) or not all(isinstance(x, str) for x in (*targets, *whole)):
        raise UserError(f"{path}: target_modules and modules_to_save must be lists of names")
    numbers = {key: config.get(key, x) for key, x in (("lora_alpha", 8), ("lora_dropout", 0.0))}
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UserError(f"{path}: {key} is {number!r}; it must be a number")
    return Lora(
        rank=config["r"],
        alpha=float(numbers["lora_alpha"]),
        dropout=float(numbers["lora_dropout"]),
        targets=tuple(targets),
        whole=tuple(whole),
    )


def _array(tensors: dict[str, lazy.Lazy], name: str) -> np.ndarray:
    return np.asarray(tensors[name]).astype(np.float32)
