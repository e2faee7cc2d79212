//! Reads a [`Bijection`] from place to place, many places at once.
//!
//! There is one loop in plain Rust; it is compiled for every kind of vectors and chosen at run time.
#![expect(clippy::inline_always, reason = "what is not inlined is not compiled for the vectors")]

use std::array::from_fn;

use pulp::{Arch, Simd, WithSimd};

use crate::bijection::{Bijection, add, mix};

/// Places computed at once: their digits stay in the first-level cache.
const LANES: usize = 512;
/// Places kept ready for small reads.
const READY: usize = 4 * LANES;

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
    /// Each part, once a lane: a factor that is loaded is multiplied in 16 bits, where one that
    /// stays the same is widened to 32 first, which costs half as much time again.
    factors: Digits<P>,
}

impl<const P: usize> Blocks<P> {
    fn new(bijection: Bijection<P>) -> Self {
        let stride = bijection.digits(bijection.step(LANES as u64, 0));
        let stepped = [[0; LANES]; P];
        let factors = bijection.parts.map(|part| [part; LANES]);
        let mut blocks = Self { bijection, arch: Arch::new(), stepped, next: 0, stride, factors };
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
                let Blocks { bijection, stepped, stride, factors, next, .. } = self.blocks;
                for block in self.samples.chunks_exact_mut(LANES) {
                    let may_be_beyond = fill_block(bijection, stepped, *stride, factors, block);
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
    factors: &Digits<P>,
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
            let lanes = targets.iter_mut().zip(&*sources).zip(&factors[target]);
            for ((target, &source), &factor) in lanes {
                *target = mix(source, *target, factor, part, key);
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
    use crate::bijection::{LEAST, MAX_THREE_PARTS, MAX_TWO_PARTS};
    use proptest::prelude::*;

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
