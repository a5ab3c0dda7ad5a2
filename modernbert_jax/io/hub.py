"""Locate checkpoints: local paths, or snapshots from the Hugging Face hub and its cache."""

import os
import re
from pathlib import Path

from modernbert_jax.errors import UserError, first_line

PATTERNS = (
    "*.json",
    "*.safetensors",
    "*.jinja",
    "*merges.txt",
    "*vocab.txt",
    "README.md",
    "*_Dense/pytorch_model.bin",
)
"""Files that a checkpoint of any format needs, in all its folders."""

PICKLED = ("pytorch_model*.bin", "*_Transformer/pytorch_model*.bin")
"""Weights of a repository without safetensors, of sentence-transformers' first layout too."""

WEIGHTS = (".safetensors", ".bin")
"""Endings of files with weights."""

IGNORED = ("*onnx*", "*openvino*", "checkpoint-*")
"""Files that are never downloaded: other runtimes, and states of training."""


def locate(path_or_hub_id: str | os.PathLike, revision: str | None = None) -> Path:
    """An existing path, or else the snapshot of a model on the hub. Raises `UserError`."""
    path = Path(path_or_hub_id).expanduser()
    return path if path.exists() else download(str(path_or_hub_id), revision)


def download(name: str, revision: str | None = None, weights: bool = True) -> Path:
    """Download a snapshot of the weights, configuration, modules and tokenizer into the cache.

    Files in the cache are not downloaded again; without a network, or with HF_HUB_OFFLINE=1, only
    they are used. Pickled weights are downloaded only if there are no safetensors.

    Args:
        name: `owner/name`.
        revision: branch, tag or commit.
        weights: False leaves out the weights.

    Raises:
        UserError: no such model or revision, no access to it, or neither the cache nor the network
            provides it.
    """
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise UserError(f"{name}: no such directory")
    import huggingface_hub
    from huggingface_hub import errors

    own = PATTERNS if weights else [p for p in PATTERNS if not p.endswith(WEIGHTS)]

    def fetch(*patterns: str) -> Path:
        return Path(
            huggingface_hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=[*own, *patterns],
                ignore_patterns=list(IGNORED),
            )
        )

    at = f"{name} at revision {revision}" if revision else name
    try:
        path = fetch()
        if not weights:
            return path
        tensors = (*path.glob("*.safetensors"), *path.glob("*_Transformer/*.safetensors"))
        return path if tensors else fetch(*PICKLED)
    except errors.RevisionNotFoundError:
        reason = f"it has no revision {revision!r}"
    except errors.GatedRepoError:
        reason = "it is gated: ask for access on its page, then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = "there is no such model, or it is private: then log in with `hf auth login`"
    except errors.LocalEntryNotFoundError:
        reason = f"{at} is not in the cache, and the hub cannot be reached or HF_HUB_OFFLINE is set"
    except Exception as error:  # the hub, its HTTP client and the disk each have their own kinds
        reason = first_line(error)
    raise UserError(
        f"{name}: no such directory, and not available from the Hugging Face hub ({reason})"
    )


def upload(
    folder: Path, name: str, private: bool | None, message: str, token: str | None = None
) -> str:
    """Upload a folder as a model, which is created if need be; returns the commit's address.

    Raises:
        UserError: the hub refuses, or cannot be reached.
    """
    import huggingface_hub

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise UserError(f"{name}: not the name of a model; give owner/name")
    try:
        api = huggingface_hub.HfApi(token=token)
        created = api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=created.repo_id, folder_path=folder, commit_message=message
        )
    except Exception as error:  # the hub, its HTTP client and the disk each have their own kinds
        raise UserError(f"{name}: not uploaded ({first_line(error)})") from error
    return str(commit)
