"""Trainings over a growing plan, killed within a pass and at its end, go on exactly."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

ENDS = {10, 14, 17, 20}
"""Updates after which a pass of the plan is over."""


def saves(update):
    """Whether a checkpoint is due after so many updates."""
    return update % 4 == 0 or update in ENDS


def with_stateful_loader(trained, folder, workers):
    from torchdata.stateful_dataloader import StatefulDataLoader

    saved, update = Path(folder, "state.pt"), 0
    loader = StatefulDataLoader(
        range(40), batch_sampler=trained.new_sampler(), num_workers=workers
    )
    if saved.exists():
        update, state = torch.load(saved, weights_only=False)
        loader.load_state_dict(state)
    while update < trained.plan.updates:
        for batch in loader:
            trained(update, batch.tolist())
            update += 1
            if saves(update):
                torch.save((update, loader.state_dict()), saved)


class Place:
    """What Accelerate is given to save in the sampler's place (docs/trainers.md)."""

    def __init__(self, sampler):
        self.sampler, self.trained, self.update = sampler, 0, 0

    def state_dict(self):
        return {"sampler": self.sampler.state_at(self.trained), "update": self.update}

    def load_state_dict(self, state):
        self.sampler.load_state_dict(state["sampler"])
        self.update = state["update"]


def with_accelerate(trained, folder, workers):
    import accelerate

    accelerator = accelerate.Accelerator(cpu=True)
    place = Place(trained.new_sampler(rank=None, world_size=accelerator.num_processes))
    accelerator.register_for_checkpointing(place)
    loader = accelerator.prepare(
        DataLoader(range(40), batch_sampler=place.sampler, num_workers=workers)
    )
    goes_on = any(Path(folder).iterdir())
    accelerator.wait_for_everyone()  # or a rank would find what another saves below
    if goes_on:
        accelerator.load_state(folder)
        accelerator.wait_for_everyone()
    for epoch in range(place.sampler.state_dict()["epoch"], 4):
        loader.set_epoch(epoch)
        for number, batch in enumerate(loader, start=place.sampler.start + 1):
            trained(place.update, batch.tolist())
            place.trained, place.update = number, place.update + 1
            if saves(place.update):
                accelerator.save_state(folder)
                accelerator.wait_for_everyone()


class Counts:
    """What Accelerate saves beside its own stateful loader."""

    def __init__(self):
        self.epoch = self.update = 0

    def state_dict(self):
        return vars(self)

    def load_state_dict(self, state):
        vars(self).update(state)


def with_accelerates_stateful_loader(trained, folder, workers):
    import accelerate

    config = accelerate.utils.DataLoaderConfiguration(use_stateful_dataloader=True)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=config)
    sampler = trained.new_sampler(rank=None, world_size=accelerator.num_processes)
    counts = Counts()
    accelerator.register_for_checkpointing(counts)
    loader = accelerator.prepare(
        DataLoader(range(40), batch_sampler=sampler, num_workers=workers)
    )
    goes_on = any(Path(folder).iterdir())
    accelerator.wait_for_everyone()  # or a rank would find what another saves below
    if goes_on:
        accelerator.load_state(folder)
        accelerator.wait_for_everyone()
    for epoch in range(counts.epoch, 4):
        counts.epoch = epoch
        loader.set_epoch(epoch)
        for batch in loader:
            trained(counts.update, batch.tolist())
            counts.update += 1
            counts.epoch += counts.update in ENDS
            if saves(counts.update):
                accelerator.save_state(folder)
                accelerator.wait_for_everyone()


def with_ignite(trained, folder, workers):
    from ignite.engine import Engine, Events

    saved = Path(folder, "engine.json")
    engine = Engine(
        lambda engine, batch: trained(engine.state.iteration - 1, batch.tolist())
    )
    engine.add_event_handler(
        Events.ITERATION_COMPLETED(event_filter=lambda _, update: saves(update)),
        lambda: saved.write_text(json.dumps(engine.state_dict())),
    )
    sampler = trained.new_sampler()
    loader = DataLoader(range(40), batch_sampler=sampler, num_workers=workers)
    if saved.exists():
        engine.load_state_dict(json.loads(saved.read_text()))
        sampler.load_state_dict(sampler.state_of(engine.state.iteration))
        engine.run(loader)
    else:
        engine.run(loader, max_epochs=1, epoch_length=trained.plan.updates)


class Numbers(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {"index": index}


class AllPasses(BatchSampler):
    """All passes of a plan as one epoch (docs/trainers.md)."""

    def __init__(self, sampler, passes, length):
        self.each, self.passes, self.length = sampler, passes, length
        self.batch_size, self.drop_last = None, False

    def __iter__(self):
        for epoch in range(self.passes):
            self.each.set_epoch(epoch)
            yield from self.each

    def __len__(self):
        return self.length


class Model(torch.nn.Module):
    def __init__(self, train):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_on = train

    def forward(self, index):
        self.train_on(index.tolist())
        return {"loss": self.weight * index.sum()}


def with_transformers(trained, folder, workers):
    import transformers

    class OurTrainer(transformers.Trainer):
        def get_train_dataloader(self):
            sampler = trained.new_sampler(
                rank=None, world_size=self.accelerator.num_processes
            )
            every = AllPasses(sampler, passes=4, length=trained.plan.updates)
            loader = DataLoader(Numbers(), batch_sampler=every, num_workers=workers)
            return self.accelerator.prepare(loader)

    class Saves(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            control.should_save = saves(state.global_step)

    arguments = transformers.TrainingArguments(
        folder,
        num_train_epochs=1,
        save_strategy="steps",
        save_steps=100,
        logging_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        use_cpu=True,
    )
    model = Model(lambda samples: trained(trainer.state.global_step, samples))
    trainer = OurTrainer(model, arguments, train_dataset=Numbers(), callbacks=[Saves])
    trainer.train(resume_from_checkpoint=any(Path(folder).iterdir()))


ALONE = [
    ("torchdata", with_stateful_loader, (0, 2)),
    ("accelerate", with_accelerate, (0, 2)),
    ("accelerate", with_accelerates_stateful_loader, (0,)),
    ("ignite", with_ignite, (0, 2)),
    ("transformers", with_transformers, (0, 2)),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "train", "workers"),
    [
        pytest.param(library, train, count, id=f"{train.__name__}-{count}")
        for library, train, counts in ALONE
        for count in counts
    ],
)
@pytest.mark.parametrize(("at", "first"), [(13, 12), (14, 14)], ids=["mid", "end"])
def test_a_killed_training_goes_on_from_its_last_checkpoint(
    library, train, workers, at, first, killed, monkeypatch
):
    pytest.importorskip(library)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert killed(train, workers, at=at) == first


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("at", "first"), [(13, 12), (14, 14)], ids=["mid", "end"])
def test_two_killed_processes_go_on_together(at, first, killed):
    pytest.importorskip("accelerate")
    assert killed(with_accelerate, 0, at=at, world_size=2) == first
