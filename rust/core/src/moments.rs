//! Per-coordinate mean and variance of a stream of gradients.

use crate::buffer::Buffer;
use crate::norms::sum_lanes;
use crate::stacked;
use crate::threads::for_each;
use crate::values::{Real, Value, with_slice};
use crate::vectors::{fetch_ahead, vectorized};
use crate::{Error, Values};

/// Coordinates of one job.
const BLOCK: usize = 65_536;
/// Coordinates between two hints of what to fetch ahead.
const PIECE: usize = 64;
/// Bytes to fetch ahead of each of three streams: half and twice as many take as long.
const AHEAD: usize = 2048;

/// Mean and sum of squared deviations of each coordinate.
///
/// Everything here gives the same numbers on any number of threads.
#[derive(Debug, PartialEq)]
pub struct Moments<T: Real> {
    count: u64,
    mean: Buffer<T>,
    squares: Buffer<T>,
}

impl<T: Real> Moments<T> {
    /// Nothing seen yet of gradients with `length` coordinates.
    pub fn new(length: usize) -> Result<Self, Error> {
        Ok(Self { count: 0, mean: Buffer::zeros(length)?, squares: Buffer::zeros(length)? })
    }

    /// What [`Moments::count`], [`Moments::mean`] and [`Moments::squares`] gave.
    pub fn from_state(count: u64, mean: &[T], squares: &[T]) -> Result<Self, Error> {
        if squares.len() != mean.len() {
            return Err(Error::Length { expected: mean.len(), got: squares.len() });
        }
        Ok(Self { count, mean: Buffer::copy_of(mean)?, squares: Buffer::copy_of(squares)? })
    }

    /// The same, in memory of its own.
    pub fn copy(&self) -> Result<Self, Error> {
        Self::from_state(self.count, &self.mean, &self.squares)
    }

    /// The moments of the rows of a matrix with `length` columns, row after row.
    ///
    /// Each number is read from memory once: faster than [`Moments::update`] row by row, and
    /// closer, for a mean far from zero costs no digits.
    pub fn from_stacked(rows: Values<'_>, length: usize, threads: usize) -> Result<Self, Error> {
        let mut moments = Self::new(length)?;
        let count = rows.len() / length;
        if count == 0 || !rows.len().is_multiple_of(length) {
            return Err(Error::AtLeast { name: "number of gradients", least: 1, got: 0 });
        }
        moments.count = count as u64;
        let jobs = moments.mean.chunks_mut(BLOCK).zip(moments.squares.chunks_mut(BLOCK));
        let jobs = jobs.enumerate().collect();
        for_each(threads, rows.len(), jobs, |(job, (mean, squares))| {
            let start = job * BLOCK;
            with_slice!(rows, rows => stacked::columns(rows, length, start, mean, squares));
        });
        Ok(moments)
    }

