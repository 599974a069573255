"""Captions by beam search from a model that was trained to write (VLP), as a look at what it has learned.

As in pretraining, the next piece is what the model guesses for a [MASK] after those that it has (VLP
pytorch_pretrained_bert/modeling.py, `BertForSeq2SeqDecoder`). Every step encodes the beams anew: meant for a look, not
for a test set.

Shape suffixes: N beams, W words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from vlprep.pretrain.base import Sample, to_device
from vlprep.pretrain.masking import Ints
from vlprep.pretrain.models.vlp import Vlp
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.objectives.vlp import caption_sequence
from vlprep.pretrain.packing import ending_slots, pack


@dataclass(frozen=True, slots=True)
class Caption:
    pieces: Ints
    """Without the final [SEP]."""
    log_probability: float


@torch.no_grad()
def write_captions(
    model: Vlp, sample: Sample, rule: SequenceRule, *, beams: int = 3, longest: int = 20
) -> list[Caption]:
    """The `beams` likeliest captions of one image, the likeliest by piece first.

    Special tokens other than [SEP], which ends a caption, are never written; captions are cut at `longest` pieces.
    """
    model.eval()
    device = next(model.parameters()).device
    words = rule.words
    open_beams = [Caption(np.empty(0, np.int64), 0.0)]
    done: list[Caption] = []
    for _ in range(longest + 1):
        sequences = [
            caption_sequence(rule, sample, np.append(beam.pieces, words.mask), written=True) for beam in open_beams
        ]
        inputs = to_device(pack(sequences, distributions=True), device)
        last = ending_slots(sequences, [np.array([1 + len(beam.pieces)]) for beam in open_beams]).to(device)
        scores_NW = model.word_logits(model.encode(inputs)[last]).float().log_softmax(1)
        never = [number for number in range(words.first_word) if number != words.sep]
        scores_NW[:, never] = -torch.inf
        totals_NW = scores_NW + torch.tensor([[beam.log_probability] for beam in open_beams], device=device)
        likeliest = totals_NW.flatten().topk(min(2 * beams, totals_NW.numel()))
        grown: list[Caption] = []
        for total, place in zip(likeliest.values.tolist(), likeliest.indices.tolist(), strict=True):
            beam, piece = open_beams[place // words.size], place % words.size
            if total == -np.inf:
                break  # fewer captions than beams
            if piece == words.sep:
                done.append(Caption(beam.pieces, total))
            else:
                grown.append(Caption(np.append(beam.pieces, piece), total))
        open_beams = grown[:beams]
        if len(done) >= beams or not open_beams:
            break
    whole = done or [Caption(beam.pieces[:longest], beam.log_probability) for beam in open_beams]
    return sorted(whole, key=lambda caption: -caption.log_probability / (len(caption.pieces) + 1))[:beams]
