//! `msgin5g lab --demo`.

use std::process::ExitCode;

use crate::{
    lab::RunningLab,
    outcome::{Failure, Output},
};

/// Plays the demo.
pub(crate) async fn play(_lab: &mut RunningLab, _output: Output) -> Result<ExitCode, Failure> {
    Err(Failure::new("not yet"))
}