    /// Takes one more gradient, given in consecutive parts (Welford's update).
    pub fn update(&mut self, parts: &[Values<'_>], threads: usize) -> Result<(), Error> {
        let length = self.mean.len();
        check_length(length, parts)?;
        self.count = self.count.saturating_add(1);
        let inverse = T::from_f64(1.0 / self.count as f64);
        let (mut mean, mut squares) = (&mut *self.mean, &mut *self.squares);
        let mut jobs = Vec::new();
        for values in parts.iter().flat_map(|part| part.blocks(BLOCK)) {
            let (mean_here, mean_after) = mean.split_at_mut(values.len());
            let (squares_here, squares_after) = squares.split_at_mut(values.len());
            jobs.push((values, mean_here, squares_here));
            (mean, squares) = (mean_after, squares_after);
        }
        for_each(threads, length, jobs, |(values, mean, squares)| {
            with_slice!(values, values => {
                vectorized(#[inline(always)] || welford(mean, squares, values, inverse));
            });
        });
        Ok(())
    }

    /// Takes in what another has seen (the parallel update of Chan, Golub and `LeVeque`).
    pub fn merge(&mut self, other: &Self, threads: usize) -> Result<(), Error> {
        let length = self.mean.len();
        if other.mean.len() != length {
            return Err(Error::Length { expected: length, got: other.mean.len() });
        }
        if other.count == 0 {
            return Ok(());
        }
        if self.count == 0 {
            // Not by the formula, in which an infinite mean would make a NaN of itself.
            *self = other.copy()?;
            return Ok(());
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let share = T::from_f64(theirs / (ours + theirs));
        let weight = T::from_f64(ours * theirs / (ours + theirs));
        let mine = self.mean.chunks_mut(BLOCK).zip(self.squares.chunks_mut(BLOCK));
        let jobs = mine.zip(other.mean.chunks(BLOCK).zip(other.squares.chunks(BLOCK))).collect();
        for_each(threads, length, jobs, |(mine, theirs)| {
            vectorized(
                #[inline(always)]
                || join(mine, theirs, share, weight),
            );
        });
        self.count = self.count.saturating_add(other.count);
        Ok(())
    }

    /// The number of coordinates of a gradient.
    pub fn length(&self) -> usize {
        self.mean.len()
    }

    /// How many gradients were taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean of each coordinate.
    pub fn mean(&self) -> &[T] {
        &self.mean
    }

    /// The sum of squared deviations of each coordinate from its mean.
    pub fn squares(&self) -> &[T] {
        &self.squares
    }

    /// Writes `scale` times the variance of each coordinate, with divisor `count - 1`: NaN below two
    /// gradients, where it is undefined.
    pub fn variance(&self, scale: f64, variance: &mut [T], threads: usize) -> Result<(), Error> {
        let length = self.squares.len();
        if variance.len() != length {
            return Err(Error::Length { expected: length, got: variance.len() });
        }
        let factor = T::from_f64(self.factor(scale));
        let jobs = variance.chunks_mut(BLOCK).zip(self.squares.chunks(BLOCK)).collect();
        for_each(threads, length, jobs, |(variance, squares)| {
            for (variance, &squares) in variance.iter_mut().zip(squares) {
                *variance = squares * factor;
            }
        });
        Ok(())
    }

    /// The sum of [`Moments::variance`], added in double precision.
    pub fn trace(&self, scale: f64, threads: usize) -> f64 {
        let mut sums = vec![0.0; self.squares.len().div_ceil(BLOCK)];
        let jobs = self.squares.chunks(BLOCK).zip(&mut sums).collect();
        for_each(threads, self.squares.len(), jobs, |(squares, sum)| {
            *sum = vectorized(
                #[inline(always)]
                || sum_lanes(squares, Into::into),
            );
        });
        sums.into_iter().sum::<f64>() * self.factor(scale)
    }

    /// What turns a sum of squared deviations into a variance.
    fn factor(&self, scale: f64) -> f64 {
        if self.count < 2 { f64::NAN } else { scale / (self.count - 1) as f64 }
    }
}

/// Welford's update of some coordinates, a few at a time for what is to be fetched ahead.
#[inline(always)]
fn welford<T: Real, V: Value<T>>(mean: &mut [T], squares: &mut [T], values: &[V], inverse: T) {
    let pieces = mean.chunks_mut(PIECE).zip(squares.chunks_mut(PIECE));
    for ((mean, squares), values) in pieces.zip(values.chunks(PIECE)) {
        fetch_ahead(mean, AHEAD);
        fetch_ahead(squares, AHEAD);
        fetch_ahead(values, AHEAD);
        for ((mean, squares), &value) in mean.iter_mut().zip(squares).zip(values) {
            let value = value.widen();
            let before = value - *mean;
            *mean += before * inverse;
            *squares += before * (value - *mean);
        }
    }
}

/// Joins means and sums of squared deviations with others of the same length.
#[inline(always)]
fn join<T: Real>(mine: (&mut [T], &mut [T]), theirs: (&[T], &[T]), share: T, weight: T) {
    let theirs = theirs.0.iter().zip(theirs.1);
    let mine = mine.0.iter_mut().zip(mine.1);
    for ((mean, squares), (&their_mean, &their_squares)) in mine.zip(theirs) {
        let difference = their_mean - *mean;
        *mean += difference * share;
        *squares += their_squares + difference * difference * weight;
    }
}

/// A gradient is as long as those before it.
pub(crate) fn check_length(expected: usize, parts: &[Values<'_>]) -> Result<(), Error> {
    let got = parts.iter().map(Values::len).sum();
    if got == expected { Ok(()) } else { Err(Error::Length { expected, got }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Matrix = Vec<Vec<f64>>;

    /// Two passes in double precision over one column.
    fn reference(rows: &Matrix, column: usize) -> (f64, f64) {
        let count = rows.len() as f64;
        let mean = rows.iter().map(|row| row[column]).sum::<f64>() / count;
        let squares = rows.iter().map(|row| (row[column] - mean).powi(2)).sum::<f64>();
        (mean, squares / (count - 1.0))
    }

    fn streamed<T: Real>(rows: &Matrix) -> Moments<T> {
        let mut moments = Moments::new(rows[0].len()).unwrap();
        for row in rows {
            let (head, tail) = row.split_at(row.len() / 2);
            moments.update(&[Values::Double(head), Values::Double(tail)], 1).unwrap();
        }
        moments
    }

    fn stacked<T: Real>(rows: &Matrix, threads: usize) -> Moments<T> {
        Moments::from_stacked(Values::Double(&rows.concat()), rows[0].len(), threads).unwrap()
    }

    fn variance<T: Real>(moments: &Moments<T>) -> Vec<T> {
        let mut variance = vec![T::default(); moments.length()];
        moments.variance(1.0, &mut variance, 1).unwrap();
        variance
    }

    fn close(got: f64, expected: f64, scale: f64) -> bool {
        (got - expected).abs() <= 1e-10 * scale
    }

    fn assert_matches(moments: &Moments<f64>, rows: &Matrix) {
        let variance = variance(moments);
        for (column, (&mean, &variance)) in moments.mean().iter().zip(&variance).enumerate() {
            let expected = reference(rows, column);
            assert!(close(mean, expected.0, 100.0), "{column}");
            assert!(close(variance, expected.1, 1e4), "{column}");
        }
        let trace = 3.0 * variance.iter().sum::<f64>();
        assert!(close(moments.trace(3.0, 1), trace, 1.0 + trace));
    }

    fn matrices() -> impl Strategy<Value = Matrix> {
        (1_usize..6, 2_usize..30).prop_flat_map(|(columns, rows)| {
            prop::collection::vec(prop::collection::vec(-100.0..100.0_f64, columns), rows)
        })
    }

    /// A matrix that is not random, but looks it.
    fn scattered(rows: usize, columns: usize) -> Matrix {
        let number = |row, column| ((row * 7919 + column * 104_729) % 1009) as f64 / 10.0;
        (0..rows).map(|row| (0..columns).map(|column| number(row, column)).collect()).collect()
    }

    proptest! {
        #[test]
        fn streaming_stacking_and_merging_agree(rows in matrices(), cut in 0.0..1.0_f64) {
            assert_matches(&streamed(&rows), &rows);
            assert_matches(&stacked(&rows, 1), &rows);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let cut = 1 + (cut * (rows.len() - 1) as f64) as usize;
            let (head, tail) = rows.split_at(cut.min(rows.len() - 1));
            let mut merged = streamed(&head.to_vec());
            merged.merge(&streamed(&tail.to_vec()), 1).unwrap();
            prop_assert_eq!(merged.count(), rows.len() as u64);
            assert_matches(&merged, &rows);
        }
    }

    #[test]
    fn wide_and_tall_matrices_are_cut_into_blocks() {
        for (rows, columns) in [(3, 2 * BLOCK + 7), (19, 16_384 + 3), (256 * 2 + 9, 3), (1000, 2)] {
            let rows = scattered(rows, columns);
            assert_matches(&stacked(&rows, 2), &rows);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let rows = scattered(9, 7 * BLOCK + 5);
        let mut alone = streamed::<f32>(&rows);
        alone.merge(&stacked(&rows, 1), 1).unwrap();
        for threads in [2, 5] {
            let mut many = Moments::<f32>::new(rows[0].len()).unwrap();
            for row in &rows {
                many.update(&[Values::Double(row)], threads).unwrap();
            }
            many.merge(&stacked(&rows, threads), threads).unwrap();
            assert_eq!(many, alone);
            assert_eq!(many.trace(1.0, threads).to_bits(), alone.trace(1.0, 1).to_bits());
        }
    }

    #[test]
    fn one_gradient_has_no_variance() {
        let rows = vec![vec![1.0, 2.0]];
        for moments in [streamed::<f32>(&rows), stacked(&rows, 1)] {
            assert_eq!(moments.mean(), [1.0, 2.0]);
            assert!(variance(&moments).iter().all(|value| value.is_nan()));
            assert!(moments.trace(1.0, 1).is_nan());
        }
    }

    #[test]
    fn close_values_do_not_cancel() {
        // pytorch#2470: a difference of squares gives this pair a negative variance.
        let rows = vec![vec![2281.5], vec![2281.25]];
        assert_eq!(variance(&streamed::<f32>(&rows)), [0.031_25]);
        assert_eq!(variance(&stacked::<f32>(&rows, 1)), [0.031_25]);
        // Equal numbers have none at all, however large.
        let rows = vec![vec![1.234_567e8]; 300];
        assert_eq!(variance(&stacked::<f32>(&rows, 1)), [0.0]);
    }

    #[test]
    fn what_is_not_finite_stays_so_and_stays_in_its_column() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for place in 0..20 {
                let mut rows: Matrix = (0..20).map(|row| vec![1.0, f64::from(row % 2)]).collect();
                rows[place][0] = bad;
                for moments in [streamed::<f32>(&rows), stacked(&rows, 1)] {
                    assert!(!moments.mean()[0].is_finite());
                    assert!(!variance(&moments)[0].is_finite());
                    assert!((variance(&moments)[1] - 5.0 / 19.0).abs() < 1e-6);
                    assert!(!moments.trace(1.0, 1).is_finite());
                }
            }
        }
    }

    #[test]
    fn merging_nothing_changes_nothing() {
        let rows = vec![vec![1.0, 2.0], vec![3.0, 5.0]];
        let (mut moments, before) = (streamed::<f64>(&rows), streamed(&rows));
        moments.merge(&Moments::new(2).unwrap(), 1).unwrap();
        assert_eq!(moments, before);
        let mut empty = Moments::new(2).unwrap();
        empty.merge(&before, 1).unwrap();
        assert_eq!(empty, before);
    }

    #[test]
    fn lengths_must_match() {
        let mut moments = Moments::<f64>::new(3).unwrap();
        let mismatch = Error::Length { expected: 3, got: 2 };
        assert_eq!(moments.update(&[Values::Double(&[1.0, 2.0])], 1), Err(mismatch.clone()));
        assert_eq!(moments.count(), 0);
        assert_eq!(moments.merge(&Moments::new(2).unwrap(), 1), Err(mismatch.clone()));
        assert_eq!(moments.variance(1.0, &mut [0.0; 2], 1), Err(mismatch.clone()));
        assert_eq!(Moments::from_state(1, &[0.0; 3], &[0.0; 2]).unwrap_err(), mismatch);
        assert!(Moments::<f32>::new(0).is_err());
        for rows in [&[][..], &[1.0; 3]] {
            assert!(Moments::<f32>::from_stacked(Values::Single(rows), 2, 1).is_err());
        }
    }
}
