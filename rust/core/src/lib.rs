//! Variable-batch sampling and gradient variance.
