//! The gradient noise from squared norms alone.
//!
//! Sigma is the covariance of the per-sample gradients, with divisor N - 1, and G the gradient of
//! all N samples. Drawn without replacement, as every shuffling sampler does, the mean of B of them
//! has covariance Sigma (1/B - 1/N); a stream of fresh samples is the limit of infinite N.

use crate::Error;

/// Two unbiased estimates. Either may be off by its noise: `squared_norm` may be negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// The trace of Sigma, per sample.
    pub trace: f64,
    /// The squared norm of G.
    pub squared_norm: f64,
}

impl Noise {
    /// From `count` gradients, each the mean over `batch_size` samples that no other one holds: the
    /// sum of their squared norms, and the squared norm of their mean.
    ///
    /// A trace that rounding pushed below zero is zero.
    pub fn from_micro_batches(
        count: u64,
        batch_size: u64,
        sum_squared_norms: f64,
        squared_norm_of_mean: f64,
        num_samples: Option<u64>,
    ) -> Result<Self, Error> {
        at_least("count", 2, count)?;
        at_least("batch_size", 1, batch_size)?;
        not_negative("sum_squared_norms", sum_squared_norms)?;
        not_negative("squared_norm_of_mean", squared_norm_of_mean)?;
        let samples = count.saturating_mul(batch_size);
        at_most("count * batch_size", samples, num_samples)?;
        let (gradients, size) = (count as f64, batch_size as f64);
        let between = (sum_squared_norms - gradients * squared_norm_of_mean) / (gradients - 1.0);
        // Not f64::max, which would hide a NaN.
        let trace = if between < 0.0 { 0.0 } else { size * between };
        let excess = trace * (1.0 / samples as f64 - reciprocal(num_samples));
        Ok(Self { trace, squared_norm: squared_norm_of_mean - excess })
    }

    /// From the squared norms of two gradients, the means over a small and a large batch, or from
    /// averages of such squared norms.
    pub fn from_two_sizes(
        small_batch_size: u64,
        small_squared_norm: f64,
        large_batch_size: u64,
        large_squared_norm: f64,
        num_samples: Option<u64>,
    ) -> Result<Self, Error> {
        at_least("small_batch_size", 1, small_batch_size)?;
        if large_batch_size <= small_batch_size {
            return Err(Error::SizesInOrder { small: small_batch_size, large: large_batch_size });
        }
        not_negative("small_squared_norm", small_squared_norm)?;
        not_negative("large_squared_norm", large_squared_norm)?;
        at_most("large_batch_size", large_batch_size, num_samples)?;
        let (small, large) = (1.0 / small_batch_size as f64, 1.0 / large_batch_size as f64);
        let trace = (small_squared_norm - large_squared_norm) / (small - large);
        let squared_norm = large_squared_norm - trace * (large - reciprocal(num_samples));
        Ok(Self { trace, squared_norm })
    }
}

/// 1/N, which is zero for an endless stream.
fn reciprocal(num_samples: Option<u64>) -> f64 {
    num_samples.map_or(0.0, |count| 1.0 / count as f64)
}

fn at_least(name: &'static str, least: u64, got: u64) -> Result<(), Error> {
    if got < least { Err(Error::AtLeast { name, least, got }) } else { Ok(()) }
}

fn at_most(name: &'static str, got: u64, num_samples: Option<u64>) -> Result<(), Error> {
    match num_samples {
        Some(num_samples) if got > num_samples => {
            Err(Error::AboveNumSamples { name, got, num_samples })
        }
        _ => Ok(()),
    }
}

