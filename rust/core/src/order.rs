//! Who comes next: the order of the samples in one pass.

use crate::{Error, Random};

/// The most samples that 32-bit indices can order.
pub const MAX_SAMPLES: u64 = 1 << 32;
/// The most samples for which `auto` is the exact order.
pub const MAX_AUTO_SAMPLES: u64 = 1 << 24;

/// How the samples of a pass are ordered. Pass and seed decide it; no pass depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Fisher-Yates over the whole pass: exactly uniform given ideal random bits.
    Exact,
    /// `0, 1, 2, ...` in every pass.
    Sequential,
}

impl Order {
    /// The order that `name` stands for at this number of samples.
    pub fn resolve(name: &str, num_samples: u64) -> Result<Self, Error> {
        match name {
            _ if num_samples == 0 || num_samples > MAX_SAMPLES => {
                Err(Error::NumSamples(num_samples))
            }
            "exact" => Ok(Self::Exact),
            "sequential" => Ok(Self::Sequential),
            "auto" if num_samples <= MAX_AUTO_SAMPLES => Ok(Self::Exact),
            "auto" => Err(Error::AutoIsBijective(num_samples)),
            "bijective" => Err(Error::NoBijective),
            _ => Err(Error::UnknownOrder(name.to_owned())),
        }
    }

    /// The order's name, as [`Order::resolve`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Sequential => "sequential",
        }
    }

    /// The name with its version: one of these gives the same samples for ever. Changing an order
    /// means a new version.
    pub fn version(self) -> &'static str {
        match self {
            Self::Exact => "exact-1",
            Self::Sequential => "sequential-1",
        }
    }
}

/// Overwrites `buffer` with the exact order of one pass.
pub(crate) fn fill_exact(
    buffer: &mut Vec<u32>,
    num_samples: u64,
    seed: u64,
    pass: u64,
) -> Result<(), Error> {
    let (Ok(length), Ok(last)) = (usize::try_from(num_samples), u32::try_from(num_samples - 1))
    else {
        return Err(Error::NumSamples(num_samples));
    };
    buffer.clear();
    buffer.try_reserve_exact(length).map_err(|_| Error::Memory(num_samples))?;
    buffer.extend(0..=last);
    shuffle(buffer, &mut Random::for_pass(seed, pass));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn exact(num_samples: u64, seed: u64, pass: u64) -> Vec<u32> {
        let mut order = Vec::new();
        fill_exact(&mut order, num_samples, seed, pass).unwrap();
        order
    }

    #[test]
    fn golden_orders() {
        assert_eq!(exact(10, 0, 0), [7, 0, 4, 2, 1, 9, 6, 5, 8, 3]);
        assert_eq!(exact(10, 0, 1), [8, 4, 6, 9, 3, 1, 0, 2, 7, 5]);
        assert_eq!(exact(9, u64::MAX, 1 << 40), [0, 7, 3, 2, 6, 1, 8, 4, 5]);
    }

    #[test]
    fn every_order_of_up_to_five_is_as_likely() {
        for (num_samples, factorial, limit) in
            [(2, 2_u32, 10.8), (3, 6, 20.5), (4, 24, 49.7), (5, 120, 172.7)]
        {
            let mut counts = BTreeMap::new();
            let expected = 400.0;
            for pass in 0..u64::from(factorial) * 400 {
                *counts.entry(exact(num_samples, 11, pass)).or_insert(0_u32) += 1;
            }
            assert_eq!(counts.len(), factorial as usize);
            // `limit` is the 0.1 % point of chi-square with n! - 1 degrees of freedom.
            let chi: f64 =
                counts.values().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
            assert!(chi < limit, "{num_samples}: {chi}");
        }
    }

    #[test]
    fn names_resolve() {
        assert_eq!(Order::resolve("auto", MAX_AUTO_SAMPLES), Ok(Order::Exact));
        assert_eq!(Order::resolve("exact", MAX_SAMPLES), Ok(Order::Exact));
        assert_eq!(Order::resolve("sequential", 1), Ok(Order::Sequential));
        let above = MAX_AUTO_SAMPLES + 1;
        assert_eq!(Order::resolve("auto", above), Err(Error::AutoIsBijective(above)));
        assert_eq!(Order::resolve("bijective", 5), Err(Error::NoBijective));
        assert_eq!(Order::resolve("exact", 0), Err(Error::NumSamples(0)));
        assert_eq!(
            Order::resolve("exact", MAX_SAMPLES + 1),
            Err(Error::NumSamples(MAX_SAMPLES + 1))
        );
        assert_eq!(Order::resolve("random", 5), Err(Error::UnknownOrder("random".into())));
    }

    proptest! {
        #[test]
        fn an_order_is_a_permutation(num_samples in 1_u64..3_000, seed: u64, pass: u64) {
            let mut order = exact(num_samples, seed, pass);
            order.sort_unstable();
            prop_assert!(order.into_iter().map(u64::from).eq(0..num_samples));
        }

        #[test]
        fn a_buffer_used_before_changes_nothing(before in 1_u64..500, num_samples in 1_u64..500) {
            let mut order = exact(before, 1, 2);
            fill_exact(&mut order, num_samples, 3, 4).unwrap();
            prop_assert_eq!(order, exact(num_samples, 3, 4));
        }
    }
}
