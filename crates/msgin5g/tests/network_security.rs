//! What secures the network side, at running functions and from outside: the TLS profile (TS 33.210 clause 6.2), certificates
//! that are renewed while a function runs, and networks that are protected below IP (NDS/IP, TS 33.501 clause Y.5).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use akma::{AfId, UaProtocolId};
use common::fleet::Fleet;
use common::function::{Function, ausf_of, configuration, free_address};
use common::{Lab, msgin5g};
use openssl::ssl::{SslConnector, SslMethod};
use openssl::x509::X509;
use serde_json::{Value, json};

/// Every function of the lab that serves with a certificate: the name of its files, its NF type, and the pointer to its root in
/// lab.json.
const FUNCTIONS: [(&str, &str, &str); 8] = [
    ("nrf", "NRF", "/core/nrf"),
    ("nef", "NEF", "/core/nef"),
    ("capif", "AF", "/core/capif"),
    ("udm", "UDM", "/core/udm"),
    ("ausf", "AUSF", "/core/ausf"),
    ("aanf", "AANF", "/core/aanf"),
    ("configuration", "AF", "/core/configuration"),
    ("server", "AF", "/server/api"),
];

/// How long a condition that comes by itself may take before it is said never to come.
const PATIENCE: Duration = Duration::from_secs(120);

fn root(lab: &Lab, pointer: &str) -> String {
    lab.lab_json().pointer(pointer).unwrap().as_str().unwrap().to_owned()
}

fn address(lab: &Lab, pointer: &str) -> String {
    root(lab, pointer).trim_start_matches("https://").to_owned()
}

/// Whose certificate a client of this function needs, to be let in by TLS: none where API invokers are yet to get one.
fn client_of(name: &str) -> Option<&'static str> {
    match name {
        "nef" => Some("af-weather"),
        "capif" => None,
        _ => Some("lab-nf"),
    }
}

fn certificate_in_file(lab: &Lab, name: &str) -> X509 {
    X509::from_pem(&std::fs::read(lab.path(&format!("pki/{name}.pem"))).unwrap()).unwrap()
}

/// The certificate that whoever connects anew is shown; it is of the lab's authority.
fn presented(lab: &Lab, address: &str) -> X509 {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_ca_file(lab.path("pki/ca.pem")).unwrap();
    connector.set_alpn_protos(b"\x02h2").unwrap();
    connector.set_certificate_chain_file(lab.path("pki/lab-nf.pem")).unwrap();
    connector.set_private_key_file(lab.path("pki/lab-nf.key"), openssl::ssl::SslFiletype::PEM).unwrap();
    let stream = std::net::TcpStream::connect(address).unwrap();
    let stream = connector.build().connect("localhost", stream).unwrap();
    stream.ssl().peer_certificate().unwrap()
}

