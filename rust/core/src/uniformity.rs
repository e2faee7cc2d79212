//! What a shuffle must look like, whatever makes it: statistics that would be standard normal, or
//! nearly so, for a uniform one. Seeds are fixed: a test that passes once always does.

use std::iter::zip;

use crate::Order;
use crate::bijection::{Bijection, Walk};
use crate::order::Pass;

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

fn assert_normal(name: &str, shuffle: Shuffle<'_>, length: usize, keys: u64) {
    for (statistic, z) in scores(shuffle, length, keys) {
        assert!(z.abs() < 4.5, "{name}, {length} samples: {statistic} is {z:.1} deviations off");
    }
}

#[test]
#[ignore = "a look at the figures themselves"]
fn figures() {
    let shuffles: [(&str, Shuffle<'_>); 3] =
        [("exact", &ordered("exact")), ("bijective", &ordered("bijective")), ("three parts", &three_parts)];
    for (name, shuffle) in shuffles {
        for length in [1_000_usize, 4_096, 4_097, 10_000, 30_000, 50_000, 65_537, 1_000_000] {
            if name == "exact" || name != "three parts" && length < 4096 { continue; }
            let keys = (20_000_000 / length) as u64;
            let scores = scores(shuffle, length, keys);
            let total: f64 = scores.iter().map(|s| s.1 * s.1).sum();
            let mut text = format!("{name} {length} x {keys}: mean square {:.2};", total / scores.len() as f64);
            for (label, z) in &scores { if z.abs() > 2.5 { text += &format!(" {label} {z:.2}"); } }
            for batch in [128] {
                let keys = (40_000 * batch / length).max(1) as u64;
                for (label, ratio) in variances(shuffle, length, batch, keys) {
                    text += &format!(" {label} {ratio:.3}");
                }
            }
            eprintln!("{text}");
        }
    }
}

#[test]
#[ignore]
fn timing() {
    for (name, shuffle) in [("exact", &ordered("exact") as Shuffle<'_>), ("bijective", &ordered("bijective")), ("three", &three_parts)] {
        let mut order = vec![0; 1_000_000];
        let t = std::time::Instant::now();
        shuffle(1, 2, &mut order);
        let a = t.elapsed();
        scores(shuffle, 1_000_000, 1);
        let b = t.elapsed();
        variances(shuffle, 1_000_000, 128, 1);
        let mut small = vec![0; 4096];
        let c = t.elapsed();
        for key in 0..244 { shuffle(key, 2, &mut small); }
        eprintln!("{name} {a:?} {b:?} {c:?} {:?}", t.elapsed());
    }
}
