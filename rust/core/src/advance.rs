//! Many batches of one size, laid without visiting them.

use crate::batches::check;
use crate::{Boundary, Error, MAX_POSITION};

/// Lays batches of one size from `position`, where the update counter stands at `update`, until the
/// first batch start at or past `until_position`, or until the counter reaches `until_update`,
/// whichever comes first; returns position and counter there.
///
/// Under [`Boundary::Drop`] a batch that does not fit moves the position to the next pass's start
/// and counts no update, so that the position returned never lies in a tail too short for this size.
/// The work does not grow with the number of updates or of passes.
pub fn advance(
    num_samples: u64,
    boundary: Boundary,
    position: u64,
    update: u64,
    batch_size: u64,
    until_position: Option<u64>,
    until_update: Option<u64>,
) -> Result<(u64, u64), Error> {
    if num_samples == 0 || num_samples > crate::MAX_SAMPLES {
        return Err(Error::NumSamples(num_samples));
    }
    check(num_samples, batch_size, "position", position)?;
    if until_position.is_none() && until_update.is_none() {
        return Err(Error::NoLimit);
    }
    let until_position = until_position.unwrap_or(u64::MAX);
    if until_position != u64::MAX && until_position > MAX_POSITION {
        return Err(Error::Position { name: "until_position", got: until_position.into() });
    }
    let row = Row { num_samples, boundary, batch_size, until_position };
    let updates = until_update.map_or(u64::MAX, |until| until.saturating_sub(update));
    let (position, laid) = row.lay(position, updates)?;
    Ok((position, update + laid))
}

/// Batches of one size, and where they stop.
struct Row {
    num_samples: u64,
    boundary: Boundary,
    batch_size: u64,
    until_position: u64,
}

impl Row {
    /// Lays at most `updates` batches; returns where the next would begin, and how many were laid.
    fn lay(&self, position: u64, updates: u64) -> Result<(u64, u64), Error> {
        if self.boundary == Boundary::Wrap {
            let laid = self.starts_before_limit(position).min(updates);
            return Ok((reach(position, laid, self.batch_size)?, laid));
        }
        // The rest of this pass, then whole passes, then a part of the last one.
        let (position, mut laid) = self.lay_in_pass(position, updates);
        if !position.is_multiple_of(self.num_samples) || laid == updates {
            return Ok((position, laid));
        }
        let per_pass = self.fitting(self.num_samples);
        let passes = (self.until_position.saturating_sub(position) / self.num_samples)
            .min((updates - laid) / per_pass);
        let position = reach(position, passes, self.num_samples)?;
        laid += passes * per_pass;
        let (position, last) = self.lay_in_pass(position, updates - laid);
        Ok((position, laid + last))
    }

    /// Lays within the pass that holds `position`, up to the next pass's start.
    fn lay_in_pass(&self, position: u64, updates: u64) -> (u64, u64) {
        let left = self.num_samples - position % self.num_samples;
        let fitting = self.fitting(left);
        let laid = fitting.min(updates).min(self.starts_before_limit(position));
        if laid == fitting {
            (position + left, laid)
        } else {
            (position + laid * self.batch_size, laid)
        }
    }

    /// How many batches `left` samples of a pass hold.
    fn fitting(&self, left: u64) -> u64 {
        match self.boundary {
            Boundary::Drop => left / self.batch_size,
            Boundary::Keep | Boundary::Wrap => left.div_ceil(self.batch_size),
        }
    }

    /// How many batches begin before the limit, passes' ends aside.
    fn starts_before_limit(&self, position: u64) -> u64 {
        self.until_position.saturating_sub(position).div_ceil(self.batch_size)
    }
}

/// `position + count * length`, as long as the stream reaches that far.
fn reach(position: u64, count: u64, length: u64) -> Result<u64, Error> {
    let end = u128::from(position) + u128::from(count) * u128::from(length);
    match u64::try_from(end) {
        Ok(end) if end <= MAX_POSITION + length => Ok(end),
        _ => Err(Error::Position { name: "the position reached", got: end }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Batches;
    use proptest::prelude::*;

    /// One batch at a time, as the definition says.
    fn stepwise(
        batches: &Batches,
        mut position: u64,
        mut update: u64,
        batch_size: u64,
        until: (Option<u64>, Option<u64>),
    ) -> (u64, u64) {
        loop {
            position = batches.start(position, batch_size).unwrap();
            let reached = until.0.is_some_and(|limit| position >= limit)
                || until.1.is_some_and(|limit| update >= limit);
            if reached {
                return (position, update);
            }
            position = batches.end(position, batch_size).unwrap();
            update += 1;
        }
    }

    proptest! {
        #[test]
        fn equals_laying_one_batch_at_a_time(
            num_samples in 1_u64..40,
            share in 0.0..1.0_f64,
            position in 0_u64..200,
            update in 0_u64..5,
            until_position in prop::option::of(0_u64..400),
            until_update in prop::option::of(0_u64..60),
            boundary in prop::sample::select(&[Boundary::Keep, Boundary::Drop, Boundary::Wrap][..]),
        ) {
            prop_assume!(until_position.is_some() || until_update.is_some());
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 40")]
            let batch_size = 1 + (share * num_samples as f64) as u64;
            let batches = Batches::new(num_samples, 0, "sequential", boundary, 1).unwrap();
            let expected =
                stepwise(&batches, position, update, batch_size, (until_position, until_update));
            let got = advance(
                num_samples, boundary, position, update, batch_size, until_position, until_update,
            );
            prop_assert_eq!(got, Ok(expected));
        }
    }

    #[test]
    fn a_billion_updates_are_no_loop() {
        let all = |boundary, limit| advance(50_021, boundary, 0, 0, 128, None, Some(limit));
        // 391 batches a pass are kept, 390 if the short one is dropped.
        assert_eq!(
            all(Boundary::Keep, 391_000_000_000),
            Ok((50_021 * 1_000_000_000, 391_000_000_000))
        );
        assert_eq!(
            all(Boundary::Drop, 390_000_000_000),
            Ok((50_021 * 1_000_000_000, 390_000_000_000))
        );
        assert_eq!(all(Boundary::Wrap, 1_000_000_000), Ok((128_000_000_000, 1_000_000_000)));
    }

    #[test]
    fn the_stream_has_an_end() {
        for boundary in [Boundary::Keep, Boundary::Drop, Boundary::Wrap] {
            let got = advance(10, boundary, 0, 0, 10, None, Some(u64::MAX));
            assert!(matches!(got, Err(Error::Position { .. })), "{got:?}");
            assert!(advance(10, boundary, 0, 0, 10, Some(MAX_POSITION), None).is_ok());
        }
        assert!(matches!(
            advance(10, Boundary::Keep, 0, 0, 10, Some(MAX_POSITION + 1), None),
            Err(Error::Position { name: "until_position", .. })
        ));
    }

    #[test]
    fn bad_sizes_are_refused() {
        let size = |batch_size| advance(10, Boundary::Keep, 0, 0, batch_size, Some(5), None);
        assert_eq!(size(0), Err(Error::BatchSize { got: 0, num_samples: 10 }));
        assert_eq!(size(11), Err(Error::BatchSize { got: 11, num_samples: 10 }));
        assert_eq!(advance(10, Boundary::Keep, 0, 0, 1, None, None), Err(Error::NoLimit));
        assert_eq!(advance(0, Boundary::Keep, 0, 0, 1, Some(1), None), Err(Error::NumSamples(0)));
    }
}
