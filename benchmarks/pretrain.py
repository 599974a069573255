"""Pretraining: ours against the usual padded loop of the same model, in CPU seconds, in one run.

    python benchmarks/pretrain.py            a 4-layer model 256 wide: 3 to 5 minutes
    python benchmarks/pretrain.py --model base --steps 3
    python benchmarks/pretrain.py --tiny     does it run at all?

The usual loop draws captioned images at random, as many as ours has in a batch on average, pads text and regions to the
longest of the batch, and runs every layer on the padding. It has the same weights, objective, optimiser and kernel.

- usual:     real tokens per CPU second of the padded loop, fp32
- ours:      the same figure of `Trainer` on stores on disk, fp32 and bf16
- bare:      forward, backward and step on batches that are ready in memory: what a loop cannot undercut
- waiting:   share of the wall clock that `Trainer` waited for a batch, with one loader process

Rounds of all of them take turns, on the same batches; of each batch the fastest round counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _measure import matmul_rate, print_table, save
from numpy.typing import NDArray
from torch import Tensor, nn

from vlprep.pretrain.attention import Layout
from vlprep.pretrain.base import MicroBatch, StoreFacts
from vlprep.pretrain.batching import Batches, BatchSettings, ObjectiveSchedule
from vlprep.pretrain.corpus import Corpus, DatasetStores, Mixture
from vlprep.pretrain.distributed import World
from vlprep.pretrain.loader import StepBatches, Stream
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamSettings, single_stream_config
from vlprep.pretrain.objectives.catalogue import make_objectives
from vlprep.pretrain.objectives.mlm import MaskedLanguageSettings
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.optim import make_optimiser
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.settings import SIZES, OptimiserSettings, TrainSettings
from vlprep.pretrain.trainer import Logged, Trainer
from vlprep.shards import StoreSettings, open_store
from vlprep.shards.schema import regions_schema, text_schema

WORDS = TextVocabulary(size=28_996, pad=0, cls=101, sep=102, mask=103, first_word=106)
OPTIMISER = OptimiserSettings(lr=1e-5, warmup=0)


@dataclass(frozen=True, slots=True)
class Size:
    model: str
    images: int
    tokens: int
    steps: int
    rounds: int


DEFAULT = Size(model="small", images=1000, tokens=3072, steps=6, rounds=3)
TINY = Size(model="tiny", images=60, tokens=512, steps=2, rounds=1)


def caption_mix(images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pieces, boxes) of images with a caption each: about 13 (5 to 60) and 38 (10 to 100)."""
    rng = np.random.default_rng(0)
    pieces = np.clip(rng.lognormal(np.log(12), 0.4, images), 5, 60).astype(np.int64)
    return pieces, np.clip(rng.lognormal(np.log(34), 0.5, images), 10, 100).astype(np.int64)


def make_stores(folder: Path, images: int) -> DatasetStores:
    rng = np.random.default_rng(0)
    pieces, boxes = caption_mix(images)
    names = [f"{number:06}.jpg" for number in range(images)]
    stores = DatasetStores(text=folder / "text", regions=folder / "regions")
    assert stores.text is not None
    assert stores.regions is not None
    texts = open_store(stores.text, text_schema(), StoreSettings(kind="text", settings={}, weights=None))
    texts.plan(names, images)
    regions = open_store(
        stores.regions, regions_schema(2048, 1), StoreSettings(kind="regions", settings={}, weights=None)
    )
    regions.plan(names, 64)
    for part in texts.pending():
        with texts.write_part(part) as writer:
            for name, count in zip(names, pieces, strict=True):
                ids = rng.integers(WORDS.first_word, WORDS.size, count)
                about = {"path": name, "item_id": name, "text": "", "token_ids": ids, "start": None, "end": None}
                writer.add(name, {**about, "source_id": None})
    counts = dict(zip(names, boxes.tolist(), strict=True))
    for part in regions.pending():
        with regions.write_part(part) as writer:
            for name in regions.part_items(part):
                writer.add(name, _image(name, counts[name], rng))
    return stores


def _image(name: str, boxes: int, rng: np.random.Generator) -> dict[str, Any]:
    corners = np.sort(rng.uniform(0, 400, (boxes, 2, 2)), 1).reshape(boxes, 4)
    return {
        "path": name,
        "source_id": None,
        "width": 400,
        "height": 400,
        "boxes": corners,
        "proposals": corners,
        "features": np.abs(rng.normal(0, 0.5, (boxes, 2048))).astype(np.float16),
        "object_ids": np.zeros(boxes, int),
        "max_conf": np.full(boxes, 0.9),
        "background_prob": np.full(boxes, 0.1),
        "class_probs": np.full((boxes, 1), 0.9),
    }


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """What the usual loop makes: everything rectangular. B sequences, P pieces, R regions, L = P + R."""

    ids_BP: Tensor
    features_BRD: Tensor
    boxes_BR4: Tensor
    real_BL: Tensor
    rows_M: Tensor
    """Masked pieces as rows of (B * L)."""
    targets_M: Tensor
    real_tokens: int


