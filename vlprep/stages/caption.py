"""`evaluate captions`: what a model that was trained to write (VLP) says of images, beside what people said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlprep.errors import SettingsError
from vlprep.pretrain.captions import write_captions
from vlprep.pretrain.corpus import Corpus
from vlprep.pretrain.models.vlp import Vlp
from vlprep.pretrain.objectives.vlp import MaskedCaption
from vlprep.stages.tokenize_text import open_store_encoder
from vlprep.stages.trained import Trained, open_trained
from vlprep.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedImage:
    image: str
    """Its id in the store of regions."""
    written: Sequence[str]
    """The likeliest captions, the likeliest by piece first."""
    log_probabilities: Sequence[float]
    told: Sequence[str]
    """The dataset's own captions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionReport:
    checkpoint: Path
    held_out: bool
    images: Sequence[CaptionedImage]


def caption(
    checkpoint: Path, dataset: Path, *, most: int = 10, beams: int = 3, seed: int = 0, device: str = "cpu"
) -> CaptionReport:
    """Captions by beam search for up to `most` images, drawn by `seed`; of a dataset that was trained on, held-out
    ones.

    Raises `SettingsError` where the model was not trained to write.
    """
    trained = open_trained(checkpoint, dataset, device=device)
    task = next((one for one in trained.objectives.values() if isinstance(one, MaskedCaption)), None)
    if task is None or not isinstance(trained.model, Vlp):
        raise SettingsError(
            f"{checkpoint} was trained with {'+'.join(trained.objectives)}, which does not write: vlp does"
        )
    numbers = trained.usable_for(task)
    items = trained.corpus.items()[numbers]
    chosen = np.sort(np.random.default_rng(seed).permutation(np.unique(items))[:most])
    images = [
        _captioned(trained, trained.model, task, numbers[items == item].tolist(), beams) for item in chosen.tolist()
    ]
    return CaptionReport(checkpoint=trained.found.checkpoint, held_out=trained.seen_in_training, images=images)


def _captioned(trained: Trained, model: Vlp, task: MaskedCaption, numbers: list[int], beams: int) -> CaptionedImage:
    """The samples are those of one image."""
    corpus, first = trained.corpus.place(numbers[0])
    assert isinstance(corpus, Corpus)
    assert corpus.text is not None
    encoder = open_store_encoder(corpus.text.folder)
    assert isinstance(encoder, Tokenizer)  # words have no [MASK]
    found = write_captions(model, trained.corpus.sample(numbers[0]), task.rule, beams=beams)
    told = [corpus.text[int(corpus.places.first_text_S[trained.corpus.place(number)[1]])] for number in numbers]
    return CaptionedImage(
        image=str(corpus.visual[int(corpus.places.visual_S[first])]["id"]),
        written=[encoder.decode(one.pieces.tolist()) for one in found],
        log_probabilities=[one.log_probability for one in found],
        told=[str(row["text"]) for row in told],
    )
