//! The foreign UE of `tests/foreign`, moved from Rust: each call is one command to `puppet.py`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Lab;

/// TLS clients of the foreign UE.
pub const TLS_1_3: &str = "openssl tls1.3";
pub const TLS_1_2_ECDHE: &str = "openssl tls1.2 ecdhe-psk";
pub const TLS_1_2_PLAIN: &str = "openssl tls1.2 psk";

/// Alerts of TLS (RFC 8446 clause 6, RFC 4279).
pub const HANDSHAKE_FAILURE: u8 = 40;
pub const DECRYPT_ERROR: u8 = 51;
pub const BAD_RECORD_MAC: u8 = 20;
pub const INTERNAL_ERROR: u8 = 80;
pub const UNKNOWN_PSK_IDENTITY: u8 = 115;

/// A UE without code of ours.
pub struct ForeignUe {
    process: Child,
    commands: ChildStdin,
    outcomes: BufReader<ChildStdout>,
    /// The UE Service ID that the Configuration Function has for it.
    pub service_id: String,
    /// Its SUPI.
    pub supi: String,
}

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    /// The CoAP code, as `2.04`.
    pub code: String,
    /// The JSON.
    pub body: Value,
    /// The Max-Age option.
    pub max_age: Option<u64>,
}

impl Answer {
    /// The cause that a refusal names.
    pub fn cause(&self) -> Option<&str> {
        self.body.get("failureCause").and_then(Value::as_str)
    }

    /// What a MSGRESP says of a message, besides "delivered", which it says by saying nothing.
    pub fn status(&self) -> Option<&str> {
        self.body.get("status").and_then(Value::as_str)
    }

    /// Delivered or on disk: what the server has to keep.
    pub fn is_promise(&self) -> bool {
        self.is_delivered() || self.is_stored()
    }

    pub fn is_delivered(&self) -> bool {
        self.code == "2.04" && self.status().is_none()
    }

    pub fn is_stored(&self) -> bool {
        self.code == "2.04" && self.status() == Some("DELY_STORED")
    }

    /// Refused with this code and cause.
    #[track_caller]
    pub fn refused(&self, code: &str, cause: &str) {
        assert_eq!((self.code.as_str(), self.cause()), (code, Some(cause)), "{self:?}");
    }
}

/// What became of requests that were sent without waiting.
#[derive(Debug, Deserialize)]
pub struct Collected {
    /// By Message ID.
    pub answers: BTreeMap<String, Answer>,
    /// Message IDs; the connection ended before their answers.
    pub unanswered: Vec<String>,
}

