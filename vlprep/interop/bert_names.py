"""What the same tensors are called in checkpoints of Hugging Face's BERT, of UNITER, and of ours.

Ours are Hugging Face's names with the prefix `bert.`, and UNITER's own for what BERT has not, each tensor once. UNITER
writes `uniter.` for `bert.` (ChenRocks/UNITER scripts/convert_ckpt.py) and saves tied tensors under both their names;
BERT files of 2018 say `gamma` and `beta` for a LayerNorm's weight and bias; a bare `BertModel` has no prefix.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vlprep.errors import SettingsError
from vlprep.interop import mil_nce

WORDS = "bert.embeddings.word_embeddings.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"
TYPES = "bert.embeddings.token_type_embeddings.weight"
REGION_MASK = "bert.img_embeddings.mask_embedding.weight"

_TIED = {
    "cls.predictions.decoder.weight": WORDS,
    "cls.predictions.decoder.bias": "cls.predictions.bias",
    "feat_regress.weight": "bert.img_embeddings.img_linear.weight",
    "cls_visual.predictions.weight": "visual.embeddings.word_embeddings.weight",
    "decoder.embeddings.word_embeddings.weight": WORDS,
    "decoder.embeddings.position_embeddings.weight": POSITIONS,
    "decoder.classifier.cls.predictions.decoder.weight": WORDS,
}
"""Second names of tensors, which published files may or may not have."""
_SAVED_BY_UNITER = ("cls.predictions.decoder.weight", "feat_regress.weight")
_OLD_NORM = {"gamma": "weight", "beta": "bias"}
_BERT_PARTS = ("bert.embeddings.", "bert.encoder.", "bert.pooler.", "cls.predictions.")
_VIDEO_PARTS = ("bert.visual_embeddings.", "cls.visual_predictions.")


def our_name(name: str) -> str:
    """What we call the tensor that a checkpoint calls `name`: a BERT's, UNITER's, LXMERT's (Hugging Face's) or ours."""
    name = re.sub(r"(LayerNorm)\.(gamma|beta)$", lambda match: f"{match[1]}.{_OLD_NORM[match[2]]}", name)
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        return f"bert.{name}"
    return re.sub(r"^(uniter|lxmert)\.", "bert.", name)


def to_ours(arrays: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """The tensors under our names, each once, those that we have no use for included.

    Row 0 of the region mask is zero, as UNITER sets it in every forward (model/model.py:255). Raises `SettingsError`
    where a file has different numbers for tensors that the published models tie.
    """
    if mil_nce.STEM in arrays:
        return mil_nce.from_mil_nce(arrays)
    ours = {our_name(name): tensor for name, tensor in arrays.items()}
    for second, first in _TIED.items():
        if second not in ours:
            continue
        tied = ours.pop(second)
        if not torch.equal(ours.setdefault(first, tied), tied):
            raise SettingsError(f"{file}: {second} and {first} differ; every published model ties them")
    if REGION_MASK in ours:
        ours[REGION_MASK] = ours[REGION_MASK].clone()
        ours[REGION_MASK][0] = 0
    return ours


def to_uniter(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """UNITER's state dict (`UniterForPretraining`), tied tensors under both names.

    Raises `SettingsError` for a model without regions and their classes, which UNITER's own loader would refuse.
    """
    named = {re.sub(r"^bert\.", "uniter.", name): state[name] for name in state if not name.startswith(_VIDEO_PARTS)}
    for part in ("uniter.img_embeddings.", "region_classifier."):
        if not any(name.startswith(part) for name in named):
            raise SettingsError(f"UNITER's checkpoints have {part}*, this model has not; export it with --to hf")
    return named | {second: state[_TIED[second]] for second in _SAVED_BY_UNITER}


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part that transformers' `BertForPreTraining` knows; it ties the rest of the word head by itself.

    Without `cls.seq_relationship`: next-sentence prediction was not trained, and our match head asks another question.
    """
    return {name: tensor for name, tensor in state.items() if name.startswith(_BERT_PARTS)}
