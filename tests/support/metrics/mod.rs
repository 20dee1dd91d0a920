//! What the tests of the metrics share.

pub(crate) mod exposition;
pub(crate) mod fixture;
pub(crate) mod golden;
pub(crate) mod reference;
