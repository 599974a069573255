"""Oscar's two tasks, trained together: `oscar` (microsoft/Oscar oscar/datasets/oscar_tsv.py:256-341, 619-702).

    loss  = contrast + mlm
    contrast  mean over sequences of -log softmax(W tanh-pooled [CLS])[class]: 0 clean, 1 wrong tags, 2 wrong caption
    mlm       mean over masked pieces, of caption and tags alike, of -log softmax(logits)[piece]; wrong pairs included

The sequence is `[CLS] caption [SEP] tags [SEP] regions`; tags are the names of the regions' classes. Half of the
sequences are clean; a share `wrong_text` of all (Oscar+: 0.25) has another image's caption, the rest another image's
tags. With `wrong_text` 0 it is Oscar's loss of two classes, in which the tags give way to the tags or, as often, the
caption of another image.

Text is masked by 15 %, 80-10-10, nothing forced; regions are not.

Deviations: random pieces come from the words only; each class name is said once, the surest first, as far as
`most_text` pieces go (published: all boxes' names, then both segments cut); captions that are too long are left out,
not cut.

Shape suffixes: M masked pieces, B sequences, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vlprep.errors import SettingsError
from vlprep.pretrain.base import Inputs, Loss, MicroBatch, Sample
from vlprep.pretrain.masking import Ints, mask_tokens
from vlprep.pretrain.models.oscar import Oscar, OscarSettings
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.packing import Example, join, pack, text_slots
from vlprep.pretrain.settings import ModelSettings, ObjectiveSettings

CLEAN, WRONG_TAGS, WRONG_TEXT = range(3)


@dataclass(frozen=True, slots=True)
class OscarTargets:
    slots_M: Tensor
    ids_M: Tensor
    classes_B: Tensor

    @property
    def labels_B(self) -> Tensor:
        """1 = clean."""
        return (self.classes_B == CLEAN).long()


@dataclass(frozen=True, slots=True)
class _MaskedPair:
    sequence: Example
    positions: Ints
    ids: Ints
    contrast: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OscarTaskSettings(ObjectiveSettings):
    wrong_text: float = 0.25
    """Share of the sequences with a wrong caption, up to 0.5; 0 in OSCAR, whose loss has two classes."""

    def require_fit(self, model: ModelSettings) -> None:
        if self.wrong_text and isinstance(model, OscarSettings) and model.contrast_classes == 2:
            raise SettingsError("objectives.oscar.wrong_text above 0 needs model.contrast_classes = 3")


@dataclass(frozen=True, slots=True, kw_only=True)
class OscarTasks:
    """`oscar`."""

    rule: SequenceRule
    settings: OscarTaskSettings = OscarTaskSettings()
    most_text: int = 35
    """Pieces of caption and tags together, special ones included."""
    negatives: float = 0.5
    name: str = "oscar"

    def extra_tokens(self, lengths_S: Ints, seen_S: Ints) -> Ints:
        """(S,) about how many pieces the tags have, with their [SEP]: a name of mean length for each region, as far as
        there is room. Some regions share a name, and some samples get the tags of another image.
        """
        names = self.rule.words.class_names
        mean_pieces = sum(map(len, names)) / len(names) if names else 0
        room_S = self.most_text - 1 - (lengths_S - seen_S)  # of which the two special pieces are counted
        extra_S: Ints = 1 + np.minimum(np.ceil(seen_S * mean_pieces).astype(np.int64), room_S).clip(min=0)
        return extra_S

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "regions"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> _MaskedPair:
        """`other` is a sample of another image: its caption or its tags pollute half of the draws."""
        assert other is not None
        contrast = self.draw_class(draw)
        caption = self.rule.text(other if contrast == WRONG_TEXT else sample)
        tags = self.tags(other if contrast == WRONG_TAGS else sample, self.most_text - 3 - len(caption))
        if contrast == WRONG_TAGS and not self.settings.wrong_text and draw.random() < 0.5:
            tags = self.rule.text(other)[: max(0, self.most_text - 3 - len(caption))]
        words = self.rule.words
        pieces = np.concatenate([caption, tags])
        masked, targets = mask_tokens(
            pieces, draw, mask=words.mask, replacements=range(words.first_word, words.size), force_one=False
        )
        cut = len(caption)
        sequence = self._sequence(masked[:cut], masked[cut:], sample)
        return _MaskedPair(sequence, targets + 1 + (targets >= cut), pieces[targets], contrast)

    def _sequence(self, caption: Ints, tags: Ints, seen: Sample) -> Example:
        words = self.rule.words
        text = np.concatenate([[words.cls], caption, [words.sep], tags, [words.sep]])
        types = (np.arange(len(text)) > len(caption) + 1).astype(np.int64)
        return Example(text_ids_P=text, text_types_P=types, regions=seen.regions)

    def draw_class(self, draw: np.random.Generator) -> int:
        """Which of the three a sequence is."""
        chance = draw.random()
        if chance >= self.negatives:
            return CLEAN
        return WRONG_TEXT if chance < self.settings.wrong_text else WRONG_TAGS

    def tags(self, sample: Sample, most: int) -> Ints:
        """The pieces of the class names of an image's regions, each name once and whole, at most so many pieces."""
        assert sample.regions is not None
        pieces: list[int] = []
        for number in dict.fromkeys(sample.regions.object_ids_R.tolist()):
            name = self.rule.words.class_names[number]
            if len(pieces) + len(name) > most:
                break
            pieces += name
        return np.array(pieces, np.int64)

    def collate(self, examples: list[_MaskedPair]) -> MicroBatch:
        sequences = [example.sequence for example in examples]
        slots = text_slots(sequences, [example.positions for example in examples])
        classes_B = torch.tensor([example.contrast for example in examples])
        return MicroBatch(
            objective=self.name,
            inputs=pack(sequences),
            targets=OscarTargets(slots, join([example.ids for example in examples]), classes_B),
            count=len(examples),
            real_tokens=sum(sequence.length for sequence in sequences),
            term_counts={"mlm": len(slots)},
        )

    def pair(self, text: Sample, seen: Sample) -> Example:
        """A text with an image and its tags, nothing masked."""
        caption = self.rule.text(text)
        return self._sequence(caption, self.tags(seen, self.most_text - 3 - len(caption)), seen)

    def scores(self, model: Oscar, inputs: Inputs) -> Tensor:
        """(B,) how much more clean than anything else, for ranking."""
        logits_BC = model.contrast_logits(model.encode(inputs), inputs).float()
        return logits_BC[:, CLEAN] - logits_BC[:, 1:].logsumexp(1)

    def loss(self, model: Oscar, batch: MicroBatch) -> Loss:
        targets: OscarTargets = batch.targets
        states_TH = model.encode(batch.inputs)
        words_MW = model.word_logits(states_TH[targets.slots_M]).float()
        contrast_BC = model.contrast_logits(states_TH, batch.inputs).float()
        terms = {"mlm": F.cross_entropy(words_MW, targets.ids_M, reduction="sum")}
        parts = {
            "accuracy": (contrast_BC.argmax(1) == targets.classes_B).sum(),
            "mlm accuracy": (words_MW.argmax(1) == targets.ids_M).sum(),
        }
        return Loss(F.cross_entropy(contrast_BC, targets.classes_B, reduction="sum"), parts, terms)
