//! Moments in a precision chosen at run time.

use crate::{Error, Moments};

/// Gradients' values as they lie in memory.
#[derive(Debug, Clone, Copy)]
pub enum Values<Single, Double> {
    /// Single precision.
    Single(Single),
    /// Double precision.
    Double(Double),
}

/// [`Moments`] of either precision.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyMoments {
    /// State in single precision: eight bytes a coordinate.
    Single(Moments<f32>),
    /// State in double precision, of gradients in either.
    Double(Moments<f64>),
}

impl AnyMoments {
    /// Nothing seen yet; `dtype` is `float32` or `float64`.
    pub fn new(length: usize, dtype: &str) -> Result<Self, Error> {
        match dtype {
            "float32" => Moments::new(length).map(Self::Single),
            "float64" => Moments::new(length).map(Self::Double),
            _ => Err(Error::UnknownPrecision(dtype.to_owned())),
        }
    }

    /// See [`Moments::from_stacked`].
    pub fn from_stacked(
        rows: Values<&[f32], &[f64]>,
        length: usize,
        dtype: &str,
    ) -> Result<Self, Error> {
        match (dtype, rows) {
            ("float32", Values::Single(rows)) => {
                Moments::from_stacked(rows, length).map(Self::Single)
            }
            ("float32", Values::Double(_)) => Err(Error::Narrowing),
            ("float64", Values::Single(rows)) => {
                Moments::from_stacked(rows, length).map(Self::Double)
            }
            ("float64", Values::Double(rows)) => {
                Moments::from_stacked(rows, length).map(Self::Double)
            }
            _ => Err(Error::UnknownPrecision(dtype.to_owned())),
        }
    }

    /// See [`Moments::update`].
    pub fn update(&mut self, parts: Values<&[&[f32]], &[&[f64]]>) -> Result<(), Error> {
        match (self, parts) {
            (Self::Single(moments), Values::Single(parts)) => moments.update(parts),
            (Self::Single(_), Values::Double(_)) => Err(Error::Narrowing),
            (Self::Double(moments), Values::Single(parts)) => moments.update(parts),
            (Self::Double(moments), Values::Double(parts)) => moments.update(parts),
        }
    }

    /// See [`Moments::merge`]: both sides in one precision.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        match (self, other) {
            (Self::Single(ours), Self::Single(theirs)) => ours.merge(theirs),
            (Self::Double(ours), Self::Double(theirs)) => ours.merge(theirs),
            _ => Err(Error::MixedPrecision),
        }
    }

    /// See [`Moments::length`].
    pub fn length(&self) -> usize {
        match self {
            Self::Single(moments) => moments.length(),
            Self::Double(moments) => moments.length(),
        }
    }

    /// See [`Moments::count`].
    pub fn count(&self) -> u64 {
        match self {
            Self::Single(moments) => moments.count(),
            Self::Double(moments) => moments.count(),
        }
    }

    /// See [`Moments::mean`].
    pub fn mean(&self) -> Values<Vec<f32>, Vec<f64>> {
        match self {
            Self::Single(moments) => Values::Single(moments.mean().to_vec()),
            Self::Double(moments) => Values::Double(moments.mean().to_vec()),
        }
    }

    /// See [`Moments::variance`].
    pub fn variance(&self, scale: f64) -> Values<Vec<f32>, Vec<f64>> {
        match self {
            Self::Single(moments) => Values::Single(moments.variance(scale)),
            Self::Double(moments) => Values::Double(moments.variance(scale)),
        }
    }

    /// See [`Moments::trace`].
    pub fn trace(&self, scale: f64) -> f64 {
        match self {
            Self::Single(moments) => moments.trace(scale),
            Self::Double(moments) => moments.trace(scale),
        }
    }
}
