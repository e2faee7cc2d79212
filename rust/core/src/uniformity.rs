//! What a shuffle must look like, whatever makes it: statistics that would be standard normal, or
//! nearly so, for a uniform one. Seeds are fixed: a test that passes once always does.

#![expect(clippy::cast_possible_wrap, reason = "lengths are small")]

use std::collections::{BTreeMap, HashSet};
use std::iter::zip;

use crate::Order;
use crate::bijection::Bijection;
use crate::order::Pass;
use crate::walk::Walk;

/// Writes the order of a pass: `(seed, pass, samples)`.
type Shuffle<'a> = &'a dyn Fn(u64, u64, &mut [i64]);

/// The z-score of a chi-square statistic (Wilson and Hilferty's cube root).
fn of_chi_square(chi: f64, degrees: f64) -> f64 {
    let variance = 2.0 / (9.0 * degrees);
    ((chi / degrees).cbrt() - (1.0 - variance)) / variance.sqrt()
}

/// The z-score of a count that is near Poisson(`mean`), `mean` being large.
fn of_poisson(count: f64, mean: f64) -> f64 {
    (count - mean) / mean.sqrt()
}

/// Which of `groups` stretches of `0..length`, much the same in size, a number lies in.
fn group(number: i64, length: usize, groups: usize) -> usize {
    usize::try_from(number).unwrap() * groups / length
}

/// Chi-square of pairs of numbers, each a permutation of `0..length`, over a square of stretches.
fn of_pairs(pairs: impl Iterator<Item = (i64, i64)>, length: usize, groups: usize) -> f64 {
    let mut counts = vec![0_u32; groups * groups];
    for (row, column) in pairs {
        counts[group(row, length, groups) * groups + group(column, length, groups)] += 1;
    }
    let edge = |index: usize| (index * length).div_ceil(groups);
    let size = |index: usize| (edge(index + 1) - edge(index)) as f64;
    let cells = (0..groups).flat_map(|row| (0..groups).map(move |column| (row, column)));
    let chi: f64 = zip(cells, counts)
        .map(|((row, column), count)| {
            let expected = size(row) * size(column) / length as f64;
            (f64::from(count) - expected).powi(2) / expected
        })
        .sum();
    // Rows and columns have fixed sums, so that counts vary less than a multinomial's.
    chi * (length - 1) as f64 / length as f64
}

/// Every statistic of one shuffle over `keys` passes, with its z-score.
fn scores(shuffle: Shuffle<'_>, length: usize, keys: u64) -> Vec<(String, f64)> {
    const GROUPS: usize = 16;
    const LAGS: [usize; 7] = [1, 2, 16, 128, 256, 512, 1024];
    let (mut order, mut next) = (vec![0; length], vec![0; length]);
    let degrees = ((GROUPS - 1) * (GROUPS - 1)) as f64 * keys as f64;
    let (mut places, mut adjacent, mut one_bit) = (0.0, 0.0, 0.0);
    let (mut fixed, mut successions) = (0.0, 0.0);
    let mut lags = [0.0; LAGS.len()];
    let mut differences = [0.0_f64; 64];
    let middle = (length - 1) as f64 / 2.0;
    let spread = (length as f64 * length as f64 - 1.0) / 12.0;
    for key in 0..keys {
        shuffle(key, 3, &mut order);
        places += of_pairs(zip(0.., order.iter().copied()), length, GROUPS);
        fixed += zip(0.., &order).filter(|(place, sample)| place == *sample).count() as f64;
        for pair in order.windows(2) {
            let difference = (pair[1] - pair[0]).rem_euclid(length as i64);
            successions += f64::from(u8::from(difference == 1));
            differences[group(difference, length, 64)] += 1.0;
        }
        for (total, lag) in zip(&mut lags, LAGS) {
            let products = zip(&order, order.iter().skip(lag))
                .map(|(&a, &b)| (a as f64 - middle) * (b as f64 - middle) / spread);
            // Two places have correlation -1 / (length - 1).
            let pairs = length.saturating_sub(lag).max(1) as f64;
            *total += (products.sum::<f64>() + pairs / (length - 1) as f64) / pairs.sqrt();
        }
        shuffle(key, 4, &mut next);
        adjacent += of_pairs(zip(order.iter().copied(), next.iter().copied()), length, GROUPS);
        shuffle(key ^ 1 << (key % 64), 3, &mut next);
        one_bit += of_pairs(zip(order.iter().copied(), next.iter().copied()), length, GROUPS);
    }
    let steps = keys as f64 * (length - 1) as f64;
    let expected = |index: usize| {
        let edge = |index: usize| (index * length).div_ceil(64);
        // No difference is 0: the others are as likely.
        let size = edge(index + 1) - edge(index) - usize::from(index == 0);
        steps * size as f64 / (length - 1) as f64
    };
    let chi = differences
        .iter()
        .enumerate()
        .map(|(i, count)| (count - expected(i)).powi(2) / expected(i))
        .sum();
    let mut scores = vec![
        ("position by item".to_owned(), of_chi_square(places, degrees)),
        ("adjacent passes".to_owned(), of_chi_square(adjacent, degrees)),
        ("keys of one bit".to_owned(), of_chi_square(one_bit, degrees)),
        ("fixed points".to_owned(), of_poisson(fixed, keys as f64)),
        ("successions".to_owned(), of_poisson(successions, keys as f64)),
        ("differences".to_owned(), of_chi_square(chi, 63.0)),
    ];
    for (total, lag) in zip(lags, LAGS) {
        scores.push((format!("lag {lag}"), total / (keys as f64).sqrt()));
    }
    scores
}

