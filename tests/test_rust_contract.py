"""What `batchramp._rust` promises, held against an independent reading of its docs."""

import itertools
import math
import pickle
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchramp import _rust
from batchramp._rust import Batches, advance, derive_key, share

WORD = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
BOUNDARIES = ("keep", "drop", "wrap")


def mix(word):
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def rotated(word, count):
    return ((word << count) | (word >> (64 - count))) & WORD


def stream(seed, pass_index):
    """xoshiro256++ from the state of a pass."""
    state = [seed, pass_index, 0x243F6A8885A308D3, 0x13198A2E03707344]
    for step in range(12):
        near, far, across = (state[(step + distance) % 4] for distance in (1, 2, 3))
        inner = mix((far + rotated(across, 32)) & WORD)
        state[step % 4] ^= mix(((near + GOLDEN * (step + 1)) & WORD) ^ inner)
    a, b, c, d = state
    while True:
        yield (rotated((a + d) & WORD, 23) + a) & WORD
        shifted = (b << 17) & WORD
        c, d = c ^ a, d ^ b
        a, b, c, d = a ^ d, b ^ c, c ^ shifted, rotated(d, 45)


def exact_order(num_samples, seed, pass_index):
    """Fisher-Yates from the back, two draws a word."""
    order, words, left = list(range(num_samples)), stream(seed, pass_index), num_samples
    while left >= 2:
        while True:
            first, rest = divmod(next(words) * left, 2**64)
            second, rest = divmod(rest * (left - 1), 2**64)
            if rest >= 2**64 % (left * (left - 1)):
                break
        order[left - 1], order[first] = order[first], order[left - 1]
        order[left - 2], order[second] = order[second], order[left - 2]
        left -= 2
    return order


def whole_pass(num_samples, seed, pass_index, order="exact"):
    batches = Batches(num_samples, seed=seed, order=order)
    return batches.take(pass_index * num_samples, num_samples).tolist()


def test_golden_orders_never_change():
    assert whole_pass(10, 0, 0) == [7, 0, 4, 2, 1, 9, 6, 5, 8, 3]
    assert whole_pass(10, 0, 1) == [8, 4, 6, 9, 3, 1, 0, 2, 7, 5]
    assert whole_pass(9, WORD, 2**40) == [0, 7, 3, 2, 6, 1, 8, 4, 5]
    assert Batches(10).order_version == "exact-1"
    large = Batches(2**21, seed=3)
    assert large.order_version == "exact-2"
    assert large.take(2**21, 4).tolist() == [199059, 1290207, 195706, 371645]
    for num_samples, seed, epoch, first in (
        (10, 0, 0, [7, 0, 4]),
        (4096, 0, 0, [3287, 3978, 2400]),
        (50_000, 1, 2, [8899, 19818, 26334]),
        (2**30, 0, 5, [43628297, 828768656, 998756379]),
        (10**12, WORD, 7, [452838936940, 437552545421, 835982364062]),
    ):
        batches = Batches(num_samples, seed=seed, order="bijective")
        assert batches.order_version == "bijective-1"
        assert batches.take(epoch * num_samples, 3).tolist() == first


