//! An NRF of another make, in Python without any code of ours: functions of ours register there, find each other there, and
//! show and take its access tokens.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use akma::{AfId, UaProtocolId};
use client::ConfigurationFunction;
use common::fleet::Fleet;
use common::function::{Function, ausf_of, configuration, free_address};
use common::{Lab, msgin5g};
use sbi::association::AssociationClient;
use sbi::client_credentials::ClientCredentials;
use sbi::naanf::AkmaAfKeyRequest;
use sbi::nef_akma::NefAkmaClient;
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(120);
const NRF_ID: &str = "0b8f4b55-2f0c-4a53-8a5e-6d0f5a0c0a57";

/// `foreign/nrf.py`, running.
struct ForeignNrf {
    process: Child,
    commands: ChildStdin,
    root: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl ForeignNrf {
    fn start(lab: &Lab) -> Self {
        let issued = msgin5g()
            .args(["lab", "issue", "--name", "foreign-nrf", "--nf-type", "NRF", "--nf-instance-id", NRF_ID, "--dir"])
            .arg(lab.directory())
            .output()
            .unwrap();
        assert!(issued.status.success(), "{issued:?}");
        let address = free_address();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut process = Command::new(here.join("../../target/tools/bin/python"))
            .args(["-u", "-B"])
            .arg(here.join("tests/foreign/nrf.py"))
            .args(["pki/foreign-nrf.pem", "pki/foreign-nrf.key", "pki/ca.pem"].map(|name| lab.path(name)))
            .args([&address.port().to_string(), NRF_ID])
            .arg(key_set(lab))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs; `cargo xtask setup` installs what the tests need");
        let commands = process.stdin.take().unwrap();
        let mut printed = BufReader::new(process.stdout.take().unwrap()).lines();
        assert_eq!(printed.next().unwrap().unwrap(), r#"{"ready": true}"#);
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let record = Arc::clone(&asked);
        std::thread::spawn(move || {
            for line in printed.map_while(Result::ok) {
                record.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { process, commands, root: format!("https://{address}"), asked }
    }

    fn obey(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        self.is_asked("obedience", 1, |line| line["obeyed"] == command);
    }

    /// Waits until it has answered `count` requests, or obeyed commands, like this.
    #[track_caller]
    fn is_asked(&self, what: &str, count: usize, like: impl Fn(&Value) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let asked = self.asked.lock().unwrap().clone();
            if asked.iter().filter(|request| like(request)).count() >= count {
                assert!(asked.iter().all(|line| line["http"] == "2" || line["obeyed"].is_string()), "{asked:?}");
                return;
            }
            assert!(Instant::now() < until, "{what}, {count} times: {asked:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for ForeignNrf {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn key_set(lab: &Lab) -> std::path::PathBuf {
    lab.path("foreign-nrf.jwks")
}

/// The NF instance ID in the certificate of the lab's function `name`.
fn identity(lab: &Lab, name: &str) -> String {
    let pem = std::fs::read(lab.path(&format!("pki/{name}.pem"))).unwrap();
    let names = openssl::x509::X509::from_pem(&pem).unwrap().subject_alt_names().unwrap();
    names.iter().find_map(|name| name.uri()?.strip_prefix("urn:uuid:").map(str::to_owned)).unwrap()
}

/// An AAnF that registers at the NRF at `root` and takes its tokens, and those of the lab's, which its AUSF shows.
fn aanf(lab: &Lab, root: &str) -> Function {
    let mut config = configuration(lab, "aanf");
    let data = lab.path("state/own-aanf").display().to_string();
    for (key, value) in [("listen", "127.0.0.1:0"), ("admin", "127.0.0.1:0"), ("data", &data)] {
        config.insert(key.to_owned(), value.into());
    }
    // The lab's UDM takes tokens of the lab's NRF alone.
    config.remove("udm");
    config.insert("routing_indicators".to_owned(), vec!["0"].into());
    config["nrf"].as_table_mut().unwrap().insert("root".to_owned(), root.into());
    let issuer = json!({"nf_instance_id": NRF_ID, "keys": key_set(lab)});
    config["authorization"]["issuer"].as_array_mut().unwrap().push(toml::Value::try_from(issuer).unwrap());
    Function::configured(lab, "aanf", "own-aanf.toml", &config)
}

fn http(lab: &Lab, name: &str) -> SbiClient {
    let file = |kind: &str| lab.path(&format!("pki/{name}.{kind}"));
    let tls = CertificateFiles { certificate: file("pem"), key: file("key"), ca: lab.path("pki/ca.pem"), crl: None };
    SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_an_nrf_of_another_make_our_functions_register_find_each_other_and_get_tokens_that_ours_accept() {
    let lab = Lab::start();
    let mut nrf = ForeignNrf::start(&lab);
    let [aanf_id, nef_id, configuration_id] = ["aanf", "nef", "configuration"].map(|name| identity(&lab, name));
    let mut aanf = aanf(&lab, &nrf.root);
    let of = |operation: &'static str, id: &str| {
        let id = id.to_owned();
        move |request: &Value| request["operation"] == operation && request["id"] == id
    };
    nrf.is_asked("the AAnF's registration", 1, |request| {
        of("register", &aanf_id)(request)
            && request["profile"]["aanfInfoList"]["0"]["routingIndicators"] == json!(["0"])
            && request["profile"]["nfServices"][0]["serviceName"] == "naanf-akma"
    });
    let register = "true";
    let nef = Function::nef(
        &lab,
        &[
            ("MSGIN5G_NEF__NRF__ROOT", &nrf.root),
            ("MSGIN5G_NEF__NRF__REGISTER", register),
            ("MSGIN5G_NEF__AKMA__AANF", "nrf"),
        ],
    );
    let configuration = Function::configuration(
        &lab,
        &[("MSGIN5G_NRF__ROOT", &nrf.root), ("MSGIN5G_NRF__REGISTER", register), ("MSGIN5G_COAP__AANF", "nrf")],
    );
    for id in [&aanf_id, &nef_id, &configuration_id] {
        nrf.is_asked("registrations", 1, of("register", id));
        nrf.is_asked("signs of life", 2, of("heart beat", id));
    }

    let ausf = ausf_of(&lab, &aanf.root(), Vec::new()).await;
    let fleet = Fleet::provision_for(&lab, 1, &ausf).await;
    let ue = &fleet.ues[0];
    let keys = ue.keys().await;
    let weather = http(&lab, "af-weather");
    let tokens = ClientCredentials::new(weather.clone(), format!("{}/oauth2/token", nef.root()), "af-weather", None);
    let weather = NefAkmaClient::new(&weather, nef.root(), Arc::new(tokens));
    let af_id = AfId::new("weather.outside.example".parse().unwrap(), UaProtocolId::TLS_1_3);
    let answer = weather.retrieve_key(&AkmaAfKeyRequest::new(af_id.clone(), keys.a_kid.clone())).await;
    let k_af = answer.unwrap().expect("the A-KID is known").kaf;
    assert!(k_af == akma::k_af(&keys.k_akma, &af_id), "not the UE's K_AF");
    let granted = |id: &str, key: &'static str| {
        let id = id.to_owned();
        move |request: &Value| {
            let (form, scopes) = (&request["form"], request["form"]["scope"].as_str().unwrap_or_default());
            request["operation"] == "token"
                && request["key"] == key
                && form["nfInstanceId"] == id
                && form["targetNfType"] == "AANF"
                && scopes.split(' ').any(|scope| scope == "naanf-akma")
        }
    };
    nrf.is_asked("the NEF's token", 1, granted(&nef_id, "own"));
    nrf.is_asked("the NEF's discovery", 1, |request| {
        let query = &request["query"];
        query["requester-nf-type"] == "NEF" && query["routing-indicator"] == "0" && request["found"] == 1
    });

    // A token of a key that the AAnF does not trust opens nothing; one of the right key does, without a restart.
    let provisioner = AssociationClient::new(http(&lab, "provisioner"), configuration.root());
    provisioner.associate(&ue.supi.clone().into(), &ue.service_id).await.unwrap();
    let fqdn = lab.lab_json()["core"]["configuration_fqdn"].as_str().unwrap().parse().unwrap();
    let function = ConfigurationFunction::new(configuration.coap_address().to_string(), fqdn);
    nrf.obey("key other");
    let strange = granted(&configuration_id, "other");
    assert!(function.retrieve(ue.usim()).await.is_err(), "a token of a strange key was taken");
    nrf.is_asked("the Configuration Function's token", 1, strange);
    aanf.metric_reaches("sbi_authorizations_total{outcome=\"refused\",reason=\"token_signature\"}", 1);
    nrf.obey("key own");
    let until = Instant::now() + PATIENCE;
    let document = loop {
        match function.retrieve(ue.usim()).await {
            Ok(retrieved) => break String::from_utf8(retrieved.document).unwrap(),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(document.contains(ue.service_id.as_str()), "{document}");
    nrf.is_asked("the Configuration Function's other token", 1, granted(&configuration_id, "own"));

    // Who is forgotten registers anew, and who stops leaves.
    nrf.obey(&format!("forget {aanf_id}"));
    nrf.is_asked("the AAnF's second registration", 2, of("register", &aanf_id));
    assert!(aanf.stop().success());
    nrf.is_asked("the AAnF's leave", 1, of("deregister", &aanf_id));
}
