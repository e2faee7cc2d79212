//! Who comes next: the order of the samples in one pass.

use std::iter::zip;
use std::sync::Arc;

use crate::bijection::{self, Bijection};
use crate::threads::for_each_once;
use crate::walk::Walk;
use crate::{Error, exact};

/// The most samples that any order takes: three parts of 15 bits.
pub const MAX_SAMPLES: u64 = bijection::MAX_THREE_PARTS;
/// The most samples of the exact order: its indices have 32 bits.
pub const MAX_EXACT_SAMPLES: u64 = 1 << 32;
/// The most samples for which `auto` is the exact order.
pub const MAX_AUTO_SAMPLES: u64 = 1 << 24;

/// The least that another thread is started for: below it, starting one costs more than it saves.
const LEAST_SHARE: usize = 1 << 17;

/// How the samples of a pass are ordered. Pass and seed decide it; no pass depends on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Uniform over all permutations given ideal random bits; four bytes a sample.
    Exact,
    /// A keyed bijection: no memory, and read from any place at once.
    Bijective,
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
            "exact" if num_samples > MAX_EXACT_SAMPLES => Err(Error::TooManyForExact(num_samples)),
            "exact" => Ok(Self::Exact),
            "sequential" => Ok(Self::Sequential),
            "auto" if num_samples <= MAX_AUTO_SAMPLES => Ok(Self::Exact),
            "bijective" | "auto" => Ok(Self::Bijective),
            _ => Err(Error::UnknownOrder(name.to_owned())),
        }
    }

    /// The order's name, as [`Order::resolve`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Bijective => "bijective",
            Self::Sequential => "sequential",
        }
    }

    /// The name with its version: one of these gives the same samples for ever. Changing an order
    /// means a new version.
    pub fn version(self, num_samples: u64) -> &'static str {
        match self {
            Self::Exact if num_samples < exact::LEAST_BUCKETED => "exact-1",
            Self::Exact => "exact-2",
            Self::Bijective => "bijective-1",
            Self::Sequential => "sequential-1",
        }
    }
}

/// One pass's order, ready to be read.
#[derive(Debug, Clone)]
pub(crate) enum Pass {
    /// Every sample in its place.
    Table(Arc<Vec<u32>>),
    /// Up to 2^30 samples.
    TwoParts(Box<Walk<2>>),
    /// More than 2^30 samples.
    ThreeParts(Box<Walk<3>>),
    /// `0, 1, 2, ...`
    Sequential,
}

impl Pass {
    /// Gets the order of pass `pass` ready; `threads` changes its time alone.
    ///
    /// `before` is any pass no longer needed, whose memory is used again: fresh pages cost more than
    /// the draws.
    pub(crate) fn new(
        order: Order,
        num_samples: u64,
        seed: u64,
        pass: u64,
        threads: usize,
        before: Option<Self>,
    ) -> Result<Self, Error> {
        match order {
            Order::Sequential => Ok(Self::Sequential),
            // Below its least number of samples, a table is the bijection.
            Order::Bijective if num_samples > bijection::MAX_TWO_PARTS => {
                let bijection = Bijection::new(num_samples, seed, pass);
                Ok(Self::ThreeParts(Box::new(Walk::new(bijection))))
            }
            Order::Bijective if num_samples >= bijection::LEAST => {
                let bijection = Bijection::new(num_samples, seed, pass);
                Ok(Self::TwoParts(Box::new(Walk::new(bijection))))
            }
            Order::Bijective | Order::Exact => {
                let mut table = match before {
                    Some(Self::Table(table)) => Arc::try_unwrap(table).unwrap_or_default(),
                    _ => Vec::new(),
                };
                exact::fill(&mut table, num_samples, seed, pass, threads)?;
                Ok(Self::Table(Arc::new(table)))
            }
        }
    }

    /// Writes the samples from the place `first` on.
    #[expect(clippy::cast_possible_truncation, reason = "places in a table that is in memory")]
    pub(crate) fn read(&mut self, first: u64, samples: &mut [i64]) {
        match self {
            Self::Table(table) => {
                for (sample, &next) in zip(samples, &table[first as usize..]) {
                    *sample = i64::from(next);
                }
            }
            Self::TwoParts(walk) => walk.read(first, samples),
            Self::ThreeParts(walk) => walk.read(first, samples),
            Self::Sequential => {
                for (sample, next) in zip(samples, first..) {
                    *sample = next.cast_signed();
                }
            }
        }
    }

    /// The same by several threads, each with a long stretch of its own that it hands to `then`.
    pub(crate) fn read_by(
        &mut self,
        threads: usize,
        first: u64,
        samples: &mut [i64],
        then: impl Fn(&mut [i64]) + Sync,
    ) {
        let share = samples.len().div_ceil(threads.max(1)).max(LEAST_SHARE);
        if samples.len() <= share {
            self.read(first, samples);
            return then(samples);
        }
        let stretches = zip(samples.chunks_mut(share), (first..).step_by(share)).collect();
        for_each_once(threads, stretches, |(samples, start)| {
            self.clone().read(start, samples);
            then(samples);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_resolve() {
        assert_eq!(Order::resolve("auto", MAX_AUTO_SAMPLES), Ok(Order::Exact));
        assert_eq!(Order::resolve("exact", MAX_EXACT_SAMPLES), Ok(Order::Exact));
        assert_eq!(Order::resolve("sequential", 1), Ok(Order::Sequential));
        assert_eq!(Order::resolve("auto", MAX_AUTO_SAMPLES + 1), Ok(Order::Bijective));
        assert_eq!(Order::resolve("bijective", MAX_SAMPLES), Ok(Order::Bijective));
        assert_eq!(Order::resolve("exact", 0), Err(Error::NumSamples(0)));
        assert_eq!(
            Order::resolve("exact", MAX_EXACT_SAMPLES + 1),
            Err(Error::TooManyForExact(MAX_EXACT_SAMPLES + 1))
        );
        assert_eq!(
            Order::resolve("bijective", MAX_SAMPLES + 1),
            Err(Error::NumSamples(MAX_SAMPLES + 1))
        );
        assert_eq!(Order::resolve("random", 5), Err(Error::UnknownOrder("random".into())));
    }
}
