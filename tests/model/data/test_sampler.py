from collections import Counter

import numpy as np
import pytest

from polarmask.data.batches.sampler import StepSampler, repeat_factors


def sampler(count, batch_size, seed=0, repeats=None, groups=None, **options):
    return StepSampler(repeats or [1] * count, groups or [0] * count, batch_size, seed, **options)


def test_an_epoch_shows_every_image_once():
    every = sampler(12, 4)
    assert len(every) == 3
    assert sorted(index for batch in every for _, index in batch) == list(range(12))
    assert all(epoch == 0 for batch in every for epoch, _ in batch)


def test_the_order_follows_from_seed_and_epoch():
    one, two, other = sampler(50, 5), sampler(50, 5), sampler(50, 5, seed=1)
    assert list(one) == list(two) != list(other)
    first = one.batches()
    one.epoch = two.epoch = 3
    assert one.batches() == two.batches() != first


def test_what_is_left_over_is_dropped():
    every = sampler(11, 4)
    seen = set()
    for every.epoch in range(20):
        assert [len(batch) for batch in every] == [4, 4]
        seen.update(*every.batches())
    assert seen == set(range(11))  # not the same ones every time


def test_fewer_images_than_a_batch_make_one_step():
    assert [len(batch) for batch in sampler(3, 4)] == [3]
    assert list(sampler(0, 4)) == []


@pytest.mark.parametrize(("processes", "parts"), [(2, 1), (1, 2), (2, 2)])
def test_a_step_is_the_same_however_it_is_divided(processes, parts):
    whole = [{index for _, index in batch} for batch in sampler(24, 8)]
    shares = [list(sampler(24, 8, rank=rank, processes=processes, parts=parts)) for rank in range(processes)]
    for step, images in enumerate(whole):
        batches = [share[step * parts + part] for share in shares for part in range(parts)]
        assert all(len(batch) == 8 // (processes * parts) for batch in batches)
        assert {index for batch in batches for _, index in batch} == images


def test_steps_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match=r"multiple of processes \* parts \(3 \* 1\), got 8"):
        sampler(24, 8, processes=3)


def test_skipping_gives_the_rest_of_the_epoch():
    every = sampler(40, 4, parts=2)
    batches = list(every)
    every.skip = 3
    assert len(every) == 14
    assert list(every) == batches[6:]
    assert list(every) == batches  # the next epoch is whole again


def test_repeats_are_met_on_average_and_the_steps_stay():
    repeats = [1.0, 2.5, 1.25, 3.0, 1.0, 1.25]
    every = sampler(6, 2, repeats=repeats)
    seen = Counter()
    epochs = 400
    for every.epoch in range(epochs):
        batches = every.batches()
        assert len(batches) == 5
        shown = Counter(index for batch in batches for index in batch)
        assert all(np.floor(r) <= shown[n] <= np.ceil(r) for n, r in enumerate(repeats))
        seen += shown
    # The standard error of a mean of 400 draws between two neighbours is below 0.03.
    assert [seen[n] / epochs for n in range(6)] == pytest.approx(repeats, abs=0.1)


def test_steps_hold_one_group_while_they_can():
    groups = [n % 3 == 0 for n in range(60)]
    batches = sampler(60, 4, groups=groups).batches()
    assert sorted(index for batch in batches for index in batch) == list(range(60))
    assert sum(len({groups[index] for index in batch}) > 1 for batch in batches) <= 1


def test_repeat_factors():
    images = [[1], [1], [1], [1, 2], [], [1], [1], [1]]
    factors = repeat_factors(images, threshold=0.5)
    assert factors == [1, 1, 1, 2, 1, 1, 1, 1]  # category 2 is in an eighth of the images: sqrt(0.5 / 0.125)
