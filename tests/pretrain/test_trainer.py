"""The loop: exact resume, one result however the work is cut, overflow and what is not finite."""

from __future__ import annotations

import itertools
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretrain.stores import learnable_images

from vlprep.errors import SettingsError, VlprepError
from vlprep.pretrain.batching import BatchSettings, ObjectiveSchedule
from vlprep.pretrain.checkpoint import checkpoints, plain_state, read_state
from vlprep.pretrain.corpus import Corpus, DatasetStores, Mixture
from vlprep.pretrain.distributed import World
from vlprep.pretrain.encoder import EncoderConfig
from vlprep.pretrain.loader import StepBatches, Stream
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.single_stream import SingleStream, SingleStreamConfig
from vlprep.pretrain.objectives.catalogue import find_objective, make_objectives
from vlprep.pretrain.objectives.itm import MatchingSettings
from vlprep.pretrain.objectives.sequences import SequenceRule
from vlprep.pretrain.optim import learning_rate, make_optimiser
from vlprep.pretrain.places import CorpusSettings
from vlprep.pretrain.settings import OptimiserSettings, TrainSettings
from vlprep.pretrain.trainer import Logged, PretrainStep, Trainer
from vlprep.pretrain.validate import auc, validate

RULE = SequenceRule(words=TextVocabulary(size=40, pad=0, cls=1, sep=2, mask=3, first_word=5))
OPTIMISER = OptimiserSettings(lr=2e-3, warmup=5, clip=1.0)
TRAIN = TrainSettings(steps=12, log_every=1, save_every=4, keep=2, loaders=0, seed=1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> DatasetStores:
    return learnable_images(tmp_path_factory.mktemp("stores"))


def make_trainer(
    stores: DatasetStores,
    folder: Path,
    settings: TrainSettings = TRAIN,
    objectives: str = "mlm itm mrc-kl",
    dropout: float = 0.1,
    world: World | None = None,
) -> Trainer:
    world = world or World()
    torch.manual_seed(0)
    sizes = EncoderConfig(layers=2, hidden=32, heads=2, intermediate=64, dropout=dropout, attention_dropout=dropout)
    model = SingleStream(SingleStreamConfig(encoder=sizes, vocabulary=40, positions=32, region_dim=8, region_classes=5))
    corpus = Mixture([Corpus(stores, CorpusSettings(max_regions=12))])
    made = make_objectives(
        {
            name: MatchingSettings(wra=0.1) if name == "itm" else find_objective(name).settings()
            for name in objectives.split()
        },
        RULE,
    )
    streams = {
        name: Stream(
            corpus,
            corpus.usable_for(objective.needs()),
            objective,
            BatchSettings(tokens=120),
            settings.seed,
            settings.accumulate * world.size,
        )
        for name, objective in made.items()
    }
    batches = StepBatches(streams, ObjectiveSchedule([1.0] * len(made), settings.seed))
    return Trainer(model, made, batches, settings, OPTIMISER, world, folder)


def run(trainer: Trainer) -> list[Logged]:
    logged: list[Logged] = []
    trainer.run(lambda event: logged.append(event) if isinstance(event, Logged) else None)
    return logged


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    theirs = plain_state(other)
    for name, tensor in plain_state(one).items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("stop", [4, 8])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(stores, tmp_path, stop: int) -> None:
    whole = make_trainer(stores, tmp_path / "whole")
    losses = run(whole)
    cut = make_trainer(stores, tmp_path / "cut", replace(TRAIN, keep=9))

    class Killed(Exception):  # noqa: N818
        pass

    def kill(done: int) -> None:
        if done == stop + 1:  # one step after the checkpoint, which is lost
            raise Killed

    with pytest.raises(Killed):
        cut.run(lambda event: None, kill)
    resumed = make_trainer(stores, tmp_path / "cut")
    resumed.resume(checkpoints(tmp_path / "cut" / "checkpoints")[-1])
    assert resumed.state.step == stop
    rest = run(resumed)
    assert [entry.losses for entry in rest] == [entry.losses for entry in losses[stop:]]
    assert_same_weights(resumed.model, whole.model)
    assert resumed.state == whole.state


def test_loader_processes_change_nothing(stores, tmp_path) -> None:
    alone = make_trainer(stores, tmp_path / "a")
    helped = make_trainer(stores, tmp_path / "b", replace(TRAIN, loaders=2))
    assert [entry.losses for entry in run(alone)] == [entry.losses for entry in run(helped)]
    assert_same_weights(alone.model, helped.model)


def test_losses_fall_and_every_objective_is_trained(stores, tmp_path) -> None:
    logged = run(make_trainer(stores, tmp_path, replace(TRAIN, steps=120, save_every=120), dropout=0.0))
    for name in ("mlm", "itm", "mrc-kl"):
        values = [entry.losses[name] for entry in logged if name in entry.losses]
        assert len(values) > 20
        assert sum(values[-8:]) < sum(values[:8]), name
    assert logged[-1].lr < 1e-4


def test_only_the_newest_checkpoints_stay(stores, tmp_path) -> None:
    run(make_trainer(stores, tmp_path))
    kept = checkpoints(tmp_path / "checkpoints")
    assert [read_state(path).step for path in kept] == [8, 12]


def test_a_half_written_checkpoint_is_not_seen(stores, tmp_path) -> None:
    run(make_trainer(stores, tmp_path))
    newest = checkpoints(tmp_path / "checkpoints")[-1]
    (newest / "state.json").unlink()
    assert checkpoints(tmp_path / "checkpoints") != []
    assert newest not in checkpoints(tmp_path / "checkpoints")


def test_another_recipes_checkpoint_is_refused(stores, tmp_path) -> None:
    run(make_trainer(stores, tmp_path))
    other = make_trainer(stores, tmp_path / "other")
    other.model.itm_output = torch.nn.Linear(32, 3)
    with pytest.raises(SettingsError, match="does not fit this recipe"):
        other.resume(checkpoints(tmp_path / "checkpoints")[-1])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(stores, tmp_path, precision: str) -> None:
    trainer = make_trainer(stores, tmp_path, replace(TRAIN, precision=precision, steps=3, save_every=3), "mlm")
    before = {name: tensor.clone() for name, tensor in plain_state(trainer.model).items()}
    poison_gradient(trainer, steps={1})
    run(trainer)
    assert trainer.state.skipped == 1
    assert any(not torch.equal(before[name], tensor) for name, tensor in plain_state(trainer.model).items())
    assert all(tensor.isfinite().all() for tensor in plain_state(trainer.model).values())


def test_too_many_bad_steps_in_a_row_stop_the_run(stores, tmp_path) -> None:
    trainer = make_trainer(stores, tmp_path, replace(TRAIN, bad_steps=3), "mlm")
    poison_gradient(trainer, steps=set(range(2, 20)))
    with pytest.raises(VlprepError, match=r"3 steps in a row.*lower optimiser\.lr"):
        run(trainer)


def poison_gradient(trainer: Trainer, steps: set[int]) -> None:
    parameter = trainer.model.cls["predictions"].bias
    parameter.register_hook(lambda gradient: gradient * float("nan") if trainer.state.step in steps else gradient)


def test_fp16_overflow_is_skipped_and_the_scale_recovers(stores, tmp_path) -> None:
    settings = replace(TRAIN, precision="fp16", steps=60, save_every=60, bad_steps=99)
    trainer = make_trainer(stores, tmp_path, settings, "mlm", dropout=0.0)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=5)
    scales: list[float] = []
    trainer.run(lambda event: None, lambda done: scales.append(trainer.scaler.get_scale()))
    assert 5 < trainer.state.skipped < 50  # 2^30 overflows fp16 until it has been halved often enough
    assert scales[0] == 2.0**29
    assert any(later > earlier for earlier, later in itertools.pairwise(scales))  # and grows again
    assert all(tensor.isfinite().all() for tensor in plain_state(trainer.model).values())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_the_gradient_does_not_depend_on_accumulation(stores, tmp_path) -> None:
    """One group of four micro-batches gives the gradient of its samples in a single batch."""
    settings = replace(TRAIN, accumulate=4, steps=1, save_every=1)
    trainer = make_trainer(stores, tmp_path, settings, "mlm", dropout=0.0)
    stream = trainer.batches.streams[0]
    epoch, group = stream.batches.group(0)
    together = stream.make(torch.cat([torch.from_numpy(batch) for batch in group]).numpy(), epoch)
    loss = stream.objective.loss(trainer.model, together)
    (loss.sum / together.count).backward()
    expected = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad(set_to_none=True)
    seen: dict[str, torch.Tensor] = {}
    update = trainer._update

    def spy() -> tuple[bool, float]:
        seen.update({name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None})
        return update()

    trainer._update = spy  # type: ignore[method-assign]
    [logged] = run(trainer)
    assert seen.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(seen[name], gradient, rtol=1e-4, atol=1e-6)
    assert logged.losses["mlm"] == pytest.approx(loss.sum.item() / together.count, rel=1e-5)


