//! The Python binding `batchramp._rust`: converts, releases the GIL, calls core; no decisions.
#![expect(clippy::needless_pass_by_value, reason = "PyO3 hands arguments over by value")]

mod moments;
mod noise;
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
            PyValueError::new_err(format!("{name} must be between 0 and 2**64 - 1, got {value}"))
        } else {
            error
        }
    })
}

/// The compiled half of batchramp.
#[pymodule]
mod _rust {
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
    use crate::sampling::{Batches, advance, derive_key, share};
}
