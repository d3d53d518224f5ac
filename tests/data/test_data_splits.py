"""Stratified, seeded draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from image2video.data.seeds import derive_seed, seeded_generator
from image2video.data.splits import fraction_count, stratified_split
from image2video.errors import InputError

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, share=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_split_is_a_partition_that_keeps_class_shares(labels, share, seed):
    labels = torch.tensor(labels)
    first_count = round(share * len(labels))
    first, second = stratified_split(labels, first_count, seed=seed)
    assert len(first) == first_count
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(len(labels)))
    exact = torch.bincount(labels) * first_count / len(labels)
    drawn = torch.bincount(labels[first], minlength=len(exact))
    assert (drawn - exact).abs().max() < 1


def test_draws_depend_on_the_seed_alone():
    labels = torch.arange(100) % 5
    draws = [stratified_split(labels, 30, seed=seed)[0] for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_remainders_go_to_random_classes():
    labels = torch.arange(10)  # one image per class: which of them are drawn is the seed's choice
    drawn = {int(i) for seed in range(40) for i in stratified_split(labels, 1, seed=seed)[0]}
    assert len(drawn) > 5


def test_impossible_draws_are_refused():
    with pytest.raises(InputError, match="cannot draw 11 images out of 10"):
        stratified_split(torch.arange(10), 11, seed=0)
    with pytest.raises(InputError, match="between 0 and 1"):
        fraction_count(10, 1.0)
    with pytest.raises(InputError, match="one part empty"):
        fraction_count(3, 0.1)


def test_seeds_are_streams_of_their_own():
    seeds = {derive_seed(*numbers) for numbers in [(0,), (0, 0), (1, 0), (0, 1), (0, 0, 0), (2**40, 1)]}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(torch.rand(3, generator=seeded_generator(1, 2)), torch.rand(3, generator=seeded_generator(1, 2)))
    with pytest.raises(InputError, match="must be at least 0"):
        derive_seed(-1)
