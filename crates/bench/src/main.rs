//! Measures; all of it is in the library, so that `msgin5g bench` is the same program.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "bench", about, version)]
struct CommandLine {
    #[command(flatten)]
    arguments: bench::Arguments,
}

#[tokio::main]
async fn main() -> ExitCode {
    match bench::run(CommandLine::parse().arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
