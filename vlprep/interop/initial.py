"""Starting a model from published weights: BERT's, another system's, or those of an earlier run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vlprep.errors import SettingsError
from vlprep.interop.bert_names import POSITIONS, TYPES, WORDS, to_ours
from vlprep.weights import from_hub, load_arrays, resolve

_VLP_TYPES = [0, 1, 0, 0, 0, 1]
"""Which of BERT's two token types each of VLP's six starts from (UniLM's --new_segment_ids)."""
_ANSWERS = "answer_head.logit_fc.3."
"""LXMERT's layer with a row for each answer."""
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_KNOWN_TOKENIZERS = {30_522: "bert-base-uncased", 28_996: "bert-base-cased", 119_547: "bert-base-multilingual-cased"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialWeights:
    """Which of a model's tensors came from a file. Names are the model's, sorted."""

    source: str
    """As the user gave it."""
    file: Path
    loaded: tuple[str, ...]
    partly: tuple[str, ...]
    """Position tables of another length: the rows that both have were loaded."""
    initial: tuple[str, ...]
    """Not in the file: they keep their initial values."""
    unused: tuple[str, ...]
    """In the file, but not in the model."""

    def summary(self) -> str:
        """One line for people, the parts of the model by name."""
        total = len(self.loaded) + len(self.partly) + len(self.initial)
        where = self.source if self.source == str(self.file) else f"{self.source} ({self.file})"
        parts = [f"{len(self.loaded) + len(self.partly)} of {total} tensors from {where}"]
        if self.partly:
            parts.append(f"in part {', '.join(self.partly)}")
        if self.initial:
            parts.append(f"{len(self.initial)} keep their initial values ({_parts(self.initial)})")
        if self.unused:
            parts.append(f"{len(self.unused)} in the file are not used ({_parts(self.unused)})")
        return "; ".join(parts)


def load_initial(model: nn.Module, source: str) -> InitialWeights:
    """Copy into a model what the source has for it.

    Args:
        model: With our parameter names (`vlprep.pretrain.models`).
        source: `bert-base-uncased` or another name on the Hub (from its cache if it is there), a Hugging Face folder,
            a `.safetensors`, `.bin` or `.pt` file such as `uniter-base.pt`, a run's folder (its newest checkpoint) or
            one of its checkpoints.

    Raises:
        SettingsError: No such weights, weights of another kind of model, or a tensor of another shape. Only a position
            table may be longer or shorter: the rows that both have are loaded; and answers to questions, which are
            then others, may be more or fewer: their layer is not.
    """
    file = find_weights(source)
    found = to_ours(load_arrays(file), str(file))
    state = model.state_dict()
    first = WORDS if WORDS in state else next(iter(state))  # HowTo100M's texts go through no BERT
    if first not in found:
        raise SettingsError(f"--init {source}: {file} is no checkpoint of such a model (it has no {first})")
    if first == WORDS:
        _require_sizes(source, state[WORDS], found[WORDS])
    shared = [name for name in state if name in found and not _other_answers(name, state[name], found[name])]
    partly = [name for name in shared if name == POSITIONS and found[name].shape != state[name].shape]
    with torch.no_grad():
        for name in shared:
            _copy(source, name, found[name], state[name])
    return InitialWeights(
        source=source,
        file=file,
        loaded=tuple(sorted(set(shared) - set(partly))),
        partly=tuple(partly),
        initial=tuple(sorted(state.keys() - set(shared))),
        unused=tuple(sorted(found.keys() - set(shared))),
    )


def find_weights(source: str) -> Path:
    """The file that `--init` means, fetched if need be."""
    path = Path(source).expanduser()
    if path.is_dir():
        newest = sorted(path.glob("checkpoints/step-*/model.safetensors"))[-1:]
        for file in (*newest, path / "model.safetensors", path / "pytorch_model.bin"):
            if file.is_file():
                return file
        raise SettingsError(f"--init {source}: the folder has no model.safetensors, pytorch_model.bin or checkpoints")
    if path.is_file():
        return path
    if source.startswith("hf://"):
        return resolve(source)
    if path.suffix in _SUFFIXES or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", source):
        raise SettingsError(f"--init {source}: no such file or folder")
    page = f"https://huggingface.co/{source}/tree/main"
    by_hand = f"fetch model.safetensors from {page}, and pass --init with its path"
    try:
        return from_hub(source, None, by_hand)
    except SettingsError as error:
        raise SettingsError(f"--init {source}: neither a file nor a folder here, and {error}") from error


def _other_answers(name: str, mine: Tensor, theirs: Tensor) -> bool:
    return name.startswith(_ANSWERS) and len(mine) != len(theirs)


def _require_sizes(source: str, mine_WH: Tensor, theirs_WH: Tensor) -> None:
    if mine_WH.shape[1] != theirs_WH.shape[1]:
        raise SettingsError(
            f"--init {source}: its hidden size is {theirs_WH.shape[1]}, the model's {mine_WH.shape[1]};"
            f" choose the model alike, --model base or hidden={theirs_WH.shape[1]}"
        )
    if len(mine_WH) != len(theirs_WH):
        known = _KNOWN_TOKENIZERS.get(len(theirs_WH))
        tokenizer = f"with --tokenizer {known}" if known else "with the tokenizer that belongs to it"
        raise SettingsError(
            f"--init {source}: it knows {len(theirs_WH):,} pieces, the tokenizer of the text store {len(mine_WH):,};"
            f" make the text store anew {tokenizer} (`vlprep tokenize DATASET --overwrite`)"
        )


def _copy(source: str, name: str, theirs: Tensor, mine: Tensor) -> None:
    if name == TYPES and len(theirs) == 2 and len(mine) == len(_VLP_TYPES):
        theirs = theirs[_VLP_TYPES]
    if name == POSITIONS and theirs.shape[1:] == mine.shape[1:]:
        rows = min(len(theirs), len(mine))
        theirs, mine = theirs[:rows], mine[:rows]
    if theirs.shape != mine.shape:
        raise SettingsError(
            f"--init {source}: {name} is {_shape(theirs)} there and {_shape(mine)} in this model: another detector's"
            " features or classes, another tokenizer, or other model sizes"
        )
    mine.copy_(theirs)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _parts(names: tuple[str, ...]) -> str:
    """The modules that the names lie in: `bert.img_embeddings`, `itm_output`."""
    levels = {name: 2 if name.startswith(("bert.", "cls.")) else 1 for name in names}
    return ", ".join(sorted({".".join(name.split(".")[: levels[name]]) for name in names}))
