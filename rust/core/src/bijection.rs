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
//! wide, so that [`Walk`] computes many places at once with the vectors of any processor.
//! The number of rounds is part of the order's version.
#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the vectors")]

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};

use crate::Random;

/// The least number of samples with a bijection: parts of fewer digits mix too little.
pub(crate) const LEAST: u64 = 1 << 12;
/// The most samples that two parts, and three parts, can hold.
pub(crate) const MAX_TWO_PARTS: u64 = 1 << 30;
pub(crate) const MAX_THREE_PARTS: u64 = 1 << 45;
/// The largest part: sums of two digits fit 16 bits.
const MAX_PART: u64 = 1 << 15;
/// Places that [`Walk`] computes at once.
const LANES: usize = 512;
/// Places that [`Walk`] keeps ready for small reads.
const READY: usize = 4 * LANES;

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
struct Key {
    add: u16,
    multiply: u16,
    multiply_again: u16,
}

/// One pass's order.
#[derive(Debug, Clone)]
pub(crate) struct Bijection<const P: usize> {
    num_samples: u64,
    parts: [u16; P],
    size: u64,
    multiplier: u64,
    offset: u64,
    keys: Vec<Key>,
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
            digits[target] = mix(digits[source], digits[target], self.parts[target], key);
        }
        digits
            .iter()
            .zip(&self.parts)
            .fold(0, |number, (&digit, &part)| number * u64::from(part) + u64::from(digit))
    }

    /// `(place * multiplier + offset) mod size`.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a 64-bit number")]
    fn step(&self, place: u64, offset: u64) -> u64 {
        let product = u128::from(place) * u128::from(self.multiplier) + u128::from(offset);
        (product % u128::from(self.size)) as u64
    }

    /// The digits of a number below `size`, most significant first.
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a 16-bit number")]
    fn digits(&self, mut number: u64) -> [u16; P] {
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

/// What one round makes of a digit.
#[inline(always)]
fn mix(source: u16, target: u16, part: u16, key: Key) -> u16 {
    let word = source.wrapping_add(key.add).wrapping_mul(key.multiply);
    let word = (word ^ (word >> 8)).wrapping_mul(key.multiply_again);
    let scaled = (u32::from(word) * u32::from(part)) >> 16;
    reduce(target + scaled as u16, part)
}

/// `sum mod part` for a sum below twice the part: the other candidate wraps around to more.
#[inline(always)]
fn reduce(sum: u16, part: u16) -> u16 {
    sum.min(sum.wrapping_sub(part))
}

/// Digits of many numbers, place by place.
type Digits<const P: usize> = [[u16; LANES]; P];

/// Reads a [`Bijection`] from place to place.
#[derive(Debug, Clone)]
pub(crate) struct Walk<const P: usize> {
    blocks: Blocks<P>,
    /// The samples from `first_ready` on, computed ahead for reads smaller than a block.
    ready: Vec<i64>,
    first_ready: u64,
}

impl<const P: usize> Walk<P> {
    pub(crate) fn new(bijection: Bijection<P>) -> Self {
        Self { blocks: Blocks::new(bijection), ready: Vec::new(), first_ready: 0 }
    }

    /// Writes the samples from the place `first` on.
    pub(crate) fn read(&mut self, mut first: u64, mut samples: &mut [i64]) {
        while !samples.is_empty() {
            let ready = usize::try_from(first.wrapping_sub(self.first_ready)).ok();
            let taken = match ready.and_then(|offset| self.ready.get(offset..)) {
                Some(ready) if !ready.is_empty() => {
                    let taken = ready.len().min(samples.len());
                    samples[..taken].copy_from_slice(&ready[..taken]);
                    taken
                }
                _ if samples.len() >= READY => {
                    let taken = samples.len() / LANES * LANES;
                    self.blocks.compute(first, &mut samples[..taken]);
                    taken
                }
                _ => {
                    self.ready.resize(READY, 0);
                    self.blocks.compute(first, &mut self.ready);
                    self.first_ready = first;
                    0
                }
            };
            samples = &mut samples[taken..];
            first += taken as u64;
        }
    }
}

/// Computes a [`Bijection`] [`LANES`] places at a time.
#[derive(Debug, Clone)]
struct Blocks<const P: usize> {
    bijection: Bijection<P>,
    arch: Arch,
    /// What the step makes of the places from `next` on.
    stepped: Digits<P>,
    next: u64,
    /// The digits of what a block adds to them.
    stride: [u16; P],
}

impl<const P: usize> Blocks<P> {
    fn new(bijection: Bijection<P>) -> Self {
        let stride = bijection.digits(bijection.step(LANES as u64, 0));
        let stepped = [[0; LANES]; P];
        let mut blocks = Self { bijection, arch: Arch::new(), stepped, next: 0, stride };
        blocks.seek(0);
        blocks
    }

    /// Writes whole blocks of samples from the place `first` on.
    fn compute(&mut self, first: u64, samples: &mut [i64]) {
        if first != self.next {
            self.seek(first);
        }
        self.arch.dispatch(Compute { blocks: self, samples });
    }

    /// Makes `place` the next one: the first place's digits, then twice as many at each turn.
    fn seek(&mut self, place: u64) {
        let bijection = &self.bijection;
        let first = bijection.digits(bijection.step(place % bijection.size, bijection.offset));
        for (digits, digit) in self.stepped.iter_mut().zip(first) {
            digits[0] = digit;
        }
        let mut known = 1;
        while known < LANES {
            let stride = bijection.digits(bijection.step(known as u64, 0));
            for lane in 0..known {
                let digits = from_fn(|part| self.stepped[part][lane]);
                let sum = add(digits, stride, bijection.parts);
                for (digits, digit) in self.stepped.iter_mut().zip(sum) {
                    digits[known + lane] = digit;
                }
            }
            known *= 2;
        }
        self.next = place;
    }
}

/// The sum of two numbers modulo the product of the parts, digit by digit.
#[inline(always)]
fn add<const P: usize>(mut digits: [u16; P], stride: [u16; P], parts: [u16; P]) -> [u16; P] {
    let mut carry = 0;
    for part in (0..P).rev() {
        let sum = digits[part] + stride[part] + carry;
        digits[part] = reduce(sum, parts[part]);
        carry = u16::from(digits[part] != sum);
    }
    digits
}

/// The work of [`Blocks::compute`], compiled for each kind of vectors and chosen at run time.
struct Compute<'a, const P: usize> {
    blocks: &'a mut Blocks<P>,
    samples: &'a mut [i64],
}

