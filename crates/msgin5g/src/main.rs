//! `msgin5g`: the MSGin5G system in one program.
//!
//! It wires the function crates to configuration files and the command line, and holds no protocol of its own.
//! Exit codes: 0 done, 1 failed, 2 wrong usage.
#![forbid(unsafe_code)]

mod cli;
mod lab;
mod logging;
mod outcome;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    outcome::{Failure, Output},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    if let Err(failure) = logging::start(&cli) {
        return failure.report();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new(format!("cannot start the asynchronous runtime: {error}"))
                .help("check the limits on threads and open files (`ulimit -a`)")
                .report();
        }
    };
    let result = runtime.block_on(Box::pin(run(cli.command, output)));
    // A command that returned has nothing left to finish; blocked helper threads must not hold the exit.
    runtime.shutdown_background();
    result.unwrap_or_else(|failure| failure.report())
}

async fn run(command: Command, output: Output) -> Result<ExitCode, Failure> {
    let _ = output;
    match command {
        Command::Lab(arguments) => lab::run(arguments).await,
        _ => Err(Failure::new("not wired yet")),
    }
}
