"""Random numbers as functions of their position: compared with plain integer arithmetic, and tested for randomness."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rapdarts.data.randomness import key, permutation, uniform_draws

SEEDS = st.integers(-(2**70), 2**70)
COUNTS = st.integers(0, 10_000)


def splitmix64(start: int, counter: int) -> int:
    """Return output `counter`, counted from 0, of Steele, Lea and Flood's generator, in plain 64-bit integer arithmetic."""
    whole = (1 << 64) - 1
    z = (start + (counter + 1) * 0x9E3779B97F4A7C15) & whole
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
    return z ^ (z >> 31)


def as_signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def test_the_reference_is_splitmix64() -> None:
    """The first numbers for the seed 1234567 are those published with the generator's Java and C code."""
    numbers = [splitmix64(1234567, counter) for counter in range(5)]
    assert numbers == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


# --- keys --------------------------------------------------------------------------------------------------------


def test_key_by_hand() -> None:
    digest = hashlib.sha256(b"7:crops:3:11").digest()
    assert key(7, "crops", 3, 11) == int.from_bytes(digest[:8], "big") // 2


@given(SEEDS, st.text(max_size=20), st.lists(COUNTS, max_size=3))
def test_keys_are_valid_seeds_for_torch(seed: int, stream: str, counters: list[int]) -> None:
    value = key(seed, stream, *counters)
    assert 0 <= value < 2**63
    torch.Generator().manual_seed(value)
    assert value == key(seed, stream, *counters)


def test_keys_differ() -> None:
    counters: list[tuple[int, ...]] = [(), (0,), (1,), (1, 0), (10,)]
    keys = {key(seed, stream, *rest) for seed in (-1, 0, 1, 11) for stream in ("a", "b", "1") for rest in counters}
    assert len(keys) == 4 * 3 * 5


# --- uniform numbers ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(SEEDS, COUNTS, st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.integers(1, 4))
def test_uniform_draws_match_splitmix64(seed: int, epoch: int, index: list[int], draws: int) -> None:
    numbers = uniform_draws(seed, "test", epoch, torch.tensor(index), draws)
    assert numbers.shape == (len(index), draws) and numbers.dtype == torch.float32
    start = key(seed, "test", epoch)
    expected = [[(splitmix64(start, i * draws + draw) >> 40) / 2**24 for draw in range(draws)] for i in index]
    assert numbers.tolist() == expected
    assert (numbers >= 0).all() and (numbers < 1).all()


def test_rows_do_not_depend_on_other_rows() -> None:
    whole = uniform_draws(3, "test", 5, torch.arange(1000), 4)
    some = torch.tensor([999, 3, 500, 3])
    assert torch.equal(uniform_draws(3, "test", 5, some, 4), whole[some])
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert torch.equal(uniform_draws(3, "test", 5, torch.arange(1000), 4), whole)
    assert torch.equal(torch.get_rng_state(), state)  # torch's generator is neither used nor advanced
    assert uniform_draws(3, "test", 5, torch.arange(0), 4).shape == (0, 4)


def test_every_position_has_its_own_numbers() -> None:
    index = torch.arange(50)
    tables = [
        uniform_draws(seed, stream, epoch, index, 2)
        for seed, stream, epoch in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    ]
    assert len({table.numpy().tobytes() for table in tables}) == 4
    assert len(torch.cat(tables).unique()) > 395  # of 400 numbers of 24 bits


def test_uniform_draws_pass_statistical_tests() -> None:
    n = 100_000
    numbers = uniform_draws(0, "test", 0, torch.arange(n), 2).double()
    # Mean and variance are within four standard errors; 64 bins pass a chi-squared test (63 degrees of freedom, p = 1e-6).
    assert (numbers.mean(0) - 0.5).abs().max() < 4 * (1 / 12 / n) ** 0.5
    assert (numbers.var(0) - 1 / 12).abs().max() < 4 * (1 / 180 / n) ** 0.5
    for column in numbers.T:
        counts = torch.histc(column, 64, 0, 1)
        assert ((counts - n / 64) ** 2 / (n / 64)).sum() < 130
    # There is no correlation within a row, between neighbouring rows, or between one epoch and the next.
    later = uniform_draws(0, "test", 1, torch.arange(n), 2).double()
    pairs = [(numbers[:, 0], numbers[:, 1]), (numbers[:-1, 0], numbers[1:, 0]), (numbers[:, 0], later[:, 0])]
    for a, b in pairs:
        assert abs(np.corrcoef(a.numpy(), b.numpy())[0, 1]) < 4 / n**0.5


# --- orders ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(SEEDS, COUNTS, st.integers(0, 300))
def test_permutation_sorts_by_splitmix64(seed: int, epoch: int, n: int) -> None:
    order = permutation(seed, "order", epoch, n)
    assert order.dtype == torch.int64 and sorted(order.tolist()) == list(range(n))
    start = key(seed, "order", epoch)
    assert order.tolist() == sorted(range(n), key=lambda i: as_signed(splitmix64(start, i)))


def test_every_epoch_has_its_own_order() -> None:
    places = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]
    orders = [permutation(*place, 100).tolist() for place in places]
    assert len({tuple(order) for order in orders}) == 4
    assert permutation(0, "a", 0, 100).tolist() == orders[0]


@pytest.mark.parametrize("n", [2, 3, 7])
def test_every_item_is_equally_likely_at_every_position(n: int) -> None:
    epochs = 3000
    places = torch.zeros(n, n)
    for epoch in range(epochs):
        places[torch.arange(n), permutation(0, "order", epoch, n)] += 1
    expected, error = epochs / n, (epochs * (1 / n) * (1 - 1 / n)) ** 0.5
    assert (places - expected).abs().max() < 4.5 * error
