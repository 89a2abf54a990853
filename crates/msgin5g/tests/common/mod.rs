//! The real program, in the real lab, for tests that look from outside.
#![allow(dead_code, unreachable_pub, reason = "a module of each test program, which uses a part of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

pub mod faulty_disk;
pub mod fleet;
pub mod foreign_ue;
pub mod function;
pub mod nat;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A command of the program under test.
pub fn msgin5g() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msgin5g"));
    command.stdin(Stdio::null());
    command
}

/// Sends a signal to a process that a test started.
pub fn signal(process: &Child, name: &str) {
    let pid = process.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

/// One network on this machine: `msgin5g lab` in a folder of its own.
pub struct Lab {
    folder: TempDir,
    process: Option<Child>,
    arguments: Vec<String>,
}

impl Lab {
    /// Starts a new network and waits until it says READY.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with further arguments of `msgin5g lab`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut lab = Self { folder, process: None, arguments };
        lab.start_again();
        lab
    }

    /// Starts the network again in the same folder, after [`Lab::kill`] or [`Lab::stop`].
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the lab runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.path("lab.log")).unwrap();
        let mut process = msgin5g()
            .args(["lab", "--dir"])
            .arg(self.directory())
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.starts_with("READY "), "the lab printed {line:?}; its log:\n{}", self.log());
        // Whatever else it prints is read and dropped, so that it can never block on a full pipe.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        self.process = Some(process);
    }

    /// `kill -9`: nothing gets a chance to be written.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the lab runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// SIGTERM, and the wait for a graceful end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the lab runs");
        signal(&process, "TERM");
        process.wait().unwrap()
    }

    /// The process ID while it runs.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("the lab runs").id()
    }

    /// The lab's folder.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// A path in the lab's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The path of `lab.json`.
    pub fn lab_json_path(&self) -> PathBuf {
        self.path("lab.json")
    }

    /// `lab.json`.
    pub fn lab_json(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.lab_json_path()).unwrap()).unwrap()
    }

    /// The metrics of its MSGin5G Server.
    pub fn metrics(&self) -> String {
        let description = self.lab_json();
        let admin = description["server"]["admin"].as_str().unwrap().trim_start_matches("http://");
        let mut stream = TcpStream::connect(admin).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// What the lab logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("lab.log")).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.char_indices().rev().nth(8_000).map_or(0, |(at, _)| at);
            eprintln!("--- the end of the lab's log ---\n{}", &log[tail..]);
        }
    }
}

/// Runs one of the foreign programs in `tests/foreign` and returns what it printed; it must end well.
pub fn foreign(script: &str, arguments: &[&Path]) -> String {
    run_foreign(Path::new("python3"), script, arguments)
}

/// The same for one that needs the peers of `target/tools`: HTTP/2 clients and servers, readers of OpenAPI.
pub fn foreign_peer(script: &str, arguments: &[&Path]) -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/python");
    run_foreign(&python, script, arguments)
}

fn run_foreign(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(script);
    let mut process = Command::new(python)
        .arg("-B")
        .arg(path)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs; `cargo xtask setup` installs what the tests need");
    let mut errors = process.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    });
    let mut printed = String::new();
    process.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    let status = process.wait().unwrap();
    let errors = errors.join().unwrap();
    assert!(status.success(), "{script} ended with {status}\n{printed}\n{errors}");
    assert!(printed.trim_end().ends_with("all held"), "{script} did not say that all held:\n{printed}\n{errors}");
    printed
}