@given(st.integers(1, 300), st.integers(0, WORD), st.integers(0, 2**63 // 300 - 1))
def test_the_order_is_the_documented_one(num_samples, seed, pass_index):
    got = whole_pass(num_samples, seed, pass_index)
    assert got == exact_order(num_samples, seed, pass_index)


def split(num_samples, count):
    """Parts of at most 2^15, much the same in size, with a product little above."""
    if count == 3:
        first = next(root for root in range(1, 2**15 + 1) if root**3 >= num_samples)
        return [first, *split(-(-num_samples // first), 2)]
    root = math.isqrt(num_samples - 1) + 1
    pairs = [
        (first, -(-num_samples // first))
        for first in range(root, max(root - root // 4, root - 255) - 1, -1)
    ]
    return min((pair for pair in pairs if pair[1] <= 2**15), key=math.prod)


def bijective_order(num_samples, seed, pass_index, places):
    """One LCG step, then a Feistel network on two or three digits."""
    parts = split(num_samples, 2 if num_samples <= 2**30 else 3)
    size, words = math.prod(parts), stream(seed, pass_index)

    def below(bound):
        while True:
            draw, rest = divmod(next(words) * bound, 2**64)
            if rest >= 2**64 % bound:
                return draw

    offset = below(size)
    while math.gcd(multiplier := below(size), size) != 1:
        pass
    rounds = [next(words) for _ in range(6 if len(parts) == 2 else 18)]

    def once(place):
        number, digits = (place * multiplier + offset) % size, []
        for part in reversed(parts):
            number, digit = divmod(number, part)
            digits.insert(0, digit)
        for index, word in enumerate(rounds):
            target, source = index % len(parts), (index + 1) % len(parts)
            k0, k1, k2 = (word >> shift & 0xFFFF for shift in (0, 16, 32))
            x = (digits[source] + k0) * (k1 | 1) & 0xFFFF
            x = (x ^ x >> 8) * (k2 | 1) & 0xFFFF
            moved = digits[target] + (x * parts[target] >> 16)
            digits[target] = moved % parts[target]
        for part, digit in zip(parts, digits, strict=True):
            number = number * part + digit
        return number

    for place in places:
        sample = once(place)
        while sample >= num_samples:
            sample = once(sample)
        yield sample


@given(
    st.integers(2**15, 2**30) | st.integers(2**30, 2**45),
    st.integers(0, WORD),
    st.integers(0, 2**17),
    st.integers(0, WORD),
)
def test_the_bijective_order_is_the_documented_one(num_samples, seed, epoch, word):
    batches = Batches(num_samples, seed=seed, order="bijective")
    first = word % (num_samples - 100)
    got = batches.take(epoch * num_samples + first, 100).tolist()
    assert got == list(
        bijective_order(num_samples, seed, epoch, range(first, first + 100))
    )


@given(st.integers(0, WORD), st.text(max_size=20))
def test_keys_are_the_documented_ones(seed, purpose):
    key = mix((seed + GOLDEN) & WORD)
    data = purpose.encode()
    words = [data[i : i + 8] for i in range(0, len(data), 8)]
    for word in [int.from_bytes(word, "little") for word in words] + [len(data)]:
        key = mix(((key ^ word) + GOLDEN) & WORD)
    assert derive_key(seed, purpose) == key


def test_golden_keys_never_change():
    assert derive_key(0, "split") == 16197341236152228540
    assert derive_key(1, "model initialisation") == 16254266165160065896


def test_seeds_and_passes_do_not_collide():
    # Torch takes 5 and 5 + 2**32 for one seed, and (0, 1) and (1, 0) for one order.
    pairs = [(5, 0), (5 + 2**32, 0), *itertools.product(range(40), range(40))]
    pairs = list(dict.fromkeys(pairs))
    assert len({tuple(whole_pass(40, *pair)) for pair in pairs}) == len(pairs)


@pytest.mark.parametrize(("length", "limit"), [(3, 20.5), (4, 49.7), (5, 172.7)])
def test_every_order_is_as_likely(length, limit):
    # Over seeds rather than passes; `limit` is the 0.1 % point of chi-square.
    total = 200 * math.factorial(length)
    counts = Counter(tuple(whole_pass(length, seed, 0)) for seed in range(total))
    assert len(counts) == math.factorial(length)
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < limit


@pytest.mark.parametrize("num_samples", [2**16 - 1, 2**16, 2**16 + 1])
def test_orders_are_permutations_around_powers_of_two(num_samples):
    order = Batches(num_samples, seed=4).take(0, num_samples)
    assert np.array_equal(np.sort(order), np.arange(num_samples))


def test_batches_are_as_varied_as_random_ones():
    # The test that catches grain's four rounds at once (0.15 to 0.35 there).
    count, size, passes = 60_000, 128, 12
    labels = (np.arange(count) >= count // 2).astype(float)
    batches, ratios = Batches(count, seed=2, boundary="drop"), []
    for pass_index in range(passes):
        order = batches.take(pass_index * count, count)
        means = labels[order[: count // size * size]].reshape(-1, size).mean(1)
        expected = labels.var(ddof=1) * (1 / size - 1 / count)
        ratios.append(means.var(ddof=1) / expected)
    # One pass scatters by sqrt(2 / batches) = 0.065, twelve by 0.019.
    assert abs(np.mean(ratios) - 1) < 0.08


def test_sequential_is_sequential_and_auto_resolves():
    assert whole_pass(5, 9, 3, order="sequential") == [0, 1, 2, 3, 4]
    assert Batches(2**24).order == "exact"
    assert Batches(2**32, order="exact").num_samples == 2**32


def test_a_batch_is_the_same_in_any_order_thread_and_copy():
    batches = Batches(97, seed=8, boundary="wrap")
    starts = list(range(0, 97 * 20, 13))
    expected = [batches.take(start, 50).tolist() for start in starts]
    with ThreadPoolExecutor(4) as pool:
        mixed = starts[::2] + starts[1::2]
        got = dict(
            zip(
                mixed,
                pool.map(lambda at: batches.take(at, 50).tolist(), mixed),
                strict=True,
            )
        )
    assert [got[start] for start in starts] == expected
    copy = pickle.loads(pickle.dumps(batches))
    assert copy.take(90, 50).tolist() == batches.take(90, 50).tolist()
    assert (copy.seed, copy.boundary, copy.num_samples) == (8, "wrap", 97)
    assert copy.take(0, 3).dtype == np.int64


@given(st.integers(1, 200), st.integers(1, 20))
def test_shares_are_contiguous_and_even(length, world_size):
    if length < world_size:
        with pytest.raises(ValueError, match=f"at least {world_size}"):
            share(length, 0, world_size)
        return
    edges = [share(length, rank, world_size) for rank in range(world_size)]
    assert [edges[0][0], edges[-1][1]] == [0, length]
    assert all(one[1] == two[0] for one, two in itertools.pairwise(edges))
    assert max(b - a for a, b in edges) - min(b - a for a, b in edges) <= 1


@given(st.data())
def test_advance_equals_one_batch_at_a_time(data):
    count = data.draw(st.integers(1, 30))
    size = data.draw(st.integers(1, count))
    boundary = data.draw(st.sampled_from(BOUNDARIES))
    position, until = data.draw(st.integers(0, 90)), data.draw(st.integers(0, 200))
    until_update = data.draw(st.none() | st.integers(0, 30))
    batches, update = Batches(count, boundary=boundary), 0
    got = advance(count, boundary, position, 0, size, until, until_update)
    position = batches.start(position, size)
    while position < until and update != until_update:
        position = batches.start(batches.end(position, size), size)
        update += 1
    assert got == (position, update)


def test_a_billion_updates_take_no_time():
    assert advance(50_021, "keep", 0, 0, 128, None, 391_000_000) == (
        50_021 * 1_000_000,
        391_000_000,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Batches(0), "num_samples must be between 1 .* got 0"),
        (lambda: Batches(2**32 + 1, order="exact"), "num_samples must be .* got 42949"),
        (lambda: Batches(2**45 + 1), r"num_samples must be between 1 and .*2\*\*45"),
        (lambda: Batches(9, threads=0), "threads must be between 1 and 1024, got 0"),
        (
            lambda: Batches(9, threads=1025),
            "threads must be between 1 and 1024, got 1025",
        ),
        (lambda: Batches(9, order="x" * 10**6), 'order must .* got "x{60}"\\.\\.\\.$'),
        (lambda: Batches(9, boundary="x" * 99), 'boundary must .* "x{60}"\\.\\.\\.$'),
        (
            lambda: Batches(10**400),
            "num_samples must be .* got one of very many digits",
        ),
        (lambda: Batches(1, seed=10**9999), "seed must be .* one of very many digits"),
        (lambda: Batches(9, order="random"), "order must be auto"),
        (lambda: Batches(9, boundary="pad"), "boundary must be keep, drop or wrap"),
        (lambda: Batches(9, seed=-1), "seed must be between 0 .* got -1"),
        (lambda: Batches(9, seed=2**64), "seed must be between 0 .* got 1844"),
        (lambda: Batches(9).take(0, 0), "batch_size must be between 1 and 9 .* got 0"),
        (lambda: Batches(9).take(0, 10), "batch_size must be between 1 and 9"),
        (lambda: Batches(9).start(2**63 + 1, 1), r"position must be at most .*2\*\*63"),
        (lambda: Batches(9).take(0, 5, 2, 2), "rank must be between 0 and 1"),
        (lambda: Batches(9).take(0, 5, 0, 0), "world_size must be at least 1"),
        (lambda: Batches(9).take(7, 5, 0, 3), "batch_size must be at least 3"),
        (lambda: Batches(9, boundary="drop").take(7, 5), "start must leave room"),
        (lambda: derive_key(-1, "x"), "seed must be between 0 and"),
        (lambda: advance(9, "keep", 0, 0, 3), "until_position or until_update"),
        (lambda: advance(9, "keep", 0, 0, 3, -1), "until_position must be between 0"),
        (lambda: _rust.noise_from_micro_batches(1, 1, 1.0, 1.0), "count must be at le"),
        (lambda: _rust.noise_from_two_sizes(4, 1.0, 4, 1.0), "large_batch_size must"),
        (lambda: _rust.Moments(3, dtype="float16"), "dtype must be float32 or float64"),
        (lambda: _rust.Moments(-1), "length must be between 0 and .* got -1"),
        (lambda: _rust.Moments(2**64), "length must be between 0 and .* got 1844"),
        (lambda: _rust.squared_norm([], threads=-1), "threads must be between 0 and"),
        (lambda: _rust.noise_from_micro_batches(2, 1, 10**400, 1), "sum_squared_norms"),
        (
            lambda: _rust.noise_from_two_sizes(1, 1, 2, 10**400),
            "large_squared_norm must",
        ),
    ],
)
def test_bad_input_names_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# More than a process can address, wherever memory is promised before it is there.
HUGE = 2**44


@pytest.mark.parametrize("into", ["list", "numpy"])
@pytest.mark.parametrize("order", ["bijective", "sequential"])
def test_a_batch_that_no_memory_holds_is_refused(order, into):
    batches = Batches(2 * HUGE, order=order)
    told = f"batch_size must be small enough for memory: .* of {HUGE} samples"
    with pytest.raises(ValueError, match=told):
        batches.take(0, HUGE)
    with pytest.raises(ValueError, match=told):
        batches.run(0, HUGE, HUGE, 0, 1, 0, into)
    # Each of many ranks holds its share alone.
    assert len(batches.take(0, HUGE, 5, HUGE // 4)) == 4
    assert len(next(batches.run(0, HUGE, HUGE, 5, HUGE // 4, 0, into))) == 4


FEW_THREADS = """
import resource
import numpy as np
from batchramp._rust import Batches
one = Batches(2**22, seed=3).take(0, 2**22)
many = Batches(2**22, seed=3, threads=1000)
out = np.ones(2**22, dtype=np.int64)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**25
resource.setrlimit(resource.RLIMIT_AS, (limit, -1))  # no room for stacks of so many
many.fill(0, out)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert (out == one).all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_threads_that_the_system_refuses_are_done_without():
    done = subprocess.run(
        [sys.executable, "-c", FEW_THREADS], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_state_that_no_memory_holds_is_refused():
    for make in (_rust.Moments, _rust.GradientSum):
        for length in (2**60, 2**64 - 1):
            with pytest.raises(ValueError, match="gradient must be small enough"):
                make(length)


@given(
    st.integers(2, 20),
    st.integers(1, 64),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.none() | st.integers(20 * 64, 10**6),
)
def test_noise_of_micro_batches_equals_fractions(count, size, squares, mean, samples):
    squares += count * mean  # as Cauchy and Schwarz have it
    trace = Fraction(size) * (squares - count * mean) / (count - 1)
    rest = Fraction(1, samples) if samples else 0
    squared = mean - trace * (Fraction(1, count * size) - rest)
    got = _rust.noise_from_micro_batches(count, size, squares, mean, samples)
    assert got == pytest.approx((float(trace), float(squared)), rel=1e-9, abs=1e-9)


@given(
    st.integers(1, 64),
    st.integers(1, 64),
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.none() | st.integers(128, 10**6),
)
def test_noise_of_two_sizes_equals_fractions(small, more, at_small, at_large, samples):
    large = small + more
    trace = Fraction(at_small - at_large) / (Fraction(1, small) - Fraction(1, large))
    rest = Fraction(1, samples) if samples else 0
    squared = at_large - trace * (Fraction(1, large) - rest)
    got = _rust.noise_from_two_sizes(small, at_small, large, at_large, samples)
    assert got == pytest.approx((float(trace), float(squared)), rel=1e-9, abs=1e-6)


def test_the_build_says_what_it_is():
    assert _rust.BUILD_PROFILE in ("release", "debug")
    assert _rust.__version__.count(".") == 2
