//! Running other programs.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Why a step ended early, for a person.
pub(crate) type Failure = String;

/// The root of the work tree.
pub(crate) fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// The cargo that started us, or the one on the path.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Takes out what cargo told this program about itself: build scripts look at it, and what `cargo` alone has built
/// would be built anew here, and the other way round.
fn without_our_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(name);
        }
    }
}

/// Runs `command`, its output ours, and says how long it took.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<(), Failure> {
    println!("==> {what}");
    without_our_package(command);
    let started = Instant::now();
    let status =
        command.status().map_err(|error| format!("{what}: cannot start {:?}: {error}", command.get_program()))?;
    if !status.success() {
        return Err(format!("{what} failed: {status}\n    {command:?}"));
    }
    println!("==> {what}: done in {} s", started.elapsed().as_secs());
    Ok(())
}

/// Whether `program ARGUMENTS` can be started and ends well; its output is dropped.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
