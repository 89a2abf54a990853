//! `msgin5g lab`: every function in one process on loopback.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::outcome::Failure;

/// Arguments of `msgin5g lab`.
#[derive(Args, Debug)]
pub(crate) struct LabArgs {
    /// Directory of the lab: keys, certificates, subscribers, configuration; made on first use
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Play a scripted day of what the product can do, tell it, and exit 0 only if all of it held
    #[arg(long)]
    pub(crate) demo: bool,
    /// Use fixed ports from N upwards instead of free ones
    #[arg(long, value_name = "N")]
    pub(crate) base_port: Option<u16>,
}

/// Runs the lab until SIGINT or SIGTERM.
pub(crate) async fn run(_arguments: LabArgs) -> Result<ExitCode, Failure> {
    Err(Failure::new("the lab is not wired yet"))
}
