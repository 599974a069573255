"""Writing the models of LXMERT, ViLBERT, VLP, Oscar, UniVL and HowTo100M as the files that their own code opens.

Our parameter names are theirs, so that a file differs from a state dict of ours in one point: it holds tied tensors,
such as the word embeddings and the output layer, under each of their names. Reading is `vlprep.interop.initial`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlprep.interop.bert_files import ExportedFiles
from vlprep.interop.bert_names import POSITIONS, WORDS
from vlprep.interop.mil_nce import to_mil_nce
from vlprep.shards.atomic import clear_errors

System = Literal["lxmert", "vlp", "oscar", "vilbert", "univl", "howto100m"]

FILES: Mapping[System, str] = {
    "lxmert": "model_LXRT.pth",
    "vlp": "model.bin",
    "oscar": "pytorch_model.bin",
    "vilbert": "pretrained_model.bin",
    "univl": "univl.pretrained.bin",
    "howto100m": "howto100m_pt_model.pth",
}
"""What each system's code calls its checkpoint."""
_SECOND_NAMES = {
    "cls.predictions.bias": {"cls.predictions.decoder.weight": WORDS},
    "cls_visual.predictions.bias": {"cls_visual.predictions.weight": "visual.embeddings.word_embeddings.weight"},
    "decoder.embeddings.LayerNorm.bias": {
        "decoder.embeddings.word_embeddings.weight": WORDS,
        "decoder.embeddings.position_embeddings.weight": POSITIONS,
        "decoder.classifier.cls.predictions.decoder.weight": WORDS,
    },
}
"""Of tied tensors, by a tensor of the module that has them: UniVL's first stage is without these modules."""


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the system's own class, tied tensors under their second names too."""
    tied = {
        second: first for owner, names in _SECOND_NAMES.items() if owner in state for second, first in names.items()
    }
    return {**state, **{second: state[first] for second, first in tied.items()}}


def to_hugging_face_lxmert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of transformers' `LxmertForPreTraining`, which ties the output layer by itself."""
    return {f"lxmert.{name[5:]}" if name.startswith("bert.") else name: tensor for name, tensor in state.items()}


def write_published(folder: Path, state: Mapping[str, Tensor], system: System) -> ExportedFiles:
    """The system's checkpoint file, which its class loads strictly."""
    file = folder / FILES[system]
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(to_published(state), file)
    return ExportedFiles(files=(file,), left_out=())


def write_mil_nce(folder: Path, state: Mapping[str, Tensor]) -> ExportedFiles:
    """`s3d_howto100m.pth`, which `S3D.load_state_dict` of the repository with the model's stem takes strictly."""
    named = {name: tensor.contiguous() for name, tensor in to_mil_nce(state).items()}
    file = folder / "s3d_howto100m.pth"
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(named, file)
    return ExportedFiles(files=(file,), left_out=())


def write_oscar(folder: Path, state: Mapping[str, Tensor], *, heads: int) -> ExportedFiles:
    """Oscar's directory: `pytorch_model.bin` and the `config.json` that its `BertImgForPreTraining` is built from."""
    vocabulary, hidden = state[WORDS].shape
    config = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": len({name.split(".")[3] for name in state if name.startswith("bert.encoder.layer.")}),
        "num_attention_heads": heads,
        "intermediate_size": len(state["bert.encoder.layer.0.intermediate.dense.bias"]),
        "max_position_embeddings": len(state["bert.embeddings.position_embeddings.weight"]),
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "img_feature_dim": state["bert.img_embedding.weight"].shape[1],
        "img_feature_type": "faster_r-cnn",
        "use_img_layernorm": int("bert.LayerNorm.weight" in state),
        "img_layer_norm_eps": 1e-12,
        "num_contrast_classes": len(state["cls.seq_relationship.bias"]),
    }
    written = write_published(folder, state, "oscar")
    file = folder / "config.json"
    with clear_errors(folder):
        file.write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    return ExportedFiles(files=(file, *written.files), left_out=())


def write_hugging_face_lxmert(
    folder: Path, state: Mapping[str, Tensor], *, heads: int, dropout: float, attention_dropout: float
) -> ExportedFiles:
    """`config.json` and `model.safetensors` for `LxmertForPreTraining.from_pretrained`.

    The keyword arguments are what the tensors do not show. Heads that the model lacks (answers, attributes) are
    switched off.
    """
    named = to_hugging_face_lxmert(state)
    files = (folder / "config.json", folder / "model.safetensors")
    config = _lxmert_config(state, heads, dropout, attention_dropout)
    with clear_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files[0].write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        save_file(named, files[1], {"format": "pt"})
    return ExportedFiles(files=files, left_out=())


def _lxmert_config(state: Mapping[str, Tensor], heads: int, dropout: float, attention_dropout: float) -> dict[str, Any]:
    vocabulary, hidden = state[WORDS].shape

    def layers(part: str) -> int:
        return len({name.split(".")[3] for name in state if name.startswith(f"bert.encoder.{part}.")})

    def rows(name: str) -> int | None:
        return len(state[name]) if name in state else None

    sizes = {
        "num_qa_labels": rows("answer_head.logit_fc.3.bias"),
        "num_object_labels": rows("obj_predict_head.decoder_dict.obj.bias"),
        "num_attr_labels": rows("obj_predict_head.decoder_dict.attr.bias"),
    }
    return {
        "architectures": ["LxmertForPreTraining"],
        "model_type": "lxmert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": rows("bert.encoder.x_layers.0.lang_inter.dense.bias"),
        "max_position_embeddings": rows("bert.embeddings.position_embeddings.weight"),
        "type_vocab_size": rows("bert.embeddings.token_type_embeddings.weight"),
        "hidden_act": "gelu",
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": attention_dropout,
        "initializer_range": 0.02,
        "l_layers": layers("layer"),
        "x_layers": layers("x_layers"),
        "r_layers": layers("r_layers"),
        "visual_feat_dim": state["bert.encoder.visn_fc.visn_fc.weight"].shape[1],
        "visual_pos_dim": 4,
        "task_qa": sizes["num_qa_labels"] is not None,
        "visual_attr_loss": sizes["num_attr_labels"] is not None,
        **{name: size for name, size in sizes.items() if size is not None},
    }
