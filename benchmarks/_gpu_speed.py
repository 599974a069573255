"""How fast a device runs the two heavy parts: regions of a folder of pictures, and a pretraining step.

"Utilisation" is floating-point operations of the published network a second over what the same device reaches in one
large matrix product of the same type, measured here.

Shape suffixes: R regions, C channels, h, w sides of a map.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import matmul_rate, seconds_of
from _regions import Case, OurWay
from torch.utils.flop_counter import FlopCounterMode

from vlprep.detect.detector import RegionDetector
from vlprep.detect.head import stream
from vlprep.networks.exact import exact
from vlprep.pretrain.base import RegionSample, Sample, to_device
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.masking import TextVocabulary, generator
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig
from vlprep.pretrain.objectives.mlm import MaskedLanguage
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.optim import make_optimiser
from vlprep.pretrain.settings import OptimiserSettings

NUMBER_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def regions(case: Case, precision: str, device: str, folder: Path, *, parts: int) -> dict[str, float]:
    """The stage's worker on `parts` copies of the pictures after one for warming up; and its region head alone."""
    way = OurWay(case, precision, folder, device=device, threads=os.cpu_count() or 1)
    way.run(0)
    done = [way.run(part) for part in range(1, parts)]
    seconds = sum(part.seconds for part in done)
    head_flops, head_seconds = region_head(way.detector, device, regions=case.size.proposals)
    return {
        "images_a_second": sum(part.rows for part in done) / seconds,
        "share_waiting_for_pictures": sum(part.stats["wait"] for part in done) / seconds,
        "head_tflops": head_flops / head_seconds / 1e12,
        "head_utilisation": head_flops / head_seconds / matmul_rate(NUMBER_TYPES[precision], device),
    }


def region_head(detector: RegionDetector, device: str, *, regions: int) -> tuple[float, float]:
    """Operations of the published fifth stage for so many regions, and seconds that ours takes, pooling included."""
    network, spec = detector.network, detector.spec
    dtype = next(network.backbone.parameters()).dtype
    channels = spec.feature_dim // 2
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.res5(torch.zeros(1, channels, spec.roi_size, spec.roi_size, device=device, dtype=dtype))
    map_Chw = torch.rand(1, channels, 38, 63, device=device).to(dtype, memory_format=torch.channels_last)[0]
    corners = torch.rand(regions, 2, device=device) * 400
    boxes_R4 = torch.cat((corners, corners + 40 + torch.rand(regions, 2, device=device) * 200), dim=1)

    def run() -> None:
        with exact():
            stream(detector.head, [map_Chw], [boxes_R4])

    run()
    return counter.get_total_flops() * regions, seconds_of(run, device, repeats=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A model and the tokens of one of its steps."""

    encoder: EncoderConfig
    tokens: int
    words: int = 28_996
    classes: int = 1600


UNITER_BASE = Training(encoder=EncoderConfig(attention_dropout=0.0), tokens=10_240)
"""Without dropout in attention, which the variable-length kernel has not."""
TINY = Training(
    encoder=EncoderConfig(layers=1, hidden=32, heads=2, intermediate=64, attention_dropout=0.0),
    tokens=200,
    words=200,
    classes=8,
)


def pretraining(training: Training, device: str) -> dict[str, float]:
    """Forward, backward and update of masked language modelling on captions with regions, in bf16."""
    words = TextVocabulary(size=training.words, pad=0, cls=101, sep=102, mask=103, first_word=106)
    objective = MaskedLanguage(rule=SequenceRule(words=words))
    samples = list(_samples(training))
    examples = [objective.example(sample, generator(0, 0, sample.key, "mlm")) for sample in samples]
    batch = to_device(objective.collate(examples), torch.device(device))
    config = SingleStreamConfig(
        encoder=training.encoder, vocabulary=training.words, region_dim=2048, region_classes=training.classes + 1
    )
    rates = {}
    for backend in ("padded", "jagged") if device == "cpu" else ("padded", "varlen"):
        model = SingleStream(replace(config, attention=backend)).to(device)
        optimiser = make_optimiser(model, OptimiserSettings())

        def step(model: SingleStream = model, optimiser: torch.optim.Optimizer = optimiser) -> None:
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                loss = objective.loss(model, batch).sum / batch.count
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        step()
        rates[backend] = _operations(training, model, batch) / seconds_of(step, device, repeats=5)
    reached = matmul_rate(torch.bfloat16, device)
    return {
        "tokens": float(batch.real_tokens),
        **{f"tflops_{name}": rate / 1e12 for name, rate in rates.items()},
        "utilisation": max(rates.values()) / reached,
    }


def _samples(training: Training) -> Iterator[Sample]:
    """Captions of about 12 pieces and 10 to 100 regions, as they come in COCO, until the budget is full."""
    rng = np.random.default_rng(0)
    tokens, key = 0, 0
    while True:
        pieces, seen = int(rng.integers(8, 18)), int(rng.integers(10, 60))
        tokens += pieces + 2 + seen
        if tokens > training.tokens:
            return
        boxes = np.sort(rng.random((seen, 2, 2), np.float32), axis=1).reshape(seen, 4)
        regions = RegionSample(
            features_RD=rng.random((seen, 2048), np.float32).astype(np.float16),
            boxes_R4=boxes,
            object_ids_R=rng.integers(0, training.classes, seen).astype(np.uint16),
        )
        yield Sample(key=key, text_ids=rng.integers(106, training.words, pieces).astype(np.int32), regions=regions)
        key += 1


def _operations(training: Training, model: SingleStream, batch: Any) -> float:
    """Of one step: two a weight and token forwards, twice that backwards; attention and the word head by hand."""
    encoder = training.encoder
    linear = sum(weight.numel() for name, weight in model.bert["encoder"].named_parameters() if weight.dim() == 2)
    lengths_B = batch.inputs.lengths_B.double()
    attention = 2 * 2 * encoder.layers * encoder.hidden * float((lengths_B**2).sum())
    head = 2 * len(batch.targets.slots_M) * encoder.hidden * (encoder.hidden + training.words)
    entry = 2 * len(batch.inputs.regions.slots_R) * encoder.hidden * 2048
    return 3 * (2 * linear * batch.real_tokens + attention + head + entry)
