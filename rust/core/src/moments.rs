//! Per-coordinate mean and variance of a stream of gradients.

use std::ops::{Add, AddAssign, Div, Mul, Sub};

use crate::Error;

/// The numbers a state can be kept in: `f32` and `f64`.
pub trait Real:
    Copy
    + Default
    + Into<f64>
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
{
    /// The nearest value.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to single precision is the aim")]
    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Columns handled together by [`Moments::from_stacked`]: their sums stay in the first-level cache,
/// their rows in the second.
const BLOCK: usize = 1024;

/// Mean and sum of squared deviations of each coordinate.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments<T> {
    count: u64,
    mean: Vec<T>,
    squares: Vec<T>,
}

impl<T: Real> Moments<T> {
    /// Nothing seen yet of gradients with `length` coordinates.
    pub fn new(length: usize) -> Result<Self, Error> {
        if length == 0 {
            return Err(Error::AtLeast { name: "gradient's length", least: 1, got: 0 });
        }
        Ok(Self { count: 0, mean: vec![T::default(); length], squares: vec![T::default(); length] })
    }

    /// The moments of the rows of a matrix with `length` columns, row after row.
    ///
    /// Each block of columns is read twice while it is in cache: once for the mean, once for the
    /// deviations, whose own mean (what rounding left) is taken off again. That is both faster and
    /// closer than [`Moments::update`] row by row.
    pub fn from_stacked<U: Copy + Into<T>>(rows: &[U], length: usize) -> Result<Self, Error> {
        let mut moments = Self::new(length)?;
        let count = rows.len() / length;
        if count == 0 || !rows.len().is_multiple_of(length) {
            return Err(Error::AtLeast { name: "number of gradients", least: 1, got: 0 });
        }
        moments.count = count as u64;
        let inverse = T::from_f64(1.0 / count as f64);
        let blocks = moments.mean.chunks_mut(BLOCK).zip(moments.squares.chunks_mut(BLOCK));
        for (block, (mean, squares)) in blocks.enumerate() {
            let columns = block * BLOCK..block * BLOCK + mean.len();
            let block_rows = || rows.chunks_exact(length).map(|row| &row[columns.clone()]);
            for row in block_rows() {
                for (mean, &value) in mean.iter_mut().zip(row) {
                    *mean += value.into();
                }
            }
            for mean in mean.iter_mut() {
                *mean = *mean * inverse;
            }
            let mut drift = [T::default(); BLOCK];
            for row in block_rows() {
                let sums = mean.iter().zip(squares.iter_mut()).zip(&mut drift);
                for (((&mean, squares), drift), &value) in sums.zip(row) {
                    let deviation = value.into() - mean;
                    *drift += deviation;
                    *squares += deviation * deviation;
                }
            }
            for ((mean, squares), &drift) in mean.iter_mut().zip(squares).zip(&drift) {
                let correction = drift * inverse;
                *squares = *squares - drift * correction;
                *mean += correction;
            }
        }
        Ok(moments)
    }

    /// Takes one more gradient, given in consecutive parts (Welford's update).
    pub fn update<U: Copy + Into<T>>(&mut self, parts: &[&[U]]) -> Result<(), Error> {
        let got = parts.iter().map(|part| part.len()).sum();
        if got != self.mean.len() {
            return Err(Error::Length { expected: self.mean.len(), got });
        }
        self.count += 1;
        let inverse = T::from_f64(1.0 / self.count as f64);
        let (mut mean, mut squares) = (self.mean.as_mut_slice(), self.squares.as_mut_slice());
        for part in parts {
            let (mean_here, mean_after) = mean.split_at_mut(part.len());
            let (squares_here, squares_after) = squares.split_at_mut(part.len());
            for ((mean, squares), &value) in mean_here.iter_mut().zip(squares_here).zip(*part) {
                let value = value.into();
                let before = value - *mean;
                *mean += before * inverse;
                *squares += before * (value - *mean);
            }
            (mean, squares) = (mean_after, squares_after);
        }
        Ok(())
    }

