//! What callers can get wrong, said once: the argument, the rule and the value.

/// Every way in which a call into this crate can fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to order, or more than three parts of 15 bits.
    #[error("num_samples must be between 1 and 35184372088832 (2**45), got {0}")]
    NumSamples(u64),
    /// An exact order of so many samples does not fit its 32-bit indices.
    #[error(
        "num_samples must be at most 4294967296 (2**32) for order=\"exact\", got {0}: ask for \
         order=\"bijective\""
    )]
    TooManyForExact(u64),
    /// No order has this name.
    #[error("order must be auto, exact, bijective or sequential, got {}", shown(.0))]
    UnknownOrder(String),
    /// No boundary has this name.
    #[error("boundary must be keep, drop or wrap, got {}", shown(.0))]
    UnknownBoundary(String),
    /// A batch holds at least one sample and no more than there are.
    #[error("batch_size must be between 1 and {num_samples} (the number of samples), got {got}")]
    BatchSize {
        /// The size asked for.
        got: u64,
        /// The number of samples.
        num_samples: u64,
    },
    /// A position past what the stream addresses.
    #[error("{name} must be at most 9223372036854775808 (2**63), got {got}")]
    Position {
        /// The argument.
        name: &'static str,
        /// Its value.
        got: u128,
    },
    /// Under `drop`, a start in a tail that is too short for the batch.
    #[error(
        "start must leave room for the batch under boundary=\"drop\": {batch_size} samples do not fit \
         in the {left} left at position {start}"
    )]
    DoesNotFit {
        /// The start asked for.
        start: u64,
        /// The batch's size.
        batch_size: u64,
        /// What is left of the pass.
        left: u64,
    },
    /// There is at least one rank.
    #[error("world_size must be at least 1, got 0")]
    WorldSize,
    /// Ranks count from zero.
    #[error("rank must be between 0 and {} (world_size - 1), got {rank}", world_size - 1)]
    Rank {
        /// The rank asked for.
        rank: u64,
        /// The number of ranks.
        world_size: u64,
    },
    /// A rank without a sample could not step with the others.
    #[error(
        "batch_size must be at least {world_size} (world_size), so that every rank has a sample, got \
         a batch of {got}"
    )]
    BatchBelowWorld {
        /// The batch's length, cut at the pass's end if it was.
        got: u64,
        /// The number of ranks.
        world_size: u64,
    },
    /// A share whose pieces would not each have a sample.
    #[error(
        "micro_batch must be at least 2 where a batch ({length} samples) does not divide by \
         world_size ({world_size}), got 1: some ranks would have a piece less than others"
    )]
    MicroBatch {
        /// The batch's length, cut at the pass's end if it was.
        length: u64,
        /// The number of ranks.
        world_size: u64,
    },
    /// Pieces count from zero.
    #[error("index must be below {pieces} (the pieces of a share), got {got}")]
    Piece {
        /// The piece asked for.
        got: u64,
        /// How many there are.
        pieces: u64,
    },
    /// A batch that is dealt out wholly is none that a run begins with.
    #[error("shares must be below {handouts} (what the first batch is dealt out in), got {got}")]
    Shares {
        /// What was dealt out, as the caller says.
        got: u64,
        /// What there is to deal out.
        handouts: u64,
    },
    /// Every place of a pass stands for one sample.
    #[error("indices must be as many as num_samples ({num_samples}), got {got}")]
    NumIndices {
        /// How many came.
        got: usize,
        /// The number of samples.
        num_samples: u64,
    },
    /// Samples count from zero.
    #[error("indices must not be negative, got {0}")]
    NegativeIndex(i64),
    /// The system would not give indices their memory.
    #[error("indices must be small enough for memory: no room for {0} of 8 bytes each")]
    IndicesMemory(usize),
    /// [`crate::advance`] without an end.
    #[error("until_position or until_update must be given, got neither")]
    NoLimit,
    /// The system would not give an order its memory.
    #[error(
        "num_samples must be small enough for memory: an exact order of {0} needs four bytes a \
         sample; order=\"bijective\" needs none"
    )]
    Memory(u64),
    /// The system would not give a batch its memory.
    #[error("batch_size must be small enough for memory: no room for a batch of {0} samples")]
    BatchMemory(u64),
    /// More threads than any machine has use for.
    #[error("threads must be between 1 and {}, got {got}", crate::MAX_THREADS)]
    Threads {
        /// The number asked for.
        got: usize,
    },
    /// Gradients of one accumulator have one length.
    #[error("gradient must have {expected} coordinates, as those before it, got {got}")]
    Length {
        /// The length so far.
        expected: usize,
        /// The length of what came.
        got: usize,
    },
    /// No state of this precision.
    #[error("dtype must be float32 or float64, got {}", shown(.0))]
    UnknownPrecision(String),
    /// Two states that do not add.
    #[error("other must be of the same dtype, got one in another precision")]
    MixedPrecision,
    /// Statistics of nothing.
    #[error("{name} must be at least {least}, got {got}")]
    AtLeast {
        /// The argument.
        name: &'static str,
        /// Its least value.
        least: u64,
        /// Its value.
        got: u64,
    },
    /// More samples than there are, which sampling without replacement cannot draw.
    #[error("{name} must be at most {num_samples} (num_samples), got {got}")]
    AboveNumSamples {
        /// What was counted.
        name: &'static str,
        /// How many.
        got: u64,
        /// The number of samples.
        num_samples: u64,
    },
    /// Two sizes that tell nothing apart.
    #[error("large_batch_size must be above small_batch_size ({small}), got {large}")]
    SizesInOrder {
        /// The smaller size.
        small: u64,
        /// What should have been larger.
        large: u64,
    },
    /// A squared norm cannot be below zero (NaN and infinity pass through to the result).
    #[error("{name} must not be negative, got {got}")]
    Negative {
        /// The argument.
        name: &'static str,
        /// Its value, as text: `f64` has no `Eq`.
        got: String,
    },
    /// The system would not give a state its memory.
    #[error("gradient must be small enough for memory: no room for a state of {0} coordinates")]
    GradientMemory(usize),
}

/// The most characters of a name that a message repeats.
const LONGEST: usize = 60;

/// A name in quotes, its end cut off if it is long.
fn shown(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_where_a_character_ends() {
        assert_eq!(shown("x"), "\"x\"");
        let long = Error::UnknownOrder("\u{e4}".repeat(1_000_000)).to_string();
        assert!(long.ends_with("\u{e4}\"...") && long.chars().count() < 200, "{long}");
    }
}
