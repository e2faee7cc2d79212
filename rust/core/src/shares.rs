//! How a batch is parted: among ranks, and a rank's share into pieces.

use std::ops::Range;

use crate::Error;

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
    Ok(part(length, rank, world_size))
}

/// In how many pieces of at most `micro_batch` samples each rank has its share of such a batch: as
/// many as the longest share needs.
pub fn pieces(length: u64, world_size: u64, micro_batch: u64) -> Result<u64, Error> {
    if micro_batch == 0 {
        return Err(Error::AtLeast { name: "micro_batch", least: 1, got: 0 });
    }
    let longest = share(length, 0, world_size)?.end;
    if micro_batch == 1 && !length.is_multiple_of(world_size) {
        return Err(Error::MicroBatch { length, world_size });
    }
    Ok(if longest <= micro_batch { 1 } else { longest.div_ceil(micro_batch) })
}

/// Where in its batch the piece `index` of a rank's share lies: contiguous, and as long as
/// the others or one longer, over all ranks. None is empty.
pub fn piece(
    length: u64,
    rank: u64,
    world_size: u64,
    micro_batch: u64,
    index: u64,
) -> Result<Range<u64>, Error> {
    let pieces = pieces(length, world_size, micro_batch)?;
    if index >= pieces {
        return Err(Error::Piece { got: index, pieces });
    }
    Ok(cut(share(length, rank, world_size)?, index, pieces))
}

/// The part `index` of a share in so many pieces.
pub(crate) fn cut(share: Range<u64>, index: u64, pieces: u64) -> Range<u64> {
    if pieces == 1 {
        return share;
    }
    let piece = part(share.end - share.start, index, pieces);
    share.start + piece.start..share.start + piece.end
}

/// One of so many parts of `length`, equal or differing by one, the longer ones first.
fn part(length: u64, index: u64, parts: u64) -> Range<u64> {
    let (quotient, remainder) = (length / parts, length % parts);
    let edge = |index: u64| quotient * index + remainder.min(index);
    edge(index)..edge(index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_a_partition_of_the_batch(
            length in 1_u64..2_000,
            world_size in 1_u64..9,
            micro_batch in 1_u64..300,
        ) {
            let count = match pieces(length, world_size, micro_batch) {
                Err(refused) => {
                    let expected = if length < world_size {
                        Error::BatchBelowWorld { got: length, world_size }
                    } else {
                        prop_assert!(micro_batch == 1 && length % world_size != 0);
                        Error::MicroBatch { length, world_size }
                    };
                    prop_assert_eq!(&refused, &expected);
                    prop_assert_eq!(piece(length, 0, world_size, micro_batch, 0), Err(refused));
                    return Ok(());
                }
                Ok(count) => count,
            };
            prop_assert_eq!(count, length.div_ceil(world_size).div_ceil(micro_batch));
            let mut end = 0;
            let mut lengths = Vec::new();
            for rank in 0..world_size {
                let whole = share(length, rank, world_size).unwrap();
                prop_assert_eq!(whole.start, end);
                for index in 0..count {
                    let piece = piece(length, rank, world_size, micro_batch, index).unwrap();
                    prop_assert_eq!(piece.start, end);
                    end = piece.end;
                    lengths.push(piece.end - piece.start);
                }
                prop_assert_eq!(whole.end, end);
            }
            prop_assert_eq!(end, length);
            let (longest, shortest) = (lengths.iter().max(), lengths.iter().min());
            let (longest, shortest) = (*longest.unwrap(), *shortest.unwrap());
            prop_assert!(1 <= shortest && longest <= micro_batch && longest - shortest <= 1);
        }
    }

    #[test]
    fn a_share_within_the_cap_is_one_piece() {
        assert_eq!(pieces(10, 3, 4), Ok(1));
        assert_eq!(piece(10, 1, 3, 4, 0), share(10, 1, 3));
        assert_eq!(pieces(u64::MAX, 1, u64::MAX), Ok(1));
        assert_eq!(pieces(u64::MAX, 1, 2), Ok(1 << 63));
    }

    #[test]
    fn what_is_no_piece_is_refused() {
        assert_eq!(piece(10, 0, 2, 3, 2), Err(Error::Piece { got: 2, pieces: 2 }));
        assert_eq!(piece(10, 2, 2, 3, 0), Err(Error::Rank { rank: 2, world_size: 2 }));
        assert_eq!(pieces(10, 0, 3), Err(Error::WorldSize));
        assert!(matches!(pieces(10, 2, 0), Err(Error::AtLeast { name: "micro_batch", .. })));
    }
}
