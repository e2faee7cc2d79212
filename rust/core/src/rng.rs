//! The named generator behind every order, and the keys it starts from.
//!
//! Everything here is part of the orders' version: the golden values in the tests, here and in
//! Python, hold it still.

/// 2^64 divided by the golden ratio: the increment of `SplitMix64`.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// The two words that complete a state beside seed and pass: the fractional bits of pi.
const PI: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];
/// Steps of the network that spreads seed and pass over the state: three times over all words.
const STEPS: usize = 12;

/// The finaliser of `SplitMix64` (Stafford's variant 13), a bijection of 64-bit words.
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A 64-bit key for one purpose of a seed, such as `"split"` or `"model"`.
///
/// With `mix` the finaliser of `SplitMix64` and `G` its increment, the key starts as
/// `mix(seed + G)`; each eight bytes `w` of the purpose (UTF-8, little-endian, the last ones padded
/// with zeros) make it `mix((key ^ w) + G)`, and so does the purpose's length in bytes at the end.
/// For one purpose this is a bijection of seeds: two seeds never share a key.
pub fn derive_key(seed: u64, purpose: &str) -> u64 {
    let words = purpose
        .as_bytes()
        .chunks(8)
        .map(|chunk| chunk.iter().rev().fold(0_u64, |word, &byte| word << 8 | u64::from(byte)));
    words
        .chain([purpose.len() as u64])
        .fold(mix(seed.wrapping_add(GOLDEN)), |key, word| mix((key ^ word).wrapping_add(GOLDEN)))
}

/// xoshiro256++ 1.0 (Blackman and Vigna), one stream per `(seed, pass)`.
#[derive(Debug, Clone)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of one pass.
    ///
    /// The state is `(seed, pass, pi, pi)` sent through an invertible network, so that two different
    /// `(seed, pass)` never start from the same state, whatever their values.
    pub fn for_pass(seed: u64, pass: u64) -> Self {
        Self::from_words([seed, pass, PI[0], PI[1]])
    }

    /// The stream of one part of a pass, for work that is cut into parts.
    pub(crate) fn for_part(seed: u64, pass: u64, part: u64) -> Self {
        debug_assert_ne!(part, PI[0], "the pass's own stream");
        Self::from_words([seed, pass, part, PI[1]])
    }

    fn from_words(mut state: [u64; 4]) -> Self {
        for step in 0..STEPS {
            state[step % 4] ^= network(&state, step);
        }
        Self { state }
    }

    /// The next 64 random bits.
    pub fn next_word(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let word = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        word
    }

    /// An exactly uniform draw below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.two_below(bound, 1).0
    }

    /// Two independent exactly uniform draws, below `first` and below `second`, from one word.
    ///
    /// Brackett-Rozinsky and Lemire, "Batched ranged random integer generation", arXiv 2408.06213:
    /// the product of the bounds must not exceed 2^64.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a 128-bit product")]
    pub(crate) fn two_below(&mut self, first: u64, second: u64) -> (u64, u64) {
        let product = first * second;
        loop {
            let high = u128::from(self.next_word()) * u128::from(first);
            let low = u128::from(high as u64) * u128::from(second);
            let rest = low as u64;
            // The remainder costs a division, so it is taken only where it can matter.
            if rest >= product || rest >= product.wrapping_neg() % product {
                return ((high >> 64) as u64, (low >> 64) as u64);
            }
        }
    }
}

/// What one step adds to its word: a function of the three others, so that the step can be undone.
fn network(state: &[u64; 4], step: usize) -> u64 {
    let [near, far, across] = [1, 2, 3].map(|distance| state[(step + distance) % 4]);
    mix(near.wrapping_add(GOLDEN.wrapping_mul(step as u64 + 1))
        ^ mix(far.wrapping_add(across.rotate_left(32))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn follows_the_published_generator() {
        // The first outputs of Vigna's xoshiro256plusplus.c from the state 1, 2, 3, 4.
        let mut random = Random { state: [1, 2, 3, 4] };
        let words: Vec<u64> = (0..4).map(|_| random.next_word()).collect();
        assert_eq!(words, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn golden_streams() {
        let first = |seed, pass| Random::for_pass(seed, pass).next_word();
        assert_eq!(
            [first(0, 0), first(0, 1), first(1, 0), first(u64::MAX, 1 << 31)],
            [
                7_215_602_378_313_189_923,
                10_858_332_323_480_410_755,
                15_672_301_554_272_654_242,
                13_725_048_645_283_810_280
            ]
        );
    }

    #[test]
    fn golden_keys() {
        assert_eq!(
            [derive_key(0, ""), derive_key(0, "split"), derive_key(1, "model initialisation")],
            [12_035_550_249_420_947_055, 16_197_341_236_152_228_540, 16_254_266_165_160_065_896]
        );
    }

    #[test]
    fn the_network_can_be_undone_and_never_reaches_the_zero_state() {
        let undo = |mut state: [u64; 4]| {
            for step in (0..STEPS).rev() {
                state[step % 4] ^= network(&state, step);
            }
            state
        };
        assert_eq!(undo(Random::for_pass(7, 9).state), [7, 9, PI[0], PI[1]]);
        assert_ne!(undo([0; 4])[2..], PI);
    }

    #[test]
    fn neighbours_and_sums_do_not_collide() {
        // Torch's DistributedSampler gives (seed 0, epoch 1) and (seed 1, epoch 0) one order.
        let grid = (0..200_u64).flat_map(|seed| (0..200_u64).map(move |pass| (seed, pass)));
        let words: HashSet<u64> =
            grid.map(|(seed, pass)| Random::for_pass(seed, pass).next_word()).collect();
        assert_eq!(words.len(), 40_000);
        assert_ne!(
            Random::for_pass(5, 0).next_word(),
            Random::for_pass(5 + (1 << 32), 0).next_word()
        );
    }

    #[test]
    fn two_draws_are_uniform_over_their_product() {
        let mut random = Random::for_pass(3, 0);
        let mut counts = [0_u32; 15];
        for _ in 0..150_000 {
            let (first, second) = random.two_below(5, 3);
            counts[usize::try_from(first * 3 + second).unwrap()] += 1;
        }
        // Chi-square with 14 degrees of freedom: 36.1 is its 0.1 % point.
        let chi: f64 = counts.iter().map(|&c| (f64::from(c) - 1e4).powi(2) / 1e4).sum();
        assert!(chi < 36.1, "{chi}");
    }

    #[test]
    fn large_bounds_stay_in_range() {
        let mut random = Random::for_pass(0, 0);
        for _ in 0..1_000 {
            let (first, second) = random.two_below(1 << 32, (1 << 32) - 1);
            assert!(first < 1 << 32 && second < (1 << 32) - 1);
        }
    }
}