    /// Takes in what another has seen (the parallel update of Chan, Golub and `LeVeque`).
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if other.mean.len() != self.mean.len() {
            return Err(Error::Length { expected: self.mean.len(), got: other.mean.len() });
        }
        if other.count == 0 {
            return Ok(());
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let share = T::from_f64(theirs / (ours + theirs));
        let weight = T::from_f64(ours * theirs / (ours + theirs));
        let mine = self.mean.iter_mut().zip(&mut self.squares);
        for ((mean, squares), (&their_mean, &their_squares)) in
            mine.zip(other.mean.iter().zip(&other.squares))
        {
            let difference = their_mean - *mean;
            *mean += difference * share;
            *squares += their_squares + difference * difference * weight;
        }
        self.count += other.count;
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

    /// `scale` times the variance of each coordinate, with divisor `count - 1`: NaN below two
    /// gradients, where it is undefined.
    pub fn variance(&self, scale: f64) -> Vec<T> {
        let factor = T::from_f64(self.factor(scale));
        self.squares.iter().map(|&squares| squares * factor).collect()
    }

    /// The sum of [`Moments::variance`], added in double precision.
    pub fn trace(&self, scale: f64) -> f64 {
        let sum: f64 = self.squares.iter().map(|&squares| squares.into()).sum();
        sum * self.factor(scale)
    }

    /// What turns a sum of squared deviations into a variance.
    fn factor(&self, scale: f64) -> f64 {
        if self.count < 2 { f64::NAN } else { scale / (self.count - 1) as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Matrix = Vec<Vec<f64>>;

    /// Two passes in double precision over one column.
    fn reference(rows: &Matrix, column: usize) -> (f64, f64) {
        let count = rows.len() as f64;
        let mean = rows.iter().map(|row| row[column]).sum::<f64>() / count;
        let squares = rows.iter().map(|row| (row[column] - mean).powi(2)).sum::<f64>();
        (mean, squares / (count - 1.0))
    }

    fn streamed(rows: &Matrix) -> Moments<f64> {
        let mut moments = Moments::new(rows[0].len()).unwrap();
        for row in rows {
            let (head, tail) = row.split_at(row.len() / 2);
            moments.update(&[head, tail]).unwrap();
        }
        moments
    }

    fn close(got: f64, expected: f64, scale: f64) -> bool {
        (got - expected).abs() <= 1e-10 * scale
    }

    fn assert_matches(moments: &Moments<f64>, rows: &Matrix) {
        let variance = moments.variance(1.0);
        for (column, (&mean, &variance)) in moments.mean().iter().zip(&variance).enumerate() {
            let expected = reference(rows, column);
            assert!(close(mean, expected.0, 100.0), "{column}");
            assert!(close(variance, expected.1, 1e4), "{column}");
        }
        assert!(close(moments.trace(3.0), 3.0 * variance.iter().sum::<f64>(), 1e6));
    }

    fn matrices() -> impl Strategy<Value = Matrix> {
        (1_usize..6, 2_usize..12).prop_flat_map(|(columns, rows)| {
            prop::collection::vec(prop::collection::vec(-100.0..100.0_f64, columns), rows)
        })
    }

    proptest! {
        #[test]
        fn streaming_stacking_and_merging_agree(rows in matrices(), cut in 0.0..1.0_f64) {
            assert_matches(&streamed(&rows), &rows);
            assert_matches(&Moments::from_stacked(&rows.concat(), rows[0].len()).unwrap(), &rows);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
            let cut = 1 + (cut * (rows.len() - 1) as f64) as usize;
            let (head, tail) = rows.split_at(cut.min(rows.len() - 1));
            let mut merged = streamed(&head.to_vec());
            merged.merge(&streamed(&tail.to_vec())).unwrap();
            prop_assert_eq!(merged.count(), rows.len() as u64);
            assert_matches(&merged, &rows);
        }
    }

    #[test]
    fn wide_matrices_are_cut_into_blocks() {
        let rows: Matrix = (0..3)
            .map(|row| (0..2 * BLOCK + 7).map(|col| (row * col % 11) as f64).collect())
            .collect();
        assert_matches(&Moments::from_stacked(&rows.concat(), rows[0].len()).unwrap(), &rows);
    }

    #[test]
    fn one_gradient_has_no_variance() {
        let mut moments = Moments::<f32>::new(2).unwrap();
        moments.update(&[&[1.0_f32, 2.0][..]]).unwrap();
        assert_eq!(moments.mean(), [1.0, 2.0]);
        assert!(moments.variance(1.0).iter().all(|value| value.is_nan()));
        assert!(moments.trace(1.0).is_nan());
    }

    #[test]
    fn close_values_do_not_cancel() {
        // pytorch#2470: a difference of squares gives this pair a negative variance.
        let mut moments = Moments::<f32>::new(1).unwrap();
        for value in [2281.5_f32, 2281.25] {
            moments.update(&[&[value][..]]).unwrap();
        }
        assert_eq!(moments.variance(1.0), [0.031_25]);
        let stacked = Moments::<f32>::from_stacked(&[2281.5_f32, 2281.25], 1).unwrap();
        assert_eq!(stacked.variance(1.0), [0.031_25]);
    }

    #[test]
    fn what_is_not_finite_stays_so_and_stays_in_its_column() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let rows = [1.0, 1.0, bad, 2.0, 3.0, 3.0];
            let mut moments = Moments::<f32>::new(2).unwrap();
            rows.chunks(2).for_each(|row| moments.update(&[row]).unwrap());
            for moments in [moments, Moments::from_stacked(&rows[..], 2).unwrap()] {
                assert!(!moments.mean()[0].is_finite());
                assert!(!moments.variance(1.0)[0].is_finite());
                assert!((moments.variance(1.0)[1] - 1.0).abs() < 1e-6);
                assert!(!moments.trace(1.0).is_finite());
            }
        }
    }

    #[test]
    fn merging_nothing_changes_nothing() {
        let mut moments = streamed(&vec![vec![1.0, 2.0], vec![3.0, 5.0]]);
        let before = moments.clone();
        moments.merge(&Moments::new(2).unwrap()).unwrap();
        assert_eq!(moments, before);
        let mut empty = Moments::new(2).unwrap();
        empty.merge(&before).unwrap();
        assert_eq!(empty, before);
    }

    #[test]
    fn lengths_must_match() {
        let mut moments = Moments::<f64>::new(3).unwrap();
        let mismatch = Error::Length { expected: 3, got: 2 };
        assert_eq!(moments.update(&[&[1.0_f64, 2.0][..]]), Err(mismatch.clone()));
        assert_eq!(moments.count(), 0);
        assert_eq!(moments.merge(&Moments::new(2).unwrap()), Err(mismatch));
        assert!(Moments::<f32>::new(0).is_err());
        assert!(Moments::<f32>::from_stacked::<f32>(&[], 2).is_err());
    }
}
