//! Memory of a state or of indices, in large pages where the system has them.

use std::ops::{Deref, DerefMut};
use std::{fmt, marker::PhantomData};

use bytemuck::Pod;
use memmap2::MmapMut;

use crate::Error;

/// So many numbers, zero at first.
///
/// Their pages come from the system untouched, and large: at 4 KiB each, fetching them takes longer
/// than filling them.
pub(crate) struct Buffer<T> {
    bytes: MmapMut,
    numbers: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    /// Zeros: an error for none, and where the system will not give the memory.
    pub(crate) fn zeros(length: usize) -> Result<Self, Error> {
        if length == 0 {
            return Err(Error::AtLeast { name: "gradient's length", least: 1, got: 0 });
        }
        let refused = Error::GradientMemory(length);
        let size = length.checked_mul(size_of::<T>()).ok_or_else(|| refused.clone())?;
        let bytes = MmapMut::map_anon(size).map_err(|_| refused)?;
        #[cfg(target_os = "linux")]
        // Only a wish: a system without large pages goes on with small ones.
        let _ = bytes.advise(memmap2::Advice::HugePage);
        Ok(Self { bytes, numbers: PhantomData })
    }

    /// A copy of numbers.
    pub(crate) fn copy_of(numbers: &[T]) -> Result<Self, Error> {
        let mut buffer = Self::zeros(numbers.len())?;
        buffer.copy_from_slice(numbers);
        Ok(buffer)
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.bytes)
    }
}

impl<T: Pod> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.bytes)
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

impl<T: Pod + PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_holds_zeros_and_then_what_is_written() {
        let mut buffer = Buffer::<f32>::zeros(3).unwrap();
        assert_eq!(*buffer, [0.0; 3]);
        buffer[1] = 2.0;
        assert_eq!(Buffer::copy_of(&buffer).unwrap(), buffer);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for length in [usize::MAX, usize::MAX / 4, 1 << 50] {
            assert_eq!(Buffer::<f32>::zeros(length), Err(Error::GradientMemory(length)));
        }
        assert!(Buffer::<f64>::zeros(0).is_err());
    }
}
