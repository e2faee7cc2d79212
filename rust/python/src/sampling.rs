//! Orders, batches and keys.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use batchramp_core::Boundary;
use numpy::{PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyIterator, PyList};

use crate::{unsigned, value_error};

/// A 64-bit key for one purpose of a seed.
#[pyfunction]
pub(crate) fn derive_key(seed: Bound<'_, PyAny>, purpose: &str) -> PyResult<u64> {
    Ok(batchramp_core::derive_key(unsigned("seed", &seed)?, purpose))
}

/// The part of a batch that belongs to a rank: its first sample and the one after its last.
#[pyfunction]
pub(crate) fn share(
    length: Bound<'_, PyAny>,
    rank: Bound<'_, PyAny>,
    world_size: Bound<'_, PyAny>,
) -> PyResult<(u64, u64)> {
    let (length, rank) = (unsigned("length", &length)?, unsigned("rank", &rank)?);
    let world_size = unsigned("world_size", &world_size)?;
    let range = batchramp_core::share(length, rank, world_size).map_err(value_error)?;
    Ok((range.start, range.end))
}

/// Lays batches of one size without visiting them.
#[pyfunction]
#[pyo3(signature = (
    num_samples, boundary, position, update, batch_size, until_position=None, until_update=None
))]
pub(crate) fn advance(
    num_samples: Bound<'_, PyAny>,
    boundary: &str,
    position: Bound<'_, PyAny>,
    update: Bound<'_, PyAny>,
    batch_size: Bound<'_, PyAny>,
    until_position: Option<Bound<'_, PyAny>>,
    until_update: Option<Bound<'_, PyAny>>,
) -> PyResult<(u64, u64)> {
    batchramp_core::advance(
        unsigned("num_samples", &num_samples)?,
        Boundary::resolve(boundary).map_err(value_error)?,
        unsigned("position", &position)?,
        unsigned("update", &update)?,
        unsigned("batch_size", &batch_size)?,
        until_position.map(|limit| unsigned("until_position", &limit)).transpose()?,
        until_update.map(|limit| unsigned("until_update", &limit)).transpose()?,
    )
    .map_err(value_error)
}

/// The endless stream of passes, cut into batches.
#[pyclass(frozen, module = "batchramp._rust")]
pub(crate) struct Batches {
    inner: Arc<batchramp_core::Batches>,
}

#[pymethods]
impl Batches {
    #[new]
    #[pyo3(signature = (num_samples, *, seed=None, order="auto", boundary="keep", threads=None))]
    fn new(
        num_samples: Bound<'_, PyAny>,
        seed: Option<Bound<'_, PyAny>>,
        order: &str,
        boundary: &str,
        threads: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let num_samples = unsigned("num_samples", &num_samples)?;
        let seed = seed.map_or(Ok(0), |seed| unsigned("seed", &seed))?;
        let threads = threads.map_or(Ok(1), |threads| unsigned("threads", &threads))?;
        let threads = usize::try_from(threads).unwrap_or(usize::MAX);
        let inner = Boundary::resolve(boundary)
            .and_then(|boundary| {
                batchramp_core::Batches::new(num_samples, seed, order, boundary, threads)
            })
            .map_err(value_error)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[getter]
    fn num_samples(&self) -> u64 {
        self.inner.num_samples()
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.inner.seed()
    }

    #[getter]
    fn order(&self) -> &'static str {
        self.inner.order().name()
    }

