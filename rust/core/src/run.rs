//! Batches of one size, one after another.

use std::ops::Range;
use std::sync::Arc;

use crate::{Batches, Error, share};

/// The shares of batches of one size, in turn: those of one rank, or of all ranks one by one.
#[derive(Debug)]
pub struct Run {
    batches: Arc<Batches>,
    batch_size: u64,
    world_size: u64,
    /// The rank whose shares are wanted; `None` is all of them.
    rank: Option<u64>,
    /// Where the batch that is dealt out, or was dealt out last, begins.
    start: u64,
    /// Where the next one is decided.
    position: u64,
    until: u64,
    count: u64,
    shares: u64,
}

impl Run {
    /// The batches of `batch_size` that begin at `start` and after it, before `until`; `shares` of
    /// the first one's are dealt out already.
    pub fn new(
        batches: Arc<Batches>,
        start: u64,
        batch_size: u64,
        until: u64,
        rank: Option<u64>,
        world_size: u64,
        shares: u64,
    ) -> Result<Self, Error> {
        let dealt = if rank.is_none() { shares } else { 0 };
        batches.positions(start, batch_size, rank.unwrap_or(dealt), world_size)?;
        let position = start;
        Ok(Self {
            batches,
            batch_size,
            world_size,
            rank,
            start,
            position,
            until,
            count: 0,
            shares: dealt,
        })
    }

    /// The stream that the batches are of.
    pub fn batches(&self) -> &Arc<Batches> {
        &self.batches
    }

    /// The size of its batches.
    pub fn batch_size(&self) -> u64 {
        self.batch_size
    }

    /// The number of ranks.
    pub fn world_size(&self) -> u64 {
        self.world_size
    }

    /// The positions of the next share; `None` once there is none.
    pub fn next_positions(&mut self) -> Result<Option<Range<u64>>, Error> {
        if self.shares == 0 {
            let start = self.batches.start(self.position, self.batch_size)?;
            if start >= self.until {
                return Ok(None);
            }
            self.start = start;
        }
        let end = self.batches.end(self.start, self.batch_size)?;
        let rank = self.rank.unwrap_or(self.shares);
        let share = share(end - self.start, rank, self.world_size)?;
        if self.rank.is_some() || rank + 1 == self.world_size {
            self.position = end;
            self.count += 1;
            self.shares = 0;
        } else {
            self.shares += 1;
        }
        Ok(Some(self.start + share.start..self.start + share.end))
    }

    /// Ends the run before the batches that begin at or past a position.
    pub fn stop_at(&mut self, position: u64) {
        self.until = self.until.min(position);
    }

    /// Where the batch that is dealt out, or was dealt out last, begins.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Batches dealt out wholly.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Shares dealt out of the batch at `start`, if not all.
    pub fn shares(&self) -> u64 {
        self.shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Boundary;
    use proptest::prelude::*;

    const BOUNDARIES: [Boundary; 3] = [Boundary::Keep, Boundary::Drop, Boundary::Wrap];

    proptest! {
        #[test]
        fn deals_out_what_one_batch_after_another_is(
            num_samples in 2_u64..60,
            part in 0.0..1.0_f64,
            start in 0_u64..100,
            more in 0_u64..200,
            cut in 0_u64..200,
            world_size in 1_u64..4,
            boundary in prop::sample::select(&BOUNDARIES[..]),
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 60")]
            let size = (1 + (part * num_samples as f64) as u64).max(world_size).min(num_samples);
            let batches =
                Arc::new(Batches::new(num_samples, 1, "exact", boundary, 1).unwrap());
            let start = batches.start(start, size).unwrap();
            let (until, cut) = (start + more, start + cut);
            let mut run =
                Run::new(Arc::clone(&batches), start, size, until, None, world_size, 0);
            let mut position = start;
            let mut count = 0;
            while let Ok(run) = &mut run {
                let begin = batches.start(position, size).unwrap();
                if begin >= until.min(cut) {
                    run.stop_at(cut);
                    prop_assert_eq!(run.next_positions(), Ok(None));
                    break;
                }
                for rank in 0..world_size {
                    prop_assert_eq!((run.count(), run.shares()), (count, rank));
                    let expected = batches.positions(begin, size, rank, world_size);
                    let got = run.next_positions();
                    prop_assert_eq!(run.start(), begin);
                    if expected.is_err() {
                        prop_assert_eq!(got, expected.map(Some));
                        return Ok(());
                    }
                    prop_assert_eq!(got, expected.map(Some));
                }
                position = batches.end(begin, size).unwrap();
                count += 1;
            }
        }
    }

    #[test]
    fn goes_on_within_a_batch_and_is_refused_what_no_batch_is() {
        let batches = Arc::new(Batches::new(10, 0, "sequential", Boundary::Keep, 1).unwrap());
        let run = |size, rank, world_size, shares| {
            Run::new(Arc::clone(&batches), 4, size, 10, rank, world_size, shares)
        };
        let mut dealing = run(4, None, 2, 1).unwrap();
        assert_eq!(dealing.next_positions(), Ok(Some(6..8)));
        assert_eq!((dealing.count(), dealing.shares()), (1, 0));
        assert_eq!(dealing.next_positions(), Ok(Some(8..9)));
        let mut second = run(4, Some(1), 2, 0).unwrap();
        assert_eq!(second.next_positions(), Ok(Some(6..8)));
        assert!(matches!(run(4, None, 2, 2), Err(Error::Rank { rank: 2, world_size: 2 })));
        assert!(matches!(run(0, Some(0), 1, 0), Err(Error::BatchSize { got: 0, .. })));
        assert!(matches!(run(2, Some(0), 3, 0), Err(Error::BatchBelowWorld { got: 2, .. })));
    }
}
