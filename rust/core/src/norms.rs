//! Sums of squares in double precision, each number of a gradient read once.

use crate::buffer::Buffer;
use crate::moments::check_length;
use crate::threads::for_each;
use crate::values::{Real, Value, with_slice};
use crate::vectors::{fetch_ahead, vectorized};
use crate::{Error, Values};

/// Coordinates of one job, whose sum of squares is one summand.
const BLOCK: usize = 32_768;
/// Coordinates that stay in the first-level cache beside their sums.
const CACHED: usize = 1024;
/// Sums that run beside each other in a block, in as many vector lanes.
const LANES: usize = 16;
/// Bytes to fetch ahead: half and twice as many cost up to a tenth more.
const AHEAD: usize = 4096;

/// The squared norm of a gradient given in consecutive parts.
///
/// Squares are taken and added in double precision, in an order that depends on the parts' lengths
/// alone. On up to `threads` threads.
pub fn squared_norm(parts: &[Values<'_>], threads: usize) -> f64 {
    let blocks: Vec<_> = parts.iter().flat_map(|part| part.blocks(BLOCK)).collect();
    let coordinates = parts.iter().map(Values::len).sum();
    let mut norms = vec![0.0; blocks.len()];
    let jobs = blocks.into_iter().zip(&mut norms).collect();
    for_each(threads, coordinates, jobs, |(values, norm)| {
        *norm =
            with_slice!(values, slice => vectorized(#[inline(always)] || sum_of_squares(slice)));
    });
    norms.into_iter().sum()
}

/// Adds up a term of each number in lanes, and the lanes at the end.
#[inline(always)]
pub(crate) fn sum_lanes<V: Copy>(values: &[V], term: impl Fn(V) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        fetch_ahead(chunk, AHEAD);
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum += term(value);
        }
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += term(value);
    }
    sums.iter().sum()
}

#[inline(always)]
fn sum_of_squares<V: Value<f64>>(values: &[V]) -> f64 {
    sum_lanes(values, |value| value.widen() * value.widen())
}

/// The sum of some gradients, and what the noise scale needs of them.
#[derive(Debug)]
pub struct GradientSum<T: Real> {
    count: u64,
    sum: Buffer<T>,
    sum_squared_norms: f64,
    squared_norm_of_sum: f64,
}

impl<T: Real> GradientSum<T> {
    /// Nothing added yet, of gradients with `length` coordinates.
    pub fn new(length: usize) -> Result<Self, Error> {
        let sum = Buffer::zeros(length)?;
        Ok(Self { count: 0, sum, sum_squared_norms: 0.0, squared_norm_of_sum: 0.0 })
    }

    /// Adds a gradient given in consecutive parts, and returns its squared norm. The squared norm
    /// of the sum is taken on the way.
    pub fn add(&mut self, parts: &[Values<'_>], threads: usize) -> Result<f64, Error> {
        check_length(self.sum.len(), parts)?;
        let length = self.sum.len();
        let afresh = self.count == 0;
        let mut sum = &mut *self.sum;
        let mut blocks = Vec::new();
        for values in parts.iter().flat_map(|part| part.blocks(BLOCK)) {
            let (here, after) = sum.split_at_mut(values.len());
            blocks.push((values, here));
            sum = after;
        }
        let mut norms = vec![(0.0, 0.0); blocks.len()];
        let jobs = blocks.into_iter().zip(&mut norms).collect();
        for_each(threads, length, jobs, |((values, sum), norms)| {
            if afresh {
                sum.fill(T::default());
            }
            *norms = with_slice!(values, slice => vectorized(#[inline(always)] || add(sum, slice)));
        });
        let squared_norm = norms.iter().map(|norms| norms.0).sum();
        self.count += 1;
        self.sum_squared_norms += squared_norm;
        self.squared_norm_of_sum = norms.iter().map(|norms| norms.1).sum();
        Ok(squared_norm)
    }

    /// Forgets the gradients and keeps the memory.
    pub fn reset(&mut self) {
        self.count = 0;
        self.sum_squared_norms = 0.0;
        self.squared_norm_of_sum = 0.0;
    }

    /// The number of coordinates of a gradient.
    pub fn length(&self) -> usize {
        self.sum.len()
    }

    /// How many gradients were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum of the gradients' squared norms.
    pub fn sum_squared_norms(&self) -> f64 {
        self.sum_squared_norms
    }

    /// The squared norm of the gradients' mean: NaN of none.
    pub fn squared_norm_of_mean(&self) -> f64 {
        self.squared_norm_of_sum / (self.count as f64 * self.count as f64)
    }
}

/// Adds a block to a sum; returns the squared norms of the block and of what the sum became.
///
/// A few numbers at a time, so that they are read from memory once and from the first-level cache
/// after that: one loop over all three would not be vectorised well.
#[inline(always)]
fn add<T: Real, V: Value<T> + Value<f64>>(sum: &mut [T], values: &[V]) -> (f64, f64) {
    let mut norms = (0.0, 0.0);
    for (sum, values) in sum.chunks_mut(CACHED).zip(values.chunks(CACHED)) {
        for (sum, &value) in sum.iter_mut().zip(values) {
            let value: T = value.widen();
            *sum += value;
        }
        norms.0 += sum_of_squares(values);
        norms.1 += sum_lanes(sum, |number| number.into() * number.into());
    }
    norms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(length: usize) -> Vec<f32> {
        (0..length).map(|index| (index * 7919 % 1009) as f32 / 100.0 - 5.0).collect()
    }

    fn exact(numbers: &[f32]) -> f64 {
        numbers.iter().map(|&number| f64::from(number) * f64::from(number)).sum()
    }

    fn close(got: f64, expected: f64) -> bool {
        (got - expected).abs() <= 1e-11 * expected
    }

    #[test]
    fn squares_add_up_in_any_parts_and_on_any_number_of_threads() {
        for length in [0, 1, LANES - 1, LANES, 12 * BLOCK + 5] {
            let numbers = numbers(length);
            let (head, tail) = numbers.split_at(length / 3);
            let parts = [Values::Single(head), Values::Single(tail)];
            let norm = squared_norm(&parts, 1);
            assert!(close(norm, exact(&numbers)), "{length}");
            assert_eq!(norm.to_bits(), squared_norm(&parts, 3).to_bits());
        }
    }

    #[test]
    fn a_sum_knows_the_norms_of_its_gradients_and_of_their_mean() {
        let numbers = numbers(9 * BLOCK + 9);
        let turned: Vec<f32> = numbers.iter().rev().copied().collect();
        let mean: Vec<f32> = numbers.iter().zip(&turned).map(|(a, b)| (a + b) / 2.0).collect();
        let mut sum = GradientSum::<f32>::new(numbers.len()).unwrap();
        // The second time round, in memory that is not zero.
        for threads in [1, 2] {
            sum.reset();
            assert!(sum.squared_norm_of_mean().is_nan());
            let norm = sum.add(&[Values::Single(&numbers)], threads).unwrap();
            assert!(close(norm, exact(&numbers)));
            assert!(close(sum.squared_norm_of_mean(), norm));
            sum.add(&[Values::Single(&turned)], threads).unwrap();
            assert_eq!(sum.count(), 2);
            assert!(close(sum.sum_squared_norms(), 2.0 * exact(&numbers)));
            assert!(close(sum.squared_norm_of_mean(), exact(&mean)));
        }
        let mismatch = sum.add(&[Values::Single(&numbers[1..])], 1);
        assert!(matches!(mismatch, Err(Error::Length { .. })));
        assert_eq!(sum.count(), 2);
    }
}
