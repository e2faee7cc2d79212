//! Batches of one size, one after another, dealt out by rank and by piece.

use std::ops::Range;
use std::sync::Arc;

use crate::shares::cut;
use crate::{Batches, Error, pieces, share};

/// The pieces of batches of one size, in turn: those of one rank's shares, or of all ranks' with the
/// first piece of each rank's before the second ones.
#[derive(Debug)]
pub struct Run {
    batches: Arc<Batches>,
    batch_size: u64,
    world_size: u64,
    /// The most samples of a piece.
    micro_batch: u64,
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
    /// the first one's pieces are dealt out already. Without `micro_batch` a share is one piece.
    #[expect(clippy::too_many_arguments, reason = "all that a run is made of")]
    pub fn new(
        batches: Arc<Batches>,
        start: u64,
        batch_size: u64,
        until: u64,
        rank: Option<u64>,
        world_size: u64,
        shares: u64,
        micro_batch: Option<u64>,
    ) -> Result<Self, Error> {
        let run = Self {
            batches,
            batch_size,
            world_size,
            micro_batch: micro_batch.unwrap_or(batch_size),
            rank,
            start,
            position: start,
            until,
            count: 0,
            shares,
        };
        let end = run.batches.end(start, batch_size)?;
        run.next_piece(end)?;
        Ok(run)
    }

    /// The stream that the batches are of.
    pub fn batches(&self) -> &Arc<Batches> {
        &self.batches
    }

    /// The size of its batches.
    pub fn batch_size(&self) -> u64 {
        self.batch_size
    }

    /// The most samples of a piece, of this batch size or one cut short.
    pub fn longest(&self) -> u64 {
        self.micro_batch.min(self.batch_size.div_ceil(self.world_size))
    }

    /// The positions of the next piece; `None` once there is none.
    pub fn next_positions(&mut self) -> Result<Option<Range<u64>>, Error> {
        if self.shares == 0 {
            let start = self.batches.start(self.position, self.batch_size)?;
            if start >= self.until {
                return Ok(None);
            }
            self.start = start;
        }
        let end = self.batches.end(self.start, self.batch_size)?;
        let (piece, handouts) = self.next_piece(end)?;
        self.shares += 1;
        if self.shares == handouts {
            self.position = end;
            self.count += 1;
            self.shares = 0;
        }
        Ok(Some(self.start + piece.start..self.start + piece.end))
    }

