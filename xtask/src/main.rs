//! One entry for people and CI alike. `cargo xtask` lists the steps; each step's name says what it proves.
//!
//! Needs nothing but Rust: whatever a step calls beyond that, [`setup`] installs first and says so.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command-line program talks on standard output")]

mod contracts;
mod run;
mod setup;
mod steps;
mod wolfssl;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let Some(step) = steps::STEPS.iter().find(|step| step.name == name) else {
        print_usage();
        return if matches!(name.as_str(), "" | "help" | "--help" | "-h") {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(2)
        };
    };
    match (step.run)(&rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("xtask {}: {failure}", step.name);
            ExitCode::FAILURE
        }
    }
}

fn print_usage() {
    println!("cargo xtask STEP [ARGUMENTS]\n");
    for step in steps::STEPS {
        println!("  {:<11} {}", step.name, step.proves);
    }
}
