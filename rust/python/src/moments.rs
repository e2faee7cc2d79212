//! Gradient statistics: arrays in, arrays and numbers out.

use std::sync::{Mutex, MutexGuard, PoisonError};

use batchramp_core::{self as core, Error, Precision, Real, Values, in_either};
use half::f16;
use half::slice::HalfBitsSliceExt;
use numpy::{
    Element, PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::{double, size, thread_count, unsigned, value_error};

/// Numbers of gradients in an array of any shape, read in place.
pub(crate) enum Array<'py> {
    Single(PyReadonlyArrayDyn<'py, f32>),
    Double(PyReadonlyArrayDyn<'py, f64>),
    Half(PyReadonlyArrayDyn<'py, f16>),
    /// The bits of bfloat16, which `NumPy` does not know.
    Brain(PyReadonlyArrayDyn<'py, u16>),
}

impl<'py> FromPyObject<'_, 'py> for Array<'py> {
    type Error = PyErr;

    /// By hand: deriving this makes an exception for each kind that an array is not of.
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(if let Ok(array) = object.cast::<PyArrayDyn<f32>>() {
            Self::Single(array.try_readonly()?)
        } else if let Ok(array) = object.cast::<PyArrayDyn<u16>>() {
            Self::Brain(array.try_readonly()?)
        } else if let Ok(array) = object.cast::<PyArrayDyn<f16>>() {
            Self::Half(array.try_readonly()?)
        } else {
            Self::Double(object.cast::<PyArrayDyn<f64>>()?.try_readonly()?)
        })
    }
}

/// The numbers of an array, row after row; `as_slice` alone would take column after column too.
fn slice<'a, T: Element>(array: &'a PyReadonlyArrayDyn<'_, T>) -> PyResult<&'a [T]> {
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err("gradient must be C-contiguous, got one that is not"));
    }
    Ok(array.as_slice()?)
}

impl Array<'_> {
    fn values(&self) -> PyResult<Values<'_>> {
        Ok(match self {
            Self::Single(array) => Values::Single(slice(array)?),
            Self::Double(array) => Values::Double(slice(array)?),
            Self::Half(array) => Values::Half(slice(array)?),
            Self::Brain(array) => Values::Brain(slice(array)?.reinterpret_cast()),
        })
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Single(array) => array.shape(),
            Self::Double(array) => array.shape(),
            Self::Half(array) => array.shape(),
            Self::Brain(array) => array.shape(),
        }
    }
}

/// One gradient in consecutive parts.
type Parts<'py> = Vec<Array<'py>>;

fn values<'a>(parts: &'a Parts<'_>) -> PyResult<Vec<Values<'a>>> {
    parts.iter().map(Array::values).collect()
}

/// A state that threads take turns at; they wait without the GIL.
type Turns<Single, Double> = Precision<Mutex<Single>, Mutex<Double>>;

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `NumPy`'s own `zeros`, which says so where there is no memory; its crate's call panics.
static ZEROS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// An array of an accumulator's length, in memory of `NumPy`'s, and what fills it.
fn filled<'py, T: Real + Element>(
    py: Python<'py>,
    moments: &Mutex<core::Moments<T>>,
    fill: impl FnOnce(&core::Moments<T>, &mut [T]) -> Result<(), Error> + Send,
) -> PyResult<Bound<'py, PyAny>> {
    let length = py.detach(|| lock(moments).length());
    let zeros = ZEROS.import(py, "numpy", "zeros")?;
    let array = zeros.call1((length, T::get_dtype(py)))?.cast_into::<PyArray1<T>>()?;
    let mut writable = array.readwrite();
    let numbers = writable.as_slice_mut()?;
    py.detach(|| fill(&lock(moments), numbers)).map_err(value_error)?;
    drop(writable);
    Ok(array.into_any())
}

/// Per-coordinate mean and variance of a stream of gradients.
#[pyclass(frozen, module = "batchramp._rust")]
pub(crate) struct Moments(Turns<core::Moments<f32>, core::Moments<f64>>);

