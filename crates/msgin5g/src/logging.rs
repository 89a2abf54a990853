//! Where the program's `tracing` events go: standard error, as text or JSON lines.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt};

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
    let discreet = filter_fn(is_discreet);
    match cli.log_format {
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).finish().with(discreet).init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).finish().with(discreet).init(),
    }
    Ok(())
}

/// Keeps the HTTP libraries from telling more than is theirs to tell, whatever filter is asked for: below INFO they print
/// header fields and frames, and so the SUPI in a path and the keys in a body.
fn is_discreet(event: &Metadata<'_>) -> bool {
    *event.level() <= Level::INFO || !["h2", "hyper", "hyper_util", "tower"].contains(&crate_of(event.target()))
}

fn crate_of(target: &str) -> &str {
    target.split("::").next().unwrap_or(target)
}