/// Waits until the function at `address` shows the certificate that lies in its file.
fn presents_its_file(lab: &Lab, name: &str, address: &str) {
    let (expected, until) = (certificate_in_file(lab, name).to_der().unwrap(), Instant::now() + PATIENCE);
    while presented(lab, address).to_der().unwrap() != expected {
        assert!(Instant::now() < until, "{name} still shows its earlier certificate");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Has the lab's authority certify a new key for the same function: same instance, same names.
fn renew(lab: &Lab, name: &str, nf_type: &str) {
    let names = certificate_in_file(lab, name).subject_alt_names().unwrap();
    let id = names.iter().find_map(|name| name.uri()?.strip_prefix("urn:uuid:")).unwrap();
    let mut command = msgin5g();
    command.args(["lab", "issue", "--replace", "--dir"]).arg(lab.directory());
    command.args(["--name", name, "--nf-type", nf_type, "--nf-instance-id", id]);
    for name in names.iter().filter_map(|name| name.dnsname()).filter(|name| *name != "localhost") {
        command.args(["--dns", name]);
    }
    let issued = command.output().unwrap();
    assert!(issued.status.success(), "{issued:?}");
}

/// curl over HTTP/2 with the certificate of that name, or none.
fn curl(lab: &Lab, certificate: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--http2", "--max-time", "60", "--output", "/dev/null"]);
    command.args(["--write-out", "%{http_version} %{http_code}", "--cacert"]).arg(lab.path("pki/ca.pem"));
    if let Some(name) = certificate {
        command.arg("--cert").arg(lab.path(&format!("pki/{name}.pem")));
        command.arg("--key").arg(lab.path(&format!("pki/{name}.key")));
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Whether curl got an answer of HTTP/2, whatever it says.
#[track_caller]
fn is_answered(output: &Output, what: &str) {
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.starts_with("2 "), "{what}: {output:?}");
}

#[test]
fn every_function_shows_a_renewed_certificate_without_a_restart_and_keeps_the_old_one_while_the_new_pair_is_broken() {
    let lab = Lab::start();
    let addresses: BTreeMap<_, _> = FUNCTIONS.map(|(name, _, pointer)| (name, address(&lab, pointer))).into();
    let first: BTreeMap<_, _> = FUNCTIONS.map(|(name, ..)| (name, certificate_in_file(&lab, name))).into();
    for (name, nf_type, _) in FUNCTIONS {
        presents_its_file(&lab, name, &addresses[name]);
        renew(&lab, name, nf_type);
        assert_ne!(certificate_in_file(&lab, name).public_key().unwrap().public_key_to_der().unwrap(), {
            first[name].public_key().unwrap().public_key_to_der().unwrap()
        });
    }
    for (name, _, pointer) in FUNCTIONS {
        presents_its_file(&lab, name, &addresses[name]);
        is_answered(&curl(&lab, client_of(name), &[&root(&lab, pointer)]), name);
    }
    // They are themselves to each other, too: the NRF knows the AUSF by its renewed certificate.
    let asked =
        format!("{}/nnrf-disc/v1/nf-instances?target-nf-type=UDM&requester-nf-type=AUSF", root(&lab, "/core/nrf"));
    let found = curl(&lab, Some("ausf"), &[&asked]);
    assert_eq!(String::from_utf8_lossy(&found.stdout), "2 200", "{found:?}");

    let second: BTreeMap<_, _> = FUNCTIONS.map(|(name, ..)| (name, certificate_in_file(&lab, name))).into();
    for (number, (name, nf_type, pointer)) in FUNCTIONS.into_iter().enumerate() {
        let key = lab.path(&format!("pki/{name}.key"));
        let broken = if number % 2 == 0 {
            // Another's key.
            std::fs::read(lab.path("pki/lab-nf.key")).unwrap()
        } else {
            // Half of one.
            std::fs::read(&key).unwrap().into_iter().take(60).collect()
        };
        let (written, logged) = (lab.path("key.new"), lab.log().len());
        std::fs::write(&written, broken).unwrap();
        std::fs::rename(&written, &key).unwrap();
        // It looks every few seconds, and says so at most once a second: its own line comes.
        let (file, until) = (format!("/pki/{name}.pem"), Instant::now() + PATIENCE);
        let says_so = |line: &str| {
            line.contains("ERROR security") && line.contains(&file) && line.contains("the old ones serve on")
        };
        while !lab.log()[logged..].lines().any(says_so) {
            assert!(Instant::now() < until, "{name} does not say that its files are broken");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(presented(&lab, &addresses[name]).to_der().unwrap(), second[name].to_der().unwrap(), "{name}");
        is_answered(&curl(&lab, client_of(name), &[&root(&lab, pointer)]), name);
        renew(&lab, name, nf_type);
    }
    for (name, ..) in FUNCTIONS {
        presents_its_file(&lab, name, &addresses[name]);
        assert_ne!(certificate_in_file(&lab, name).to_der().unwrap(), second[name].to_der().unwrap(), "{name}");
    }
}

/// `openssl s_client` with these arguments at a function, and what it printed. Nothing is sent.
fn s_client(lab: &Lab, certificate: Option<&str>, address: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", address, "-CAfile"]).arg(lab.path("pki/ca.pem"));
    if let Some(name) = certificate {
        command.arg("-cert").arg(lab.path(&format!("pki/{name}.pem")));
        command.arg("-key").arg(lab.path(&format!("pki/{name}.key")));
    }
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let told = [output.stdout, output.stderr].map(|octets| String::from_utf8_lossy(&octets).into_owned()).concat();
    (output.status.success(), told)
}

/// Outside the profile: what is offered, and the alert that it gets.
const REFUSED: [(&[&str], &str); 18] = [
    (&["-tls1", "-cipher", "ALL:@SECLEVEL=0"], "alert protocol version"),
    (&["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "alert protocol version"),
    // No forward secrecy.
    (&["-tls1_2", "-cipher", "AES256-SHA"], "alert handshake failure"),
    (&["-tls1_2", "-cipher", "AES256-GCM-SHA384"], "alert handshake failure"),
    // No AEAD.
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], "alert handshake failure"),
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], "alert handshake failure"),
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"], "alert handshake failure"),
    // No certificate of the server's.
    (&["-tls1_2", "-cipher", "AECDH-AES128-SHA:@SECLEVEL=0"], "alert handshake failure"),
    // Finite fields, and suites that TS 33.210 does not name.
    (&["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"], "alert handshake failure"),
    (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-CCM8"], "alert handshake failure"),
    (&["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_8_SHA256"], "alert handshake failure"),
    (&["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"], "alert handshake failure"),
    // Groups.
    (&["-tls1_3", "-groups", "P-521"], "alert handshake failure"),
    (&["-tls1_3", "-groups", "X448"], "alert handshake failure"),
    (&["-tls1_3", "-groups", "ffdhe2048"], "alert handshake failure"),
    (&["-tls1_2", "-groups", "P-521"], "alert handshake failure"),
    (&["-tls1_2", "-groups", "brainpoolP256r1"], "alert handshake failure"),
    // Signatures over SHA-1.
    (&["-tls1_2", "-sigalgs", "ECDSA+SHA1:RSA+SHA1", "-cipher", "ALL:@SECLEVEL=0"], "alert handshake failure"),
];

/// Of the profile, as curl asks for it. In TLS 1.2 the certificate's curve has to be among the groups (RFC 8422 clause 5.1).
const ACCEPTED: [&[&str]; 9] = [
    &["--tlsv1.3", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256"],
    &["--tlsv1.3", "--tls13-ciphers", "TLS_AES_256_GCM_SHA384"],
    &["--tlsv1.3", "--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256"],
    &["--tlsv1.3", "--curves", "P-256"],
    &["--tlsv1.3", "--curves", "P-384"],
    &["--tlsv1.3", "--curves", "X25519"],
    &["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256", "--curves", "P-256"],
    &["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384", "--curves", "P-384:P-256"],
    &["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305", "--curves", "X25519:P-256"],
];

#[test]
fn what_is_outside_the_tls_profile_is_refused_by_every_function_with_the_right_alert_and_what_is_in_it_is_served() {
    let lab = Lab::start();
    // The interface for devices, too, which asks for no certificate.
    let devices = [("server", "AF", "/server/https")];
    for (name, _, pointer) in FUNCTIONS.into_iter().chain(devices) {
        let (at, client) = (address(&lab, pointer), client_of(name));
        let try_with = |arguments: &[&str]| s_client(&lab, client, &at, &[&["-alpn", "h2"], arguments].concat());
        for (offer, alert) in REFUSED {
            let (connected, told) = try_with(offer);
            assert!(!connected && told.contains(alert), "{pointer} {offer:?}: {told}");
            assert!(told.contains("Cipher is (NONE)"), "{pointer} {offer:?}: {told}");
        }
        for version in ["-tls1_2", "-tls1_3"] {
            let (connected, told) = try_with(&[version]);
            assert!(connected && told.contains("ALPN protocol: h2"), "{pointer} {version}: {told}");
            assert!(told.contains("Compression: NONE") && !told.contains("Reused,"), "{pointer} {version}: {told}");
            let (_, told) = try_with(&[version, "-reconnect"]);
            assert!(!told.contains("Reused,"), "{pointer} {version}, resumption: {told}");
        }
        // Functions are asked by whatever name a proxy or SCP has for them; devices by the server's.
        let (connected, told) = try_with(&["-servername", "of.no.relevance.example"]);
        let as_it_is = if pointer == "/server/https" { told.contains("unrecognized name") } else { connected };
        assert!(as_it_is, "{pointer}, another name: {told}");
        if pointer != "/server/https" {
            let (_, told) = s_client(&lab, client, &at, &["-alpn", "http/1.1"]);
            assert!(told.contains("alert no application protocol"), "{pointer}: {told}");
        }
        for offer in ACCEPTED {
            is_answered(
                &curl(&lab, client, &[offer, &[root(&lab, pointer).as_str()]].concat()),
                &format!("{pointer} {offer:?}"),
            );
        }
    }
}

/// That what comes from `network` to `listen` is the function `id`.
fn statement(listen: &str, network: &str, id: &str) -> toml::Value {
    let statement = json!({
        "listen": listen,
        "networks": [network],
        "protected_by": "IPsec of the transport department",
        "nf_instance_id": id,
    });
    toml::Value::try_from(statement).unwrap()
}

/// The configuration of an AAnF like the lab's that serves what comes from these networks without TLS.
fn aanf_with(lab: &Lab, statements: Vec<toml::Value>) -> toml::Table {
    let mut config = configuration(lab, "aanf");
    let data = lab.path("state/nds-ip-aanf").display().to_string();
    for (key, value) in [("listen", "127.0.0.1:0"), ("admin", "127.0.0.1:0"), ("data", data.as_str())] {
        config.insert(key.to_owned(), value.into());
    }
    config["nrf"].as_table_mut().unwrap().insert("register".to_owned(), false.into());
    config["authorization"].as_table_mut().unwrap().insert("nds_ip".to_owned(), toml::Value::Array(statements));
    config
}

/// The NF instance ID of the lab's MSGin5G Server, which the AAnF lets have keys for its FQDN and SUPIs.
fn server_identity(lab: &Lab) -> String {
    let names = certificate_in_file(lab, "server").subject_alt_names().unwrap();
    names.iter().find_map(|name| name.uri()?.strip_prefix("urn:uuid:").map(str::to_owned)).unwrap()
}

/// curl without TLS, from an address of this machine, with a body in JSON. Returns status and body; `None` where it is closed.
fn plain(from: &str, uri: &str, body: &Value) -> Option<(u16, Vec<u8>)> {
    let output = Command::new("curl")
        .args(["--silent", "--http2-prior-knowledge", "--max-time", "60", "--interface", from])
        .args([
            "--write-out",
            "\n%{http_code}",
            "-H",
            "Content-Type: application/json",
            "--data",
            &body.to_string(),
            uri,
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    if !output.status.success() {
        return None;
    }
    let at = output.stdout.iter().rposition(|octet| *octet == b'\n').unwrap();
    let status = std::str::from_utf8(&output.stdout[at + 1..]).unwrap().parse().unwrap();
    Some((status, output.stdout[..at].to_vec()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_stated_to_be_protected_gets_keys_without_tls_or_token_and_no_other_source_does() {
    let lab = Lab::start();
    let (listen, elsewhere) = (free_address().to_string(), free_address().to_string());
    let server = server_identity(&lab);
    let statements = vec![
        statement(&listen, "127.0.0.1/32", &server),
        // Nothing comes from there.
        statement(&elsewhere, "192.0.2.0/24", &server),
    ];
    let aanf = Function::configured(&lab, "aanf", "nds-ip.toml", &aanf_with(&lab, statements));
    let ausf = ausf_of(&lab, &aanf.root(), Vec::new()).await;
    let fleet = Fleet::provision_for(&lab, 1, &ausf).await;
    let keys = fleet.ues[0].keys().await;
    let fqdn = root(&lab, "/server/fqdn");
    let af_id = AfId::new(fqdn.parse().unwrap(), UaProtocolId::TLS_1_3);
    let asked = json!({"afId": af_id.to_string(), "aKId": keys.a_kid.as_str()});
    let uri = |at: &str| format!("http://{at}/naanf-akma/v1/retrieve-applicationkey");

    let (status, body) = plain("127.0.0.1", &uri(&listen), &asked).expect("it is served");
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(status, 200, "{}", answer["cause"]);
    let k_af = akma::k_af(&keys.k_akma, &af_id);
    assert!(answer["kaf"].as_str().unwrap().eq_ignore_ascii_case(&hex_of(k_af.expose())), "not the UE's K_AF");
    let log = aanf.log();
    assert!(log.contains("protected_by=\"IPsec of the transport department\""), "{log}");
    let decided = |line: &str| line.contains("audit") && line.contains(&server) && line.contains("reason=\"nds_ip\"");
    assert!(log.lines().any(decided), "{log}");
    // The rules of the peer that the network is taken for hold: it has no other AF's keys.
    let other = AfId::new("other.lab.example".parse().unwrap(), UaProtocolId::TLS_1_3);
    let others = json!({"afId": other.to_string(), "aKId": keys.a_kid.as_str()});
    let (status, body) = plain("127.0.0.1", &uri(&listen), &others).expect("it is answered");
    let refused: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, refused["cause"].as_str()), (403, Some("AF_ID_NOT_ALLOWED")));

    assert_eq!(plain("127.0.0.2", &uri(&listen), &asked), None, "another source");
    assert_eq!(plain("127.0.0.1", &uri(&elsewhere), &asked), None, "the network of another statement");
    aanf.metric_reaches("sbi_connections_refused_total{reason=\"nds_ip_source\"}", 2);
    // Where TLS is spoken, it is spoken by everybody.
    assert_eq!(plain("127.0.0.1", &uri(&aanf.address().to_string()), &asked), None);
    // And there the same source needs its token.
    let with_tls = uri(&aanf.address().to_string()).replacen("http", "https", 1);
    let json = ["-H", "Content-Type: application/json", "--data", &asked.to_string(), &with_tls];
    let without_token = curl(&lab, Some("server"), &json);
    assert_eq!(String::from_utf8_lossy(&without_token.stdout), "2 401");
}

fn hex_of(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[test]
fn config_check_refuses_a_statement_of_protection_that_has_strangers_in_it_or_does_not_say_what_protects() {
    let lab = Lab::start();
    let server = server_identity(&lab);
    let checked = |change: &dyn Fn(&mut toml::Value)| {
        let mut stated = statement("127.0.0.1:0", "10.0.0.0/8", &server);
        change(&mut stated);
        let file: PathBuf = lab.path("stated.toml");
        std::fs::write(&file, toml::to_string(&aanf_with(&lab, vec![stated])).unwrap()).unwrap();
        let output = msgin5g().args(["config", "check", "--kind", "aanf"]).arg(file).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let with = |key: &'static str, value: Value| {
        let value = toml::Value::try_from(value).unwrap();
        checked(&move |stated| drop(stated.as_table_mut().unwrap().insert(key.to_owned(), value.clone())))
    };
    let (code, told) = checked(&|_| {});
    assert_eq!(code, Some(0), "{told}");
    for networks in [json!([]), json!(["0.0.0.0/0"]), json!(["::/0"]), json!(["10.0.0.0/7"]), json!(["192.0.2.1/24"])] {
        let (code, told) = with("networks", networks.clone());
        assert!(code == Some(1) && told.contains("nds_ip") && told.contains("network"), "{networks}: {told}");
    }
    let (code, told) = with("protected_by", json!(" "));
    assert!(code == Some(1) && told.contains("protected_by"), "{told}");
    let (code, told) = checked(&|stated| drop(stated.as_table_mut().unwrap().remove("nf_instance_id")));
    assert!(code == Some(1) && told.contains("nf_instance_id"), "{told}");
}
