//! How a command ends: what it prints, and how it fails.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use serde::Serialize;

/// Exit code of a command that was understood but did not succeed.
const EXIT_FAILED: u8 = 1;
/// Exit code of a command that was not understood; clap uses the same.
const EXIT_USAGE: u8 = 2;

/// Why a command did not do what was asked, and what the user can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    help: Option<String>,
    exit: u8,
}

impl Failure {
    /// A command that was understood and failed: exit code 1.
    pub(crate) fn new(message: impl Display) -> Self {
        Self { message: message.to_string(), help: None, exit: EXIT_FAILED }
    }

    /// A command that cannot be meant: exit code 2.
    pub(crate) fn usage(message: impl Display) -> Self {
        Self { message: message.to_string(), help: None, exit: EXIT_USAGE }
    }

    /// Adds the next step for the user.
    pub(crate) fn help(mut self, help: impl Display) -> Self {
        self.help = Some(help.to_string());
        self
    }

    /// Prints the failure to standard error and yields the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut stderr = io::stderr().lock();
        // Nothing is left to be done when standard error is gone.
        let _ = writeln!(stderr, "error: {}", self.message);
        if let Some(help) = &self.help {
            let _ = writeln!(stderr, "  help: {help}");
        }
        ExitCode::from(self.exit)
    }
}

/// Standard output in the form the user asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// Output as JSON, or as text for a person.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether `--json` was given.
    pub(crate) fn json(self) -> bool {
        self.json
    }

    /// Prints one value: as one line of JSON, or as the text `text` makes of it.
    pub(crate) fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        done(self.try_print(value, text))
    }

    /// As [`Output::print`], for what must not be lost: a reader that has gone is an error too.
    pub(crate) fn try_print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let line = if self.json { serde_json::to_string(value)? } else { text(value) };
        write_line(&line)
    }

    /// Prints one line as it is.
    pub(crate) fn line(self, line: &str) -> Result<(), Failure> {
        done(write_line(line))
    }

    /// Tells a person at a terminal what is being waited for; silent in pipes and scripts.
    pub(crate) fn progress(self, what: impl Display) {
        let mut stderr = io::stderr().lock();
        if stderr.is_terminal() {
            let _ = writeln!(stderr, "{what}");
        }
    }
}

fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", line.trim_end_matches('\n'))?;
    stdout.flush()
}

fn done(written: io::Result<()>) -> Result<(), Failure> {
    written.or_else(|error| match error.kind() {
        // `msgin5g ... | head` is not a failure.
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::new(format!("cannot write to standard output: {error}"))),
    })
}

/// An error with its causes, as far as they say something new.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
