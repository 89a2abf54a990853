//! The way in from outside the operator's domain, end to end: an application server and an MSGin5G Server that reach the lab
//! through its NEF only.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use common::function::{Function, configuration, free_address, second_server};
use common::{Lab, msgin5g};
use sbi::association::AssociationClient;
use sbi::client_credentials::ClientCredentials;
use sbi::testing::TestAuthority;
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
        Self::at(lab, number, lab.lab_json()["core"]["nef"].as_str().unwrap())
    }

    /// The same at another NEF.
    fn at(lab: &Lab, number: usize, nef: &str) -> Self {
        let description = lab.lab_json()["external_application_servers"][number].clone();
        let nef = nef.to_owned();
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

/// An MSGin5G Server outside the operator's domain, and a Configuration Function there: an authority of their own, an AF's
/// certificate for the NEF, and nothing of the operator's.
struct OutsideDomain {
    authority: TestAuthority,
    server: Function,
    configuration: Function,
}

/// Who is who in the domain outside.
const OUTSIDE_SERVER: &str = "b0000000-0000-4000-8000-000000000001";
const OUTSIDE_CONFIGURATION: &str = "b0000000-0000-4000-8000-000000000002";
const OUTSIDE_PROVISIONER: &str = "b0000000-0000-4000-8000-000000000003";

impl OutsideDomain {
    fn start(lab: &Lab) -> Self {
        let authority = TestAuthority::new();
        let configuration = json!({
            "listen": "127.0.0.1:0",
            "data": lab.path("state/outside-configuration"),
            "tls": authority.issue(OUTSIDE_CONFIGURATION, &[]),
            "authorization": {"mode": "tls"},
            "provisioner": [{"nf_instance_id": OUTSIDE_PROVISIONER}],
            "reader": [{"nf_instance_id": OUTSIDE_SERVER}],
        });
        let table = |value: Value| toml::Table::try_from(without_nulls(value)).unwrap();
        let configuration =
            Function::configured(lab, "configuration", "outside-configuration.toml", &table(configuration));
        let whole = lab.lab_json();
        let own = &whole["external_application_servers"][1];
        let file = |member: &str| lab.path(own[member].as_str().unwrap());
        let server = json!({
            "server": {"fqdn": own["fqdn"], "listen": "127.0.0.1:0", "path": whole["server"]["path"]},
            "certificates": authority.issue(OUTSIDE_SERVER, &[]),
            "akma": {
                "nef": whole["core"]["nef"],
                "af": {
                    "client_id": own["client_id"],
                    "certificates": {"certificate": file("cert"), "key": file("key"), "ca": file("ca")},
                },
            },
            "configuration_function": {"url": configuration.root()},
            "api": {"listen": "127.0.0.1:0"},
            "authorization": {"mode": "tls"},
            "admin": {"listen": "127.0.0.1:0"},
            "store": {"path": lab.path("state/outside-server")},
        });
        let server = Function::configured(lab, "server", "outside-server.toml", &table(server));
        Self { authority, server, configuration }
    }

    /// Says at the Configuration Function outside that this UE may have this name.
    async fn associate(&self, ue_id: &str, ue_service_id: &str) {
        let client = AssociationClient::new(self.authority.client(OUTSIDE_PROVISIONER), self.configuration.root());
        client.associate(&ue_id.parse().unwrap(), &ue_service_id.parse().unwrap()).await.unwrap();
    }

    /// The profile of subscriber `name` with this server in the lab's place.
    fn profile(&self, lab: &Lab, folder: &Path, name: &str) -> String {
        let path = profile(lab, folder, name);
        let mut text: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let fqdn = lab.lab_json()["external_application_servers"][1]["fqdn"].as_str().unwrap().to_owned();
        let section = text["server"].as_table_mut().unwrap();
        section.insert("address".to_owned(), self.server.address().to_string().into());
        section.insert("fqdn".to_owned(), fqdn.into());
        std::fs::write(&path, toml::to_string(&text).unwrap()).unwrap();
        path
    }
}

/// TOML has no null: what is absent is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        other => other,
    }
}