/// An array of a state.
#[derive(FromPyObject)]
pub(crate) enum StateArray<'py> {
    Single(PyReadonlyArray1<'py, f32>),
    Double(PyReadonlyArray1<'py, f64>),
}

#[pymethods]
impl Moments {
    #[new]
    #[pyo3(signature = (length, *, dtype="float32"))]
    fn new(length: Bound<'_, PyAny>, dtype: &str) -> PyResult<Self> {
        let length = size("length", &length)?;
        let single = || core::Moments::new(length).map(Mutex::new);
        let double = || core::Moments::new(length).map(Mutex::new);
        Precision::make(dtype, single, double).map(Self).map_err(value_error)
    }

    #[staticmethod]
    #[pyo3(signature = (gradients, *, dtype="float32", threads=None))]
    fn from_stacked(
        py: Python<'_>,
        gradients: Array<'_>,
        dtype: &str,
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let threads = thread_count(threads)?;
        let &[_, length] = gradients.shape() else {
            return Err(PyValueError::new_err(format!(
                "gradients must have the shape (K, P), got {:?}",
                gradients.shape()
            )));
        };
        let rows = gradients.values()?;
        let single = || core::Moments::from_stacked(rows, length, threads).map(Mutex::new);
        let double = || core::Moments::from_stacked(rows, length, threads).map(Mutex::new);
        py.detach(|| Precision::make(dtype, single, double)).map(Self).map_err(value_error)
    }

    #[staticmethod]
    fn from_state(
        count: Bound<'_, PyAny>,
        mean: StateArray<'_>,
        squares: StateArray<'_>,
    ) -> PyResult<Self> {
        let count = unsigned("count", &count)?;
        match (mean, squares) {
            (StateArray::Single(mean), StateArray::Single(squares)) => {
                core::Moments::from_state(count, mean.as_slice()?, squares.as_slice()?)
                    .map(|moments| Self(Precision::Single(Mutex::new(moments))))
            }
            (StateArray::Double(mean), StateArray::Double(squares)) => {
                core::Moments::from_state(count, mean.as_slice()?, squares.as_slice()?)
                    .map(|moments| Self(Precision::Double(Mutex::new(moments))))
            }
            _ => Err(Error::MixedPrecision),
        }
        .map_err(value_error)
    }

    #[pyo3(signature = (parts, *, threads=None))]
    fn update(
        &self,
        py: Python<'_>,
        parts: Parts<'_>,
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let threads = thread_count(threads)?;
        let values = values(&parts)?;
        py.detach(|| in_either!(&self.0, state => lock(state).update(&values, threads)))
            .map_err(value_error)
    }

    #[pyo3(signature = (other, *, threads=None))]
    fn merge(
        &self,
        py: Python<'_>,
        other: &Self,
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let threads = thread_count(threads)?;
        // From a copy, so that two locks are never held at once: other may be this very object.
        py.detach(|| match (&self.0, &other.0) {
            (Precision::Single(ours), Precision::Single(theirs)) => {
                let theirs = lock(theirs).copy()?;
                lock(ours).merge(&theirs, threads)
            }
            (Precision::Double(ours), Precision::Double(theirs)) => {
                let theirs = lock(theirs).copy()?;
                lock(ours).merge(&theirs, threads)
            }
            _ => Err(Error::MixedPrecision),
        })
        .map_err(value_error)
    }

    fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        py.detach(|| match &self.0 {
            Precision::Single(state) => {
                lock(state).copy().map(|copy| Precision::Single(Mutex::new(copy)))
            }
            Precision::Double(state) => {
                lock(state).copy().map(|copy| Precision::Double(Mutex::new(copy)))
            }
        })
        .map(Self)
        .map_err(value_error)
    }

    #[getter]
    fn length(&self, py: Python<'_>) -> usize {
        py.detach(|| in_either!(&self.0, state => lock(state).length()))
    }

    #[getter]
    fn count(&self, py: Python<'_>) -> u64 {
        py.detach(|| in_either!(&self.0, state => lock(state).count()))
    }

    fn mean<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        in_either!(&self.0, state => filled(py, state, |moments, mean| {
            mean.copy_from_slice(moments.mean());
            Ok(())
        }))
    }

    fn squares<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        in_either!(&self.0, state => filled(py, state, |moments, squares| {
            squares.copy_from_slice(moments.squares());
            Ok(())
        }))
    }

    #[pyo3(signature = (scale, *, threads=None))]
    fn variance<'py>(
        &self,
        py: Python<'py>,
        scale: Bound<'py, PyAny>,
        threads: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (scale, threads) = (double("scale", &scale)?, thread_count(threads)?);
        in_either!(&self.0, state => filled(py, state, |moments, variance| {
            moments.variance(scale, variance, threads)
        }))
    }

    #[pyo3(signature = (scale, *, threads=None))]
    fn trace(
        &self,
        py: Python<'_>,
        scale: Bound<'_, PyAny>,
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<f64> {
        let (scale, threads) = (double("scale", &scale)?, thread_count(threads)?);
        Ok(py.detach(|| in_either!(&self.0, state => lock(state).trace(scale, threads))))
    }
}

/// The squared norm of a gradient.
#[pyfunction]
#[pyo3(signature = (parts, *, threads=None))]
pub(crate) fn squared_norm(
    py: Python<'_>,
    parts: Parts<'_>,
    threads: Option<Bound<'_, PyAny>>,
) -> PyResult<f64> {
    let threads = thread_count(threads)?;
    let values = values(&parts)?;
    Ok(py.detach(|| core::squared_norm(&values, threads)))
}

/// The sum of some gradients, and what the noise scale needs of them.
#[pyclass(frozen, module = "batchramp._rust")]
pub(crate) struct GradientSum(Turns<core::GradientSum<f32>, core::GradientSum<f64>>);

#[pymethods]
impl GradientSum {
    #[new]
    #[pyo3(signature = (length, *, dtype="float32"))]
    fn new(length: Bound<'_, PyAny>, dtype: &str) -> PyResult<Self> {
        let length = size("length", &length)?;
        let single = || core::GradientSum::new(length).map(Mutex::new);
        let double = || core::GradientSum::new(length).map(Mutex::new);
        Precision::make(dtype, single, double).map(Self).map_err(value_error)
    }

    #[pyo3(signature = (parts, *, threads=None))]
    fn add(
        &self,
        py: Python<'_>,
        parts: Parts<'_>,
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<f64> {
        let threads = thread_count(threads)?;
        let values = values(&parts)?;
        py.detach(|| in_either!(&self.0, state => lock(state).add(&values, threads)))
            .map_err(value_error)
    }

    fn reset(&self, py: Python<'_>) {
        py.detach(|| in_either!(&self.0, state => lock(state).reset()));
    }

    #[getter]
    fn count(&self, py: Python<'_>) -> u64 {
        py.detach(|| in_either!(&self.0, state => lock(state).count()))
    }

    #[getter]
    fn sum_squared_norms(&self, py: Python<'_>) -> f64 {
        py.detach(|| in_either!(&self.0, state => lock(state).sum_squared_norms()))
    }

    #[getter]
    fn squared_norm_of_mean(&self, py: Python<'_>) -> f64 {
        py.detach(|| in_either!(&self.0, state => lock(state).squared_norm_of_mean()))
    }
}
