//! Where the program's `tracing` events go: standard error, as text or JSON lines.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::{
    cli::{Cli, LogFormat},
    outcome::Failure,
};

/// Starts logging as the command line says; `--log` goes before `RUST_LOG`, which goes before the command's default.
pub(crate) fn start(cli: &Cli) -> Result<(), Failure> {
    let directives = cli
        .log
        .clone()
        .or_else(|| std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| cli.command.default_log().to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        Failure::usage(format!("`{directives}` is not a log filter: {error}"))
            .help("give a level (error, warn, info, debug, trace) or directives such as `info,server=debug`")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match cli.log_format {
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
    }
    Ok(())
}