def padded_batches(stream: Stream, count: int, examples: int) -> list[PaddedBatch]:
    """`count` batches of `examples` random samples, masked as ours."""
    order = np.random.default_rng(1).permutation(stream.samples)
    order = np.resize(order, count * examples).reshape(count, examples)
    return [_pad(stream.make(chosen, 0)) for chosen in order]


def _pad(batch: MicroBatch) -> PaddedBatch:
    text, regions, lengths_B = batch.inputs.text, batch.inputs.regions, batch.inputs.lengths_B
    assert text is not None
    assert regions is not None
    starts_B = lengths_B.cumsum(0) - lengths_B
    of_text = torch.searchsorted(starts_B, text.slots_P, right=True) - 1
    of_regions = torch.searchsorted(starts_B, regions.slots_R, right=True) - 1
    pieces_B, regions_B = torch.bincount(of_text), torch.bincount(of_regions)
    longest_text, longest = int(pieces_B.max()), int(pieces_B.max() + regions_B.max())
    place_R = regions.slots_R - starts_B[of_regions] - pieces_B[of_regions]
    ids_BP = torch.zeros(len(lengths_B), longest_text, dtype=torch.int64)
    ids_BP[of_text, text.positions_P] = text.ids_P
    features_BRD = torch.zeros(len(lengths_B), longest - longest_text, regions.features_RD.shape[1])
    features_BRD[of_regions, place_R] = regions.features_RD.float()
    boxes_BR4 = torch.zeros(*features_BRD.shape[:2], 4)
    boxes_BR4[of_regions, place_R] = regions.boxes_R4
    real_BL = torch.zeros(len(lengths_B), longest, dtype=torch.bool)
    real_BL[of_text, text.positions_P] = True
    real_BL[of_regions, longest_text + place_R] = True
    masked_M = torch.searchsorted(starts_B, batch.targets.slots_M, right=True) - 1
    rows_M = masked_M * longest + batch.targets.slots_M - starts_B[masked_M]
    return PaddedBatch(ids_BP, features_BRD, boxes_BR4, real_BL, rows_M, batch.targets.ids_M, batch.real_tokens)


def padded_loss(model: SingleStream, batch: PaddedBatch) -> Tensor:
    """The usual forward pass: the same modules on every row, real or not."""
    count, longest = batch.real_BL.shape
    embeddings = model.bert["embeddings"]
    types = embeddings.token_type_embeddings.weight
    positions_P = torch.arange(batch.ids_BP.shape[1])
    words_BPH = embeddings.word_embeddings(batch.ids_BP) + embeddings.position_embeddings(positions_P) + types[0]
    image = model.bert["img_embeddings"]
    boxes = batch.boxes_BR4
    sides = boxes[..., 2:] - boxes[..., :2]
    geometry_BR7 = torch.cat([boxes, sides, sides.prod(-1, keepdim=True)], -1)
    appearance_BRH = image.img_layer_norm(image.img_linear(batch.features_BRD))
    seen_BRH = image.LayerNorm(appearance_BRH + image.pos_layer_norm(image.pos_linear(geometry_BR7)) + types[1])
    hidden_BLH = torch.cat([embeddings.finish(words_BPH), image.dropout(seen_BRH)], 1)
    lengths_B = torch.full((count,), longest)
    mask_BLL = batch.real_BL[:, None, :].expand(-1, longest, -1)
    layout = Layout(lengths_B, hidden_BLH.device, "padded", mask_BLL)
    states_TH = model.bert["encoder"](hidden_BLH.flatten(0, 1), layout)
    return F.cross_entropy(model.word_logits(states_TH[batch.rows_M]).float(), batch.targets_M)


@dataclass(frozen=True, slots=True)
class Pace:
    """Real tokens and CPU seconds of each step."""

    tokens_N: NDArray[np.int64]
    seconds_N: NDArray[np.float64]


def fastest(rounds: Sequence[Pace]) -> float:
    """Real tokens per CPU second, each step at its fastest."""
    seconds_N = np.min([pace.seconds_N for pace in rounds], axis=0)
    return float(rounds[0].tokens_N.sum() / seconds_N.sum())


