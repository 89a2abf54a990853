//! Measures; all of it is in the library, so that `msgin5g bench` is the same program.

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "bench", about, version)]
struct CommandLine {
    #[command(flatten)]
    arguments: bench::Arguments,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let line = CommandLine::parse();
    match bench::run(line.arguments, line.json).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
