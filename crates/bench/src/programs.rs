//! Where the measured programs are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::net::TcpListener;

use crate::{Arguments, BenchError};

/// The msgin5g program: named, or beside this one, or built by the cargo that runs this one.
pub(crate) fn find_or_build(arguments: &Arguments) -> Result<PathBuf, BenchError> {
    if let Some(program) = &arguments.program {
        return Ok(program.clone());
    }
    let this = std::env::current_exe()?;
    if this.file_name().is_some_and(|name| name == PROGRAM) {
        return Ok(this);
    }
    let beside = this.with_file_name(PROGRAM);
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = std::process::Command::new(&cargo);
        build.args(["build", "--package", PROGRAM]).stdout(Stdio::null());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let status = build.status().map_err(|source| BenchError::Start { program: cargo.into(), source })?;
        if !status.success() {
            return Err(BenchError::Server { server: "msgin5g", reason: "it does not build".to_owned() });
        }
    }
    Ok(beside)
}

/// A peer's program. Debian keeps servers where only root's PATH looks.
pub(crate) fn in_sbin(named: &Path) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(named);
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(named).is_file()));
    if found || named.is_absolute() || !sbin.is_file() { named.to_owned() } else { sbin }
}

/// An address of loopback that nobody listens at.
pub(crate) async fn free_address() -> Result<SocketAddr, BenchError> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

const PROGRAM: &str = "msgin5g";
