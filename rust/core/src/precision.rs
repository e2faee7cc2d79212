//! A state's precision, chosen at run time.

use crate::Error;

/// Something in one of the two precisions that a state can have.
#[derive(Debug)]
pub enum Precision<Single, Double> {
    /// Single precision: a gradient in double precision is rounded.
    Single(Single),
    /// Double precision.
    Double(Double),
}

impl<Single, Double> Precision<Single, Double> {
    /// Makes it in the precision that `dtype` names, `float32` or `float64`.
    pub fn make(
        dtype: &str,
        single: impl FnOnce() -> Result<Single, Error>,
        double: impl FnOnce() -> Result<Double, Error>,
    ) -> Result<Self, Error> {
        match dtype {
            "float32" => single().map(Self::Single),
            "float64" => double().map(Self::Double),
            _ => Err(Error::UnknownPrecision(dtype.to_owned())),
        }
    }
}

/// Runs an expression that reads the same in either precision.
#[macro_export]
macro_rules! in_either {
    ($either:expr, $inner:ident => $work:expr) => {
        match $either {
            $crate::Precision::Single($inner) => $work,
            $crate::Precision::Double($inner) => $work,
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_goes_by_its_name() {
        let make = |dtype| Precision::make(dtype, || Ok(4), || Ok(8));
        assert_eq!(in_either!(make("float32").unwrap(), bytes => bytes), 4);
        assert_eq!(in_either!(make("float64").unwrap(), bytes => bytes), 8);
        let refused = make("float16").unwrap_err();
        assert_eq!(refused, Error::UnknownPrecision("float16".to_owned()));
    }
}
