//! Counts of API invokers' calls, on disk.

use std::path::Path;

use sbi::capif::aef::InvocationCounts;
use store::{Counters, StoreError};
use transport::BoxFuture;

/// Where an API exposing function's counts are kept: a database of its own.
#[derive(Debug)]
pub struct DurableCounts(Counters);

impl DurableCounts {
    /// Opens the directory, or makes it. Blocks.
    ///
    /// # Errors
    /// As [`Counters::open`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Counters::open(path).map(Self)
    }
}

impl InvocationCounts for DurableCounts {
    fn all(&self) -> Result<Vec<(String, u64)>, String> {
        self.0.all().map_err(|error| error.to_string())
    }

    fn keep<'a>(&'a self, key: &'a str, count: Option<u64>) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.0.put(key, count).await.map_err(|error| error.to_string()) })
    }
}
