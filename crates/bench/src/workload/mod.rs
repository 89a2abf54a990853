//! What is done to each server.

mod akma;
mod datagrams;
mod handshakes;
mod memory;
mod messages;
mod store;

use std::time::{Duration, Instant};

pub(crate) use akma::{aanf, floor};
pub(crate) use datagrams::{IDLE_LIVE, REQUEST_LIVE, attacked, datagrams, deliveries, devices_needed, idle_sessions};
pub(crate) use handshakes::handshakes;
pub(crate) use memory::memory;
pub(crate) use messages::messages;
pub(crate) use store::store;

use crate::BenchError;
use crate::process::Process;

/// Users that the workloads other than memory need.
pub(crate) const USERS_MIN: usize = 64;

/// Not measured, so that caches are warm.
const WARM_UP: Duration = Duration::from_secs(1);

/// Server time and wall time since a point.
pub(crate) struct Meter {
    process: Process,
    cpu: Duration,
    since: Instant,
}

impl Meter {
    pub(crate) fn start(process: Process) -> Result<Self, BenchError> {
        Ok(Self { process, cpu: process.cpu()?, since: Instant::now() })
    }

    pub(crate) fn read(&self, operations: u64) -> Result<Reading, BenchError> {
        let seconds = self.since.elapsed().as_secs_f64();
        let cpu = self.process.cpu()?.saturating_sub(self.cpu);
        let each = |total: f64| (operations > 0).then(|| total / operations as f64);
        Ok(Reading { per_second: Some(operations as f64 / seconds), server_cpu_us: each(cpu.as_secs_f64() * 1e6) })
    }
}

pub(crate) struct Reading {
    pub(crate) per_second: Option<f64>,
    pub(crate) server_cpu_us: Option<f64>,
}
