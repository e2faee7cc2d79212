//! Runs of batches: what an iterator hands out, and into what.

use std::hint::black_box;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, TryLockError};

use batchramp_core::Error;
use numpy::{PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyInt, PyIterator, PyList};

use crate::{unsigned, value_error};

/// Where a run is told to put its batches.
#[derive(FromPyObject)]
pub(crate) enum Into<'py> {
    Name(String),
    Array(Bound<'py, PyArray1<i64>>),
}

/// What a run yields.
enum Output {
    List,
    NumPy,
    /// How many samples it wrote into this array.
    Filled(Py<PyArray1<i64>>),
}

/// The batches of one size from a place on, as an iterator.
#[pyclass(frozen, module = "batchramp._rust")]
pub(crate) struct Run {
    drawing: Mutex<Drawing>,
    batch_size: u64,
    output: Output,
}

/// What drawing a batch changes.
struct Drawing {
    run: batchramp_core::Run,
    samples: Vec<i64>,
}

#[pymethods]
impl Run {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let drawing = &mut *self.alone()?;
        let Some(positions) = drawing.run.next_positions().map_err(value_error)? else {
            return Ok(None);
        };
        let batches = drawing.run.batches();
        if let Output::Filled(array) = &self.output {
            let mut array = writable("out", array.bind(py))?;
            let length = positions.end - positions.start;
            let share = room("out", array.as_slice_mut()?, length)?;
            fill(py, batches, positions.start, share)?;
            return Ok(Some(length.into_pyobject(py)?.into_any()));
        }
        let samples = &mut drawing.samples;
        read(py, batches, &positions, samples)?;
        Ok(Some(match self.output {
            Output::List => list(py, samples, batches.largest())?.into_any(),
            _ => PyArray1::from_slice(py, samples).into_any(),
        }))
    }

    fn stop_at(&self, position: Bound<'_, PyAny>) -> PyResult<()> {
        self.alone()?.run.stop_at(unsigned("position", &position)?);
        Ok(())
    }

    #[getter]
    fn batch_size(&self) -> u64 {
        self.batch_size
    }

    #[getter]
    fn place(&self) -> PyResult<(u64, u64, u64)> {
        let run = &self.alone()?.run;
        Ok((run.start(), run.count(), run.shares()))
    }
}

impl Run {
    /// The run `inner`, put into what the caller says.
    pub(crate) fn new(inner: batchramp_core::Run, into: Into<'_>) -> PyResult<Self> {
        // No batch is drawn and then found too long.
        let longest = inner.longest();
        let output = match into {
            Into::Name(name) if name == "list" => {
                check_memory(longest, SAMPLE + LIST_ENTRY)?;
                Output::List
            }
            Into::Name(name) if name == "numpy" => {
                check_memory(longest, 2 * SAMPLE)?;
                Output::NumPy
            }
            Into::Name(name) => {
                let message = format!("output must be list or numpy, got {name:?}");
                return Err(PyValueError::new_err(message));
            }
            Into::Array(array) => {
                room("out", writable("out", &array)?.as_slice_mut()?, longest)?;
                Output::Filled(array.unbind())
            }
        };
        let batch_size = inner.batch_size();
        let drawing = Mutex::new(Drawing { run: inner, samples: Vec::new() });
        Ok(Self { drawing, batch_size, output })
    }

    fn alone(&self) -> PyResult<MutexGuard<'_, Drawing>> {
        alone(&self.drawing)
    }
}

/// Bytes of a sample in a batch as it is read.
const SAMPLE: usize = 8;
/// Bytes of a sample in a list: the place, and an integer of Python's.
const LIST_ENTRY: usize = 8 + 32;
/// Batches of fewer samples have memory enough, and are not asked about.
const FEW: usize = 1 << 20;

/// Refuses batches that the system has no memory for: Python's own call for a list would panic.
fn check_memory(length: u64, bytes: usize) -> PyResult<()> {
    let refused = || value_error(Error::BatchMemory(length));
    let held = usize::try_from(length).map_err(|_| refused())?;
    if held <= FEW {
        return Ok(());
    }
    let size = held.checked_mul(bytes).ok_or_else(refused)?;
    let mut memory = Vec::<u8>::new();
    memory.try_reserve_exact(size).map_err(|_| refused())?;
    black_box(memory); // or the compiler would leave out what nobody uses
    Ok(())
}