/// Every file below `folder` in which `text` stands.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_outside_the_domain_serves_ues_by_gpsi_and_holds_their_supi_nowhere() {
    let lab = Lab::start();
    let folder = tempfile::tempdir().unwrap();
    let outside = OutsideDomain::start(&lab);
    let subscribers = [0, 1].map(|number| lab.lab_json()["subscribers"][number].clone());
    let text = |number: usize, member: &str| subscribers[number][member].as_str().unwrap().to_owned();
    let [meter, valve] = ["0", "1"].map(|name| outside.profile(&lab, folder.path(), name));

    // The key comes; what the UE is called is for the domain outside to say, which knows it by its GPSI alone.
    let (code, told) = client(&meter, &["register"]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("NOT_ASSOCIATED"), "{told}");
    for number in [0, 1] {
        outside.associate(&text(number, "gpsi"), &text(number, "ue_service_id")).await;
    }
    for profile in [&meter, &valve] {
        let (code, told) = client(profile, &["register"]);
        assert_eq!(code, Some(0), "{told}");
    }
    // Both ways, over the server's disk.
    for (from, to, number, payload) in [(&meter, &valve, 1, "open 20 %"), (&valve, &meter, 0, "opened")] {
        let to_name = format!("ue:{}", text(number, "ue_service_id"));
        let (code, told) = client(from, &["send", "--to", &to_name, "--payload", payload, "--store-and-forward"]);
        assert_eq!(code, Some(0), "{told}");
        let (code, heard) = client(to, &["listen", "--count", "1", "--for", "60s"]);
        assert_eq!(code, Some(0), "{heard}");
        assert!(heard.contains(&text(1 - number, "ue_service_id")), "{heard}");
    }
    // An impostor leaves a trace, too: the other's name.
    let (code, told) = client(&meter, &["send", "--to", "ue:nobody@lab.example", "--payload", "x"]);
    assert_eq!(code, Some(1), "{told}");

    let folders = [lab.path("state/outside-server"), lab.path("state/outside-configuration")];
    let (_, metrics) = outside.server.admin("/metrics");
    let logs = [outside.server.log(), outside.configuration.log()];
    assert!(metrics.contains("msgin5g_") && logs[0].contains("audit") && logs[1].contains("audit"), "{logs:?}");
    for number in [0, 1] {
        let digits = text(number, "supi").trim_start_matches("imsi-").to_owned();
        assert!(digits.len() == 15 && digits.bytes().all(|octet| octet.is_ascii_digit()));
        for folder in &folders {
            assert_eq!(files_with(folder, &digits), Vec::<PathBuf>::new());
        }
        for (what, text) in [("metrics", &metrics), ("the server's log", &logs[0]), ("the other log", &logs[1])] {
            assert!(!text.contains(&digits), "the SUPI is in {what}: {text}");
        }
        // And it would have been found: what they do know a UE by is there.
        assert_ne!(files_with(&folders[1], text(number, "gpsi").trim_start_matches("msisdn-")), Vec::<PathBuf>::new());
        assert_ne!(files_with(&folders[0], &text(number, "ue_service_id")), Vec::<PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_function_that_may_address_a_group_reaches_its_members_through_the_nef_and_no_other_group() {
    let lab = Lab::start();
    let folder = tempfile::tempdir().unwrap();
    let whole = lab.lab_json();
    let weather = whole["external_application_servers"][0]["as_service_id"].as_str().unwrap().to_owned();
    let member = whole["subscribers"][0]["ue_service_id"].as_str().unwrap().to_owned();
    for group in ["storm@lab.example", "other@lab.example"] {
        let made = msgin5g()
            .args(["group", "add", "--group-id", group, "--member", &member, "--sender", &format!("as:{weather}")])
            .arg("--lab")
            .arg(lab.lab_json_path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    // A second server and a second NEF that belong together; the latter's rules allow the one group.
    let inside = free_address();
    let mut server = second_server(&lab, "group-server");
    for one in server["application_server"].as_array_mut().unwrap() {
        if one["as_service_id"].as_str() == Some(&weather) {
            let targets = toml::Value::try_from([format!("https://{inside}")]).unwrap();
            one.as_table_mut().unwrap().insert("target_uris".to_owned(), targets);
        }
    }
    let server = Function::configured(&lab, "server", "group-server.toml", &server);
    let mut exposure = configuration(&lab, "exposure");
    exposure.remove("capif");
    let nef = exposure["nef"].as_table_mut().unwrap();
    nef.remove("capif");
    nef.remove("capif_psk_listen");
    nef.insert("listen".to_owned(), "127.0.0.1:0".into());
    nef.insert("data".to_owned(), lab.path("state/group-nef").display().to_string().into());
    nef["nrf"].as_table_mut().unwrap().insert("register".to_owned(), false.into());
    let msgin5g = nef["msgin5g"].as_table_mut().unwrap();
    msgin5g.insert("listen".to_owned(), inside.to_string().into());
    msgin5g.insert("url".to_owned(), server.api_root().into());
    nef["af"][0]["may_address"].as_array_mut().unwrap().push("GROUP:storm@lab.example".into());
    let nef = Function::configured(&lab, "exposure", "group-nef.toml", &exposure);

    let meter = profile(&lab, folder.path(), "0");
    let mut text: toml::Table = std::fs::read_to_string(&meter).unwrap().parse().unwrap();
    text["server"].as_table_mut().unwrap().insert("address".to_owned(), server.address().to_string().into());
    std::fs::write(&meter, toml::to_string(&text).unwrap()).unwrap();
    assert_eq!(client(&meter, &["register"]).0, Some(0));

    let outside = Outside::at(&lab, 0, &nef.root());
    let registration = json!({"asSvcId": outside.id()});
    let registered = outside.post("/msgs-asregistration/v1/registrations", &registration).await.unwrap();
    assert_eq!(registered.status, StatusCode::CREATED);
    let to_group = |group: &str, id: &str| {
        json!({
            "oriAddr": {"addrType": "AS", "addr": weather}, "destAddr": {"addrType": "GROUP", "addr": group},
            "msgId": id, "payload": "c2h1dA==", "stoAndFwInd": true
        })
    };
    let send = "/msgs-msgdelivery/v1/deliver-as-message";
    let ack = outside.post(send, &to_group("storm@lab.example", "storm-1")).await.unwrap().into_body().unwrap();
    assert_eq!((&ack["status"], &ack["msgId"]), (&json!("DELY_STORED"), &json!("storm-1")));
    let (code, heard) = client(&meter, &["listen", "--count", "1", "--for", "60s"]);
    assert_eq!(code, Some(0), "{heard}");
    assert!(heard.contains("storm-1") && heard.contains(&weather), "{heard}");

    // The group's own rules would allow the other one; the NEF's do not, nor does the lab's NEF the first.
    let refusal = outside.post(send, &to_group("other@lab.example", "storm-2")).await.unwrap_err();
    assert_eq!(refusal.problem().unwrap().status, Some(403), "{refusal}");
    let elsewhere = Outside::new(&lab, 0);
    let registered = elsewhere.post("/msgs-asregistration/v1/registrations", &registration).await.unwrap();
    assert_eq!(registered.status, StatusCode::CREATED);
    let refused = elsewhere.post(send, &to_group("storm@lab.example", "storm-3")).await.unwrap_err();
    let causes = [&refusal, &refused].map(|error| error.problem().unwrap().cause.clone());
    assert_eq!(causes[0], causes[1]);
    assert_eq!(causes[0].as_deref(), Some("RECIPIENT_NOT_ALLOWED"));
}
