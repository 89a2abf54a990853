//! A device that has nothing but its USIM learns from the Configuration Function who it is and where its server is (TS 23.554
//! clause 8.1): the real program against the real lab.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Output, Stdio},
};

use common::{Lab, msgin5g, signal};
use serde_json::Value;

struct Device {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Device {
    fn start() -> Self {
        let device = Self { lab: Lab::start(), folder: tempfile::tempdir().unwrap() };
        let profile = device.profile();
        let lab_json = device.lab_json();
        device.json(&["client", "profile", "--bootstrap", "--subscriber", "0", "--lab", &lab_json, "--out", &profile]);
        device
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn profile(&self) -> String {
        self.path("device.toml").to_str().unwrap().to_owned()
    }

    fn lab_json(&self) -> String {
        self.lab.lab_json_path().to_str().unwrap().to_owned()
    }

    fn subscriber(&self, number: usize, member: &str) -> String {
        self.lab.lab_json()["subscribers"][number][member].as_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        msgin5g().arg("--json").args(arguments).output().unwrap()
    }

    /// Runs a command that must succeed; yields the first value that it printed.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().next().map(|line| serde_json::from_str(line).unwrap()).unwrap_or_default()
    }

    fn associate(&self, what: &str, ue_service_id: &str) {
        let (lab, supi) = (self.lab_json(), self.subscriber(0, "supi"));
        let arguments = ["association", what, "--lab", &lab, "--ue-id", &supi, "--ue-service-id", ue_service_id];
        let output = self.run(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_device_becomes_who_the_configuration_function_says_and_goes_by_it_while_that_is_away() {
    let mut device = Device::start();
    let profile = device.profile();
    assert!(!fs::read_to_string(&profile).unwrap().contains("ue_service_id"));
    let expected = device.subscriber(0, "ue_service_id");
    let unknown = device.run(&["client", "status", "--profile", &profile]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("client configure"), "nobody has asked yet");

    let registered = device.json(&["client", "register", "--profile", &profile]);
    assert_eq!(registered["ue_service_id"], expected.as_str());
    assert_eq!(device.json(&["client", "status", "--profile", &profile])["ue_service_id"], expected.as_str());
    let configured = device.json(&["client", "configure", "--profile", &profile]);
    assert_eq!(configured["ue_service_id"], expected.as_str());
    let server = configured["server"].as_str().unwrap();
    assert!(server.starts_with("coaps+tcp://") && server.ends_with("/msgin5g"), "{server}");

    // The whole network is gone: the client still knows who it is, and what it waits for is the server.
    device.lab.kill();
    let away = device.run(&["client", "register", "--timeout", "2s", "--profile", &profile]);
    let words = String::from_utf8_lossy(&away.stderr).into_owned();
    assert!(away.status.code() == Some(1) && words.contains("no connection to"), "{words}");
    device.lab.start_again();
    // And it is told again, what it knew already and what changed meanwhile.
    assert_eq!(device.json(&["client", "configure", "--profile", &profile]), configured);
    assert_eq!(device.json(&["client", "register", "--profile", &profile])["ue_service_id"], expected.as_str());
    device.associate("add", "renamed@lab.example");
    device.associate("remove", &expected);
    let renamed = device.json(&["client", "configure", "--profile", &profile]);
    assert_eq!(renamed["ue_service_id"], "renamed@lab.example");
}

#[test]
fn a_device_that_nobody_associated_is_told_so_and_one_that_cannot_prove_itself_is_told_nothing() {
    let device = Device::start();
    let profile = device.profile();
    let expected = device.subscriber(0, "ue_service_id");
    device.associate("remove", &expected);
    let refused = device.run(&["client", "configure", "--profile", &profile]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && words.contains("NOT_ASSOCIATED"), "{words}");
    assert!(words.contains("association add"), "{words}");

    // The K_AF of another function's name is another key.
    let text = fs::read_to_string(&profile).unwrap();
    let fqdn = text.lines().find(|line| line.starts_with("fqdn")).unwrap();
    let wrong = device.path("wrong.toml");
    fs::write(&wrong, text.replace(fqdn, "fqdn = \"elsewhere.lab.example\"")).unwrap();
    let refused = device.run(&["client", "configure", "--profile", wrong.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn a_client_that_serves_applications_starts_anew_when_its_identity_changes() {
    let device = Device::start();
    let (profile, socket) = (device.profile(), device.path("applications.sock"));
    let mut process = msgin5g()
        .args(["--json", "client", "serve", "--timeout", "60s", "--profile", &profile, "--socket"])
        .arg(&socket)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap_or_else(|_| panic!("client serve printed {line:?}"))
    };
    let expected = device.subscriber(0, "ue_service_id");
    assert_eq!(next()["ue_service_id"], expected.as_str());
    device.associate("add", "renamed@lab.example");
    device.associate("remove", &expected);
    assert_eq!(next()["ue_service_id"], "renamed@lab.example");
    assert!(socket.exists());
    signal(&process, "TERM");
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}
