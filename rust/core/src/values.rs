//! The numbers that gradients come in and that a state is kept in.

use std::ops::{Add, AddAssign, Div, Mul, Range, Sub};

use bytemuck::Pod;
use half::{bf16, f16};

/// The numbers a state can be kept in: `f32` and `f64`.
pub trait Real:
    Pod
    + Default
    + PartialOrd
    + From<f32>
    + Into<f64>
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Send
    + Sync
{
    /// The nearest value.
    fn from_f64(value: f64) -> Self;
}

impl Real for f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding to single precision is the aim")]
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// A number of a gradient, as a state in `T` takes it: exact, but for `f64` into `f32`, which rounds.
pub(crate) trait Value<T>: Copy + Sync {
    /// The number in the state's precision.
    fn widen(self) -> T;
}

impl<T: Real> Value<T> for f32 {
    #[inline(always)]
    fn widen(self) -> T {
        self.into()
    }
}

impl<T: Real> Value<T> for f64 {
    #[inline(always)]
    fn widen(self) -> T {
        T::from_f64(self)
    }
}

impl<T: Real> Value<T> for bf16 {
    /// The upper half of the same number in `f32`: without the branch for NaN in `half`'s own
    /// conversion, which is not vectorised.
    #[inline(always)]
    fn widen(self) -> T {
        f32::from_bits(u32::from(self.to_bits()) << 16).into()
    }
}

impl<T: Real> Value<T> for f16 {
    /// In whole numbers and selections, which LLVM vectorises; `half`'s own conversion asks for
    /// each number what the processor can do.
    #[inline(always)]
    fn widen(self) -> T {
        const SMALLEST: f32 = 1.0 / 16_777_216.0; // 2^-24, the unit of subnormal numbers
        const REBIAS: u32 = (127 - 15) << 23;
        let bits = u32::from(self.to_bits());
        let magnitude = bits & 0x7fff;
        let normal = (magnitude << 13) + REBIAS;
        let rebiased = f32::from_bits(if magnitude < 0x7c00 { normal } else { normal + REBIAS });
        let subnormal = magnitude.cast_signed() as f32 * SMALLEST;
        let positive = if magnitude < 0x400 { subnormal } else { rebiased };
        f32::from_bits(positive.to_bits() | (bits & 0x8000) << 16).into()
    }
}

/// Numbers of a gradient as they lie in memory.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// Single precision.
    Single(&'a [f32]),
    /// Double precision.
    Double(&'a [f64]),
    /// Brain floating point: the upper half of single precision.
    Brain(&'a [bf16]),
    /// Half precision.
    Half(&'a [f16]),
}

/// Runs an expression on the slice of [`Values`], whatever its numbers.
macro_rules! with_slice {
    ($values:expr, $slice:ident => $work:expr) => {
        match $values {
            $crate::Values::Single($slice) => $work,
            $crate::Values::Double($slice) => $work,
            $crate::Values::Brain($slice) => $work,
            $crate::Values::Half($slice) => $work,
        }
    };
}
pub(crate) use with_slice;

impl Values<'_> {
    /// How many numbers there are.
    pub fn len(&self) -> usize {
        with_slice!(self, slice => slice.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the numbers.
    fn range(&self, range: Range<usize>) -> Self {
        match self {
            Self::Single(slice) => Self::Single(&slice[range]),
            Self::Double(slice) => Self::Double(&slice[range]),
            Self::Brain(slice) => Self::Brain(&slice[range]),
            Self::Half(slice) => Self::Half(&slice[range]),
        }
    }

    /// The numbers in consecutive blocks, all but the last of this length.
    pub(crate) fn blocks(self, length: usize) -> impl Iterator<Item = Self> {
        let starts = (0..self.len()).step_by(length);
        starts.map(move |start| self.range(start..self.len().min(start + length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_and_brain_number_widens_to_itself() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            let widened: [f32; 2] = [half.widen(), brain.widen()];
            for (got, expected) in widened.into_iter().zip([half.to_f32(), brain.to_f32()]) {
                assert_eq!(got.is_nan(), expected.is_nan(), "{bits:#x}");
                assert!(got.is_nan() || got.to_bits() == expected.to_bits(), "{bits:#x}");
            }
            let double: f64 = half.widen();
            assert!(half.is_nan() || double.to_bits() == half.to_f64().to_bits(), "{bits:#x}");
        }
    }

    #[test]
    fn blocks_cover_everything_once() {
        let numbers = [1.0_f32, 2.0, 3.0, 4.0, 5.0];
        let lengths = |length| -> Vec<usize> {
            Values::Single(&numbers).blocks(length).map(|block| block.len()).collect()
        };
        assert_eq!(lengths(2), [2, 2, 1]);
        assert_eq!(lengths(5), [5]);
        assert_eq!(lengths(9), [5]);
    }
}
