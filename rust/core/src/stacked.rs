//! The moments of many gradients at once, each number read from memory once.

use std::array;
use std::ops::Add;

use crate::values::{Real, Value};
use crate::vectors::vectorized;

/// Columns handled together: their sums stay in cache, and a stretch of a row is long enough for
/// the processor to fetch ahead.
const COLUMNS: usize = 16_384;
/// Rows added up in registers before the sums in cache are touched.
const ROWS: usize = 8;
/// Rows summed in the state's precision, before they join the others in double precision.
const PANEL: usize = 256;

/// Mean and sum of squared deviations of those columns of a matrix, `length` wide, that begin at
/// `start`.
///
/// Deviations are taken from the mean of the first rows, so that a mean far from zero cancels
/// before anything is squared, and what is left of the mean is corrected at the end (the shifted
/// formula of Chan, Golub and `LeVeque`, "Algorithms for Computing the Sample Variance", 1983).
/// Panels of rows are joined by the same authors' formula for merging.
pub(crate) fn columns<T: Real, V: Value<T>>(
    rows: &[V],
    length: usize,
    start: usize,
    mean: &mut [T],
    squares: &mut [T],
) {
    let width = mean.len().min(COLUMNS);
    let mut sums = Sums { shift: zeros(width), sum: zeros(width), squares: zeros(width) };
    let blocks = mean.chunks_mut(COLUMNS).zip(squares.chunks_mut(COLUMNS));
    for (block, (mean, squares)) in blocks.enumerate() {
        let (first, width) = (start + block * COLUMNS, mean.len());
        let stretches = rows.chunks_exact(length).map(|row| &row[first..first + width]);
        let stretches: Vec<&[V]> = stretches.collect();
        let one_panel = stretches.len() <= PANEL;
        let mut total = if one_panel { (vec![], vec![]) } else { (zeros(width), zeros(width)) };
        for (panel, rows) in stretches.chunks(PANEL).enumerate() {
            vectorized(
                #[inline(always)]
                || {
                    sums.take(rows);
                    if one_panel {
                        sums.finish(rows.len(), mean, squares);
                    } else {
                        sums.join(panel * PANEL, rows.len(), &mut total.0, &mut total.1);
                    }
                },
            );
        }
        if !one_panel {
            round(&total.0, mean);
            round(&total.1, squares);
        }
    }
}

fn zeros<T: Real>(length: usize) -> Vec<T> {
    vec![T::default(); length]
}

fn round<T: Real>(numbers: &[f64], rounded: &mut [T]) {
    for (to, &from) in rounded.iter_mut().zip(numbers) {
        *to = T::from_f64(from);
    }
}

/// Sums over the rows of a panel, for each column.
struct Sums<T> {
    /// What is subtracted from each number.
    shift: Vec<T>,
    /// The sum of the differences.
    sum: Vec<T>,
    /// The sum of their squares.
    squares: Vec<T>,
}

impl<T: Real> Sums<T> {
    /// Sums up a panel.
    #[inline(always)]
    fn take<V: Value<T>>(&mut self, rows: &[&[V]]) {
        let (groups, rest) = rows.as_chunks::<ROWS>();
        let mut groups = groups.iter();
        let mut rest = rest.as_chunks::<1>().0.iter();
        if let Some(group) = groups.next() {
            self.add::<V, ROWS, true>(group);
        } else if let Some(row) = rest.next() {
            self.add::<V, 1, true>(row);
        }
        groups.for_each(|group| self.add::<V, ROWS, false>(group));
        rest.for_each(|row| self.add::<V, 1, false>(row));
    }

    /// Adds some rows; the first of a panel choose the shift.
    #[inline(always)]
    fn add<V: Value<T>, const N: usize, const FIRST: bool>(&mut self, rows: &[&[V]; N]) {
        let width = rows[0].len();
        let rows = rows.map(|row| &row[..width]);
        let shifts = &mut self.shift[..width];
        let (sums, squares) = (&mut self.sum[..width], &mut self.squares[..width]);
        let inverse = T::from_f64(1.0 / N as f64);
        for column in 0..width {
            let values: [T; N] = array::from_fn(|row| rows[row][column].widen());
            if FIRST {
                shifts[column] = values.into_iter().fold(T::default(), Add::add) * inverse;
            }
            let differences = values.map(|value| value - shifts[column]);
            let sum = differences.into_iter().fold(T::default(), Add::add);
            let of_squares = differences.into_iter().fold(T::default(), |sum, one| sum + one * one);
            if FIRST {
                (sums[column], squares[column]) = (sum, of_squares);
            } else {
                sums[column] += sum;
                squares[column] += of_squares;
            }
        }
    }

    /// Mean and sum of squared deviations of a column, given the inverse of its length.
    #[inline(always)]
    fn moments(inverse: f64, shift: T, sum: T, squares: T) -> (f64, f64) {
        let (shift, sum, squares): (f64, f64, f64) = (shift.into(), sum.into(), squares.into());
        let drift = sum * inverse;
        let squares = squares - sum * drift;
        // Rounding may leave less than nothing; NaN stays.
        (shift + drift, if squares < 0.0 { 0.0 } else { squares })
    }

    /// Writes what one panel alone comes to.
    #[inline(always)]
    fn finish(&self, rows: usize, mean: &mut [T], squares: &mut [T]) {
        let sums = self.shift.iter().zip(&self.sum).zip(&self.squares);
        for ((mean, squares), ((&shift, &sum), &squared)) in mean.iter_mut().zip(squares).zip(sums)
        {
            let moments = Self::moments(1.0 / rows as f64, shift, sum, squared);
            (*mean, *squares) = (T::from_f64(moments.0), T::from_f64(moments.1));
        }
    }

    /// Joins a panel with the rows before it.
    #[inline(always)]
    fn join(&self, before: usize, rows: usize, mean: &mut [f64], squares: &mut [f64]) {
        let share = rows as f64 / (before + rows) as f64;
        let weight = before as f64 * share;
        let sums = self.shift.iter().zip(&self.sum).zip(&self.squares);
        for ((mean, squares), ((&shift, &sum), &squared)) in mean.iter_mut().zip(squares).zip(sums)
        {
            let panel = Self::moments(1.0 / rows as f64, shift, sum, squared);
            let difference = panel.0 - *mean;
            *mean += difference * share;
            *squares += panel.1 + difference * difference * weight;
        }
    }
}
