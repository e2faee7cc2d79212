//! The bijective order: a keyed bijection of the samples that needs no memory and can be read from
//! any place.
//!
//! The number of samples is split into `P` parts of at most 2^15 each (two parts up to 2^30 samples,
//! three above), whose product `size` is that number or little more. Who comes at a place is defined
//! by [`Bijection::at`], in plain integers:
//!
//! ```text
//! p = (place * multiplier + offset) mod size          digits d of p, most significant first
//! rounds r = 0, 1, ...: target t = r mod P, source s = (t + 1) mod P, 16-bit words k0, k1, k2:
//!     x = (d[s] + k0) * k1;  x ^= x >> 8;  x = x * k2           16-bit wrapping, k1 and k2 odd
//!     d[t] = (d[t] + (x * part[t] >> 16)) mod part[t]
//! y = the number with the digits d; if it is no sample, the same again from place = y
//! ```
//!
//! This is a Feistel network on digits of any base (Black and Rogaway, "Ciphers with arbitrary finite
//! domains", CT-RSA 2002: cycle walking keeps it a bijection of the samples alone) behind one step of
//! a linear congruential generator, without which more rounds are needed. Everything is 16 bits
//! wide, so that
//! `walk` computes many places at once with the vectors of any processor.
//! The number of rounds is part of the order's version.
#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the vectors")]

use crate::Random;

/// The least number of samples with a bijection: parts of fewer digits mix too little.
pub(crate) const LEAST: u64 = 1 << 12;
/// The most samples that two parts, and three parts, can hold.
pub(crate) const MAX_TWO_PARTS: u64 = 1 << 30;
pub(crate) const MAX_THREE_PARTS: u64 = 1 << 45;
/// The largest part: sums of two digits fit 16 bits.
const MAX_PART: u64 = 1 << 15;
/// Every digit is mixed with all others this many times over: a part hears of all others after two
/// rounds where there are two parts, after six where there are three.
const fn rounds(parts: usize) -> usize {
    match parts {
        2 => 6,
        _ => 18,
    }
}

/// The words of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    add: u16,
    multiply: u16,
    multiply_again: u16,
}

/// One pass's order.
#[derive(Debug, Clone)]
pub(crate) struct Bijection<const P: usize> {
    pub(crate) num_samples: u64,
    pub(crate) parts: [u16; P],
    /// The product of the parts.
    pub(crate) size: u64,
    multiplier: u64,
    pub(crate) offset: u64,
    /// One of each round.
    pub(crate) keys: Vec<Key>,
}

impl<const P: usize> Bijection<P> {
    /// The order of one pass, over at least [`LEAST`] samples and no more than `P` parts hold.
    #[expect(clippy::cast_possible_truncation, reason = "words are cut into the keys on purpose")]
    pub(crate) fn new(num_samples: u64, seed: u64, pass: u64) -> Self {
        let parts = split::<P>(num_samples);
        let size = parts.iter().map(|&part| u64::from(part)).product();
        let mut random = Random::for_pass(seed, pass);
        let offset = random.below(size);
        let multiplier = loop {
            let candidate = random.below(size);
            if coprime(candidate, size) {
                break candidate;
            }
        };
        let keys = (0..rounds(P)).map(|_| {
            let word = random.next_word();
            Key {
                add: word as u16,
                multiply: (word >> 16) as u16 | 1,
                multiply_again: (word >> 32) as u16 | 1,
            }
        });
        Self { num_samples, parts, size, multiplier, offset, keys: keys.collect() }
    }

    /// The sample at a place: the definition.
    pub(crate) fn at(&self, place: u64) -> u64 {
        let mut sample = self.once(place);
        while sample >= self.num_samples {
            sample = self.once(sample);
        }
        sample
    }

    /// The definition without cycle walking: a bijection of the numbers below `size`.
    fn once(&self, place: u64) -> u64 {
        let mut digits = self.digits(self.step(place, self.offset));
        for (round, &key) in self.keys.iter().enumerate() {
            let (target, source) = (round % P, (round + 1) % P);
            let part = self.parts[target];
            digits[target] = mix(digits[source], digits[target], part, part, key);
        }
        digits
            .iter()
            .zip(&self.parts)
            .fold(0, |number, (&digit, &part)| number * u64::from(part) + u64::from(digit))
    }

    /// `(place * multiplier + offset) mod size`.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a 64-bit number")]
    pub(crate) fn step(&self, place: u64, offset: u64) -> u64 {
        let product = u128::from(place) * u128::from(self.multiplier) + u128::from(offset);
        (product % u128::from(self.size)) as u64
    }

