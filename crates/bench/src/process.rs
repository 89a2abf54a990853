//! What a server's process has used, as the kernel tells.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::BenchError;

/// A process that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// User and system time of all its threads so far (`/proc/PID/stat`, to 10 ms).
    pub(crate) fn cpu(self) -> Result<Duration, BenchError> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let ticks = cpu_ticks(&text).ok_or_else(|| BenchError::Io(unreadable("stat")))?;
        Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
    }

    /// Memory it holds (`VmRSS` of `/proc/PID/status`), in octets.
    pub(crate) fn resident_bytes(self) -> Result<u64, BenchError> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        resident_kibibytes(&text).map(|kibibytes| kibibytes * 1_024).ok_or_else(|| BenchError::Io(unreadable("status")))
    }
}

/// Fields 14 and 15, counted behind the program's name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kibibytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

fn unreadable(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("/proc/PID/{what} is not as expected"))
}

/// Lets this process, and the servers it starts, open as many connections as the system allows.
pub(crate) fn raise_file_limit() -> Result<(), BenchError> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .map_err(|error| BenchError::Io(error.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_programs_name_may_look_like_fields() {
        let stat = "42 (a) b 1 (c)) S 1 42 42 0 -1 4194304 500 0 0 0 7 5 0 0 20 0 1 0 100 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks("42"), None);
        assert_eq!(resident_kibibytes("VmSize:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1234));
        assert_eq!(resident_kibibytes("VmSize:\t 9 kB\n"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let process = Process(std::process::id());
        assert!(process.resident_bytes().unwrap() > 100_000);
        process.cpu().unwrap();
    }
}