/// The variance of batch means over what a uniform shuffle gives, for several kinds of labels.
fn variances(shuffle: Shuffle<'_>, length: usize, batch: usize, keys: u64) -> Vec<(String, f64)> {
    let labels: [(&str, &dyn Fn(i64) -> i64); 5] = [
        ("index", &|sample| sample),
        ("half", &|sample| i64::from(usize::try_from(sample).unwrap() >= length / 2)),
        ("lowest bit", &|sample| sample & 1),
        ("modulus", &|sample| sample % 10),
        ("class", &|sample| sample * 10 / length as i64),
    ];
    let mut order = vec![0; length];
    let mut sums = [0.0; 5];
    let moments = labels.map(|(_, label)| {
        let values = || (0..length as i64).map(|sample| label(sample) as f64);
        let mean = values().sum::<f64>() / length as f64;
        (mean, values().map(|value| (value - mean).powi(2)).sum::<f64>() / (length - 1) as f64)
    });
    for key in 0..keys {
        shuffle(key, 5, &mut order);
        for batch in order.chunks_exact(batch) {
            for ((sum, (_, label)), (mean, _)) in zip(zip(&mut sums, labels), moments) {
                let total: i64 = batch.iter().map(|&sample| label(sample)).sum();
                *sum += (total as f64 / batch.len() as f64 - mean).powi(2);
            }
        }
    }
    let batches = (length / batch) as f64 * keys as f64;
    // Sampling without replacement: S^2 (1/B - 1/N), with S^2 of divisor N - 1.
    let factor = 1.0 / batch as f64 - 1.0 / length as f64;
    zip(zip(labels, sums), moments)
        .map(|(((name, _), sum), (_, variance))| {
            (name.to_owned(), sum / batches / (variance * factor))
        })
        .collect()
}

fn ordered(order: &'static str) -> impl Fn(u64, u64, &mut [i64]) {
    move |seed, pass, samples| {
        let length = samples.len() as u64;
        let order = Order::resolve(order, length).unwrap();
        Pass::new(order, length, seed, pass, 1, None).unwrap().read(0, samples);
    }
}

/// The construction for more than 2^30 samples, on as few as can be looked at whole.
fn three_parts(seed: u64, pass: u64, samples: &mut [i64]) {
    Walk::new(Bijection::<3>::new(samples.len() as u64, seed, pass)).read(0, samples);
}

/// Every statistic of some two million places.
fn assert_normal(name: &str, shuffle: Shuffle<'_>, length: usize) {
    let keys = (2_000_000 / length).max(1) as u64;
    for (statistic, z) in scores(shuffle, length, keys) {
        assert!(z.abs() < 4.0, "{name}, {length} samples: {statistic} is {z:.1} deviations off");
    }
}

#[test]
fn no_statistic_tells_an_order_from_a_uniform_one() {
    for length in [4_096, 4_097, 10_000, 50_000, 65_535, 65_536, 65_537, 1 << 20, (1 << 21) + 1] {
        assert_normal("exact", &ordered("exact"), length);
        assert_normal("bijective", &ordered("bijective"), length);
        assert_normal("three parts", &three_parts, length);
    }
    assert_normal("exact", &ordered("exact"), 1_000);
    assert_normal("three parts", &three_parts, 1_000);
}