    /// The digits of a number below `size`, most significant first.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a 16-bit number")]
    pub(crate) fn digits(&self, mut number: u64) -> [u16; P] {
        let mut digits = [0; P];
        for (digit, &part) in digits.iter_mut().zip(&self.parts).rev() {
            *digit = (number % u64::from(part)) as u16;
            number /= u64::from(part);
        }
        digits
    }
}

/// Parts of much the same size, with a product that is little above `num_samples`.
#[expect(clippy::cast_possible_truncation, reason = "a part is at most 2^15")]
fn split<const P: usize>(num_samples: u64) -> [u16; P] {
    let mut parts = [0; P];
    let mut rest = num_samples;
    for (index, part) in parts.iter_mut().take(P - 2).enumerate() {
        let left = u32::try_from(P - index).unwrap_or(u32::MAX);
        let root = (1..=MAX_PART).find(|root| root.pow(left) >= rest).unwrap_or(MAX_PART);
        *part = root as u16;
        rest = rest.div_ceil(root);
    }
    let root = rest.isqrt() + u64::from(rest.isqrt().pow(2) < rest);
    let [first, second] = (root - root / 4..=root)
        .rev()
        .take(256)
        .map(|first| [first, rest.div_ceil(first)])
        .filter(|[_, second]| *second <= MAX_PART)
        .min_by_key(|[first, second]| first * second)
        .unwrap_or([MAX_PART; 2]);
    parts[P - 2] = first as u16;
    parts[P - 1] = second as u16;
    parts
}

fn coprime(a: u64, b: u64) -> bool {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

/// What one round makes of a digit; `factor` is the part too.
#[inline(always)]
pub(crate) fn mix(source: u16, target: u16, factor: u16, part: u16, key: Key) -> u16 {
    let word = source.wrapping_add(key.add).wrapping_mul(key.multiply);
    let word = (word ^ (word >> 8)).wrapping_mul(key.multiply_again);
    let scaled = (u32::from(word) * u32::from(factor)) >> 16;
    reduce(target + scaled as u16, part)
}

/// `sum mod part` for a sum below twice the part: the other candidate wraps around to more.
#[inline(always)]
fn reduce(sum: u16, part: u16) -> u16 {
    sum.min(sum.wrapping_sub(part))
}

/// The sum of two numbers modulo the product of the parts, digit by digit.
#[inline(always)]
pub(crate) fn add<const P: usize>(
    mut digits: [u16; P],
    stride: [u16; P],
    parts: [u16; P],
) -> [u16; P] {
    let mut carry = 0;
    for part in (0..P).rev() {
        let sum = digits[part] + stride[part] + carry;
        digits[part] = reduce(sum, parts[part]);
        carry = u16::from(digits[part] != sum);
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array::from_fn;

    fn first<const P: usize>(num_samples: u64, seed: u64, pass: u64) -> [u64; 4] {
        let bijection = Bijection::<P>::new(num_samples, seed, pass);
        from_fn(|place| bijection.at(place as u64))
    }

    #[test]
    fn golden_orders() {
        assert_eq!(first::<2>(4_096, 0, 0), [3_287, 3_978, 2_400, 3_398]);
        assert_eq!(first::<2>(50_000, 1, 2), [8_899, 19_818, 26_334, 27_392]);
        let billion = [43_628_297, 828_768_656, 998_756_379, 865_853_236];
        assert_eq!(first::<2>(MAX_TWO_PARTS, 0, 5), billion);
        let trillion = [452_838_936_940, 437_552_545_421, 835_982_364_062, 693_893_445_651];
        assert_eq!(first::<3>(1_000_000_000_000, u64::MAX, 7), trillion);
    }

    #[test]
    fn parts_are_balanced_and_waste_little() {
        for num_samples in [LEAST, LEAST + 1, 50_000, 65_537, 1_000_003, 1 << 29, MAX_TWO_PARTS] {
            let parts = split::<2>(num_samples).map(u64::from);
            let size: u64 = parts.iter().product();
            assert!(parts.iter().all(|&part| part <= MAX_PART), "{num_samples}: {parts:?}");
            assert!(size >= num_samples && size - num_samples <= num_samples / 256, "{parts:?}");
            assert!(parts[1] < 2 * parts[0] && parts[0] < 2 * parts[1], "{parts:?}");
        }
        for num_samples in [MAX_TWO_PARTS + 1, 1_000_000_000_000, MAX_THREE_PARTS] {
            let parts = split::<3>(num_samples).map(u64::from);
            let size: u64 = parts.iter().product();
            assert!(parts.iter().all(|&part| part <= MAX_PART), "{num_samples}: {parts:?}");
            assert!(size >= num_samples && size - num_samples <= num_samples / 256, "{parts:?}");
        }
    }
}
