//! An endless stream of passes, cut into batches.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::indices::Indices;
use crate::order::Pass;
use crate::{Error, Order, share};

/// The furthest position of the stream.
pub const MAX_POSITION: u64 = 1 << 63;

/// The most threads: more than a machine has, and fewer than a system refuses.
pub const MAX_THREADS: usize = 1024;

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
    threads: usize,
    /// What the places of a pass stand for, if not for themselves.
    indices: Option<Indices>,
    /// The pass that was read last, and its order.
    ready: Mutex<Option<(u64, Pass)>>,
}

impl Batches {
    /// `order` is a name that [`Order::resolve`] takes. `threads`, at most [`MAX_THREADS`], share the
    /// work of whole passes: an exact order's shuffle and [`Batches::fill`]; what comes out is the
    /// same for any number.
    pub fn new(
        num_samples: u64,
        seed: u64,
        order: &str,
        boundary: Boundary,
        threads: usize,
    ) -> Result<Self, Error> {
        let order = Order::resolve(order, num_samples)?;
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::Threads { got: threads });
        }
        let (indices, ready) = (None, Mutex::default());
        Ok(Self { num_samples, seed, order, boundary, threads, indices, ready })
    }

    /// The same stream over samples of the caller's choice: the place `i` of a pass's order stands
    /// for `indices[i]`. There are as many as samples of a pass, none negative; they may repeat.
    pub fn with_indices(self, indices: &[i64]) -> Result<Self, Error> {
        let indices = Some(Indices::new(indices, self.num_samples)?);
        Ok(Self { indices, ..self })
    }

    /// The number of samples of a pass.
    pub fn num_samples(&self) -> u64 {
        self.num_samples
    }

    /// The seed of the orders.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The order in use.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The samples that it draws, if they were given.
    pub fn indices(&self) -> Option<&[i64]> {
        self.indices.as_ref().map(Indices::as_slice)
    }

    /// XXH3's 128-bit digest of the given samples, as 8 bytes each, least significant first: the
    /// same on every machine and for ever.
    pub fn indices_digest(&self) -> Option<u128> {
        self.indices.as_ref().map(Indices::digest)
    }

    /// The largest sample of all.
    pub fn largest(&self) -> i64 {
        self.indices.as_ref().map_or((self.num_samples - 1).cast_signed(), Indices::largest)
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

    /// The positions of the share that `rank` among `world_size` has of the batch at `start`.
    pub fn positions(
        &self,
        start: u64,
        batch_size: u64,
        rank: u64,
        world_size: u64,
    ) -> Result<Range<u64>, Error> {
        let length = self.end(start, batch_size)? - start;
        let share = share(length, rank, world_size)?;
        Ok(start + share.start..start + share.end)
    }

    /// Writes the samples at the positions from `begin` on: they may run on into later passes.
    pub fn fill(&self, begin: u64, samples: &mut [i64]) -> Result<(), Error> {
        check(self.num_samples, 1, "begin", begin)?;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut position, mut rest) = (begin, samples);
        while !rest.is_empty() {
            let left = usize::try_from(self.left(position)).unwrap_or(usize::MAX);
            let (here, after) = rest.split_at_mut(left.min(rest.len()));
            let (index, offset) = (position / self.num_samples, position % self.num_samples);
            let pass = self.get_ready(&mut ready, index)?;
            pass.read_by(self.threads, offset, here, |stretch| self.gather(stretch));
            position += here.len() as u64;
            rest = after;
        }
        Ok(())
    }

    /// Does the same if it takes next to no time; returns `false`, and may have written some, if an
    /// order is to be computed first, or another thread is at it.
    pub fn fill_at_once(&self, begin: u64, samples: &mut [i64]) -> bool {
        let index = begin / self.num_samples;
        let Ok(mut ready) = self.ready.try_lock() else { return false };
        match &mut *ready {
            Some((ready, pass)) if *ready == index && samples.len() as u64 <= self.left(begin) => {
                pass.read(begin - index * self.num_samples, samples);
                self.gather(samples);
                true
            }
            _ => false,
        }
    }

    /// Puts the samples that places stand for in their stead.
    fn gather(&self, places: &mut [i64]) {
        if let Some(indices) = &self.indices {
            indices.gather(places);
        }
    }

    /// What is left of the pass at `position`: between 1 and all of it.
    fn left(&self, position: u64) -> u64 {
        self.num_samples - position % self.num_samples
    }

    /// The order of a pass, computed unless it was read last.
    fn get_ready<'a>(
        &self,
        ready: &'a mut Option<(u64, Pass)>,
        index: u64,
    ) -> Result<&'a mut Pass, Error> {
        let before = match ready.take() {
            Some((last, pass)) if last == index => return Ok(&mut ready.insert((last, pass)).1),
            other => other.map(|(_, pass)| pass),
        };
        let Self { order, num_samples, seed, threads, .. } = *self;
        let pass = Pass::new(order, num_samples, seed, index, threads, before)?;
        Ok(&mut ready.insert((index, pass)).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDARIES: [Boundary; 3] = [Boundary::Keep, Boundary::Drop, Boundary::Wrap];

    /// The samples of a rank's share of the batch at `start`.
    fn take(
        batches: &Batches,
        start: u64,
        batch_size: u64,
        rank: u64,
        world_size: u64,
    ) -> Result<Vec<i64>, Error> {
        let positions = batches.positions(start, batch_size, rank, world_size)?;
        let mut samples = vec![0; usize::try_from(positions.end - positions.start).unwrap()];
        batches.fill(positions.start, &mut samples)?;
        Ok(samples)
    }

    /// The stream of passes itself, one after another.
    fn stream(num_samples: u64, seed: u64, passes: u64) -> Vec<i64> {
        let whole = Batches::new(num_samples, seed, "exact", Boundary::Keep, 1).unwrap();
        (0..passes)
            .flat_map(|pass| take(&whole, pass * num_samples, num_samples, 0, 1).unwrap())
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
            let batches = Batches::new(num_samples, seed, "exact", boundary, 1).unwrap();
            for (position, size, world_size) in wishes {
                // Out of order on purpose: the passes in memory must not matter.
                let (position, size) = (position % (3 * num_samples), 1 + size % num_samples);
                let start = batches.start(position, size).unwrap();
                let end = batches.end(start, size).unwrap();
                let length = end - start;
                let whole = take(&batches, start, size, 0, 1).unwrap();
                let stretch = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                prop_assert_eq!(&whole, &stream[stretch]);
                prop_assert!(length == size || boundary == Boundary::Keep);
                prop_assert!(start == position || boundary == Boundary::Drop);
                prop_assert!(boundary == Boundary::Wrap || start / num_samples == (end - 1) / num_samples);
                if length >= world_size {
                    let shares: Vec<Vec<i64>> = (0..world_size)
                        .map(|rank| take(&batches, start, size, rank, world_size).unwrap())
                        .collect();
                    prop_assert_eq!(shares.concat(), whole);
                    let longest = shares.iter().map(Vec::len).max();
                    let shortest = shares.iter().map(Vec::len).min();
                    prop_assert!(longest.unwrap() - shortest.unwrap() <= 1);
                } else {
                    let refused = Error::BatchBelowWorld { got: length, world_size };
                    prop_assert_eq!(take(&batches, start, size, 0, world_size), Err(refused));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn indices_stand_for_the_places_of_the_stream(
            indices in prop::collection::vec(0..=i64::MAX, 1..60),
            seed: u64,
            begin in 0_u64..200,
            length in 1_usize..150,
            order in prop::sample::select(&["exact", "bijective", "sequential"][..]),
        ) {
            let num_samples = indices.len() as u64;
            let places = Batches::new(num_samples, seed, order, Boundary::Keep, 1).unwrap();
            let given = Batches::new(num_samples, seed, order, Boundary::Keep, 1).unwrap();
            let given = given.with_indices(&indices).unwrap();
            let (mut expected, mut samples) = (vec![0; length], vec![0; length]);
            places.fill(begin, &mut expected).unwrap();
            for place in &mut expected {
                *place = indices[usize::try_from(*place).unwrap()];
            }
            given.fill(begin, &mut samples).unwrap();
            prop_assert_eq!(&samples, &expected);
            if given.fill_at_once(begin, &mut samples) {
                prop_assert_eq!(samples, expected);
            }
            prop_assert_eq!(given.largest(), *indices.iter().max().unwrap());
            prop_assert_eq!(places.largest(), i64::try_from(num_samples - 1).unwrap());
        }
    }

    #[test]
    fn the_boundaries_differ_at_the_pass_end() {
        let batches = |boundary| Batches::new(10, 0, "sequential", boundary, 1).unwrap();
        let keep = batches(Boundary::Keep);
        assert_eq!((keep.start(8, 4), keep.end(8, 4)), (Ok(8), Ok(10)));
        assert_eq!(take(&keep, 8, 4, 0, 1), Ok(vec![8, 9]));
        let drop = batches(Boundary::Drop);
        assert_eq!((drop.start(8, 4), drop.start(8, 2), drop.end(10, 4)), (Ok(10), Ok(8), Ok(14)));
        let refused = Error::DoesNotFit { start: 8, batch_size: 4, left: 2 };
        assert_eq!(take(&drop, 8, 4, 0, 1), Err(refused));
        let wrap = batches(Boundary::Wrap);
        assert_eq!((wrap.start(8, 4), wrap.end(8, 4)), (Ok(8), Ok(12)));
        assert_eq!(take(&wrap, 8, 4, 0, 1), Ok(vec![8, 9, 0, 1]));
    }

    #[test]
    fn the_stream_is_long() {
        let batches = Batches::new(7, 1, "exact", Boundary::Wrap, 1).unwrap();
        assert_eq!(take(&batches, MAX_POSITION, 7, 0, 1).unwrap().len(), 7);
        let past = u128::from(MAX_POSITION) + 1;
        assert_eq!(
            take(&batches, MAX_POSITION + 1, 7, 0, 1),
            Err(Error::Position { name: "start", got: past })
        );
    }

    #[test]
    fn bad_batches_and_ranks_are_refused() {
        let batches = Batches::new(10, 0, "exact", Boundary::Keep, 1).unwrap();
        assert_eq!(take(&batches, 0, 0, 0, 1), Err(Error::BatchSize { got: 0, num_samples: 10 }));
        assert_eq!(batches.start(0, 11), Err(Error::BatchSize { got: 11, num_samples: 10 }));
        assert_eq!(take(&batches, 0, 5, 2, 2), Err(Error::Rank { rank: 2, world_size: 2 }));
        assert_eq!(take(&batches, 0, 5, 0, 0), Err(Error::WorldSize));
        assert_eq!(Boundary::resolve("pad"), Err(Error::UnknownBoundary("pad".into())));
    }

    #[test]
    fn what_is_ready_is_read_at_once_and_nothing_else_is() {
        for order in ["exact", "bijective"] {
            let batches = Batches::new(5_000, 3, order, Boundary::Wrap, 2).unwrap();
            let mut samples = [0; 7];
            assert!(!batches.fill_at_once(4_990, &mut samples));
            let whole = take(&batches, 4_990, 7, 0, 1).unwrap();
            assert!(batches.fill_at_once(4_990, &mut samples));
            assert_eq!(samples[..], whole);
            // The last of them lies in the next pass.
            assert!(!batches.fill_at_once(4_994, &mut samples));
        }
    }

    #[test]
    fn threads_change_nothing() {
        for (order, num_samples) in [("exact", 400_000), ("bijective", 500_000)] {
            let read = |threads| {
                let indices: Vec<i64> = (7..).take(usize::try_from(num_samples).unwrap()).collect();
                let batches = Batches::new(num_samples, 3, order, Boundary::Wrap, threads)
                    .and_then(|batches| batches.with_indices(&indices))
                    .unwrap();
                let mut samples = vec![0; 700_001];
                batches.fill(123, &mut samples).unwrap();
                samples
            };
            let one = read(1);
            assert!(read(2) == one && read(5) == one, "{order}");
        }
    }
}
