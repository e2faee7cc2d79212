//! Samples of the caller's choice: what the places of a pass's order stand for.

use std::fmt;
use std::iter::zip;

use pulp::Arch;
use twox_hash::XxHash3_128;

use crate::Error;
use crate::buffer::Buffer;

/// As many samples as a pass has places; they may repeat.
pub(crate) struct Indices {
    samples: Buffer<i64>,
    largest: i64,
    /// XXH3's 128 bits of the samples' bytes, least significant first.
    digest: u128,
}

/// Samples that are looked at together: they stay in the first-level cache.
const TOGETHER: usize = 1 << 10;

impl Indices {
    /// A copy of `samples`, checked.
    pub(crate) fn new(samples: &[i64], num_samples: u64) -> Result<Self, Error> {
        if samples.len() as u64 != num_samples {
            return Err(Error::NumIndices { got: samples.len(), num_samples });
        }
        let refused = |_| Error::IndicesMemory(samples.len());
        let mut copy = Buffer::zeros(samples.len()).map_err(refused)?;
        let (arch, mut hasher) = (Arch::new(), XxHash3_128::new());
        let (mut bytes, mut largest) = ([0; 8 * TOGETHER], 0);
        for (samples, copy) in zip(samples.chunks(TOGETHER), copy.chunks_mut(TOGETHER)) {
            let most = arch.dispatch(|| samples.iter().copied().fold(0, i64::max));
            if arch.dispatch(|| samples.iter().fold(0, |bits, sample| bits | sample)) < 0 {
                let negative = samples.iter().copied().find(|&sample| sample < 0);
                return Err(Error::NegativeIndex(negative.unwrap_or(-1)));
            }
            largest = largest.max(most);
            copy.copy_from_slice(samples);
            let (eights, _) = bytes.as_chunks_mut::<8>();
            for (eight, sample) in zip(eights, samples) {
                *eight = sample.to_le_bytes();
            }
            hasher.write(&bytes[..8 * samples.len()]);
        }
        Ok(Self { samples: copy, largest, digest: hasher.finish_128() })
    }

    pub(crate) fn as_slice(&self) -> &[i64] {
        &self.samples
    }

    pub(crate) fn largest(&self) -> i64 {
        self.largest
    }

    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    /// Puts the samples that places stand for in their stead.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "places among samples that are in memory"
    )]
    pub(crate) fn gather(&self, places: &mut [i64]) {
        for place in places {
            *place = self.samples[*place as usize];
        }
    }
}

impl fmt::Debug for Indices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} indices", self.samples.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_the_same_for_ever() {
        let digest = |samples: &[i64]| Indices::new(samples, samples.len() as u64).unwrap().digest;
        assert_eq!(digest(&[3, 1, 4, 1, 5]), 0x8dee_e59d_1d53_07ec_b5d0_0840_1744_d848);
        assert_eq!(digest(&[i64::MAX]), 0xacca_2b3b_36ec_80c9_8c74_3a61_a0ed_0663);
        let many: Vec<i64> = (0..5_000).map(|sample| sample * sample).collect();
        assert_eq!(digest(&many), 0xad7b_013b_0fde_7e8c_b1f9_788f_9c84_8f74);
    }

    #[test]
    fn what_is_no_sample_is_refused() {
        let refused =
            |samples: &[i64], num_samples| Indices::new(samples, num_samples).unwrap_err();
        assert_eq!(refused(&[1, 2], 3), Error::NumIndices { got: 2, num_samples: 3 });
        assert_eq!(refused(&[1, -2, -3], 3), Error::NegativeIndex(-2));
        assert_eq!(refused(&[i64::MIN], 1), Error::NegativeIndex(i64::MIN));
    }
}
