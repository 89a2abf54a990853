//! Load, latency, memory and durability figures of the MSGin5G Server, beside mosquitto in the same run, for devices over
//! DTLS beside libcoap, and of the AKMA anchor function, beside nghttpd.
//!
//! Start from [`Arguments`], what the command line says, and [`run`]. What is measured and how: `README.md`.
//!
//! ```no_run
//! use clap::Parser;
//!
//! #[derive(Parser)]
//! struct CommandLine {
//!     #[command(flatten)]
//!     arguments: bench::Arguments,
//! }
//!
//! # async fn example() -> Result<(), bench::BenchError> {
//! let line = CommandLine::parse_from(["bench", "messages", "--seconds", "5"]);
//! bench::run(line.arguments, true).await
//! # }
//! ```

#![forbid(unsafe_code)]

mod aanf;
mod arguments;
mod datagram;
mod error;
mod latency;
mod mosquitto;
mod msgin5g;
mod peer;
mod process;
mod programs;
mod report;
mod wire;
mod workload;

pub use arguments::{Arguments, PeerChoice, Work};
pub use error::BenchError;

use mosquitto::Durability;
use peer::Peer;
use report::Report;

/// Measures what `arguments` ask for and prints the figures, as JSON or as a table.
///
/// # Errors
/// [`BenchError`] when a server cannot be started or does not do its work; figures measured until then are not printed.
pub async fn run(arguments: Arguments, json: bool) -> Result<(), BenchError> {
    process::raise_file_limit()?;
    let mut report = Report::new(&arguments);
    if arguments.work.includes_messaging() {
        messaging(&arguments, &mut report).await?;
    }
    if arguments.work.includes(Work::Datagrams) {
        datagrams(&arguments, &mut report).await?;
    }
    if arguments.work.includes(Work::IdleDtls) {
        if arguments.peer.includes_libcoap() {
            let server = datagram::Libcoap::start(&arguments).await?;
            let devices = usize::try_from(arguments.devices).unwrap_or(usize::MAX);
            workload::idle_sessions(&server, devices.min(LIBCOAP_IDLE_MAX), &arguments, &mut report).await?;
        }
        if arguments.peer.includes_msgin5g() {
            msgin5g::idle_dtls(&arguments, &mut report).await?;
        }
    }
    if arguments.work.includes(Work::Aanf) {
        if arguments.peer.includes_nghttpd() {
            workload::floor(&arguments, &mut report).await?;
        }
        // The AAnF of a lab that runs already is one process with everything else.
        if arguments.peer.includes_msgin5g() && arguments.lab.is_none() {
            workload::aanf(&arguments, &mut report).await?;
        }
    }
    report.print(json)
}

async fn datagrams(arguments: &Arguments, report: &mut Report) -> Result<(), BenchError> {
    if arguments.peer.includes_libcoap() {
        let server = datagram::Libcoap::start(arguments).await?;
        workload::datagrams(&server, arguments, report).await?;
    }
    // Another process than the measured one floods and asks; of a lab that runs already nothing may be set.
    if arguments.peer.includes_msgin5g() && arguments.lab.is_none() {
        let devices = msgin5g::Devices::start(arguments, workload::devices_needed(arguments)).await?;
        workload::datagrams(&devices, arguments, report).await?;
        workload::deliveries(&devices, arguments, report).await?;
        devices.stop().await;
    }
    Ok(())
}

async fn messaging(arguments: &Arguments, report: &mut Report) -> Result<(), BenchError> {
    if arguments.peer.includes_mosquitto() {
        let broker = mosquitto::Mosquitto::start(arguments, Durability::Snapshots).await?;
        measure(&broker, arguments, false, report).await?;
        drop(broker);
        if arguments.work.includes(Work::Store) {
            let broker = mosquitto::Mosquitto::start(arguments, Durability::EachChange).await?;
            workload::store(&broker, arguments, true, report).await?;
        }
    }
    if arguments.peer.includes_msgin5g() {
        let server = msgin5g::Msgin5g::start(arguments).await?;
        measure(&server, arguments, server.may_be_killed(), report).await?;
        server.stop().await;
    }
    Ok(())
}

async fn measure<P: Peer>(peer: &P, arguments: &Arguments, kill: bool, report: &mut Report) -> Result<(), BenchError> {
    // First, because memory once taken is seldom given back.
    if arguments.work.includes(Work::Memory) {
        workload::memory(peer, arguments, report).await?;
    }
    if arguments.work.includes(Work::Handshakes) {
        workload::handshakes(peer, arguments, report).await?;
    }
    if arguments.work.includes(Work::Messages) {
        workload::messages(peer, arguments, report).await?;
    }
    if arguments.work.includes(Work::Store) {
        workload::store(peer, arguments, kill, report).await?;
    }
    Ok(())
}

/// Idle devices of libcoap's server at most: the more sessions it has the longer it takes for a handshake (the first 39,000 took
/// 341 s of its time, where few sessions let it make 2,500 in a second), and it ends those that have been idle for five minutes.
const LIBCOAP_IDLE_MAX: usize = 20_000;
