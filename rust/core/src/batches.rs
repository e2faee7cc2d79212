//! An endless stream of passes, cut into batches.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::order::fill_exact;
use crate::{Error, Order};

/// The furthest position of the stream.
pub const MAX_POSITION: u64 = 1 << 63;

/// What happens to a batch at a pass's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The last batch of a pass is cut short.
    Keep,
    /// A batch that does not fit begins with the next pass; the tail is skipped.
    Drop,
    /// The batch runs on into the next pass's order.
    Wrap,
}

impl Boundary {
    /// The boundary of this name.
    pub fn resolve(name: &str) -> Result<Self, Error> {
        match name {
            "keep" => Ok(Self::Keep),
            "drop" => Ok(Self::Drop),
            "wrap" => Ok(Self::Wrap),
            _ => Err(Error::UnknownBoundary(name.to_owned())),
        }
    }

    /// The boundary's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::Wrap => "wrap",
        }
    }
}

/// The part of a batch of `length` samples that belongs to `rank`: contiguous, and equal to the
/// others' or one longer. No rank is left without a sample.
pub fn share(length: u64, rank: u64, world_size: u64) -> Result<Range<u64>, Error> {
    if world_size == 0 {
        return Err(Error::WorldSize);
    }
    if rank >= world_size {
        return Err(Error::Rank { rank, world_size });
    }
    if length < world_size {
        return Err(Error::BatchBelowWorld { got: length, world_size });
    }
    let edge = |rank: u64| {
        let (quotient, remainder) = (length / world_size, length % world_size);
        quotient * rank + remainder.min(rank)
    };
    Ok(edge(rank)..edge(rank + 1))
}

/// Checks what every function here is told of a batch.
pub(crate) fn check(
    num_samples: u64,
    batch_size: u64,
    name: &'static str,
    position: u64,
) -> Result<(), Error> {
    if batch_size == 0 || batch_size > num_samples {
        return Err(Error::BatchSize { got: batch_size, num_samples });
    }
    if position > MAX_POSITION {
        return Err(Error::Position { name, got: position.into() });
    }
    Ok(())
}

/// The stream of passes over `num_samples` samples; a batch is a function of seed, position and size.
#[derive(Debug)]
pub struct Batches {
    num_samples: u64,
    seed: u64,
    order: Order,
    boundary: Boundary,
    /// The passes in use, latest first: one, or under `wrap` the two that a batch may straddle.
    passes: Mutex<Vec<Pass>>,
}

#[derive(Debug, Default, Clone)]
struct Pass {
    /// `None` while `order` holds nothing whole.
    index: Option<u64>,
    order: Vec<u32>,
}

impl Batches {
    /// `order` is a name that [`Order::resolve`] takes.
    pub fn new(
        num_samples: u64,
        seed: u64,
        order: &str,
        boundary: Boundary,
    ) -> Result<Self, Error> {
        let order = Order::resolve(order, num_samples)?;
        let held = if boundary == Boundary::Wrap { 2 } else { 1 };
        let passes = Mutex::new(vec![Pass::default(); held]);
        Ok(Self { num_samples, seed, order, boundary, passes })
    }

    /// The number of samples of a pass.
    pub fn num_samples(&self) -> u64 {
        self.num_samples
    }

    /// The seed of the orders.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The order in use.
    pub fn order(&self) -> Order {
        self.order
    }

    /// What happens to a batch at a pass's end.
    pub fn boundary(&self) -> Boundary {
        self.boundary
    }

    /// Where a batch of this size, decided at `position`, begins: there, or under `drop` with the
    /// next pass if it does not fit in this one.
    pub fn start(&self, position: u64, batch_size: u64) -> Result<u64, Error> {
        check(self.num_samples, batch_size, "position", position)?;
        let left = self.left(position);
        let skips = self.boundary == Boundary::Drop && batch_size > left;
        Ok(if skips { position + left } else { position })
    }

    /// The position after the batch that begins at `start`.
    pub fn end(&self, start: u64, batch_size: u64) -> Result<u64, Error> {
        check(self.num_samples, batch_size, "start", start)?;
        let left = self.left(start);
        match self.boundary {
            Boundary::Drop if batch_size > left => {
                Err(Error::DoesNotFit { start, batch_size, left })
            }
            Boundary::Keep => Ok(start + batch_size.min(left)),
            Boundary::Drop | Boundary::Wrap => Ok(start + batch_size),
        }
    }

    /// The samples of the batch that begins at `start`: the share of `rank` among `world_size`.
    pub fn take(
        &self,
        start: u64,
        batch_size: u64,
        rank: u64,
        world_size: u64,
    ) -> Result<Vec<i64>, Error> {
        let length = self.end(start, batch_size)? - start;
        let share = share(length, rank, world_size)?;
        let (begin, end) = (start + share.start, start + share.end);
        let mut samples = Vec::with_capacity(usize::try_from(end - begin).unwrap_or(0));
        let mut position = begin;
        while position < end {
            let stop = end.min(position + self.left(position));
            self.append(&mut samples, position, stop)?;
            position = stop;
        }
        Ok(samples)
    }

    /// What is left of the pass at `position`: between 1 and all of it.
    fn left(&self, position: u64) -> u64 {
        self.num_samples - position % self.num_samples
    }

