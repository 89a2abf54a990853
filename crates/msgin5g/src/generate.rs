//! Shell completions and manual pages, made from the command line's own description.

use std::{path::Path, process::ExitCode};

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

use crate::{
    cli::Cli,
    outcome::{Failure, Output},
};

pub(crate) fn completions(shell: Shell, output: Output) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "msgin5g", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// What `man` prints.
#[derive(Serialize)]
struct Written {
    pages: Vec<String>,
}

/// Writes `msgin5g.1`, `msgin5g-client-send.1` and so on.
pub(crate) fn man(directory: &Path, output: Output) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot write manual pages to {}: {error}", directory.display()))
            .help("give a directory that you may write to")
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory).map_err(failed)?;
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.starts_with("msgin5g") {
            pages.push(name);
        }
    }
    pages.sort();
    output.print(&Written { pages }, |written| {
        format!(
            "{} manual pages in {}: man {}/msgin5g.1",
            written.pages.len(),
            directory.display(),
            directory.display()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}
