"""The loop: groups of micro-batches into optimiser steps, with exact resume.

One step is one group of `accumulate * processes` micro-batches of one objective. Its gradient is that of (sum of the
losses) / (sum of the counts) over all of them, however they are split over processes; dropout is seeded by (seed,
step, place). So the loss does not depend on how the work was cut, and a run that is killed repeats itself from its
last checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vlprep.errors import SettingsError, VlprepError
from vlprep.pretrain.base import Loss, MicroBatch, Objective, count_of, to_device
from vlprep.pretrain.checkpoint import TrainingState, read_model, read_state, read_training, save_checkpoint
from vlprep.pretrain.distributed import World
from vlprep.pretrain.loader import StepBatches, load
from vlprep.pretrain.optim import learning_rate, make_optimiser
from vlprep.pretrain.repeatable import same_bits, seed_everything
from vlprep.pretrain.settings import OptimiserSettings, TrainSettings

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What `log_every` steps came to."""

    step: int
    """Steps done."""
    lr: float
    losses: Mapping[str, float]
    """By objective, and by `objective/part`."""
    grad_norm: float
    tokens_per_second: float
    """Real tokens of all processes."""
    waiting: float
    """Share of the time that went into waiting for batches, the run's first one apart."""
    starting: float
    """Seconds that the run waited for its first batch, while its loaders started; in no other figure."""
    skipped: int
    """Steps not taken since the run began."""
    left_out: int
    """Samples, of all processes, whose files turned out to be of no use in these steps."""
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    step: int
    path: Path


@dataclass(slots=True)
class _Interval:
    """Sums since the last log, kept on the device so that no step waits for them: losses over steps, parts of them over
    what they count.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    left_out: int = 0
    waited: float = 0.0
    began: float = field(default_factory=time.perf_counter)
    steps: int = 0
    grad_norm: float = 0.0

    def add(self, objective: str, mean: Tensor, loss: Loss) -> None:
        """One micro-batch; `mean` is its share of the step's loss."""
        _add(self.sums, objective, mean)
        for name, part in (loss.terms | loss.parts).items():
            _add(self.sums, f"{objective}/{name}", part)

    def add_counts(self, objective: str, counts: Mapping[str, float], loss: Loss) -> None:
        """One step, of which `loss` is a micro-batch."""
        self.counts[objective] = self.counts.get(objective, 0) + 1
        for name in loss.terms | loss.parts:
            key = f"{objective}/{name}"
            self.counts[key] = self.counts.get(key, 0) + count_of(name, counts)


