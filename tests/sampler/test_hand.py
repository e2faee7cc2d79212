"""The batch in hand: its settings, weight and pieces, and the state before any update."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from batchramp import plan
from batchramp.sampler import VariableBatchSampler

SAMPLES, EPOCHS = 53, 4
BOUNDARIES = ["keep", "drop", "wrap"]


def growing(boundary, num_samples=SAMPLES):
    return plan(
        "smith-increase", num_samples=num_samples, epochs=EPOCHS, boundary=boundary,
        batch_size=4, max_batch_size=16, lr=0.5,
    )  # fmt: skip


def sampler_of(made, **keywords):
    return VariableBatchSampler(made.horizon.num_samples, schedule=made, **keywords)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_settings_in_a_loop_are_the_plans_for_that_update(boundary, workers):
    made = growing(boundary)
    sampler = sampler_of(made)
    loader = DataLoader(
        list(range(SAMPLES)), batch_sampler=sampler, num_workers=workers,
        collate_fn=list,
    )  # fmt: skip
    trained = 0
    for _ in range(EPOCHS):
        for update, batch in enumerate(loader):
            settings = sampler.settings(update)
            assert settings == made.settings_of(trained)
            short = boundary == "keep" and len(batch) < settings.batch_size
            assert short or len(batch) == settings.batch_size
            assert sampler.weight(update) == 1.0
            trained += 1
    assert trained == made.updates


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_state_of_any_update_is_the_one_that_drawing_reaches(boundary):
    made = growing(boundary)
    drawing, asked = sampler_of(made), sampler_of(made)
    for update in range(made.updates):
        if update == 0:
            batches = iter(drawing)
        assert asked.state_of(update) == drawing.state_dict()
        if next(batches, None) is None:
            batches = iter(drawing)
            next(batches)
    assert asked.state_of(made.updates) == drawing.state_dict()
    assert asked.position == 0  # nothing was drawn
    with pytest.raises(ValueError, match=f"at most {made.updates} .*got 1000"):
        asked.state_of(1000)


@pytest.mark.parametrize(
    "sizes",
    [
        {"batch_size": 7},
        {"schedule": [(0, 4), (60, 9), (107, 20)]},
        {"schedule": lambda position: 3 + position % 7},
    ],
)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_training_starts_at_any_update_without_a_saved_state(sizes, boundary):
    def new():
        return VariableBatchSampler(SAMPLES, boundary=boundary, **sizes)

    sampler = new()
    whole = list(itertools.chain(*(list(sampler) for _ in range(4))))
    for update in range(0, 20, 3):
        started = new()
        started.load_state_dict(started.state_of(update))
        rest = list(itertools.chain(*(list(started) for _ in range(2))))
        assert rest == whole[update : update + len(rest)]
        assert len(rest) >= 3


def test_what_has_no_settings_or_no_known_beginning_says_so():
    sampler = VariableBatchSampler(SAMPLES, 7)
    with pytest.raises(ValueError, match=r"schedule must be a Plan for settings\(\)"):
        sampler.settings(0)
    with pytest.raises(ValueError, match="schedule must be a Plan"):
        VariableBatchSampler(SAMPLES, schedule=[(0, 4)]).settings(0)
    next(iter(sampler))
    sampler.set_batch_size(8)
    with pytest.raises(ValueError, match="must not have been set by hand"):
        sampler.state_of(3)
    made = sampler_of(growing("keep"))
    with pytest.raises(ValueError, match="update must be at most"):
        made.settings(99)
    with pytest.raises(ValueError, match="micro_batch must be given"):
        made.piece(0)
    dealt = sampler_of(growing("drop"), rank=None, world_size=2, micro_batch=3)
    with pytest.raises(ValueError, match=r"rank must be a number for piece\(\)"):
        dealt.piece(0)


def gradient(model, batch, weight):
    loss = weight * model(batch).square().mean()
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, model.parameters())]
    )


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_weighted_pieces_make_the_gradient_of_the_global_batch(
    boundary, world_size, workers
):
    made = growing("drop" if world_size > 1 and boundary == "keep" else boundary)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).double()
    data = torch.randn(SAMPLES, 3, dtype=torch.float64)
    whole = sampler_of(made)
    ranks = [
        sampler_of(made, rank=rank, world_size=world_size, micro_batch=3)
        for rank in range(world_size)
    ]
    for _ in range(EPOCHS):
        batches = list(whole)
        found = [torch.zeros(8, dtype=torch.float64) for _ in batches]
        seen = [[] for _ in batches]
        for rank in ranks:
            loader = DataLoader(
                data, batch_sampler=rank, num_workers=workers, collate_fn=torch.stack
            )
            length, steps = len(loader), 0
            index = -1
            for index, batch in enumerate(loader):
                piece = rank.piece(index)
                assert len(batch) <= 3
                found[piece.update] += gradient(model, batch, piece.weight) / world_size
                seen[piece.update].append(len(batch))
                steps += piece.last
            assert (index + 1, steps) == (length, len(batches))
        for batch, got, lengths in zip(batches, found, seen, strict=True):
            assert torch.allclose(got, gradient(model, data[batch], 1.0), rtol=1e-12)
            assert sum(lengths) == len(batch)


@given(st.data())
def test_pieces_resume_at_the_first_of_their_update(data):
    boundary = data.draw(st.sampled_from(BOUNDARIES))
    made = growing(boundary)
    micro_batch = data.draw(st.integers(1, 20))
    rank = data.draw(st.sampled_from([0, None]))

    def new():
        return sampler_of(made, micro_batch=micro_batch, rank=rank)

    sampler = new()
    epoch = data.draw(st.integers(0, EPOCHS - 1))
    sampler.set_epoch(epoch)
    whole = list(sampler)
    pieces = [sampler.piece(index) for index in range(len(whole))]
    with pytest.raises(ValueError, match="index must be at most"):
        sampler.piece(len(whole))
    with pytest.raises(ValueError, match="batches must be at most"):
        sampler.state_at(len(whole) + 1)
    global_batches = sampler_of(made)
    global_batches.set_epoch(epoch)
    assert [
        list(itertools.chain(*(piece for piece, _ in group)))
        for _, group in itertools.groupby(
            zip(whole, pieces, strict=True), lambda pair: pair[1].update
        )
    ] == list(global_batches)
    stop = data.draw(st.integers(0, len(whole) - 1))
    drawn = new()
    drawn.set_epoch(epoch)
    list(itertools.islice(drawn, data.draw(st.integers(stop, len(whole)))))
    if boundary == "wrap" and not stop and epoch:
        return  # whether something was drawn decides where the pass's beginning lies
    state = drawn.state_at(stop)
    again = new()
    again.load_state_dict(state)
    first = next(
        i for i, piece in enumerate(pieces) if piece.update == pieces[stop].update
    )
    rest = list(again)
    assert rest == whole[first:]
    assert again.piece(len(whole) - 1) == pieces[-1]
    assert state["slices_yielded"] == 0


def test_a_size_set_by_hand_is_cut_into_pieces_from_there_on():
    sampler = VariableBatchSampler(100, 10, micro_batch=4)
    lengths = []
    for index, piece in enumerate(sampler):
        lengths.append((sampler.piece(index).update, len(piece)))
        if index == 2:
            sampler.set_batch_size(25)
    # 10 = 4 + 3 + 3; then 25 in seven pieces of 4 and 3.
    assert lengths[:3] == [(0, 4), (0, 3), (0, 3)]
    assert [size for update, size in lengths if update == 1] == [4, 4, 4, 4, 3, 3, 3]
    assert len(lengths) == 3 + 3 * 7 + 4  # of 10, 25, 25, 25 and the last 15


def test_pieces_before_a_load_must_be_known():
    sampler = VariableBatchSampler(100, 10, micro_batch=4)
    batches = iter(sampler)
    for _ in range(3):
        next(batches)
    sampler.set_batch_size(20)
    for _ in range(5):
        next(batches)
    state = sampler.state_dict()
    again = VariableBatchSampler(100, 10, micro_batch=4)
    with pytest.raises(ValueError, match="a place that the schedule comes by"):
        again.load_state_dict(state)
    VariableBatchSampler(100, 10).load_state_dict(state)


@pytest.mark.parametrize(
    ("micro_batch", "message"),
    [(0, "at least 1"), (2.5, "whole number"), ("4", "whole number")],
)
def test_micro_batches_are_checked(micro_batch, message):
    with pytest.raises(ValueError, match=f"micro_batch must be .*{message}"):
        VariableBatchSampler(10, 4, micro_batch=micro_batch)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "must be pairs"),
        ([(0, 4, 1)], "must be pairs"),
        ([4, 8], "must be pairs"),
        ([(1, 4)], "must begin at 0"),
        ([(0, 4), (0, 8)], "by more and more"),
        ([(0, 4), (20, 8), (10, 2)], "by more and more"),
        ([(0, 0)], "batch_size must be between"),
        ([(0, 4), (20, 99)], "batch_size must be between 1 and 53"),
        ([(0, 4.5)], "must be a whole number"),
        ([(0.5, 4)], "samples must be a whole number"),
    ],
)
def test_lists_of_sizes_are_checked(pairs, message):
    with pytest.raises(ValueError, match=message):
        VariableBatchSampler(SAMPLES, schedule=pairs)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_list_of_sizes_is_a_schedule(boundary):
    pairs = [(0, 4), (60, 9), (107, 20)]

    def size(position):
        return [s for at, s in pairs if at <= position][-1]

    listed = VariableBatchSampler(SAMPLES, schedule=pairs, boundary=boundary)
    called = VariableBatchSampler(SAMPLES, schedule=size, boundary=boundary)
    for _ in range(4):
        assert len(listed) == len(called)
        assert list(listed) == list(called)
    other = VariableBatchSampler(SAMPLES, schedule=pairs[:2], boundary=boundary)
    with pytest.raises(ValueError, match="state's schedule_id must be"):
        other.load_state_dict(listed.state_dict())


def test_lists_of_sizes_hold_wherever_the_sampler_has_been():
    ramp = [(0, 16), (50, 4), (90, 8)]
    sampler = VariableBatchSampler(40, schedule=ramp)
    passes = [list(sampler) for _ in range(4)]
    state = sampler.state_of(1)
    sampler.set_epoch(0)  # back over sizes that were drawn
    assert [list(sampler) for _ in range(4)] == passes
    sampler.load_state_dict(state)
    assert list(sampler) == passes[0][1:]
    sampler.set_epoch(3)  # and on, past sizes that were not
    sampler.set_epoch(1)
    assert list(sampler) == passes[1]


def test_a_piece_has_no_weight_of_its_updates():
    sampler = VariableBatchSampler(12, 6, micro_batch=3)
    with pytest.raises(ValueError, match=r"micro_batch must be None .*piece\(index\)"):
        sampler.weight(0)
