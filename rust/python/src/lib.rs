//! The Python binding `batchramp._rust`: converts, releases the GIL, calls core; no decisions.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod moments;
mod noise;
#[cfg(target_os = "linux")]
mod openmp;
mod runs;
mod sampling;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;

/// The one place where an error of core becomes a Python exception.
fn value_error(error: batchramp_core::Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// An unsigned 64-bit argument: what Python's own conversion refuses for its size is a `ValueError`
/// that says which argument it was.
fn unsigned(name: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            let rule = "must be between 0 and 2**64 - 1";
            // One of thousands of digits has no text in Python, and a shorter one may fill pages.
            let got = value.str().ok().map(|text| text.to_string());
            let got = got.filter(|text| text.len() <= 60);
            let got = got.unwrap_or_else(|| "one of very many digits".to_owned());
            PyValueError::new_err(format!("{name} {rule}, got {got}"))
        } else {
            error
        }
    })
}

/// The same for a number of coordinates or threads.
fn size(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(usize::try_from(unsigned(name, value)?).unwrap_or(usize::MAX))
}

/// The number of threads that may work, one unless it is said.
fn thread_count(threads: Option<Bound<'_, PyAny>>) -> PyResult<usize> {
    threads.map_or(Ok(1), |threads| size("threads", &threads))
}

/// A number of any kind; one too large for a double is a `ValueError` too.
fn double(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    value.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyValueError::new_err(format!("{name} must be a number that a double can hold"))
        } else {
            error
        }
    })
}

/// The compiled half of batchramp.
#[pymodule]
mod _rust {
    use pyo3::prelude::*;

    /// Work goes to the threads of torch, where it has any.
    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) {
        #[cfg(target_os = "linux")]
        crate::openmp::lend();
    }

    /// The package's version.
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// How this extension was built: benchmarks refuse anything but a release.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    #[pymodule_export]
    use crate::moments::{GradientSum, Moments, squared_norm};
    #[pymodule_export]
    use crate::noise::{noise_from_micro_batches, noise_from_two_sizes};
    #[pymodule_export]
    use crate::runs::{Run, Runs};
    #[pymodule_export]
    use crate::sampling::{Batches, advance, derive_key, piece, pieces, share};
}
