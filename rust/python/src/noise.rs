//! The gradient noise from squared norms.

use batchramp_core::Noise;
use pyo3::prelude::*;

use crate::{double, unsigned, value_error};

/// The trace and the squared norm of the full gradient, from micro-batches.
#[pyfunction]
#[pyo3(signature = (
    count, batch_size, sum_squared_norms, squared_norm_of_mean, num_samples=None
))]
pub(crate) fn noise_from_micro_batches(
    count: Bound<'_, PyAny>,
    batch_size: Bound<'_, PyAny>,
    sum_squared_norms: Bound<'_, PyAny>,
    squared_norm_of_mean: Bound<'_, PyAny>,
    num_samples: Option<Bound<'_, PyAny>>,
) -> PyResult<(f64, f64)> {
    let noise = Noise::from_micro_batches(
        unsigned("count", &count)?,
        unsigned("batch_size", &batch_size)?,
        double("sum_squared_norms", &sum_squared_norms)?,
        double("squared_norm_of_mean", &squared_norm_of_mean)?,
        num_samples.map(|count| unsigned("num_samples", &count)).transpose()?,
    )
    .map_err(value_error)?;
    Ok((noise.trace, noise.squared_norm))
}

/// The trace and the squared norm of the full gradient, from two batch sizes.
#[pyfunction]
#[pyo3(signature = (
    small_batch_size, small_squared_norm, large_batch_size, large_squared_norm, num_samples=None
))]
pub(crate) fn noise_from_two_sizes(
    small_batch_size: Bound<'_, PyAny>,
    small_squared_norm: Bound<'_, PyAny>,
    large_batch_size: Bound<'_, PyAny>,
    large_squared_norm: Bound<'_, PyAny>,
    num_samples: Option<Bound<'_, PyAny>>,
) -> PyResult<(f64, f64)> {
    let noise = Noise::from_two_sizes(
        unsigned("small_batch_size", &small_batch_size)?,
        double("small_squared_norm", &small_squared_norm)?,
        unsigned("large_batch_size", &large_batch_size)?,
        double("large_squared_norm", &large_squared_norm)?,
        num_samples.map(|count| unsigned("num_samples", &count)).transpose()?,
    )
    .map_err(value_error)?;
    Ok((noise.trace, noise.squared_norm))
}
