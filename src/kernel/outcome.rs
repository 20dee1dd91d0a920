//! How each source fared in one sample.

use super::error::Error;
use crate::sample::Source;

/// The failures of one sample. A source without one has been read whole.
#[derive(Debug, Default)]
pub struct Outcomes(Vec<(Source, Error)>);

impl Outcomes {
    /// Notes that `source` could not be read whole.
    pub fn failed(&mut self, source: Source, error: Error) {
        self.0.push((source, error));
    }

    /// The value of `result`, or `None` and the error noted.
    pub fn note<T>(&mut self, source: Source, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.failed(source, error)).ok()
    }

    /// Adds the failures of a part of the sample that was read apart.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What stopped `source` first, if anything did.
    pub fn first(&self, source: Source) -> Option<&Error> {
        self.0.iter().find(|(failed, _)| *failed == source).map(|(_, error)| error)
    }
}
