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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    /// Sections of the reference by the command in their heading; headings that follow each other share a section.
    fn sections() -> BTreeMap<String, String> {
        let mut sections: BTreeMap<String, String> = BTreeMap::new();
        let mut open: Vec<String> = Vec::new();
        let mut in_text = false;
        for line in include_str!("../../../docs/reference/cli.md").lines() {
            if let Some(name) = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`')) {
                if in_text {
                    open.clear();
                }
                in_text = false;
                open.push(name.to_owned());
                sections.insert(name.to_owned(), String::new());
            } else if line.starts_with("## ") {
                open.clear();
            } else {
                in_text |= !line.is_empty();
                for name in &open {
                    sections.get_mut(name).unwrap().push_str(&format!("{line}\n"));
                }
            }
        }
        sections
    }

    fn leaves(command: &clap::Command, name: &str, found: &mut Vec<(String, Vec<String>)>) {
        let subcommands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
        if subcommands.is_empty() || !command.is_subcommand_required_set() {
            let options = command
                .get_arguments()
                .filter(|argument| !argument.is_global_set())
                .filter_map(|argument| argument.get_long())
                .filter(|long| !["help", "version"].contains(long))
                .map(|long| format!("`--{long}"));
            found.push((name.to_owned(), options.collect()));
        }
        for subcommand in subcommands {
            leaves(subcommand, &format!("{name} {}", subcommand.get_name()), found);
        }
    }

    #[test]
    fn every_command_and_option_is_in_the_reference_and_nothing_else() {
        let mut sections = sections();
        let document = include_str!("../../../docs/reference/cli.md");
        let mut found = Vec::new();
        leaves(&Cli::command(), "msgin5g", &mut found);
        for (command, options) in &found {
            let section = sections.remove(command).unwrap_or_else(|| panic!("`{command}` is not in the reference"));
            // Options that many commands share stand once, before them.
            let shared = ["`--profile", "`--timeout", "`--lab", "`--url", "`--cert", "`--key", "`--ca"];
            for option in options {
                let text = if shared.contains(&option.as_str()) { document } else { &section };
                let is_there = [" ", "`"].iter().any(|end| text.contains(&format!("{option}{end}")));
                assert!(is_there, "{command} {option}` is not in the reference");
            }
            for row in section.lines().filter_map(|line| line.strip_prefix("| `--")) {
                let name = row.split([' ', '`']).next().unwrap();
                assert!(options.contains(&format!("`--{name}")), "{command} has no --{name}");
            }
        }
        assert!(sections.is_empty(), "no such commands: {:?}", sections.keys());
    }
}
