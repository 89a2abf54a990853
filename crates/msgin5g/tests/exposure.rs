//! The way in from outside the operator's domain, end to end: an application server and an MSGin5G Server that reach the lab
//! through its NEF only.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use common::{Lab, msgin5g};
use sbi::client_credentials::ClientCredentials;
use sbi::{
    CertificateFiles, ClientLimits, Json, SbiClient, SbiClientConfig, SbiError, SbiResponse, SbiServer,
    SbiServerConfig, ServerLimits,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// An application server outside, made of `lab.json` alone.
struct Outside {
    description: Value,
    nef: String,
    client: SbiClient,
    tls: CertificateFiles,
}

impl Outside {
    fn new(lab: &Lab, number: usize) -> Self {
        let whole = lab.lab_json();
        let description = whole["external_application_servers"][number].clone();
        let nef = whole["core"]["nef"].as_str().unwrap().to_owned();
        let file = |member: &str| lab.path(description[member].as_str().unwrap());
        let tls = CertificateFiles { certificate: file("cert"), key: file("key"), ca: file("ca"), crl: None };
        let http = SbiClient::new(SbiClientConfig { tls: tls.clone(), limits: ClientLimits::default() }).unwrap();
        let client_id = description["client_id"].as_str().unwrap();
        let tokens = ClientCredentials::new(http.clone(), format!("{nef}/oauth2/token"), client_id, None);
        let client = http.with_tokens(Arc::new(tokens)).for_service("NEF", "");
        Self { description, nef, client, tls }
    }

    fn id(&self) -> &str {
        self.description["as_service_id"].as_str().unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Result<SbiResponse<Value>, SbiError> {
        self.client.post(&format!("{}{path}", self.nef), body).await
    }

    async fn send(&self, to: &str, message_id: &str) -> Result<SbiResponse<Value>, SbiError> {
        let message = json!({
            "oriAddr": {"addrType": "AS", "addr": self.id()},
            "destAddr": {"addrType": "UE", "addr": to},
            "msgId": message_id, "payload": "b3Blbg==", "stoAndFwInd": true
        });
        self.post("/msgs-msgdelivery/v1/deliver-as-message", &message).await
    }
}

async fn take(State(arrived): State<mpsc::UnboundedSender<Value>>, Json(body): Json<Value>) -> StatusCode {
    let _ = arrived.send(body);
    StatusCode::NO_CONTENT
}

fn profile(lab: &Lab, folder: &Path, name: &str) -> String {
    let path = folder.join(format!("{name}.toml"));
    let made = msgin5g()
        .args(["client", "profile", "--subscriber", name, "--lab"])
        .arg(lab.lab_json_path())
        .arg("--out")
        .arg(&path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path.to_str().unwrap().to_owned()
}

fn client(profile: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = msgin5g().args(["--json", "client"]).args(arguments).args(["--profile", profile]).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_server_outside_and_a_device_write_to_each_other_through_the_nef() {
    let lab = Lab::start();
    let folder = tempfile::tempdir().unwrap();
    let weather = Outside::new(&lab, 0);
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let router = Router::new().route("/in/{operation}", post(take)).with_state(arrived);
    let listen = SbiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: weather.tls.clone(),
        limits: ServerLimits::default(),
    };
    let target = SbiServer::start(listen, router, stop.clone()).await.unwrap();
    let registration = json!({"asSvcId": weather.id(), "targetUri": format!("https://{}/in", target.local_addr())});
    let registered = weather.post("/msgs-asregistration/v1/registrations", &registration).await.unwrap();
    assert_eq!(registered.status, StatusCode::CREATED);

    let meter = profile(&lab, folder.path(), "0");
    assert_eq!(client(&meter, &["register"]).0, Some(0));
    let name = lab.lab_json()["subscribers"][0]["ue_service_id"].as_str().unwrap().to_owned();
    let ack = weather.send(&name, "command-1").await.unwrap().into_body().unwrap();
    assert_eq!(ack["status"], "DELY_STORED", "the device is registered and away: {ack}");
    let (code, heard) = client(&meter, &["listen", "--count", "1", "--for", "60s"]);
    assert_eq!(code, Some(0), "{heard}");
    assert!(heard.contains("command-1") && heard.contains(weather.id()), "{heard}");

    let to = format!("as:{}", weather.id());
    let (code, answer) = client(&meter, &["send", "--to", &to, "--payload", "21 C"]);
    assert_eq!(code, Some(0), "{answer}");
    let arrived = timeout(PATIENCE, arrivals.recv()).await.unwrap().unwrap();
    assert_eq!((&arrived["oriAddr"]["addr"], &arrived["payload"]), (&json!(name), &json!("MjEgQw==")));

    // Beyond the entry: another's name, and another's key.
    let relay = lab.lab_json()["external_application_servers"][1].clone();
    let forged = json!({"asSvcId": relay["as_service_id"], "targetUri": format!("https://{}/in", target.local_addr())});
    let refusal = weather.post("/msgs-asregistration/v1/registrations", &forged).await.unwrap_err();
    assert_eq!(refusal.problem().unwrap().cause.as_deref(), Some("ORIGINATOR_NOT_ALLOWED"));
    let fqdn = relay["fqdn"].as_str().unwrap();
    let key = json!({"afId": format!("{fqdn}:0100000007"), "aKId": "0.any@5gc.mnc001.mcc001.3gppnetwork.org"});
    let refusal = weather.post("/3gpp-akma/v1/retrieve", &key).await.unwrap_err();
    assert_eq!(refusal.problem().unwrap().cause.as_deref(), Some("AF_ID_NOT_ALLOWED"));
    stop.cancel();
}

/// `msgin5g server` with this configuration.
struct OutsideServer {
    process: Child,
    listen: String,
}

impl OutsideServer {
    /// As the lab's own, but outside: of another name, with the NEF in the AAnF's place.
    fn start(lab: &Lab, folder: &Path) -> Self {
        let whole = lab.lab_json();
        let own = &whole["external_application_servers"][1];
        let text = std::fs::read_to_string(lab.path("config/server.toml")).unwrap();
        let mut config: toml::Table = toml::from_str(&text).unwrap();
        let file = |member: &str| lab.path(own[member].as_str().unwrap()).display().to_string();
        let akma = json!({
            "nef": whole["core"]["nef"],
            "af": {
                "client_id": own["client_id"],
                "certificates": {"certificate": file("cert"), "key": file("key"), "ca": file("ca")}
            }
        });
        config.insert("akma".to_owned(), toml::Value::try_from(akma).unwrap());
        config.remove("application_server");
        // Its UEs come over TCP alone; where else a lab may listen is its own server's.
        for section in ["coaps", "https", "oscore", "websocket"] {
            config.remove(section);
        }
        // It has tokens for the Configuration Function; the lab's own server is the one that others find.
        config["nrf"].as_table_mut().unwrap().insert("register".to_owned(), toml::Value::Boolean(false));
        for (section, key, value) in [
            ("server", "fqdn", own["fqdn"].as_str().unwrap().to_owned()),
            ("server", "listen", "127.0.0.1:0".to_owned()),
            ("api", "listen", "127.0.0.1:0".to_owned()),
            ("admin", "listen", "127.0.0.1:0".to_owned()),
            ("store", "path", folder.join("store").display().to_string()),
        ] {
            config[section].as_table_mut().unwrap().insert(key.to_owned(), toml::Value::String(value));
        }
        let path = folder.join("server.toml");
        std::fs::write(&path, toml::to_string(&config).unwrap()).unwrap();
        let log = std::fs::File::create(folder.join("server.log")).unwrap();
        let mut command = msgin5g();
        command.args(["--json", "server", "--config"]).arg(&path).stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("the server printed {line:?}: {}", std::fs::read_to_string(folder.join("server.log")).unwrap())
        });
        Self { process, listen: ready["listen"].as_str().unwrap().to_owned() }
    }
}

impl Drop for OutsideServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_server_outside_the_domain_gets_keys_through_the_nef_and_knows_its_ues_by_gpsi() {
    let lab = Lab::start();
    let folder = tempfile::tempdir().unwrap();
    let server = OutsideServer::start(&lab, folder.path());
    let whole = lab.lab_json();
    let fqdn = whole["external_application_servers"][1]["fqdn"].as_str().unwrap();
    let meter = profile(&lab, folder.path(), "0");
    let mut text: toml::Table = toml::from_str(&std::fs::read_to_string(&meter).unwrap()).unwrap();
    let section = text["server"].as_table_mut().unwrap();
    section.insert("address".to_owned(), toml::Value::String(server.listen.clone()));
    section.insert("fqdn".to_owned(), toml::Value::String(fqdn.to_owned()));
    std::fs::write(&meter, toml::to_string(&text).unwrap()).unwrap();

    // The lab has associated the SUPI, which this server never learns.
    let (code, told) = client(&meter, &["register"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("NOT_ASSOCIATED"), "the key came, the name does not fit the GPSI: {told}");
    let subscriber = &whole["subscribers"][0];
    let associated = msgin5g()
        .args(["association", "add", "--ue-id", subscriber["gpsi"].as_str().unwrap()])
        .args(["--ue-service-id", subscriber["ue_service_id"].as_str().unwrap(), "--lab"])
        .arg(lab.lab_json_path())
        .output()
        .unwrap();
    assert!(associated.status.success(), "{}", String::from_utf8_lossy(&associated.stderr));
    let (code, told) = client(&meter, &["register"]);
    assert_eq!(code, Some(0), "{told}");

    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap();
    let imsi = subscriber["supi"].as_str().unwrap().trim_start_matches("imsi-");
    assert!(!log.contains(imsi), "no SUPI outside: {log}");
}