    /// Appends the samples at `begin..end`, which lie in one pass.
    #[expect(clippy::cast_possible_truncation, reason = "offsets into an order that is in memory")]
    fn append(&self, samples: &mut Vec<i64>, begin: u64, end: u64) -> Result<(), Error> {
        let index = begin / self.num_samples;
        let first = begin - index * self.num_samples;
        let last = first + (end - begin);
        if self.order == Order::Sequential {
            samples.extend((first..last).map(u64::cast_signed));
            return Ok(());
        }
        let mut passes = self.passes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = passes.iter().position(|pass| pass.index == Some(index)) {
            passes[..=place].rotate_right(1);
        } else {
            // The buffer least lately used is written over: fresh pages cost more than the draws.
            passes.rotate_right(1);
            passes[0].index = None;
            fill_exact(&mut passes[0].order, self.num_samples, self.seed, index)?;
            passes[0].index = Some(index);
        }
        let order = &passes[0].order[first as usize..last as usize];
        samples.extend(order.iter().map(|&sample| i64::from(sample)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDARIES: [Boundary; 3] = [Boundary::Keep, Boundary::Drop, Boundary::Wrap];

    /// The stream of passes itself, one after another.
    fn stream(num_samples: u64, seed: u64, passes: u64) -> Vec<i64> {
        let whole = Batches::new(num_samples, seed, "exact", Boundary::Keep).unwrap();
        (0..passes)
            .flat_map(|pass| whole.take(pass * num_samples, num_samples, 0, 1).unwrap())
            .collect()
    }

    proptest! {
        #[test]
        fn a_batch_is_a_stretch_of_the_stream(
            num_samples in 1_u64..50,
            seed: u64,
            wishes in prop::collection::vec((0_u64..150, 1_u64..50, 1_u64..5), 1..40),
            boundary in prop::sample::select(&BOUNDARIES[..]),
        ) {
            let stream = stream(num_samples, seed, 5);
            let batches = Batches::new(num_samples, seed, "exact", boundary).unwrap();
            for (position, size, world_size) in wishes {
                // Out of order on purpose: the passes in memory must not matter.
                let (position, size) = (position % (3 * num_samples), 1 + size % num_samples);
                let start = batches.start(position, size).unwrap();
                let end = batches.end(start, size).unwrap();
                let length = end - start;
                let whole = batches.take(start, size, 0, 1).unwrap();
                let stretch = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                prop_assert_eq!(&whole, &stream[stretch]);
                prop_assert!(length == size || boundary == Boundary::Keep);
                prop_assert!(start == position || boundary == Boundary::Drop);
                prop_assert!(boundary == Boundary::Wrap || start / num_samples == (end - 1) / num_samples);
                if length >= world_size {
                    let shares: Vec<Vec<i64>> = (0..world_size)
                        .map(|rank| batches.take(start, size, rank, world_size).unwrap())
                        .collect();
                    prop_assert_eq!(shares.concat(), whole);
                    let longest = shares.iter().map(Vec::len).max();
                    let shortest = shares.iter().map(Vec::len).min();
                    prop_assert!(longest.unwrap() - shortest.unwrap() <= 1);
                } else {
                    let refused = Error::BatchBelowWorld { got: length, world_size };
                    prop_assert_eq!(batches.take(start, size, 0, world_size), Err(refused));
                }
            }
        }
    }

    #[test]
    fn the_boundaries_differ_at_the_pass_end() {
        let batches = |boundary| Batches::new(10, 0, "sequential", boundary).unwrap();
        let keep = batches(Boundary::Keep);
        assert_eq!((keep.start(8, 4), keep.end(8, 4)), (Ok(8), Ok(10)));
        assert_eq!(keep.take(8, 4, 0, 1), Ok(vec![8, 9]));
        let drop = batches(Boundary::Drop);
        assert_eq!((drop.start(8, 4), drop.start(8, 2), drop.end(10, 4)), (Ok(10), Ok(8), Ok(14)));
        let refused = Error::DoesNotFit { start: 8, batch_size: 4, left: 2 };
        assert_eq!(drop.take(8, 4, 0, 1), Err(refused));
        let wrap = batches(Boundary::Wrap);
        assert_eq!((wrap.start(8, 4), wrap.end(8, 4)), (Ok(8), Ok(12)));
        assert_eq!(wrap.take(8, 4, 0, 1), Ok(vec![8, 9, 0, 1]));
    }

    #[test]
    fn the_stream_is_long() {
        let batches = Batches::new(7, 1, "exact", Boundary::Wrap).unwrap();
        assert_eq!(batches.take(MAX_POSITION, 7, 0, 1).unwrap().len(), 7);
        let past = u128::from(MAX_POSITION) + 1;
        assert_eq!(
            batches.take(MAX_POSITION + 1, 7, 0, 1),
            Err(Error::Position { name: "start", got: past })
        );
    }

    #[test]
    fn bad_batches_and_ranks_are_refused() {
        let batches = Batches::new(10, 0, "exact", Boundary::Keep).unwrap();
        assert_eq!(batches.take(0, 0, 0, 1), Err(Error::BatchSize { got: 0, num_samples: 10 }));
        assert_eq!(batches.start(0, 11), Err(Error::BatchSize { got: 11, num_samples: 10 }));
        assert_eq!(batches.take(0, 5, 2, 2), Err(Error::Rank { rank: 2, world_size: 2 }));
        assert_eq!(batches.take(0, 5, 0, 0), Err(Error::WorldSize));
        assert_eq!(Boundary::resolve("pad"), Err(Error::UnknownBoundary("pad".into())));
    }
}
