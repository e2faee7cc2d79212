//! Gradient statistics: arrays in, arrays and numbers out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use batchramp_core::{AnyMoments, Noise, Values};
use numpy::{PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::{unsigned, value_error};

/// The trace and the squared norm of the full gradient, from micro-batches.
#[pyfunction]
#[pyo3(signature = (
    count, batch_size, sum_squared_norms, squared_norm_of_mean, num_samples=None
))]
pub(crate) fn noise_from_micro_batches(
    count: Bound<'_, PyAny>,
    batch_size: Bound<'_, PyAny>,
    sum_squared_norms: f64,
    squared_norm_of_mean: f64,
    num_samples: Option<Bound<'_, PyAny>>,
) -> PyResult<(f64, f64)> {
    let noise = Noise::from_micro_batches(
        unsigned("count", &count)?,
        unsigned("batch_size", &batch_size)?,
        sum_squared_norms,
        squared_norm_of_mean,
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
    small_squared_norm: f64,
    large_batch_size: Bound<'_, PyAny>,
    large_squared_norm: f64,
    num_samples: Option<Bound<'_, PyAny>>,
) -> PyResult<(f64, f64)> {
    let noise = Noise::from_two_sizes(
        unsigned("small_batch_size", &small_batch_size)?,
        small_squared_norm,
        unsigned("large_batch_size", &large_batch_size)?,
        large_squared_norm,
        num_samples.map(|count| unsigned("num_samples", &count)).transpose()?,
    )
    .map_err(value_error)?;
    Ok((noise.trace, noise.squared_norm))
}

/// Per-coordinate mean and variance of a stream of gradients.
#[pyclass(frozen, module = "batchramp._rust")]
pub(crate) struct Moments {
    state: Mutex<AnyMoments>,
}

/// One gradient in consecutive parts.
#[derive(FromPyObject)]
enum Parts<'py> {
    Single(Vec<PyReadonlyArray1<'py, f32>>),
    Double(Vec<PyReadonlyArray1<'py, f64>>),
}

/// Gradients as the rows of a matrix.
#[derive(FromPyObject)]
enum Rows<'py> {
    Single(PyReadonlyArray2<'py, f32>),
    Double(PyReadonlyArray2<'py, f64>),
}

fn to_array(py: Python<'_>, values: Values<Vec<f32>, Vec<f64>>) -> Bound<'_, PyAny> {
    match values {
        Values::Single(values) => PyArray1::from_vec(py, values).into_any(),
        Values::Double(values) => PyArray1::from_vec(py, values).into_any(),
    }
}

#[pymethods]
impl Moments {
    #[new]
    #[pyo3(signature = (length, *, dtype="float32"))]
    fn new(length: usize, dtype: &str) -> PyResult<Self> {
        let state = AnyMoments::new(length, dtype).map_err(value_error)?;
        Ok(Self { state: Mutex::new(state) })
    }

    #[staticmethod]
    #[pyo3(signature = (gradients, *, dtype="float32"))]
    fn from_stacked(py: Python<'_>, gradients: Rows<'_>, dtype: &str) -> PyResult<Self> {
        let (values, length) = match &gradients {
            Rows::Single(rows) => (Values::Single(rows.as_slice()?), rows.shape()[1]),
            Rows::Double(rows) => (Values::Double(rows.as_slice()?), rows.shape()[1]),
        };
        let state = py.detach(|| AnyMoments::from_stacked(values, length, dtype));
        Ok(Self { state: Mutex::new(state.map_err(value_error)?) })
    }

    fn update(&self, py: Python<'_>, parts: Parts<'_>) -> PyResult<()> {
        match &parts {
            Parts::Single(parts) => {
                let parts: Vec<&[f32]> =
                    parts.iter().map(|part| part.as_slice()).collect::<Result<_, _>>()?;
                py.detach(|| self.lock().update(Values::Single(&parts)))
            }
            Parts::Double(parts) => {
                let parts: Vec<&[f64]> =
                    parts.iter().map(|part| part.as_slice()).collect::<Result<_, _>>()?;
                py.detach(|| self.lock().update(Values::Double(&parts)))
            }
        }
        .map_err(value_error)
    }

    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        py.detach(|| {
            // A copy, so that two locks are never held at once: other may be this very object.
            let other = other.lock().clone();
            self.lock().merge(&other)
        })
        .map_err(value_error)
    }

    #[getter]
    fn length(&self, py: Python<'_>) -> usize {
        py.detach(|| self.lock().length())
    }

    #[getter]
    fn count(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.lock().count())
    }

    fn mean<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        to_array(py, py.detach(|| self.lock().mean()))
    }

    fn variance<'py>(&self, py: Python<'py>, scale: f64) -> Bound<'py, PyAny> {
        to_array(py, py.detach(|| self.lock().variance(scale)))
    }

    fn trace(&self, py: Python<'_>, scale: f64) -> f64 {
        py.detach(|| self.lock().trace(scale))
    }
}

impl Moments {
    fn lock(&self) -> MutexGuard<'_, AnyMoments> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
