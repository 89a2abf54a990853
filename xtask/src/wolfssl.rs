//! The peer on wolfSSL: DTLS with PSK and Connection ID of another make. Its source is in a crate, which is fetched and
//! not compiled; what is made of it is a program in `target/tools`, for tests only, since wolfSSL is GPL.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{Failure, cargo, root, run};

/// What wolfSSL is built with. Plain PSK is off without the definition.
const CONFIGURE: &[&str] = &[
    "CFLAGS=-O1 -DWOLFSSL_STATIC_PSK",
    "--quiet",
    "--enable-dtls",
    "--enable-dtls13",
    "--enable-dtlscid",
    "--enable-psk",
    "--enable-aesccm",
    "--enable-curve25519",
    "--disable-examples",
    "--disable-crypttests",
    "--disable-shared",
    "--enable-static",
];

/// Builds `tools/bin/wolfssl-peer`, unless it is there and of this source.
pub(crate) fn install_peer(tools: &Path) -> Result<(), Failure> {
    let source = root().join("peers").join("wolfssl");
    let program = tools.join("bin").join("wolfssl-peer");
    let stamp = tools.join("wolfssl-peer-installed");
    let wanted = [read(&source.join("peer.c"))?, read(&source.join("Cargo.lock"))?, CONFIGURE.join(" ")].concat();
    if program.exists() && std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let build = tools.join("wolfssl");
    let _ = std::fs::remove_dir_all(&build);
    run("copy of wolfSSL's source", Command::new("cp").arg("-r").arg(fetched(&source)?).arg(&build))?;
    run(
        "autoreconf of wolfSSL",
        Command::new("sh").current_dir(&build).args(["-c", "autoreconf -fi >/dev/null 2>&1"]),
    )?;
    run("configuration of wolfSSL", Command::new("./configure").current_dir(&build).args(CONFIGURE))?;
    let mut make = Command::new("make");
    run("build of wolfSSL", make.current_dir(&build).args(["--silent", "-j2"]).stdout(Stdio::null()))?;
    let mut compile = Command::new("gcc");
    compile.args(["-O1", "-DWOLFSSL_STATIC_PSK", "-I"]).arg(&build).arg(source.join("peer.c"));
    compile.arg("-o").arg(&program).arg(build.join("src/.libs/libwolfssl.a")).args(["-lm", "-lpthread"]);
    run("build of the wolfSSL peer", &mut compile)?;
    let _ = std::fs::remove_dir_all(&build);
    std::fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))
}

/// Where cargo put the source, after fetching it if need be.
fn fetched(source: &Path) -> Result<PathBuf, Failure> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]).arg(source.join("Cargo.toml"));
    let output = metadata.output().map_err(|error| format!("cargo metadata: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split("\"manifest_path\":\"")
        .filter_map(|rest| rest.split('"').next())
        .map(Path::new)
        .find(|path| path.to_string_lossy().contains("/wolfssl-sys-"))
        .and_then(Path::parent)
        .map(|folder| folder.join("wolfssl-src"))
        .ok_or_else(|| format!("wolfSSL cannot be fetched: {}", String::from_utf8_lossy(&output.stderr)))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