class Case:
    """One model on one dataset, and the ways to train it."""

    def __init__(self, scratch: Path, size: Size) -> None:
        self.size, self.scratch = size, scratch
        corpus = Mixture([Corpus(make_stores(scratch, size.images), CorpusSettings())])
        rule = SequenceRule(words=WORDS)
        self.objectives = make_objectives({"mlm": MaskedLanguageSettings()}, rule)
        numbers = np.arange(len(corpus))
        self.stream = Stream(corpus, numbers, self.objectives["mlm"], BatchSettings(tokens=size.tokens), 0, 1)
        self.batches = StepBatches({"mlm": self.stream}, ObjectiveSchedule([1.0], 0))
        settings = SingleStreamSettings(**SIZES[size.model], attention_dropout=0.0)
        self.config = single_stream_config(settings, WORDS, StoreFacts(region_dim=2048))
        first = [self.stream.micro_batch(number, 0) for number in range(size.steps)]
        self.examples = round(np.mean([len(batch.inputs.lengths_B) for batch in first]))

    def model(self) -> SingleStream:
        torch.manual_seed(0)
        return SingleStream(self.config)

    def usual(self) -> Pace:
        """The padded loop, its batches ready."""
        ready = padded_batches(self.stream, self.size.steps, self.examples)
        return _train(self.model(), ready, padded_loss)

    def bare(self) -> Pace:
        """Ours with batches ready and no loop around it."""
        ready = [self.stream.micro_batch(number, 0) for number in range(self.size.steps + 1)][1:]
        mlm = self.objectives["mlm"]
        return _train(self.model(), ready, lambda model, batch: mlm.loss(model, batch).sum / batch.count)

    def ours(self, precision: str) -> tuple[Pace, float]:
        """`Trainer`, and the share of the time that it waited.

        Measured from the end of the first step, in which the loader process starts; the checkpoint at the end is
        outside.
        """
        steps = self.size.steps + 1
        settings = TrainSettings(steps=steps, log_every=1, save_every=steps, precision=precision, loaders=1)
        world = World()
        trainer = Trainer(self.model(), self.objectives, self.batches, settings, OPTIMISER, world, self.scratch / "run")
        clock: list[float] = []
        tokens: list[int] = []
        waited: list[float] = []

        def after_step(done: int) -> None:
            clock.append(time.process_time())
            tokens.append(trainer.state.tokens)

        def on_event(event: object) -> None:
            if isinstance(event, Logged) and event.step > 1:
                waited.append(event.waiting)

        trainer.run(on_event, after_step)
        return Pace(np.diff(tokens), np.diff(clock)), float(np.mean(waited))

    def making(self) -> float:
        """Real tokens per CPU second of making batches from the store."""
        began = time.process_time()
        made = [self.stream.micro_batch(number, 0).real_tokens for number in range(self.size.steps)]
        return sum(made) / (time.process_time() - began)


def _train(model: nn.Module, ready: list[Any], loss: Callable[[Any, Any], Tensor]) -> Pace:
    optimiser = make_optimiser(model, OPTIMISER)
    model.train()
    clock = [time.process_time()]
    for batch in ready:
        loss(model, batch).backward()
        nn.utils.clip_grad_norm_(model.parameters(), OPTIMISER.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        clock.append(time.process_time())
    return Pace(np.array([batch.real_tokens for batch in ready]), np.diff(clock))


def fill_rate(images: int, tokens: int) -> float:
    """How full our batches are of a data set too large to write here."""
    pieces, boxes = caption_mix(images)
    return Batches(pieces + boxes + 2, BatchSettings(tokens=tokens), seed=0, group_size=1).fill_rate()


def compare(size: Size) -> dict[str, Any]:
    """Rounds of all ways in turn; the fastest of each counts."""
    with tempfile.TemporaryDirectory(prefix="vlprep-bench-") as scratch:
        case = Case(Path(scratch), size)
        paces: dict[str, list[Pace]] = {"usual": [], "bare": [], "fp32": [], "bf16": []}
        waiting: list[float] = []
        for _ in range(size.rounds):
            paces["usual"].append(case.usual())
            paces["bare"].append(case.bare())
            for precision in ("fp32", "bf16"):
                pace, waited = case.ours(precision)
                paces[precision].append(pace)
                waiting.append(waited)
        best = {name: fastest(found) for name, found in paces.items()}
        padded = padded_batches(case.stream, 20, case.examples)
        return {
            "size": {name: getattr(size, name) for name in Size.__slots__},
            "tokens per CPU second": best,
            "rounds": {name: [fastest([pace]) for pace in found] for name, found in paces.items()},
            "speed-up fp32": best["fp32"] / best["usual"],
            "speed-up bf16": best["bf16"] / best["usual"],
            "overhead of the loop": best["bare"] / best["fp32"] - 1,
            "waiting": min(waiting),
            "waiting, every run": waiting,
            "making batches, tokens per CPU second": case.making(),
            "fill": fill_rate(100_000, size.tokens),
            "padding of the usual batches": 1
            - sum(b.real_tokens for b in padded) / sum(b.real_BL.numel() for b in padded),
            "matmul bf16 / fp32": matmul_rate(torch.bfloat16) / matmul_rate(torch.float32),
        }


def show(result: dict[str, Any]) -> None:
    rates = result["tokens per CPU second"]
    rows = [(name, round(rate), rate / rates["usual"]) for name, rate in rates.items()]
    print_table("Real tokens per CPU second", ("", "tokens/s", "usual = 1"), rows)
    names = ("overhead of the loop", "waiting", "fill", "padding of the usual batches", "matmul bf16 / fp32")
    print_table("Shares and ratios", ("", ""), [(name, result[name]) for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--model", choices=list(SIZES))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    size = TINY if chosen.tiny else DEFAULT
    size = replace(size, model=chosen.model or size.model, steps=chosen.steps or size.steps)
    result = compare(size)
    show(result)
    save("pretrain", result, chosen.out)


if __name__ == "__main__":
    main()
