//! Variable-batch sampling and gradient variance, with neither Python nor torch.
//!
//! A batch is a function of `(seed, position, size)`: [`Order`] says who comes next in a pass,
//! [`Batches`] cuts the endless stream of passes into batches, and [`advance`] lays many batches of
//! one size without visiting them. [`Moments`] keeps the per-coordinate mean and variance of a
//! stream of gradients, and [`Noise`] needs no more than their squared norms.

#![forbid(unsafe_code)]

mod advance;
mod batches;
mod bijection;
mod buffer;
mod error;
mod exact;
mod indices;
mod moments;
mod noise;
mod norms;
mod order;
mod precision;
mod rng;
mod run;
mod shares;
mod stacked;
mod threads;
#[cfg(test)]
mod uniformity;
mod values;
mod vectors;
mod walk;

pub use advance::advance;
pub use batches::{Batches, Boundary, MAX_POSITION, MAX_THREADS};
pub use error::Error;
pub use moments::Moments;
pub use noise::Noise;
pub use norms::{GradientSum, squared_norm};
pub use order::{MAX_AUTO_SAMPLES, MAX_EXACT_SAMPLES, MAX_SAMPLES, Order};
pub use precision::Precision;
pub use rng::{Random, derive_key};
pub use run::Run;
pub use shares::{piece, pieces, share};
pub use threads::{Team, lend_threads};
pub use values::{Real, Values};
