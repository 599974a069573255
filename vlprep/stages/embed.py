"""`embed`: the narrated segments of videos in a trained model's joint space, as a store.

Fast enough for the driver itself: features and texts are in stores already, and a dual encoder is small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlprep.errors import SettingsError
from vlprep.pretrain.checkpoint import MODEL_NAME
from vlprep.pretrain.dual import DualEncoder, DualObjective, narrated_clips
from vlprep.pretrain.dual_scores import embed_clips, embed_texts
from vlprep.pretrain.video_corpus import VideoCorpus
from vlprep.shards import Status, StoreSettings, open_store
from vlprep.shards.schema import embeddings_schema
from vlprep.stages.trained import Trained, dual_encoder, open_trained
from vlprep.weights import WeightsRecord, sha256_of

PART_SIZE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    folder: Path
    status: Status
    size: int
    """Numbers an embedding."""
    segments: int
    """Embedded by this run."""


def embed(
    checkpoint: Path,
    dataset: Path,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    on_video: Callable[[int, int], None] = lambda done, total: None,
) -> EmbedReport:
    """Fill `<dataset>/vlprep/embeddings` (or `out`) with clips and texts of every narrated video; what was committed
    before stays.

    Raises `SettingsError` where the model has no joint space, or does not fit the dataset's stores.
    """
    trained = open_trained(checkpoint, dataset, device=device, everything=True)
    objective = next((one for one in trained.objectives.values() if isinstance(one, DualObjective)), None)
    if objective is None or not isinstance(trained.model, DualEncoder):
        raise SettingsError(
            f"{checkpoint} was trained with {'+'.join(trained.objectives)} and has no joint space of texts and clips:"
            " howto100m, milnce and univl have one"
        )
    corpus = trained.own_corpus()
    if not isinstance(corpus, VideoCorpus) or not len(corpus):
        raise SettingsError(f"{dataset}: no narrated video to embed")
    numbers = {_video_id(corpus, number): number for number in range(len(corpus))}
    texts_ND, _ = _embedded(trained, objective, corpus, 0)
    weights = trained.found.checkpoint / MODEL_NAME
    settings = StoreSettings(
        kind="embeddings",
        settings={"objective": objective.name, "text": corpus.text.folder.name},
        weights=asdict(WeightsRecord(source=str(weights), sha256=sha256_of(weights))),
    )
    folder = out or dataset / "vlprep" / "embeddings"
    store = open_store(folder, embeddings_schema(texts_ND.shape[1]), settings, overwrite=overwrite)
    store.plan(list(numbers), PART_SIZE)
    segments = done = 0
    for part in store.pending():
        with store.write_part(part) as writer:
            for video_id in store.part_items(part):
                if video_id not in numbers:
                    writer.fail(
                        video_id, SettingsError("this video was planned, but its narration or features are gone")
                    )
                    continue
                row = _row(trained, objective, corpus, numbers[video_id])
                writer.add(video_id, row)
                segments, done = segments + len(row["times"]), done + 1
                on_video(done, len(numbers))
    return EmbedReport(folder=store.folder, status=store.status(), size=texts_ND.shape[1], segments=segments)


def _row(trained: Trained, objective: DualObjective, corpus: VideoCorpus, number: int) -> dict[str, Any]:
    """The columns of an embeddings store but for the id."""
    texts_ND, clips_ND = _embedded(trained, objective, corpus, number)
    video = corpus.features[0][int(corpus.items()[number])]
    spans = [span for _, span in narrated_clips(corpus.sample(number))]
    return {
        "path": video["path"],
        "source_id": video["source_id"],
        "times": np.array(spans, np.float64),
        "clips": clips_ND,
        "texts": texts_ND,
        "text_rows": corpus.text_rows(number),
    }


def _video_id(corpus: VideoCorpus, number: int) -> str:
    return str(corpus.features[0][int(corpus.items()[number])]["id"])


def _embedded(
    trained: Trained, objective: DualObjective, corpus: VideoCorpus, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Texts and clips of a video's segments, each (N, D)."""
    sample = corpus.sample(number)
    assert sample.video is not None
    segments = narrated_clips(sample)
    model = dual_encoder(trained)
    clips_ND, left_out = embed_clips(model, objective, [(sample.video, span) for _, span in segments], trained.device)
    assert not left_out  # features lie in a store: no file can turn out to be of no use
    return embed_texts(model, objective, [ids for ids, _ in segments], trained.device), clips_ND
