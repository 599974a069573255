"""CBT's two losses (Sun et al. 2019; no code was published, reference/training.md §1.9 is from memory): `cbt`.

    loss    = cross + visual                      the paper's w_cross = w_visual = 1; w_bert = 0, BERT is frozen
    visual  mean over masked clips t of -log [ e^(e_t . h_t) / ( e^(e_t . h_t) + sum_{j != t} e^(e_j . h_t) ) ]
            h_t the visual transformer's state where clip t was masked, e the clips' embeddings, and their products
            divided by the root of their width
    cross   mean over pairs of -log [ e^MI(x, y) / sum_y' e^MI(x, y') ], x a text, y its clips, y' those of the batch

The two formulas are the paper's, without the division. Decided here: 15 % of the clips are masked at once, at least one
of a segment, where the paper's sum predicts each from all others; negatives of a clip are all clips of the micro-batch,
its own segment's included; the cross-modal transformer reads unmasked clips; MI is not normalised, and each text is
told from the videos, not each video from the texts. Negatives are the rest of the micro-batch of one process.

Shape suffixes: C masked clips, B texts with their clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vlprep.pretrain.base import Inputs, Loss, MicroBatch, Sample
from vlprep.pretrain.masking import mask_rows
from vlprep.pretrain.models.cbt import Cbt
from vlprep.pretrain.models.clip_parts import ClipStreams, every_pair
from vlprep.pretrain.objectives.contrastive import diagonal_nce, feature_scores, nce
from vlprep.pretrain.objectives.told_clips import SegmentRule
from vlprep.pretrain.packing import Example, pack


@dataclass(frozen=True, slots=True)
class CbtTargets:
    clip_rows_C: Tensor
    """Masked clips among all of the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CbtTasks:
    """`cbt`."""

    segments: SegmentRule
    name: str = "cbt"

    def needs(self) -> frozenset[str]:
        return frozenset({"text", "video"})

    def example(self, sample: Sample, draw: np.random.Generator, other: Sample | None = None) -> Example:
        assert sample.video is not None
        told = self.segments.told(sample.video, int(draw.integers(len(sample.video.texts))))
        return self.segments.sequence(told.words, told.clips_CD, mask_rows(len(told.clips_CD), draw))

    def collate(self, examples: list[Example]) -> MicroBatch:
        inputs = pack(examples)
        assert inputs.clips is not None
        targets = CbtTargets(inputs.clips.masked_C.nonzero()[:, 0])
        return MicroBatch(
            objective=self.name,
            inputs=inputs,
            targets=targets,
            count=len(examples),
            real_tokens=sum(example.length for example in examples),
            term_counts={"visual": len(targets.clip_rows_C)},
        )

    def loss(self, model: Cbt, batch: MicroBatch) -> Loss:
        clips, rows_C = batch.inputs.clips, batch.targets.clip_rows_C
        assert clips is not None
        predicted_CH = model.encode_clips(clips, hide=True)[rows_C]
        temperature = predicted_CH.shape[1] ** 0.5
        visual = nce(feature_scores(predicted_CH, model.clip_targets(clips), temperature=temperature), rows_C)
        cross = diagonal_nce(self.information(model, batch.inputs))
        summed = cross.loss_B.sum()
        return Loss(
            summed,
            {
                "cross": summed.detach(),
                "cross accuracy": cross.correct_B.sum(),
                "visual accuracy": visual.correct_B.sum(),
            },
            {"visual": visual.loss_B.sum()},
        )

    def pair(self, text: Sample, seen: Sample) -> Example:
        """The first segment's text of one video with the clips of another's, nothing masked."""
        assert text.video is not None
        assert seen.video is not None
        return self.segments.sequence(
            self.segments.told(text.video, 0).words, self.segments.told(seen.video, 0).clips_CD
        )

    def scores(self, model: Cbt, inputs: Inputs) -> Tensor:
        """(B,) what each text and its own video tell of each other, for ranking."""
        own = torch.arange(len(inputs.lengths_B))
        return model.information(_encoded(model, inputs), inputs, own, own).float()

    def information(self, model: Cbt, inputs: Inputs) -> Tensor:
        """(B, B) of each text and each video."""
        count = len(inputs.lengths_B)
        return model.information(_encoded(model, inputs), inputs, *every_pair(count)).view(count, count)


def _encoded(model: Cbt, inputs: Inputs) -> ClipStreams:
    assert inputs.text is not None
    assert inputs.clips is not None
    return ClipStreams(model.encode_texts(inputs.text), model.encode_clips(inputs.clips))