    /// Where in the batch that ends at `end` the next piece lies, and how many are dealt out of it.
    fn next_piece(&self, end: u64) -> Result<(Range<u64>, u64), Error> {
        let (length, world_size) = (end - self.start, self.world_size);
        let pieces = pieces(length, world_size, self.micro_batch)?;
        let (rank, index, handouts) = match self.rank {
            Some(rank) => (rank, self.shares, pieces),
            None => (self.shares % world_size, self.shares / world_size, pieces * world_size),
        };
        if self.shares >= handouts {
            return Err(Error::Shares { got: self.shares, handouts });
        }
        Ok((cut(share(length, rank, world_size)?, index, pieces), handouts))
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

    /// Pieces dealt out of the batch at `start`, if not all.
    pub fn shares(&self) -> u64 {
        self.shares
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Boundary, piece};
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
            micro_batch in prop::option::of(1_u64..20),
            only in prop::option::of(0_u64..3),
            boundary in prop::sample::select(&BOUNDARIES[..]),
        ) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 60")]
            let size = (1 + (part * num_samples as f64) as u64).max(world_size).min(num_samples);
            let only = only.map(|rank| rank % world_size);
            let ranks = only.map_or(0..world_size, |rank| rank..rank + 1);
            let most = micro_batch.unwrap_or(num_samples);
            let batches =
                Arc::new(Batches::new(num_samples, 1, "exact", boundary, 1).unwrap());
            let start = batches.start(start, size).unwrap();
            let (until, cut) = (start + more, start + cut);
            let begun = |start, shares| {
                let batches = Arc::clone(&batches);
                Run::new(batches, start, size, until, only, world_size, shares, micro_batch)
            };
            let mut run = begun(start, 0);
            let mut position = start;
            let mut count = 0;
            while let Ok(run) = &mut run {
                let begin = batches.start(position, size).unwrap();
                if begin >= until.min(cut) {
                    run.stop_at(cut);
                    prop_assert_eq!(run.next_positions(), Ok(None));
                    break;
                }
                let length = batches.end(begin, size).unwrap() - begin;
                let pieces = match pieces(length, world_size, most) {
                    Ok(pieces) => pieces,
                    Err(refused) => {
                        prop_assert_eq!(run.next_positions(), Err(refused));
                        return Ok(());
                    }
                };
                let mut shares = 0;
                for index in 0..pieces {
                    for rank in ranks.clone() {
                        prop_assert_eq!((run.count(), run.shares()), (count, shares));
                        let piece = piece(length, rank, world_size, most, index).unwrap();
                        prop_assert!(piece.end - piece.start <= run.longest());
                        let expected = Ok(Some(begin + piece.start..begin + piece.end));
                        prop_assert_eq!(run.next_positions(), expected.clone());
                        prop_assert_eq!(run.start(), begin);
                        if begin < until {
                            let mut again = begun(begin, shares).unwrap();
                            prop_assert_eq!(again.next_positions(), expected);
                        }
                        shares += 1;
                    }
                }
                let refused = Error::Shares { got: shares, handouts: shares };
                prop_assert_eq!(begun(begin, shares).unwrap_err(), refused);
                position = batches.end(begin, size).unwrap();
                count += 1;
            }
        }
    }

    #[test]
    fn goes_on_within_a_batch_and_is_refused_what_no_batch_is() {
        let batches = Arc::new(Batches::new(10, 0, "sequential", Boundary::Keep, 1).unwrap());
        let run = |size, rank, world_size, shares| {
            Run::new(Arc::clone(&batches), 4, size, 10, rank, world_size, shares, None)
        };
        let mut dealing = run(4, None, 2, 1).unwrap();
        assert_eq!(dealing.next_positions(), Ok(Some(6..8)));
        assert_eq!((dealing.count(), dealing.shares()), (1, 0));
        assert_eq!(dealing.next_positions(), Ok(Some(8..9)));
        let mut second = run(4, Some(1), 2, 0).unwrap();
        assert_eq!(second.next_positions(), Ok(Some(6..8)));
        assert!(matches!(run(4, None, 2, 2), Err(Error::Shares { got: 2, handouts: 2 })));
        assert!(matches!(run(4, Some(1), 2, 1), Err(Error::Shares { got: 1, handouts: 1 })));
        assert!(matches!(run(4, Some(2), 2, 0), Err(Error::Rank { rank: 2, world_size: 2 })));
        assert!(matches!(run(0, Some(0), 1, 0), Err(Error::BatchSize { got: 0, .. })));
        assert!(matches!(run(2, Some(0), 3, 0), Err(Error::BatchBelowWorld { got: 2, .. })));
    }

    #[test]
    fn deals_the_first_pieces_of_all_ranks_before_the_second() {
        let batches = Arc::new(Batches::new(20, 0, "sequential", Boundary::Keep, 1).unwrap());
        let mut run = Run::new(batches, 0, 11, 20, None, 2, 0, Some(4)).unwrap();
        let mut next = || run.next_positions().unwrap();
        assert_eq!(
            [next(), next(), next(), next()],
            [Some(0..3), Some(6..9), Some(3..6), Some(9..11)]
        );
        // Nine are left: five and four, in two pieces each.
        assert_eq!([next(), next()], [Some(11..14), Some(16..18)]);
        assert_eq!([next(), next(), next()], [Some(14..16), Some(18..20), None]);
    }
}
