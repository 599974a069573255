"""Writing our single-stream models as files that transformers and UNITER's own code open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlprep.interop.bert_names import POSITIONS, WORDS, our_name, to_hugging_face, to_uniter
from vlprep.shards.atomic import clear_errors

UNITER_FILE = "uniter.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFiles:
    files: tuple[Path, ...]
    left_out: tuple[str, ...]
    """Tensors that the other side has no name for."""


def write_uniter(folder: Path, state: Mapping[str, Tensor]) -> ExportedFiles:
    """`uniter.pt`, which `UniterForPretraining.load_state_dict` takes strictly. See `to_uniter` for its errors."""
    named = to_uniter(state)
    file = folder / UNITER_FILE
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(named, file)
    return ExportedFiles(files=(file,), left_out=_left_out(state, named))


def write_hugging_face(
    folder: Path,
    state: Mapping[str, Tensor],
    *,
    heads: int,
    dropout: float,
    attention_dropout: float,
    norm_eps: float,
) -> ExportedFiles:
    """`config.json` and `model.safetensors` for transformers' `BertModel`, `BertForMaskedLM` or `BertForPreTraining`.

    The arguments are what the tensors do not show. The last of these classes starts its next-sentence head anew.
    """
    named = to_hugging_face(state)
    vocabulary, hidden = named[WORDS].shape
    config = {
        "architectures": ["BertForPreTraining"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": len({name.split(".")[3] for name in named if name.startswith("bert.encoder.layer.")}),
        "num_attention_heads": heads,
        "intermediate_size": len(named["bert.encoder.layer.0.intermediate.dense.bias"]),
        "max_position_embeddings": len(named[POSITIONS]),
        "type_vocab_size": len(named["bert.embeddings.token_type_embeddings.weight"]),
        "hidden_act": "gelu",
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": attention_dropout,
        "layer_norm_eps": norm_eps,
        "initializer_range": 0.02,
        "pad_token_id": 0,
    }
    files = (folder / "config.json", folder / "model.safetensors")
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files[0].write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        save_file(dict(named), files[1], {"format": "pt"})
    return ExportedFiles(files=files, left_out=_left_out(state, named))


def _left_out(state: Mapping[str, Tensor], named: Mapping[str, Tensor]) -> tuple[str, ...]:
    return tuple(sorted(state.keys() - {our_name(name) for name in named}))