impl<const P: usize> WithSimd for Compute<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        simd.vectorize(
            #[inline(always)]
            || {
                let Blocks { bijection, stepped, stride, next, .. } = self.blocks;
                for block in self.samples.chunks_exact_mut(LANES) {
                    let may_be_beyond = fill_block(bijection, stepped, *stride, block);
                    if may_be_beyond {
                        walk_cycles(bijection, *next, block);
                    }
                    *next += LANES as u64;
                }
            },
        );
    }
}

/// The samples of [`LANES`] places, before any walk along cycles, and whether one may be needed;
/// `stepped` moves on by as many.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "the loop runs along the inner arrays")]
fn fill_block<const P: usize>(
    bijection: &Bijection<P>,
    stepped: &mut Digits<P>,
    stride: [u16; P],
    samples: &mut [i64],
) -> bool {
    let mut digits = *stepped;
    for lane in 0..LANES {
        let sum = add(from_fn(|part| stepped[part][lane]), stride, bijection.parts);
        for part in 0..P {
            stepped[part][lane] = sum[part];
        }
    }
    for sweep in bijection.keys.chunks_exact(P) {
        for (target, &key) in sweep.iter().enumerate() {
            let part = bijection.parts[target];
            let Ok([targets, sources]) = digits.get_disjoint_mut([target, (target + 1) % P]) else {
                unreachable!("a part is not the one after it");
            };
            for (target, &source) in targets.iter_mut().zip(&*sources) {
                *target = mix(source, *target, part, key);
            }
        }
    }
    // The two first digits fit 32 bits, and tell whether any number can be beyond the samples.
    let (second, rest) = (u32::from(bijection.parts[1]), &bijection.parts[2..]);
    let beyond = rest.iter().fold(bijection.num_samples, |limit, &part| limit / u64::from(part));
    let mut top = 0;
    for (lane, sample) in samples.iter_mut().enumerate() {
        let head = u32::from(digits[0][lane]) * second + u32::from(digits[1][lane]);
        top = top.max(head);
        let mut number = i64::from(head);
        for (digit, &part) in digits[2..].iter().zip(rest) {
            number = number * i64::from(part) + i64::from(digit[lane]);
        }
        *sample = number;
    }
    u64::from(top) >= beyond
}

/// Puts samples where a block holds numbers beyond them. Places past the last sample, which a block
/// may hold too, are left alone: a cycle from there need not come back.
#[cold]
fn walk_cycles<const P: usize>(bijection: &Bijection<P>, first: u64, samples: &mut [i64]) {
    for (place, sample) in (first..bijection.num_samples).zip(samples) {
        if sample.cast_unsigned() >= bijection.num_samples {
            *sample = bijection.at(place).cast_signed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    /// Reads stretches here and there, on the vectors at hand and on none.
    fn assert_reads<const P: usize>(num_samples: u64, seed: u64, stretches: &[(u64, usize)]) {
        let bijection = Bijection::<P>::new(num_samples, seed, 1);
        let mut walk = Walk::new(bijection.clone());
        let mut scalar = walk.clone();
        scalar.blocks.arch = Arch::Scalar;
        for &(first, length) in stretches {
            let first = first % num_samples;
            let length = length.min(usize::try_from(num_samples - first).unwrap());
            let expected: Vec<i64> =
                (first..).take(length).map(|place| bijection.at(place).cast_signed()).collect();
            for walk in [&mut walk, &mut scalar] {
                let mut samples = vec![-1; length];
                walk.read(first, &mut samples);
                assert!(samples == expected, "{length} of {num_samples} from {first}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn reading_equals_the_definition(
            two in LEAST..=MAX_TWO_PARTS,
            few in LEAST..20_000,
            three in MAX_TWO_PARTS + 1..=MAX_THREE_PARTS,
            seed: u64,
            stretches in prop::collection::vec((any::<u64>(), 1_usize..5_000), 1..5),
        ) {
            // The last of them ends with the pass.
            let mut stretches = stretches;
            stretches.push((few - 700, 700));
            assert_reads::<2>(few, seed, &stretches);
            assert_reads::<3>(few, seed, &stretches);
            assert_reads::<2>(two, seed, &stretches);
            assert_reads::<3>(three, seed, &stretches);
        }
    }
}
