//! Loops over much memory: compiled for the vectors at hand, and fetching ahead.

use pulp::{Arch, Simd, WithSimd};

/// Bytes that memory is fetched in.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Runs a loop compiled for the vectors of the processor at hand (AVX2 where there is): what it
/// calls must be `#[inline(always)]`.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(Vectorized(work))
}

struct Vectorized<F>(F);

impl<R, F: FnOnce() -> R> WithSimd for Vectorized<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> R {
        (self.0)()
    }
}

/// Asks for what lies so many bytes after these numbers, past the end of all of them too: a hint,
/// which changes no result. A core by itself fetches ahead to the end of a page of 4 KiB and waits
/// at each beginning.
#[inline(always)]
pub(crate) fn fetch_ahead<T>(numbers: &[T], bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(sse) = pulp::core_arch::x86::Sse::try_new() {
        let ahead = numbers.as_ptr().cast::<i8>().wrapping_add(bytes);
        for line in (0..size_of_val(numbers)).step_by(LINE) {
            sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(ahead.wrapping_add(line));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (numbers, bytes);
}