fn not_negative(name: &'static str, got: f64) -> Result<(), Error> {
    if got < 0.0 { Err(Error::Negative { name, got: got.to_string() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Per-sample gradients of a small set, and the truth about them.
    const GRADIENTS: [[f64; 2]; 6] =
        [[1.0, 0.5], [-2.0, 3.0], [0.25, -1.0], [4.0, 0.0], [-1.5, -0.5], [0.5, 2.0]];

    fn mean(samples: &[usize]) -> [f64; 2] {
        [0, 1].map(|axis| {
            samples.iter().map(|&sample| GRADIENTS[sample][axis]).sum::<f64>()
                / samples.len() as f64
        })
    }

    fn squared_norm(gradient: [f64; 2]) -> f64 {
        gradient.iter().map(|value| value * value).sum()
    }

    fn truth() -> Noise {
        let full = mean(&[0, 1, 2, 3, 4, 5]);
        let squares: f64 = GRADIENTS
            .iter()
            .map(|gradient| squared_norm([gradient[0] - full[0], gradient[1] - full[1]]))
            .sum();
        Noise { trace: squares / 5.0, squared_norm: squared_norm(full) }
    }

    /// Every ordered choice of `length` different samples, as likely as any other.
    fn choices(length: usize) -> Vec<Vec<usize>> {
        if length == 0 {
            return vec![vec![]];
        }
        choices(length - 1)
            .into_iter()
            .flat_map(|chosen| {
                (0..6)
                    .filter(|next| !chosen.contains(next))
                    .map(|next| {
                        let mut longer = chosen.clone();
                        longer.push(next);
                        longer
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn assert_unbiased(estimates: &[Noise]) {
        let count = estimates.len() as f64;
        let trace = estimates.iter().map(|noise| noise.trace).sum::<f64>() / count;
        let squared = estimates.iter().map(|noise| noise.squared_norm).sum::<f64>() / count;
        let truth = truth();
        assert!((trace - truth.trace).abs() < 1e-12, "{trace} {truth:?}");
        assert!((squared - truth.squared_norm).abs() < 1e-12, "{squared} {truth:?}");
    }

    #[test]
    fn micro_batches_are_unbiased_without_replacement() {
        for (count, size) in [(2, 1), (3, 1), (6, 1), (2, 2), (3, 2), (2, 3)] {
            let estimates: Vec<Noise> = choices(count * size)
                .iter()
                .map(|chosen| {
                    let norms = chosen.chunks(size).map(|batch| squared_norm(mean(batch))).sum();
                    let (count, size) = (count as u64, size as u64);
                    Noise::from_micro_batches(
                        count,
                        size,
                        norms,
                        squared_norm(mean(chosen)),
                        Some(6),
                    )
                    .unwrap()
                })
                .collect();
            assert_unbiased(&estimates);
        }
    }

    #[test]
    fn two_sizes_are_unbiased_without_replacement() {
        for (small, large) in [(1, 2), (1, 6), (2, 5), (3, 4)] {
            let estimates: Vec<Noise> = choices(large)
                .iter()
                .map(|chosen| {
                    let norms = [small, large].map(|size| squared_norm(mean(&chosen[..size])));
                    let [small, large] = [small as u64, large as u64];
                    Noise::from_two_sizes(small, norms[0], large, norms[1], Some(6)).unwrap()
                })
                .collect();
            assert_unbiased(&estimates);
        }
    }

    #[test]
    fn an_endless_stream_is_the_limit() {
        let endless = Noise::from_micro_batches(4, 8, 10.0, 2.0, None).unwrap();
        let many = Noise::from_micro_batches(4, 8, 10.0, 2.0, Some(1 << 60)).unwrap();
        assert!((endless.squared_norm - many.squared_norm).abs() < 1e-12);
        // S - K |mean|^2 = 2 over K - 1 = 3 gradients, times 8 samples; less that over 32.
        assert!((endless.trace - 16.0 / 3.0).abs() < 1e-12);
        assert!((endless.squared_norm - (2.0 - 1.0 / 6.0)).abs() < 1e-12);
    }

    #[test]
    fn rounding_makes_no_negative_trace_and_hides_no_nan() {
        assert!(
            Noise::from_micro_batches(2, 1, 1.0, 0.500_001, None).unwrap().trace.abs() < 1e-300
        );
        assert!(Noise::from_micro_batches(2, 1, f64::NAN, 1.0, None).unwrap().trace.is_nan());
        let diverged = Noise::from_micro_batches(2, 1, f64::INFINITY, 1.0, None).unwrap();
        assert!(diverged.trace.is_infinite() && diverged.squared_norm.is_infinite());
    }

    #[test]
    fn bad_evidence_is_refused() {
        let micro = |count, size| Noise::from_micro_batches(count, size, 1.0, 1.0, Some(100));
        assert_eq!(micro(1, 1), Err(Error::AtLeast { name: "count", least: 2, got: 1 }));
        assert_eq!(micro(2, 0), Err(Error::AtLeast { name: "batch_size", least: 1, got: 0 }));
        assert!(matches!(micro(11, 10), Err(Error::AboveNumSamples { got: 110, .. })));
        assert!(matches!(
            Noise::from_micro_batches(2, 1, -1.0, 1.0, None),
            Err(Error::Negative { name: "sum_squared_norms", .. })
        ));
        assert_eq!(
            Noise::from_two_sizes(4, 1.0, 4, 1.0, None),
            Err(Error::SizesInOrder { small: 4, large: 4 })
        );
    }
}
