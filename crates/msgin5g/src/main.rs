//! `msgin5g`: the MSGin5G system in one program.
//!
//! It wires the function crates to configuration files and the command line, and holds no protocol of its own.
//! Exit codes: 0 done, 1 failed, 2 wrong usage.
#![forbid(unsafe_code)]

mod cli;
mod client_command;
mod config_check;
mod demo;
mod descriptors;
#[cfg(test)]
mod documented;
mod function;
mod generate;
mod group;
mod keys;
mod lab;
mod logging;
mod outcome;
mod overlay;
mod profile;
mod provisioning;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command, ConfigCommand, KeysCommand},
    outcome::{Failure, Output},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    if let Err(failure) = logging::start(&cli) {
        return failure.report();
    }
    descriptors::raise_limit();
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
    match command {
        Command::Lab(arguments) => Box::pin(lab::run(arguments, output)).await,
        Command::Server(arguments) => function::run::<function::Server>(&arguments.config, output).await,
        Command::Aanf(arguments) => function::run::<function::Aanf>(&arguments.config, output).await,
        Command::Configuration(arguments) => function::run::<function::Configuration>(&arguments.config, output).await,
        Command::Exposure(arguments) => function::run::<function::Exposure>(&arguments.config, output).await,
        Command::Client { command } => Box::pin(client_command::run(command, output)).await,
        Command::Subscriber { command } => Box::pin(provisioning::subscriber(command, output)).await,
        Command::Association { command } => Box::pin(provisioning::association(command, output)).await,
        Command::Group { command } => Box::pin(group::run(command, output)).await,
        Command::Keys { command: KeysCommand::Derive(arguments) } => keys::derive(&arguments, output),
        Command::Bench(arguments) => {
            Box::pin(bench::run(arguments, output.json())).await.map_err(Failure::new).map(|()| ExitCode::SUCCESS)
        }
        Command::Config { command: ConfigCommand::Check { file, kind } } => config_check::check(&file, kind, output),
        Command::Completions { shell } => generate::completions(shell, output),
        Command::Man { out } => generate::man(&out, output),
    }
}
