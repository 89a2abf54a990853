//! `msgin5g lab`: every function in one process on loopback.

mod certificates;
mod running;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use running::RunningLab;

use crate::{
    demo,
    outcome::{Failure, Output},
};

/// Arguments of `msgin5g lab`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct LabArgs {
    /// What to do with a lab that is there; without it, the lab is run.
    #[command(subcommand)]
    pub(crate) command: Option<LabCommand>,
    /// Directory of the lab: keys, certificates, subscribers, configuration, state; made on first use
    #[arg(long, value_name = "DIR", required_unless_present = "demo")]
    pub(crate) dir: Option<PathBuf>,
    /// Play a scripted day of what the product can do, tell it, and exit 0 only if all of it held; without --dir in a
    /// lab of its own that is gone afterwards
    #[arg(long)]
    pub(crate) demo: bool,
    /// Use fixed ports from N upwards instead of free ones
    #[arg(long, value_name = "N")]
    pub(crate) base_port: Option<u16>,
    /// Development only: append the secrets of every MSGin5G-1 connection to FILE, for tools that decode captures
    #[arg(long, value_name = "FILE")]
    pub(crate) key_log: Option<PathBuf>,
}

/// What to do with a lab that is there, running or not.
#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Issue a certificate of the lab's authority, for a program that is to take part
    Issue(certificates::IssueArgs),
    /// Revoke a certificate; the lab's functions know within 5 seconds
    Revoke(certificates::RevokeArgs),
}

/// What a lab prints once everything in it serves.
#[derive(Serialize)]
struct Ready {
    /// Its `lab.json`.
    ready: String,
}

/// Runs the lab until SIGINT or SIGTERM, or plays the demo in it.
pub(crate) async fn run(arguments: LabArgs, output: Output) -> Result<ExitCode, Failure> {
    match arguments.command {
        Some(LabCommand::Issue(arguments)) => return certificates::issue(arguments, output),
        Some(LabCommand::Revoke(arguments)) => return certificates::revoke(&arguments, output),
        None => {}
    }
    // Before anything starts, so that no signal finds us without an answer.
    let mut interrupts = Interrupts::new()?;
    let (directory, passing) = match arguments.dir {
        Some(directory) => (directory, None),
        None => {
            let passing = PassingDirectory::new();
            (passing.0.clone(), Some(passing))
        }
    };
    let options = running::Options { directory, base_port: arguments.base_port, key_log: arguments.key_log };
    let mut lab = tokio::select! {
        lab = Box::pin(RunningLab::start(options)) => lab?,
        // Whoever waits for READY must not take this for a lab that ran.
        () = interrupts.next() => return Err(Failure::new("interrupted before the lab was ready")),
    };
    let outcome = if arguments.demo {
        tokio::select! {
            outcome = Box::pin(demo::play(&mut lab, output)) => outcome,
            () = interrupts.next() => Err(Failure::new("interrupted")),
        }
    } else {
        let ready = Ready { ready: lab.lab_json().display().to_string() };
        output.print(&ready, |ready| format!("READY {}", ready.ready))?;
        interrupts.next().await;
        Ok(ExitCode::SUCCESS)
    };
    lab.stop().await;
    drop(passing);
    outcome
}

/// SIGINT and SIGTERM.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A directory that is gone when this is dropped.
struct PassingDirectory(PathBuf);

impl PassingDirectory {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("msgin5g-demo-{}", uuid::Uuid::new_v4())))
    }
}

impl Drop for PassingDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(directory = %self.0.display(), %error, "the demo's lab was not removed");
        }
    }
}
