//! Orders, batches and keys.

use std::sync::Arc;

use batchramp_core::Boundary;
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::runs::{Into, Run, not_contiguous, read, writable};
use crate::{thread_count, unsigned, value_error};

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

/// How many pieces of at most `micro_batch` samples each rank has its share of a batch in.
#[pyfunction]
pub(crate) fn pieces(
    length: Bound<'_, PyAny>,
    world_size: Bound<'_, PyAny>,
    micro_batch: Bound<'_, PyAny>,
) -> PyResult<u64> {
    let (length, size) = (unsigned("length", &length)?, unsigned("world_size", &world_size)?);
    let micro_batch = unsigned("micro_batch", &micro_batch)?;
    batchramp_core::pieces(length, size, micro_batch).map_err(value_error)
}

/// One piece of a rank's share of a batch: its first sample and the one after its last.
#[pyfunction]
pub(crate) fn piece(
    length: Bound<'_, PyAny>,
    rank: Bound<'_, PyAny>,
    world_size: Bound<'_, PyAny>,
    micro_batch: Bound<'_, PyAny>,
    index: Bound<'_, PyAny>,
) -> PyResult<(u64, u64)> {
    let range = batchramp_core::piece(
        unsigned("length", &length)?,
        unsigned("rank", &rank)?,
        unsigned("world_size", &world_size)?,
        unsigned("micro_batch", &micro_batch)?,
        unsigned("index", &index)?,
    );
    range.map(|range| (range.start, range.end)).map_err(value_error)
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
    #[pyo3(signature = (
        num_samples, *, seed=None, order="auto", boundary="keep", threads=None, indices=None
    ))]
    fn new(
        py: Python<'_>,
        num_samples: Bound<'_, PyAny>,
        seed: Option<Bound<'_, PyAny>>,
        order: &str,
        boundary: &str,
        threads: Option<Bound<'_, PyAny>>,
        indices: Option<PyReadonlyArray1<'_, i64>>,
    ) -> PyResult<Self> {
        let num_samples = unsigned("num_samples", &num_samples)?;
        let seed = seed.map_or(Ok(0), |seed| unsigned("seed", &seed))?;
        let threads = thread_count(threads)?;
        let mut inner = Boundary::resolve(boundary)
            .and_then(|boundary| {
                batchramp_core::Batches::new(num_samples, seed, order, boundary, threads)
            })
            .map_err(value_error)?;
        if let Some(indices) = indices {
            let indices = indices.as_slice().map_err(|_| not_contiguous("indices"))?;
            inner = py.detach(|| inner.with_indices(indices)).map_err(value_error)?;
        }
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

    #[getter]
    fn indices<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<i64>>> {
        self.inner.indices().map(|indices| PyArray1::from_slice(py, indices))
    }

    #[getter]
    fn indices_digest(&self) -> Option<String> {
        self.inner.indices_digest().map(|digest| format!("{digest:032x}"))
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

    #[pyo3(signature = (
        start, batch_size, until, rank, world_size, shares, into, *, micro_batch=None
    ))]
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
        micro_batch: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Run> {
        let inner = batchramp_core::Run::new(
            Arc::clone(&self.inner),
            unsigned("start", &start)?,
            unsigned("batch_size", &batch_size)?,
            unsigned("until", &until)?,
            rank.map(|rank| unsigned("rank", &rank)).transpose()?,
            unsigned("world_size", &world_size)?,
            unsigned("shares", &shares)?,
            micro_batch.map(|most| unsigned("micro_batch", &most)).transpose()?,
        )
        .map_err(value_error)?;
        Run::new(inner, into)
    }

    /// What pickle makes a new one from: orders are computed again.
    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<((u64,), Bound<'py, PyDict>)> {
        let named = PyDict::new(py);
        named.set_item("seed", self.seed())?;
        named.set_item("order", self.order())?;
        named.set_item("boundary", self.boundary())?;
        named.set_item("threads", self.threads())?;
        named.set_item("indices", self.indices(py))?;
        Ok(((self.num_samples(),), named))
    }
}
