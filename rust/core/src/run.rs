//! Batches of one size, one after another.

use std::ops::Range;
use std::sync::Arc;

use crate::{Batches, Error};

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
        let rank = self.rank.unwrap_or(self.shares);
        let positions =
            self.batches.positions(self.start, self.batch_size, rank, self.world_size)?;
        if self.rank.is_some() || rank + 1 == self.world_size {
            self.position = self.batches.end(self.start, self.batch_size)?;
            self.count += 1;
            self.shares = 0;
        } else {
            self.shares += 1;
        }
        Ok(Some(positions))
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
