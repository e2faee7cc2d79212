//! The exact order: uniform over all permutations given ideal random bits, four bytes a sample.

use std::iter::zip;

use crate::threads::for_each_once;
use crate::{Error, Random};

/// The least number of samples that is shuffled in buckets: below it, all of them stay in cache.
pub(crate) const LEAST_BUCKETED: u64 = 1 << 21;
/// The samples that one stream of labels covers.
const CHUNK: u32 = 1 << 20;
/// The streams of the buckets' own shuffles; those of the labels are `0, 1, 2, ...`.
const BUCKET_STREAMS: u64 = 1 << 32;

/// Overwrites `buffer` with the exact order of one pass; `threads` changes its time alone.
pub(crate) fn fill(
    buffer: &mut Vec<u32>,
    num_samples: u64,
    seed: u64,
    pass: u64,
    threads: usize,
) -> Result<(), Error> {
    let (Ok(length), Ok(last)) = (usize::try_from(num_samples), u32::try_from(num_samples - 1))
    else {
        return Err(Error::NumSamples(num_samples));
    };
    if buffer.len() != length {
        buffer.clear();
        buffer.try_reserve_exact(length).map_err(|_| Error::Memory(num_samples))?;
    }
    if num_samples < LEAST_BUCKETED {
        buffer.clear();
        buffer.extend(0..=last);
        shuffle(buffer, &mut Random::for_pass(seed, pass));
    } else {
        buffer.resize(length, 0);
        let buckets = scatter(buffer, seed, pass);
        shuffle_buckets(buffer, &buckets, seed, pass, threads);
    }
    Ok(())
}

/// Fisher-Yates from the back, two places per random word.
#[expect(clippy::cast_possible_truncation, reason = "draws are below a length that was a usize")]
fn shuffle(items: &mut [u32], random: &mut Random) {
    let mut left = items.len();
    while left >= 2 {
        let (first, second) = random.two_below(left as u64, left as u64 - 1);
        items.swap(left - 1, first as usize);
        items.swap(left - 2, second as usize);
        left -= 2;
    }
}

/// Deals the samples out to buckets by labels drawn for each, and returns the buckets' lengths.
///
/// With every bucket then shuffled in cache, this is the algorithm of Rao and Sandelius: still
/// uniform over all permutations, without a cache miss a sample. The labels are drawn twice, once
/// to count and once to deal, which costs less than keeping them.
fn scatter(buffer: &mut [u32], seed: u64, pass: u64) -> Vec<usize> {
    let bits = label_bits(buffer.len());
    let mut lengths = vec![0; 1 << bits];
    labels(buffer.len(), seed, pass, bits, |label, _| lengths[label] += 1);
    let mut ends = Vec::with_capacity(lengths.len());
    let mut end = 0;
    for length in &lengths {
        ends.push(end);
        end += length;
    }
    labels(buffer.len(), seed, pass, bits, |label, sample| {
        buffer[ends[label]] = sample;
        ends[label] += 1;
    });
    lengths
}

/// Bits of a label, for 2^21 samples and more: buckets of some 2^15 samples, which the second-level
/// cache holds, but no more than 2^8 of them, as the first-level cache holds a line of each; above 2^29
/// samples more again, so that the last-level cache holds a bucket.
fn label_bits(length: usize) -> u32 {
    let (second_level, last_level) = ((length >> 15).ilog2(), (length >> 21).ilog2());
    second_level.min(8).max(last_level)
}

/// Calls `take` with the label of each sample, and the sample.
#[expect(clippy::cast_possible_truncation, reason = "a label has few bits")]
fn labels(length: usize, seed: u64, pass: u64, bits: u32, mut take: impl FnMut(usize, u32)) {
    let (mask, per_word) = ((1_u64 << bits) - 1, 64 / bits);
    let mut sample = 0_u32;
    let mut left = length;
    for chunk in 0.. {
        let mut random = Random::for_part(seed, pass, chunk);
        let mut in_chunk = left.min(CHUNK as usize);
        left -= in_chunk;
        while in_chunk > 0 {
            let mut word = random.next_word();
            for _ in 0..in_chunk.min(per_word as usize) {
                take((word & mask) as usize, sample);
                word >>= bits;
                sample = sample.wrapping_add(1);
            }
            in_chunk = in_chunk.saturating_sub(per_word as usize);
        }
        if left == 0 {
            return;
        }
    }
}

/// Shuffles each bucket by a stream of its own, so that any number of threads gives one order.
fn shuffle_buckets(buffer: &mut [u32], lengths: &[usize], seed: u64, pass: u64, threads: usize) {
    let mut rest = buffer;
    let mut buckets = Vec::with_capacity(lengths.len());
    for (&length, stream) in zip(lengths, BUCKET_STREAMS..) {
        let (bucket, after) = rest.split_at_mut(length);
        buckets.push((bucket, stream));
        rest = after;
    }
    for_each_once(threads, buckets, |(bucket, stream)| {
        shuffle(bucket, &mut Random::for_part(seed, pass, stream));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(num_samples: u64, seed: u64, pass: u64, threads: usize) -> Vec<u32> {
        let mut order = Vec::new();
        fill(&mut order, num_samples, seed, pass, threads).unwrap();
        order
    }

    #[test]
    fn golden_orders() {
        assert_eq!(exact(10, 0, 0, 1), [7, 0, 4, 2, 1, 9, 6, 5, 8, 3]);
        assert_eq!(exact(10, 0, 1, 1), [8, 4, 6, 9, 3, 1, 0, 2, 7, 5]);
        assert_eq!(exact(9, u64::MAX, 1 << 40, 1), [0, 7, 3, 2, 6, 1, 8, 4, 5]);
        let bucketed = exact(LEAST_BUCKETED, 3, 1, 1);
        assert_eq!(bucketed[..5], [199_059, 1_290_207, 195_706, 371_645, 292_678]);
        assert_eq!(bucketed[bucketed.len() - 3..], [937_903, 1_907_825, 401_504]);
    }

    #[test]
    fn threads_change_nothing() {
        let one = exact(LEAST_BUCKETED + 12_345, 1, 2, 1);
        for threads in [2, 3, 1_000] {
            assert!(exact(LEAST_BUCKETED + 12_345, 1, 2, threads) == one, "{threads} threads");
        }
    }

    #[test]
    fn buckets_fit_their_caches() {
        let bits = |length: u64| label_bits(usize::try_from(length).unwrap());
        assert_eq!([bits(LEAST_BUCKETED), bits(10_000_000), bits(1 << 28)], [6, 8, 8]);
        assert_eq!(bits(1 << 32), 11);
    }

    proptest! {
        #[test]
        fn an_order_is_a_permutation(num_samples in 1_u64..3_000, seed: u64, pass: u64) {
            let mut order = exact(num_samples, seed, pass, 1);
            order.sort_unstable();
            prop_assert!(order.into_iter().map(u64::from).eq(0..num_samples));
        }

        #[test]
        fn a_buffer_used_before_changes_nothing(before in 1_u64..500, num_samples in 1_u64..500) {
            let mut order = exact(before, 1, 2, 1);
            fill(&mut order, num_samples, 3, 4, 1).unwrap();
            prop_assert_eq!(order, exact(num_samples, 3, 4, 1));
        }
    }
}