impl ForeignUe {
    /// The subscriber of `lab.json` at this place. Nothing happens yet.
    pub fn new(lab: &Lab, subscriber: usize) -> Self {
        let mut process = Command::new("python3")
            .arg("-B")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/puppet.py"))
            .arg(lab.lab_json_path())
            .arg(subscriber.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs; `cargo xtask setup` installs what the tests need");
        let description = &lab.lab_json()["subscribers"][subscriber];
        Self {
            commands: process.stdin.take().unwrap(),
            outcomes: BufReader::new(process.stdout.take().unwrap()),
            process,
            service_id: description["ue_service_id"].as_str().unwrap().to_owned(),
            supi: description["supi"].as_str().unwrap().to_owned(),
        }
    }

    /// The same, authenticated, connected over TLS 1.3 and registered at a server.
    pub fn registered(lab: &Lab, subscriber: usize, server: SocketAddr) -> Self {
        let mut ue = Self::new(lab, subscriber);
        ue.authenticate();
        ue.come_back(server);
        ue
    }

    /// Connects with the keys it has, and registers.
    pub fn come_back(&mut self, server: SocketAddr) {
        self.connects(server, TLS_1_3);
        let answer = self.register();
        assert_eq!(answer.code, "2.01", "{answer:?}");
    }

    /// Primary authentication, 5G-AKA. Returns the A-KID.
    pub fn authenticate(&mut self) -> String {
        self.authenticated(json!({"do": "authenticate"}))
    }

    /// The same at another AUSF, which it uses from now on.
    pub fn authenticate_at(&mut self, ausf: &str) -> String {
        self.authenticated(json!({"do": "authenticate", "ausf": ausf}))
    }

    fn authenticated(&mut self, command: Value) -> String {
        self.tell::<Value>(command)["a_kid"].as_str().unwrap().to_owned()
    }

    /// Its serving network tells AUSF that it is gone.
    pub fn leave_network(&mut self) {
        self.tell::<Value>(json!({"do": "leave_network"}));
    }

    /// A handshake. If it fails, what the TLS client printed.
    pub fn connect(&mut self, server: SocketAddr, client: &str) -> Result<(), String> {
        let outcome: Value = self.tell(json!({"do": "connect", "to": server.to_string(), "client": client}));
        match outcome.get("refused") {
            Some(reason) => Err(reason.as_str().unwrap().to_owned()),
            None => Ok(()),
        }
    }

    /// A handshake that succeeds.
    #[track_caller]
    pub fn connects(&mut self, server: SocketAddr, client: &str) {
        if let Err(reason) = self.connect(server, client) {
            panic!("{client}: the handshake failed: {reason}");
        }
    }

    /// A handshake that the server ends with this alert.
    #[track_caller]
    pub fn is_refused(&mut self, server: SocketAddr, client: &str, alert: u8) {
        let reason = self.connect(server, client).expect_err("the handshake must fail");
        assert!(reason.contains(&format!("alert number {alert}\n")), "{client}: wanted alert {alert}: {reason}");
    }

    /// REG with its own UE Service ID.
    pub fn register(&mut self) -> Answer {
        self.tell(json!({"do": "register"}))
    }

    /// REG with this `clientProfile`.
    pub fn register_with(&mut self, profile: Value) -> Answer {
        let members = json!({"msgType": "REG", "ueSvcId": self.service_id, "clientProfile": profile});
        self.request(members)
    }

    /// Connects with the keys it has, and registers with this `clientProfile`.
    pub fn come_back_with(&mut self, server: SocketAddr, profile: Value) {
        self.connects(server, TLS_1_3);
        let answer = self.register_with(profile);
        assert_eq!(answer.code, "2.01", "{answer:?}");
    }

    /// Its address as JSON.
    pub fn address(&self) -> Value {
        json!({"addrType": "UE", "addr": self.service_id})
    }

    /// Any request of these members.
    pub fn request(&mut self, members: Value) -> Answer {
        self.tell(json!({"do": "request", "members": members}))
    }

    /// A request that may be no JSON at all.
    pub fn request_text(&mut self, text: &str) -> Answer {
        self.tell(json!({"do": "request_text", "text": text}))
    }

    /// Any request, whose answer is left for [`ForeignUe::collect`] under this name.
    pub fn post_request(&mut self, name: &str, members: Value) {
        self.tell::<Value>(json!({"do": "post_request", "name": name, "members": members}));
    }

    /// Takes and acknowledges whatever comes, as it is.
    pub fn receive_any(&mut self) -> Value {
        self.tell::<Value>(json!({"do": "receive_any"}))["message"].take()
    }

    /// Takes whatever comes and does not acknowledge it.
    pub fn take_any(&mut self) -> Value {
        self.tell::<Value>(json!({"do": "take_any"}))["message"].take()
    }

    /// Answers the oldest of what it took with this code, such as `4.00`, and this JSON, if that is not null.
    pub fn answer_oldest(&mut self, code: &str, body: Value) {
        self.tell::<Value>(json!({"do": "answer_oldest", "code": code, "body": body}));
    }

    /// REG whose answer is left for [`ForeignUe::collect`].
    pub fn post_registration(&mut self) {
        self.tell::<Value>(json!({"do": "post_registration"}));
    }

    /// DEREG.
    pub fn deregister(&mut self) -> Answer {
        self.tell(json!({"do": "deregister"}))
    }

    /// A message that may not be stored.
    pub fn send(&mut self, to: &str, message_id: &str) -> Answer {
        self.tell(json!({"do": "send", "to": to, "message_id": message_id}))
    }

    /// A message that may be stored.
    pub fn send_storable(&mut self, to: &str, message_id: &str) -> Answer {
        self.tell(json!({"do": "send", "to": to, "message_id": message_id, "store": true}))
    }

    /// Messages whose answers are left for [`ForeignUe::collect`].
    pub fn post(&mut self, to: &str, message_ids: &[String], store: bool) {
        self.tell::<Value>(json!({"do": "post", "to": to, "message_ids": message_ids, "store": store}));
    }

    /// Waits until all that was posted on this connection is answered, or the connection ends.
    pub fn collect(&mut self) -> Collected {
        self.tell(json!({"do": "collect"}))
    }

    /// Takes and acknowledges messages. Returns their Message IDs.
    pub fn receive(&mut self, count: usize) -> Vec<String> {
        self.message_ids(json!({"do": "receive", "count": count}))
    }

    /// Takes messages and does not acknowledge them.
    pub fn take(&mut self, count: usize) -> Vec<String> {
        self.message_ids(json!({"do": "take", "count": count}))
    }

    /// Acknowledges what it took.
    pub fn acknowledge(&mut self) {
        self.tell::<Value>(json!({"do": "acknowledge"}));
    }

    /// Takes and acknowledges until the server ends the connection.
    pub fn receive_until_end(&mut self) -> Vec<String> {
        self.message_ids(json!({"do": "receive_until_end"}))
    }

    fn message_ids(&mut self, command: Value) -> Vec<String> {
        serde_json::from_value(self.tell::<Value>(command)["message_ids"].take()).unwrap()
    }

    /// Waits until the server ends the connection. Returns the diagnostic of its Abort, if it sent one.
    pub fn end(&mut self) -> Option<String> {
        self.tell::<Value>(json!({"do": "end"}))["diagnostic"].as_str().map(str::to_owned)
    }

    /// Asks the Configuration Function there who it is, and to be told of changes. Returns the document's elements by name.
    pub fn observe_configuration(&mut self, function: SocketAddr) -> BTreeMap<String, String> {
        self.document(json!({"do": "observe_configuration", "to": function.to_string()}))
    }

    /// The next document that it is told.
    pub fn configuration_told(&mut self) -> BTreeMap<String, String> {
        self.document(json!({"do": "configuration_told"}))
    }

    /// Waits until the Configuration Function's connection ends.
    pub fn configuration_end(&mut self) {
        self.tell::<Value>(json!({"do": "configuration_end"}));
    }

    fn document(&mut self, command: Value) -> BTreeMap<String, String> {
        let mut outcome: Value = self.tell(command);
        assert_eq!(outcome["goes_on"], true, "{outcome}");
        serde_json::from_value(outcome["elements"].take()).unwrap()
    }

    /// Drops the connection.
    pub fn close(&mut self) {
        self.tell::<Value>(json!({"do": "close"}));
    }

    fn tell<T: DeserializeOwned>(&mut self, command: Value) -> T {
        writeln!(self.commands, "{command}").unwrap();
        let mut line = String::new();
        self.outcomes.read_line(&mut line).unwrap();
        let outcome: Value = serde_json::from_str(&line).expect("one JSON line for each command");
        assert!(outcome.get("failed").is_none(), "{}: {command}: {outcome}", self.service_id);
        serde_json::from_value(outcome).unwrap()
    }
}

impl Drop for ForeignUe {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