/// Refuses a second thread: which batch would be whose would be left to chance.
fn alone<T>(drawing: &Mutex<T>) -> PyResult<MutexGuard<'_, T>> {
    match drawing.try_lock() {
        Ok(drawing) => Ok(drawing),
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(PyValueError::new_err(
            "sampler must be used by one thread at a time, got a call while another thread \
             draws a batch: give each thread a sampler of its own",
        )),
    }
}

/// The batches of one run after another. Unlike `itertools.chain` it goes on after a second thread
/// was refused.
#[pyclass(frozen, module = "batchramp._rust")]
pub(crate) struct Runs {
    runs: Py<PyIterator>,
    current: Mutex<Option<Py<Run>>>,
}

#[pymethods]
impl Runs {
    #[new]
    fn new(runs: Bound<'_, PyIterator>) -> Self {
        Self { runs: runs.unbind(), current: Mutex::new(None) }
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let mut current = alone(&self.current)?;
        loop {
            if let Some(run) = &*current {
                if let Some(batch) = run.get().__next__(py)? {
                    return Ok(Some(batch));
                }
                *current = None;
            }
            let Some(run) = self.runs.bind(py).clone().next() else { return Ok(None) };
            *current = Some(run?.cast_into::<Run>()?.unbind());
        }
    }
}

/// Indices below this are made into Python's integers once and for all: 2.5 MB.
const SHARED_INDICES: u16 = u16::MAX;
static SHARED: PyOnceLock<Vec<Py<PyInt>>> = PyOnceLock::new();

/// A list of indices, none of them negative. Making its integers is nearly all that a list costs, so that where all of
/// them are small, the lists share them.
fn list<'py>(py: Python<'py>, samples: &[i64], largest: i64) -> PyResult<Bound<'py, PyList>> {
    if largest >= i64::from(SHARED_INDICES) {
        return PyList::new(py, samples);
    }
    let shared = SHARED.get_or_init(py, || {
        (0..SHARED_INDICES)
            .map(|index| {
                let Ok(index) = index.into_pyobject(py);
                index.unbind()
            })
            .collect()
    });
    let at = |&sample: &i64| &shared[usize::try_from(sample).unwrap_or(usize::MAX)];
    PyList::new(py, samples.iter().map(at))
}

/// Reads the samples at some positions into a buffer that is used again.
pub(crate) fn read(
    py: Python<'_>,
    batches: &batchramp_core::Batches,
    positions: &Range<u64>,
    samples: &mut Vec<i64>,
) -> PyResult<()> {
    let length = positions.end - positions.start;
    let held = usize::try_from(length).unwrap_or(usize::MAX);
    let more = held.saturating_sub(samples.len());
    samples.try_reserve_exact(more).map_err(|_| value_error(Error::BatchMemory(length)))?;
    samples.resize(held, 0);
    fill(py, batches, positions.start, samples)
}

/// The GIL is released only where that costs less than holding it.
fn fill(
    py: Python<'_>,
    batches: &batchramp_core::Batches,
    begin: u64,
    samples: &mut [i64],
) -> PyResult<()> {
    if batches.fill_at_once(begin, samples) {
        return Ok(());
    }
    py.detach(|| batches.fill(begin, samples)).map_err(value_error)
}

pub(crate) fn not_contiguous(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name} must be contiguous"))
}

/// A caller's array to write to.
pub(crate) fn writable<'py>(
    name: &str,
    array: &Bound<'py, PyArray1<i64>>,
) -> PyResult<numpy::PyReadwriteArray1<'py, i64>> {
    if !array.is_c_contiguous() {
        return Err(not_contiguous(name));
    }
    array
        .try_readwrite()
        .map_err(|error| PyValueError::new_err(format!("{name} must be writable: {error}")))
}

/// The part of a caller's array that so many samples take.
fn room<'a>(name: &str, array: &'a mut [i64], length: u64) -> PyResult<&'a mut [i64]> {
    let got = array.len();
    usize::try_from(length).ok().and_then(|length| array.get_mut(..length)).ok_or_else(|| {
        PyValueError::new_err(format!("{name} must hold at least {length} samples, got {got}"))
    })
}
