//! Applications of one device share its client over a local socket (TS 23.554 clause 8.11): `msgin5g client serve`, run as
//! its users run it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use common::{Lab, foreign, msgin5g, signal};
use serde_json::Value;

const TOKEN: &str = "Zx3!a-token-of-the-meter";

/// A device of the lab, with a place for its files.
struct Device {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Device {
    fn start() -> Self {
        let device = Self { lab: Lab::start(), folder: tempfile::tempdir().unwrap() };
        let profile = device.path("device.toml");
        let made = msgin5g()
            .args(["client", "profile", "--subscriber", "0", "--lab"])
            .arg(device.lab.lab_json_path())
            .arg("--out")
            .arg(&profile)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        device
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("applications.sock")
    }

    fn applications(&self, text: &str) -> PathBuf {
        let path = self.path("applications.toml");
        fs::write(&path, text).unwrap();
        path
    }

    fn serve(&self, applications: Option<&Path>, arguments: &[&str]) -> Serving {
        let mut command = msgin5g();
        command.args(["--json", "client", "serve", "--timeout", "60s", "--profile"]).arg(self.path("device.toml"));
        command.arg("--socket").arg(self.socket()).args(arguments);
        if let Some(applications) = applications {
            command.arg("--applications").arg(applications);
        }
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("client serve printed {line:?}"));
        Serving { process, ready }
    }
}

/// `client serve` under way.
struct Serving {
    process: Child,
    ready: Value,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn applications_of_the_standard_library_alone_share_one_client() {
    let device = Device::start();
    let other = device.lab.lab_json()["subscribers"][1]["ue_service_id"].as_str().unwrap().to_owned();
    let applications = device.applications(&format!(
        "[[application]]\napplication_id = \"metering\"\ntoken = \"{TOKEN}\"\ndestinations = [\"UE:{other}\"]\n\
         [[application]]\napplication_id = \"alarm\"\nuids = [{}]\n",
        rustix::process::geteuid().as_raw()
    ));
    let serving = device.serve(Some(&applications), &[]);
    assert_eq!(serving.ready["ready"], "client");
    foreign("application.py", &[&device.lab.lab_json_path(), &device.socket(), Path::new(TOKEN)]);
}

#[test]
fn what_an_application_has_answered_does_not_come_again_and_the_rest_does_when_the_client_is_killed() {
    let device = Device::start();
    let applications = device.applications(&format!(
        "[[application]]\napplication_id = \"alarm\"\nuids = [{}]\ndestinations = [\"*\"]\n",
        rustix::process::geteuid().as_raw()
    ));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (profile, socket) = (text(&device.path("device.toml")), text(&device.socket()));
    let program = env!("CARGO_BIN_EXE_msgin5g");
    let command =
        [program, "--json", "client", "serve", "--timeout", "60s", "--profile", &profile, "--socket", &socket];
    let command: Vec<&str> = command.into_iter().chain(["--applications", applications.to_str().unwrap()]).collect();
    let command = serde_json::to_string(&command).unwrap();
    foreign("application_crash.py", &[&device.lab.lab_json_path(), &device.socket(), Path::new(&command)]);
}

#[test]
fn the_socket_is_private_gone_in_the_end_and_replaced_after_a_crash() {
    let device = Device::start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut serving = device.serve(None, &[]);
    assert_eq!(mode(&device.socket()), 0o600);
    serving.process.kill().unwrap();
    serving.process.wait().unwrap();
    assert!(fs::symlink_metadata(device.socket()).unwrap().file_type().is_socket(), "a crash leaves the file behind");

    let mut serving = device.serve(None, &["--group-access"]);
    assert_eq!(mode(&device.socket()), 0o660);
    signal(&serving.process, "TERM");
    assert_eq!(serving.process.wait().unwrap().code(), Some(0));
    assert!(!device.socket().exists());
}

#[test]
fn a_file_that_cannot_be_meant_is_refused_before_anything_is_opened() {
    let device = Device::start();
    let run = |applications: &Path, socket: &Path| {
        let mut command = msgin5g();
        command.args(["client", "serve", "--profile"]).arg(device.path("device.toml"));
        let output = command.arg("--socket").arg(socket).arg("--applications").arg(applications).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let nobody = device.applications("[[application]]\napplication_id = \"a\"\n");
    assert!(run(&nobody, &device.socket()).contains("needs a token or uids"));
    let misspelt = device.applications("[[application]]\napplication_id = \"a\"\ntokn = \"x\"\n");
    assert!(run(&misspelt, &device.socket()).contains("tokn"));
    let good = device.applications("[[application]]\napplication_id = \"a\"\nuids = [0]\n");
    let occupied = device.path("device.toml");
    assert!(run(&good, &occupied).contains("no socket"));
    assert!(fs::read_to_string(occupied).unwrap().contains("ue_service_id"), "the file is as it was");
    assert!(!device.socket().exists());
}
