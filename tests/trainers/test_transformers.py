"""transformers' Trainer: the loader is the user's, epochs and resume are its own."""

import functools
import itertools

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

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

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.seen = []

    def forward(self, x, index):
        self.seen.append(index.tolist())
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


def run(folder, sampler, *, save=None, resume=None, prepares=True, epochs=3):
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
@pytest.mark.parametrize("sizes", [{"batch_size": 6}, {"schedule": grow}])
def test_passes_come_one_after_the_other(train, sizes, prepares):
    sampler = VariableBatchSampler(SAMPLES, **sizes)
    assert train(sampler, prepares=prepares) == expected(3, **sizes)


@pytest.mark.parametrize("stop", [4, 9, 13])
def test_a_checkpoint_resumes_by_skipping(train, stop):
    whole = expected(3, batch_size=6)
    train(VariableBatchSampler(SAMPLES, 6), save=stop)
    assert train(VariableBatchSampler(SAMPLES, 6), resume=stop) == whole[stop:]


def test_a_loader_that_was_not_prepared_cannot_resume_in_a_later_pass(train):
    train(VariableBatchSampler(SAMPLES, 6), save=9)
    with pytest.raises(ValueError, match=r"self\.accelerator\.prepare\(loader\)"):
        train(VariableBatchSampler(SAMPLES, 6), resume=9, prepares=False)


def test_passes_that_would_be_cut_are_refused(train):
    with pytest.raises(ValueError, match="got 11 batches where transformers counts 6"):
        train(VariableBatchSampler(SAMPLES, schedule=shrink))


def test_a_resume_that_counts_wrongly_is_refused(train):
    train(VariableBatchSampler(SAMPLES, schedule=grow), save=15)
    with pytest.raises(ValueError, match="give it all passes as one epoch"):
        train(VariableBatchSampler(SAMPLES, schedule=grow), resume=15)


@pytest.mark.parametrize("schedule", [grow, shrink])
def test_all_passes_as_one_epoch_are_exact(train, schedule):
    whole = expected(3, schedule=schedule)

    def sampler():
        each = VariableBatchSampler(SAMPLES, schedule=schedule)
        return AllPasses(each, passes=3, length=len(whole))

    assert train(sampler(), epochs=1, save=15) == whole
    assert train(sampler(), epochs=1, resume=15) == whole[15:]


def work(folder, updates, stop):
    """One of two processes: a whole run, its resume, and one that cannot resume."""

    def each(**sizes):
        share = {"rank": None, "world_size": 2, "boundary": "drop"}
        return VariableBatchSampler(SAMPLES, **share, **sizes)

    def every():
        return AllPasses(each(schedule=grow), passes=3, length=2 * updates)

    found = [
        run(f"{folder}/all", every(), epochs=1, save=stop),
        run(f"{folder}/all", every(), epochs=1, resume=stop),
        run(f"{folder}/each", each(batch_size=6), save=stop),
    ]
    try:
        run(f"{folder}/each", each(batch_size=6), resume=stop)
    except ValueError as error:
        found.append(str(error))
    return found


@pytest.mark.timeout(240)
def test_two_processes_get_their_shares_and_resume(in_processes, tmp_path):
    keywords = {"boundary": "drop", "world_size": 2}
    wholes = [expected(3, rank=rank, schedule=grow, **keywords) for rank in (0, 1)]
    ranks = in_processes(work, str(tmp_path), len(wholes[0]), 11)
    for rank, (all_passes, resumed, constant, told) in enumerate(ranks):
        assert all_passes == wholes[rank]
        assert resumed == wholes[rank][11:]
        assert constant == expected(3, rank=rank, batch_size=6, **keywords)
        # set_epoch does not reach through the skipping loader in several processes.
        assert "for transformers, give it all passes as one epoch" in told