    #[getter]
    fn order_version(&self) -> &'static str {
        self.inner.order().version(self.inner.num_samples())
    }

    #[getter]
    fn boundary(&self) -> &'static str {
        self.inner.boundary().name()
    }

    #[getter]
    fn threads(&self) -> usize {
        self.inner.threads()
    }

    fn start(&self, position: Bound<'_, PyAny>, batch_size: Bound<'_, PyAny>) -> PyResult<u64> {
        let position = unsigned("position", &position)?;
        self.inner.start(position, unsigned("batch_size", &batch_size)?).map_err(value_error)
    }

    fn end(&self, start: Bound<'_, PyAny>, batch_size: Bound<'_, PyAny>) -> PyResult<u64> {
        let start = unsigned("start", &start)?;
        self.inner.end(start, unsigned("batch_size", &batch_size)?).map_err(value_error)
    }

    #[pyo3(signature = (start, batch_size, rank=None, world_size=None))]
    fn take<'py>(
        &self,
        py: Python<'py>,
        start: Bound<'py, PyAny>,
        batch_size: Bound<'py, PyAny>,
        rank: Option<Bound<'py, PyAny>>,
        world_size: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let (start, size) = (unsigned("start", &start)?, unsigned("batch_size", &batch_size)?);
        let rank = rank.map_or(Ok(0), |rank| unsigned("rank", &rank))?;
        let world_size = world_size.map_or(Ok(1), |size| unsigned("world_size", &size))?;
        let positions = self.inner.positions(start, size, rank, world_size).map_err(value_error)?;
        let mut samples = Vec::new();
        read(py, &self.inner, &positions, &mut samples)?;
        Ok(PyArray1::from_vec(py, samples))
    }

    fn fill(
        &self,
        py: Python<'_>,
        begin: Bound<'_, PyAny>,
        samples: Bound<'_, PyArray1<i64>>,
    ) -> PyResult<()> {
        let begin = unsigned("begin", &begin)?;
        let mut samples = writable("samples", &samples)?;
        let samples = samples.as_slice_mut()?;
        py.detach(|| self.inner.fill(begin, samples)).map_err(value_error)
    }

    #[pyo3(signature = (start, batch_size, until, rank, world_size, shares, into))]
    #[expect(clippy::too_many_arguments, reason = "all that a run is made of")]
    fn run(
        &self,
        start: Bound<'_, PyAny>,
        batch_size: Bound<'_, PyAny>,
        until: Bound<'_, PyAny>,
        rank: Option<Bound<'_, PyAny>>,
        world_size: Bound<'_, PyAny>,
        shares: Bound<'_, PyAny>,
        into: Into<'_>,
    ) -> PyResult<Run> {
        let inner = batchramp_core::Run::new(
            Arc::clone(&self.inner),
            unsigned("start", &start)?,
            unsigned("batch_size", &batch_size)?,
            unsigned("until", &until)?,
            rank.map(|rank| unsigned("rank", &rank)).transpose()?,
            unsigned("world_size", &world_size)?,
            unsigned("shares", &shares)?,
        )
        .map_err(value_error)?;
        let output = match into {
            Into::Name(name) if name == "list" => Output::List,
            Into::Name(name) if name == "numpy" => Output::NumPy,
            Into::Name(name) => {
                let message = format!("output must be list or numpy, got {name:?}");
                return Err(PyValueError::new_err(message));
            }
            Into::Array(array) => {
                // The first rank's share is the longest: no batch is drawn and then found too long.
                let longest = batchramp_core::share(inner.batch_size(), 0, inner.world_size());
                let longest = longest.map_err(value_error)?.end;
                room("out", writable("out", &array)?.as_slice_mut()?, longest)?;
                Output::Filled(array.unbind())
            }
        };
        let batch_size = inner.batch_size();
        let drawing = Mutex::new(Drawing { run: inner, samples: Vec::new() });
        Ok(Run { drawing, batch_size, output })
    }

    /// What pickle makes a new one from: orders are computed again.
    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((u64,), Bound<'py, PyDict>)> {
        let named = PyDict::new(py);
        named.set_item("seed", self.seed())?;
        named.set_item("order", self.order())?;
        named.set_item("boundary", self.boundary())?;
        named.set_item("threads", self.threads())?;
        Ok(((self.num_samples(),), named))
    }
}

/// Where [`Batches::run`] is told to put its batches.
#[derive(FromPyObject)]
enum Into<'py> {
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
            Output::List => list(py, samples, batches.num_samples())?.into_any(),
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
    fn alone(&self) -> PyResult<MutexGuard<'_, Drawing>> {
        alone(&self.drawing)
    }
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
fn list<'py>(py: Python<'py>, samples: &[i64], num_samples: u64) -> PyResult<Bound<'py, PyList>> {
    if num_samples > u64::from(SHARED_INDICES) {
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
fn read(
    py: Python<'_>,
    batches: &batchramp_core::Batches,
    positions: &Range<u64>,
    samples: &mut Vec<i64>,
) -> PyResult<()> {
    let length = usize::try_from(positions.end - positions.start).unwrap_or(usize::MAX);
    samples.resize(length, 0);
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

/// A caller's array to write to.
fn writable<'py>(
    name: &str,
    array: &Bound<'py, PyArray1<i64>>,
) -> PyResult<numpy::PyReadwriteArray1<'py, i64>> {
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err(format!("{name} must be contiguous")));
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