class PretrainStep(nn.Module):
    """Model and objectives as one module, so that DistributedDataParallel sees every forward pass."""

    def __init__(self, model: nn.Module, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.model = model
        self.objectives = objectives

    def forward(self, batch: MicroBatch) -> Loss:
        loss: Loss = self.objectives[batch.objective].loss(self.model, batch)
        return loss


class Trainer:
    """A model being trained; `run` does the steps that are missing."""

    def __init__(
        self,
        model: nn.Module,
        objectives: Mapping[str, Objective],
        batches: StepBatches,
        settings: TrainSettings,
        optimiser: OptimiserSettings,
        world: World,
        folder: Path,
    ) -> None:
        self.model = model.to(world.device)
        self._parameters = list(self.model.parameters())
        self.batches, self.settings, self.optimiser_settings = batches, settings, optimiser
        self.world, self.folder = world, folder
        self.optimiser = make_optimiser(self.model, optimiser)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
        self.micro_batches = settings.accumulate * world.size
        self.state = TrainingState(step=0, samples=0, tokens=0, skipped=0, micro_batches=self.micro_batches)
        step = PretrainStep(self.model, objectives)
        # each step trains one objective: the heads of the others get no gradient
        self.module: nn.Module = DistributedDataParallel(step, find_unused_parameters=True) if world.size > 1 else step
        self._bad_in_a_row = 0
        self._starting = 0.0

    def resume(self, checkpoint: Path) -> None:
        """Go on from a checkpoint of a run with the same recipe and as many micro-batches a step."""
        state = read_state(checkpoint)
        if state.micro_batches != self.micro_batches:
            raise SettingsError(
                f"{checkpoint} is of a run with {state.micro_batches} micro-batches a step; --accumulate"
                f" {self.settings.accumulate} times {self.world.size} process(es) makes {self.micro_batches}"
            )
        try:
            self.model.load_state_dict(read_model(checkpoint))
            training = read_training(checkpoint, self.world.device)
            self.optimiser.load_state_dict(training["optimiser"])
            self.scaler.load_state_dict(training["scaler"])
        except SettingsError:
            raise
        except (RuntimeError, ValueError, KeyError) as error:
            raise SettingsError(f"{checkpoint} does not fit this recipe: {' '.join(str(error).split())}") from error
        self.state = state

    def run(
        self,
        on_event: Callable[[Logged | Saved], None],
        after_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        """Train to the last step, saving on the way. `after_step(steps done)` may validate.

        A checkpoint comes last in its step, and with an entry of its own in the log: so a resumed run logs and
        validates what a killed one had not, and over the same steps.
        """
        with same_bits(self.world.device, wanted=self.settings.deterministic):
            self._run(on_event, after_step)

    def _run(self, on_event: Callable[[Logged | Saved], None], after_step: Callable[[int], None]) -> None:
        settings, began, first = self.settings, time.perf_counter(), self.state.step
        interval = _Interval()
        for step, micro_batches in self._steps():
            asked = time.perf_counter()
            group = [to_device(batch, self.world.device) for batch in micro_batches]
            waited = time.perf_counter() - asked
            if step == first:
                self._starting, interval = waited, _Interval()
            else:
                interval.waited += waited
            if not self.model.training:  # after a validation: to ask every module is 2 % of a small model's step
                self.module.train()
            self._step(step, group, interval)
            done = self.state.step
            saves = done % settings.save_every == 0 or done == settings.steps
            logs = saves or done % settings.log_every == 0
            if logs:
                left = (time.perf_counter() - began) / (done - first) * (settings.steps - done)
                on_event(self._report(interval, left))
            after_step(done)
            if saves:
                self._save(on_event)
            if logs:
                interval = _Interval()  # validation and saving are in no interval

    def _steps(self) -> Iterator[tuple[int, Iterator[MicroBatch]]]:
        """The steps still to do, each with this process's micro-batches, which are made ahead."""
        steps = range(self.state.step, self.settings.steps)
        places = range(self.world.rank, self.settings.accumulate * self.world.size, self.world.size)
        made = load(self.batches, steps, places, loaders=self.settings.loaders, pin=self.world.device.type == "cuda")
        for step in steps:
            yield step, (next(made) for _ in places)

    def _step(self, step: int, group: list[MicroBatch], interval: _Interval) -> None:
        lr = learning_rate(step, self.settings.steps, self.optimiser_settings)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = lr * parameters["lr_share"]
        # a step trains one objective, so that all of its micro-batches count the same terms
        sizes = [
            (batch.real_tokens, len(batch.inputs.lengths_B), batch.left_out, *batch.counts.values()) for batch in group
        ]
        totals = torch.tensor(sizes, dtype=torch.float64).sum(0)
        tokens, samples, left_out, *summed = self.world.add(totals).tolist()
        counts = dict(zip(group[0].counts, summed, strict=True))
        for number, batch in enumerate(group):
            place = number * self.world.size + self.world.rank
            seed = np.random.SeedSequence([self.settings.seed, step, place]).generate_state(1)[0]
            seed_everything(self.world.device, int(seed))
            with self._no_sync(last=number == len(group) - 1):
                with self._autocast():
                    loss: Loss = self.module(batch)
                    mean = loss.mean(counts)
                # outside of autocast, which would cast what the forward pass kept in float32;
                # DistributedDataParallel takes the mean over processes, where the sum is wanted
                torch.autograd.backward(self.scaler.scale(mean * self.world.size))
            interval.add(batch.objective, mean, loss)
        interval.add_counts(group[0].objective, counts, loss)
        interval.tokens += int(tokens)
        interval.left_out += int(left_out)
        interval.steps += 1
        taken, interval.grad_norm = self._update()
        self.state = TrainingState(
            step=step + 1,
            samples=self.state.samples + int(samples),
            tokens=self.state.tokens + int(tokens),
            skipped=self.state.skipped + (not taken),
            micro_batches=self.micro_batches,
        )

    def _update(self) -> tuple[bool, float]:
        """Clip and step, unless the gradient is not finite; then the step is skipped, and fp16's scale lowered."""
        self.scaler.unscale_(self.optimiser)
        parameters = [parameter for parameter in self._parameters if parameter.grad is not None]
        clip = self.optimiser_settings.clip or float("inf")
        norm = float(nn.utils.clip_grad_norm_(parameters, clip))
        finite = bool(np.isfinite(norm))
        if finite or self.scaler.is_enabled():
            self.scaler.step(self.optimiser)  # skips by itself where scaled gradients overflowed
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        self._bad_in_a_row = 0 if finite else self._bad_in_a_row + 1
        if self._bad_in_a_row >= self.settings.bad_steps:
            raise VlprepError(
                f"{self._bad_in_a_row} steps in a row had a loss or gradient that is not finite: lower optimiser.lr, or"
                f" train in fp32 or bf16; the last checkpoint in {self.folder} is from before"
            )
        return finite, norm

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _DTYPES.get(self.settings.precision)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, dtype=dtype)

    def _no_sync(self, *, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients are reduced between processes with the last micro-batch only."""
        if last or not isinstance(self.module, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.module.no_sync()

    def _report(self, interval: _Interval, seconds_left: float) -> Logged:
        names = sorted(interval.sums)
        values = self.world.add(torch.stack([interval.sums[name].double() for name in names])).tolist()
        seconds = time.perf_counter() - interval.began
        return Logged(
            step=self.state.step,
            lr=self.optimiser.param_groups[0]["lr"],
            losses={name: value / interval.counts[name] for name, value in zip(names, values, strict=True)},
            grad_norm=interval.grad_norm,
            tokens_per_second=interval.tokens / seconds,
            waiting=interval.waited / seconds,
            starting=self._starting,
            skipped=self.state.skipped,
            left_out=interval.left_out,
            seconds_left=seconds_left,
        )

    def _save(self, on_event: Callable[[Logged | Saved], None]) -> None:
        if self.world.is_first:
            training = {"optimiser": self.optimiser.state_dict(), "scaler": self.scaler.state_dict()}
            path = save_checkpoint(
                self.folder / "checkpoints", self.state, self.model, training, keep=self.settings.keep
            )
            on_event(Saved(step=self.state.step, path=path))
        self.world.wait()


def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    value = value.detach()
    sums[name] = sums[name] + value if name in sums else value