#[test]
fn batch_means_vary_within_two_per_cent_of_a_uniform_order() {
    // 40,000 batches scatter by 0.7 %. Four rounds of grain's index_shuffle give 0.15 of the variance.
    for (name, shuffle) in [
        ("exact", &ordered("exact") as Shuffle<'_>),
        ("bijective", &ordered("bijective")),
        ("three parts", &three_parts),
    ] {
        for (length, batch) in [(4_096, 16), (50_000, 128), (65_537, 128), (1 << 20, 128)] {
            let keys = (40_000 * batch / length) as u64;
            for (label, ratio) in variances(shuffle, length, batch, keys) {
                let off = (ratio - 1.0).abs();
                assert!(off < 0.02, "{name}, {length} by {batch}: {label} has {ratio:.3}");
            }
        }
    }
}

#[test]
fn every_order_of_up_to_five_is_as_likely() {
    for name in ["exact", "bijective"] {
        for (length, factorial) in [(2, 2_u32), (3, 6), (4, 24), (5, 120)] {
            let mut counts = BTreeMap::new();
            for pass in 0..u64::from(factorial) * 400 {
                let mut order = vec![0; length];
                ordered(name)(11, pass, &mut order);
                *counts.entry(order).or_insert(0_u32) += 1;
            }
            assert_eq!(counts.len(), factorial as usize);
            let chi =
                counts.values().map(|&count| (f64::from(count) - 400.0).powi(2) / 400.0).sum();
            let z = of_chi_square(chi, f64::from(factorial - 1));
            assert!(z < 3.3, "{name}, {length} samples: {z:.1}");
        }
    }
}

#[test]
fn above_two_parts_stretches_of_a_pass_look_uniform_too() {
    // Four million of 10^9 to 10^12 samples: their places in halves, quarters, ... of the numbers.
    for num_samples in [(1 << 30) - 1, (1 << 30) + 1, 1_000_000_000_000, 1 << 45] {
        let mut pass = Pass::new(Order::Bijective, num_samples, 8, 1, 1, None).unwrap();
        let mut samples = vec![0; 1 << 22];
        pass.read(num_samples / 3, &mut samples);
        for groups in [2_u64, 16, 1_024] {
            let mut counts = vec![0_u32; usize::try_from(groups).unwrap()];
            let mut pairs = vec![0_u32; usize::try_from(groups).unwrap()];
            let group = |sample: i64| {
                let wide = u128::from(sample.cast_unsigned()) * u128::from(groups);
                usize::try_from(wide / u128::from(num_samples)).unwrap()
            };
            for pair in samples.windows(2) {
                counts[group(pair[0])] += 1;
                pairs[(group(pair[0]) + counts.len() - group(pair[1])) % counts.len()] += 1;
            }
            for (statistic, counts) in [("places", counts), ("steps", pairs)] {
                let expected = (samples.len() - 1) as f64 / groups as f64;
                let chi =
                    counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
                let z = of_chi_square(chi, (groups - 1) as f64);
                assert!(z.abs() < 4.0, "{num_samples}, {statistic} in {groups}: {z:.1}");
            }
        }
        samples.sort_unstable();
        samples.dedup();
        assert_eq!(samples.len(), 1 << 22, "{num_samples}");
        assert!(samples[0] >= 0 && samples[samples.len() - 1].cast_unsigned() < num_samples);
    }
}

#[test]
fn every_order_is_a_permutation_at_powers_of_two_and_beside_them() {
    let mut samples = Vec::new();
    for power in 0..=24 {
        for length in [(1 << power) - 1, 1 << power, (1 << power) + 1_usize] {
            for name in ["exact", "bijective"] {
                samples.clear();
                samples.resize(length, 0);
                if length > 0 {
                    ordered(name)(power, 2, &mut samples);
                }
                let mut seen = vec![false; length];
                for &sample in &samples {
                    seen[usize::try_from(sample).unwrap()] = true;
                }
                assert!(seen.iter().all(|&seen| seen), "{name}, {length} samples");
            }
        }
    }
}

#[test]
fn no_two_seeds_and_passes_share_an_order() {
    for name in ["exact", "bijective"] {
        let mut starts = HashSet::new();
        let mut order = vec![0; 5_000];
        for (seed, pass) in (0..120).flat_map(|seed| (0..120).map(move |pass| (seed, pass))) {
            // Torch takes two seeds that are 2^32 apart for one.
            ordered(name)(seed % 60 + ((seed / 60) << 32), pass, &mut order);
            starts.insert(order[..6].to_vec());
        }
        assert_eq!(starts.len(), 120 * 120, "{name}");
    }
}