def test_parameter_groups_are_uniters(stores, tmp_path) -> None:
    model = make_trainer(stores, tmp_path).model
    optimiser = make_optimiser(model, OPTIMISER)
    decayed = {id(parameter) for parameter in optimiser.param_groups[0]["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in decayed}
    assert "bert.img_embeddings.img_layer_norm.weight" in names  # UNITER's substring misses it
    assert "region_classifier.net.2.weight" in names
    assert "bert.embeddings.LayerNorm.weight" not in names
    assert not any(name.endswith("bias") for name in names)


def test_the_text_encoder_may_have_a_share_of_the_learning_rate(stores, tmp_path) -> None:
    trainer = make_trainer(stores, tmp_path)
    settings = replace(OPTIMISER, text_lr=0.1)
    trainer.optimiser, trainer.optimiser_settings = make_optimiser(trainer.model, settings), settings
    run(trainer)
    rates = {id(one): group["lr"] for group in trainer.optimiser.param_groups for one in group["params"]}
    lr = learning_rate(trainer.state.step - 1, trainer.settings.steps, settings)
    for name, parameter in trainer.model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.1 * lr if name.startswith("bert.") else lr), name


def test_the_schedule() -> None:
    settings = OptimiserSettings(lr=1.0, warmup=10)
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.02
    assert learning_rate(100, 100, settings) == 0
    assert learning_rate(5, 10, OptimiserSettings(warmup=10, lr=1.0)) == 0.6


def test_schedules_by_a_cosine_and_by_equal_factors() -> None:
    cosine = OptimiserSettings(lr=1.0, warmup=10, schedule="cosine")
    rates = [learning_rate(step, 110, cosine) for step in (4, 9, 10, 35, 60, 110)]
    assert rates == pytest.approx([0.5, 1, 1, 0.5 + 0.125**0.5, 0.5, 0])
    factors = OptimiserSettings(lr=2.0, warmup=0, schedule="exponential", final_lr=0.9**15)
    epochs = [learning_rate(step, 150, factors) for step in range(0, 151, 10)]
    assert epochs == pytest.approx([2 * 0.9**epoch for epoch in range(16)])


def test_validation_shows_whether_the_image_is_used(stores, tmp_path) -> None:
    settings = replace(TRAIN, steps=250, save_every=250, log_every=250)
    trainer = make_trainer(stores, tmp_path, settings, "mlm itm", dropout=0.0)
    run(trainer)
    module = PretrainStep(trainer.model, {name: stream.objective for name, stream in streams(trainer).items()})
    found = validate(module, streams(trainer), 250, torch.device("cpu"), most_batches=20).figures
    assert found["mlm/accuracy"] > found["mlm/accuracy without"] + 0.05
    assert 0 <= found["itm/auc"] <= 1
    again = validate(module, streams(trainer), 250, torch.device("cpu"), most_batches=20).figures
    assert again == found  # the same masks every time


def streams(trainer: Trainer) -> dict[str, Stream]:
    return {stream.objective.name: stream for stream in trainer.batches.streams}


def test_auc() -> None:
    import numpy as np

    assert auc(np.array([0.1, 0.9, 0.8, 0.2]), np.array([0, 1, 1, 0])) == 1.0
    assert auc(np.array([0.5, 0.5]), np.array([0, 1])) == 0.5
    assert np.isnan(auc(np.array([0.5]), np.array([1])))


def test_batches_can_be_sent_to_loaders_that_are_not_forked(stores, tmp_path) -> None:
    """macOS starts processes by spawning them, and Python 3.14 does everywhere."""
    batches = make_trainer(stores, tmp_path).batches
    sent = pickle.loads(pickle.dumps(batches))
    for step in range(8):
        ours, theirs = batches[step, 0], sent[step, 0]
        assert torch.equal(ours.inputs.text.ids_P, theirs.inputs.text.ids_P)
        assert ours.objective == theirs.objective


def test_a_batch_that_comes_twice_in_a_step_is_masked_anew(stores, tmp_path) -> None:
    trainer = make_trainer(stores, tmp_path, replace(TRAIN, accumulate=40), "mlm")
    [stream] = trainer.batches.streams
    _, group = stream.batches.group(0)
    first = next(place for place in range(1, 40) if group[place] is group[0])
    once, again = stream.micro_batch(0, 0), stream.micro_batch(0, first)
    assert torch.equal(once.inputs.lengths_B, again.inputs.lengths_B)
    assert not torch.equal(once.inputs.text.ids_P, again.inputs.text.ids_P)


def test_the_backward_pass_is_not_autocast(stores, tmp_path) -> None:
    trainer = make_trainer(stores, tmp_path, replace(TRAIN, steps=1, precision="bf16", loaders=0))
    cast: list[bool] = []
    weight = trainer.model.bert["encoder"].layer[0].attention.self.query.weight
    weight.register_hook(lambda gradient: cast.append(torch.is_autocast_enabled("cpu")))
    run(trainer)
    assert cast
    assert not any(cast)


def test_validation_holds_one_batch_at_a_time(stores, tmp_path, monkeypatch) -> None:
    trainer = make_trainer(stores, tmp_path, replace(TRAIN, loaders=0), objectives="mrc-kl")
    module, held = PretrainStep(trainer.model, trainer.module.objectives), []
    make, seen = Stream.make, []
    monkeypatch.setattr(Stream, "make", lambda *given: held.append(1) or make(*given))
    module.register_forward_pre_hook(lambda *given: seen.append(len(held)))
    validate(module, streams(trainer), 0, torch.device("cpu"), most_batches=3)
    assert seen[:3] == [1, 2, 3]


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt"])
def test_a_damaged_checkpoint_is_named(stores, tmp_path, name: str) -> None:
    run(make_trainer(stores, tmp_path))
    last = checkpoints(tmp_path / "checkpoints")[-1]
    (last / name).write_bytes((last / name).read_bytes()[:100])
    with pytest.raises(SettingsError, match=rf"{last.name}/{name} is damaged .*: remove"):
        make_trainer(stores, tmp_path).resume(last)
