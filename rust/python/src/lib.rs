//! The Python binding `batchramp._rust`: converts, releases the GIL, calls core.
use pyo3::prelude::*;

/// The compiled half of batchramp.
#[pymodule]
mod _rust {
    /// The package's version.
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
