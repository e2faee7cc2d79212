"""transformers' Trainer: the loader is the user's, epochs and resume are its own."""

import functools
import itertools

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

import batchramp
from batchramp.sampler import VariableBatchSampler

transformers = pytest.importorskip("transformers")

SAMPLES = 53


class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        return {"x": torch.tensor([float(index)]), "index": index}


class Tiny(torch.nn.Module):
    """Remembers what it was trained on."""

    forwards = 0

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen = []

    def forward(self, x, index):
        self.seen.append(index.tolist())
        Tiny.forwards += 1
        return {"loss": self.linear(x).mean() * 0}


class OurTrainer(transformers.Trainer):
    sampler = None
    prepares = True

    def get_train_dataloader(self):
        loader = DataLoader(self.train_dataset, batch_sampler=self.sampler)
        return self.accelerator.prepare(loader) if self.prepares else loader


class AllPasses(BatchSampler):
    """All passes of a plan as one epoch (docs/trainers.md)."""

    def __init__(self, sampler, passes, length):
        self.each, self.passes, self.length = sampler, passes, length
        self.batch_size = None
        self.drop_last = False

    def __iter__(self):
        for epoch in range(self.passes):
            self.each.set_epoch(epoch)
            yield from self.each

    def __len__(self):
        return self.length


def grow(position):
    return 5 if position < SAMPLES else 10


def shrink(position):
    return 10 if position < SAMPLES else 5


def expected(passes, **keywords):
    sampler = VariableBatchSampler(SAMPLES, **keywords)
    return list(itertools.chain(*(list(sampler) for _ in range(passes))))


def run(folder, sampler, *, save=None, resume=None, prepares=True, epochs=3, **options):
    """Trains, perhaps from a checkpoint, and returns the batches of that run."""
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        save_strategy="no" if save is None else "steps",
        save_steps=save or 500,
        logging_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
        use_cpu=True,
        **options,
    )
    model = Tiny()
    trainer = OurTrainer(model, arguments, train_dataset=Numbers())
    trainer.sampler, trainer.prepares = sampler, prepares
    checkpoint = resume and f"{folder}/checkpoint-{resume}"
    trainer.train(resume_from_checkpoint=checkpoint)
    return model.seen


@pytest.fixture
def train(tmp_path):
    return functools.partial(run, tmp_path)


@pytest.mark.parametrize("prepares", [True, False])
def test_passes_come_one_after_the_other(train, prepares):
    sampler = VariableBatchSampler(SAMPLES, 6)
    assert train(sampler, prepares=prepares) == expected(3, batch_size=6)


@pytest.mark.parametrize(("stop", "prepares"), [(4, True), (9, False), (13, True)])
def test_a_checkpoint_resumes_by_skipping(train, stop, prepares):
    whole = expected(3, batch_size=6)
    train(VariableBatchSampler(SAMPLES, 6), save=stop)
    sampler = VariableBatchSampler(SAMPLES, 6)
    assert train(sampler, resume=stop, prepares=prepares) == whole[stop:]


def plan_of(epochs, largest):
    return batchramp.plan(
        "smith-increase",
        num_samples=SAMPLES,
        epochs=epochs,
        batch_size=6,
        max_batch_size=largest,
    )


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (shrink, "got 11 batches in pass 1 where transformers counts 6"),
        (grow, "got 6 batches in pass 1 where transformers counts 11"),
        (plan_of(3, 24), "len.. must be the same in every pass"),
        ([(0, 6), (130, 24)], "got 6 batches in pass 2 where transformers counts 9"),
        (plan_of(2, 6), "num_train_epochs must be at most 2, where the plan ends"),
    ],
)
def test_passes_of_other_lengths_are_refused_at_the_first_batch(
    train, schedule, message
):
    # Its steps, and the decay of its learning rate with them, count the first pass's.
    Tiny.forwards = 0
    with pytest.raises(ValueError, match=message):
        train(VariableBatchSampler(SAMPLES, schedule=schedule))
    assert Tiny.forwards == 0


def test_a_plan_of_one_size_needs_nothing_else(train):
    schedule = plan_of(3, 6)
    sampler = VariableBatchSampler(SAMPLES, schedule=schedule)
    assert train(sampler) == expected(3, schedule=schedule)


def test_pieces_are_no_updates_of_their_own(train):
    sampler = VariableBatchSampler(SAMPLES, 6, micro_batch=3)
    with pytest.raises(ValueError, match=r"micro_batch must be None .* got 3"):
        train(sampler)


def test_an_epoch_given_to_the_sampler_is_not_lost_to_the_trainers_count(train):
    sampler = VariableBatchSampler(SAMPLES, 6)
    sampler.set_epoch(2)
    with pytest.raises(ValueError, match="got 0 from transformers' Trainer"):
        train(sampler)


@pytest.mark.parametrize("schedule", [grow, shrink])
def test_all_passes_as_one_epoch_are_exact(train, schedule):
    whole = expected(3, schedule=schedule)

    def sampler():
        each = VariableBatchSampler(SAMPLES, schedule=schedule)
        return AllPasses(each, passes=3, length=len(whole))

    assert train(sampler(), epochs=1, save=15) == whole
    assert train(sampler(), epochs=1, resume=15) == whole[15:]


def test_a_state_may_be_loaded_where_the_trainer_does_not_skip(train):
    train(VariableBatchSampler(SAMPLES, 6), save=13)
    for options in ({}, {"ignore_data_skip": True}):
        sampler = VariableBatchSampler(SAMPLES, 6)
        sampler.load_state_dict(sampler.state_of(13))
        if options:
            rest = expected(3, batch_size=6)[13:]
            assert train(sampler, resume=13, **options) == rest
        else:
            with pytest.raises(ValueError, match="write ignore_data_skip=True"):
                train(sampler, resume=13)


def work(folder, updates, stop):
    """One of two processes: whole runs, and their resumes in a later pass."""

    def each(**sizes):
        share = {"rank": None, "world_size": 2, "boundary": "drop"}
        return VariableBatchSampler(SAMPLES, **share, **sizes)

    def every():
        return AllPasses(each(schedule=grow), passes=3, length=2 * updates)

    return [
        run(f"{folder}/all", every(), epochs=1, save=stop),
        run(f"{folder}/all", every(), epochs=1, resume=stop),
        run(f"{folder}/each", each(batch_size=6), save=stop),
        run(f"{folder}/each", each(batch_size=6), resume=stop),
    ]


@pytest.mark.timeout(240)
def test_two_processes_get_their_shares_and_resume(in_processes, tmp_path):
    keywords = {"boundary": "drop", "world_size": 2}
    wholes = [expected(3, rank=rank, schedule=grow, **keywords) for rank in (0, 1)]
    ranks = in_processes(work, str(tmp_path), len(wholes[0]), 11)
    for rank, (all_passes, resumed, constant, later) in enumerate(ranks):
        assert all_passes == wholes[rank]
        assert resumed == wholes[rank][11:]
        whole = expected(3, rank=rank, batch_size=6, **keywords)
        assert constant == whole
        assert later == whole[11:]
