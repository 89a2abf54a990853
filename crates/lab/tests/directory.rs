//! What `msgin5g lab` makes on disk.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{Directory, LabError, LabJson};
use openssl::asn1::Asn1Time;
use openssl::x509::{CrlStatus, X509, X509Crl};

fn files_below(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files_below(&path) } else { vec![path] }
        })
        .collect()
}

#[test]
fn the_same_directory_is_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Directory::open_or_create(folder.path()).unwrap();
    let ports = first.choose_ports(None).unwrap();
    let before = first.lab_json(&ports);
    let certificates: Vec<_> = files_below(&folder.path().join("pki"))
        .into_iter()
        .filter(|path| path.extension().is_none_or(|extension| extension != "crl"))
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    drop(first);
    let mut second = Directory::open_or_create(folder.path()).unwrap();
    assert_eq!(second.choose_ports(None).unwrap(), ports, "free ports of before are taken again");
    assert_eq!(second.lab_json(&ports), before);
    for (content, path) in certificates {
        assert_eq!(fs::read(&path).unwrap(), content, "{}", path.display());
    }
}

#[test]
fn a_directory_has_one_lab_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = Directory::open_or_create(folder.path()).unwrap();
    assert!(matches!(Directory::open_or_create(folder.path()), Err(LabError::InUse(_))));
    drop(first);
    Directory::open_or_create(folder.path()).unwrap();
}

#[test]
fn a_start_that_was_interrupted_is_finished_for_the_same_identities() {
    let folder = tempfile::tempdir().unwrap();
    let ports = |directory: &mut Directory| directory.choose_ports(Some(7000)).unwrap();
    let mut first = Directory::open_or_create(folder.path()).unwrap();
    let before = ports(&mut first);
    let before = first.lab_json(&before);
    drop(first);
    for file in ["pki/server.pem", "pki/udm.key", "pki/suci-a.pub"] {
        fs::remove_file(folder.path().join(file)).unwrap();
    }
    let mut second = Directory::open_or_create(folder.path()).unwrap();
    let after = ports(&mut second);
    assert_eq!(second.lab_json(&after), before);
    for name in ["server", "udm"] {
        let text = fs::read(second.certificate(name).certificate).unwrap();
        let certificate = X509::from_pem(&text).unwrap();
        let uris = certificate.subject_alt_names().unwrap();
        let id = format!("urn:uuid:{}", second.nf_instance_id(name).unwrap());
        assert!(uris.iter().any(|uri| uri.uri() == Some(&id)), "{name}");
    }
}

#[test]
fn two_directories_share_no_key() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let networks = folders.each_ref().map(|folder| Directory::open_or_create(folder.path()).unwrap());
    for (one, other) in networks[0].network().subscribers.iter().zip(&networks[1].network().subscribers) {
        assert_ne!(one.k, other.k);
        assert_ne!(one.opc, other.opc);
    }
}

#[test]
fn every_file_is_the_owners_only() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("lab");
    let mut directory = Directory::open_or_create(&root).unwrap();
    let ports = directory.choose_ports(None).unwrap();
    directory.write_configurations(&ports).unwrap();
    directory.write_lab_json(&ports).unwrap();
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    for path in files_below(&root) {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn lab_json_names_files_that_are_there_and_only_functions_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = Directory::open_or_create(folder.path()).unwrap();
    let ports = directory.choose_ports(Some(7000)).unwrap();
    let path = directory.write_lab_json(&ports).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(value["home_network"], serde_json::json!({"mcc": "001", "mnc": "01"}));
    assert_eq!(value["server"]["coaps_tcp"], "127.0.0.1:7000");
    assert_eq!(value["server"]["coaps_ws"], "127.0.0.1:7014");
    assert_eq!(value["server"]["api"], "https://127.0.0.1:7001");
    assert_eq!(value["server"]["admin"], "http://127.0.0.1:7002");
    assert_eq!(value["core"]["ausf"], "https://127.0.0.1:7004");
    assert_eq!(value["core"]["configuration_coaps_tcp"], "127.0.0.1:7007");
    assert_eq!(value["core"]["configuration_fqdn"], "configuration.lab.example");
    assert_eq!(value["core"]["nrf"], format!("https://{}", ports.nrf));
    assert_eq!(value["core"]["capif"], format!("https://{}", ports.capif));
    assert_eq!(value["server"]["coaps"], value["server"]["coaps_tcp"]);
    let lab: LabJson = serde_json::from_value(value).unwrap();
    assert_eq!(lab.nf_client.nf_type, "AMF");
    let named = lab.application_servers.iter().flat_map(|server| [&server.cert, &server.key]);
    for file in named.chain([&lab.ca, &lab.nf_client.cert, &lab.nf_client.key]) {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    assert!(lab.application_servers.len() >= 2 && lab.subscribers.len() >= 4);
}

#[test]
fn configuration_files_are_read_by_the_functions() {
    let folder = tempfile::tempdir().unwrap();
    let mut directory = Directory::open_or_create(folder.path()).unwrap();
    let ports = directory.choose_ports(None).unwrap();
    directory.write_configurations(&ports).unwrap();
    let text = |name: &str| fs::read_to_string(directory.configuration_file(name)).unwrap();
    assert_eq!(toml::from_str::<lab::udm::Config>(&text("udm")).unwrap(), directory.udm_configuration(&ports).unwrap());
    assert_eq!(
        toml::from_str::<lab::ausf::Config>(&text("ausf")).unwrap(),
        directory.ausf_configuration(&ports).unwrap()
    );
    toml::from_str::<aanf::Config>(&text("aanf")).unwrap().check().unwrap();
}

#[test]
fn the_group_of_the_start_is_of_three_plain_subscribers_and_open_to_one_application_server() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open_or_create(folder.path()).unwrap();
    let group = directory.group();
    assert_eq!(group.group_service_id, "fleet@lab.example");
    assert_eq!(group.members, ["meter-1@lab.example", "valve-2@lab.example", "lamp-3@lab.example"]);
    assert_eq!(group.senders, ["AS:fleet@lab.example"]);
}

#[test]
fn a_file_edited_by_hand_is_named_and_its_keys_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open_or_create(folder.path()).unwrap();
    let key = directory.network().subscribers[0].k.to_hex();
    drop(directory);
    let path = folder.path().join("network.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"milenage\"", "\"none\"");
    fs::write(&path, text).unwrap();
    let Err(error) = Directory::open_or_create(folder.path()) else { panic!("it should be refused") };
    assert!(matches!(error, LabError::Content { .. }));
    assert!(error.to_string().contains("network.json") && !error.to_string().contains(key.as_str()));
}

#[test]
fn certificates_follow_the_profile_of_service_based_interfaces() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open_or_create(folder.path()).unwrap();
    let read = |file: PathBuf| X509::from_pem(&fs::read(file).unwrap()).unwrap();
    let authority = read(directory.certificate("ca").certificate);
    for name in [
        "udm",
        "ausf",
        "aanf",
        "configuration",
        "server",
        "nef",
        "nrf",
        "capif",
        "lab-nf",
        "provisioner",
        "as-billing",
        "as-fleet",
    ] {
        let certificate = read(directory.certificate(name).certificate);
        assert!(certificate.verify(&authority.public_key().unwrap()).unwrap(), "{name}");
        let lifetime = certificate.not_before().diff(certificate.not_after()).unwrap();
        assert!(lifetime.days > 365 && lifetime.days <= 3 * 365, "{name}: {} days", lifetime.days);
        assert!(certificate.not_before() < Asn1Time::days_from_now(0).unwrap());
        let text = String::from_utf8(certificate.to_text().unwrap()).unwrap();
        for part in [
            "X509v3 Subject Alternative Name: critical",
            "URI:urn:uuid:",
            "IP Address:127.0.0.1",
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "X509v3 Authority Key Identifier",
            "X509v3 CRL Distribution Points",
            "1.3.6.1.5.5.7.1.34",
            "O=5gc.mnc001.mcc001.3gppnetwork.org",
            "prime256v1",
        ] {
            assert!(text.contains(part), "{name} lacks {part}:\n{text}");
        }
    }
    let server = read(directory.certificate("server").certificate);
    let names: Vec<String> =
        server.subject_alt_names().unwrap().iter().filter_map(|name| name.dnsname().map(str::to_owned)).collect();
    assert_eq!(names, ["msgin5g.lab.example", "localhost"]);
}

/// Whether the extension with the NF types (RFC 9310, TS 33.310 clause 6.1.3c) is critical, and its value in hexadecimal, as the
/// openssl command finds them in a certificate.
fn nf_types_extension(certificate: &Path) -> (bool, String) {
    let output = Command::new("openssl").args(["asn1parse", "-in"]).arg(certificate).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut after = text.lines().skip_while(|line| !line.ends_with(":1.3.6.1.5.5.7.1.34")).skip(1).peekable();
    let critical = after.next_if(|line| line.contains("BOOLEAN")).is_some();
    let value = after.next().and_then(|line| line.split_once("OCTET STRING")?.1.split_once("[HEX DUMP]:"));
    (critical, value.unwrap_or_else(|| panic!("{text}")).1.to_ascii_lowercase())
}

#[test]
fn the_nf_types_in_a_certificate_are_a_sequence_with_the_functions_one_type_and_not_critical() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open_or_create(folder.path()).unwrap();
    for (name, nf_type) in [
        ("udm", "UDM"),
        ("ausf", "AUSF"),
        ("aanf", "AANF"),
        ("configuration", "AF"),
        ("server", "AF"),
        ("nef", "NEF"),
        ("nrf", "NRF"),
        ("capif", "AF"),
        ("lab-nf", "AMF"),
        ("as-billing", "AF"),
    ] {
        let files = directory.certificate(name);
        // SEQUENCE { IA5String }, in DER.
        let length = u8::try_from(nf_type.len()).unwrap();
        let octets = [&[0x30, 2 + length, 0x16, length], nf_type.as_bytes()].concat();
        assert_eq!(nf_types_extension(&files.certificate), (false, hex::encode(octets)), "{name}");
        // And that is what a peer of ours reads there.
        let der = X509::from_pem(&fs::read(&files.certificate).unwrap()).unwrap().to_der().unwrap();
        assert_eq!(transport::nf_types_of_certificate(&der).unwrap(), [nf_type], "{name}");
    }
}

#[test]
fn certificates_of_application_functions_outside_name_no_network_function_and_their_authority_is_not_the_domains() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open_or_create(folder.path()).unwrap();
    let read = |file: PathBuf| X509::from_pem(&fs::read(file).unwrap()).unwrap();
    let inside = read(directory.certificate("ca").certificate);
    let outside = read(directory.root().join("pki/af-ca.pem"));
    for (name, fqdn) in [("af-weather", "weather.outside.example"), ("af-msgin5g", "msgin5g.outside.example")] {
        let certificate = read(directory.outside_certificate(name).certificate);
        assert!(certificate.verify(&outside.public_key().unwrap()).unwrap(), "{name}");
        assert!(!certificate.verify(&inside.public_key().unwrap()).unwrap(), "{name}");
        let lifetime = certificate.not_before().diff(certificate.not_after()).unwrap();
        assert!(lifetime.days > 365 && lifetime.days <= 3 * 365, "{name}: {} days", lifetime.days);
        let names = certificate.subject_alt_names().unwrap();
        let dns: Vec<_> = names.iter().filter_map(|name| name.dnsname().map(str::to_owned)).collect();
        assert_eq!(dns, [fqdn, "localhost"]);
        assert!(names.iter().all(|name| name.uri().is_none()), "{name} has no NF instance ID");
        let text = String::from_utf8(certificate.to_text().unwrap()).unwrap();
        for part in [
            "X509v3 Key Usage: critical\n                Digital Signature\n",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "X509v3 Authority Key Identifier",
            "IP Address:127.0.0.1",
            "prime256v1",
        ] {
            assert!(text.contains(part), "{name} lacks {part}:\n{text}");
        }
        assert!(!text.contains("1.3.6.1.5.5.7.1.34"), "{name} has an NF type");
    }
}

#[test]
fn what_is_revoked_is_on_the_crl_while_the_lab_runs_and_after_it_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let lab = Directory::open_or_create(folder.path()).unwrap();
    let pki = folder.path().join("pki");
    let certificate = |name: &str| X509::from_pem(&fs::read(pki.join(format!("{name}.pem"))).unwrap()).unwrap();
    let is_revoked = |name: &str| {
        let crl = X509Crl::from_pem(&fs::read(pki.join("ca.crl")).unwrap()).unwrap();
        assert!(crl.verify(&certificate("ca").public_key().unwrap()).unwrap());
        let in_29_days = Asn1Time::days_from_now(29).unwrap();
        assert!(crl.next_update().unwrap() > in_29_days);
        matches!(crl.get_by_cert(&certificate(name)), CrlStatus::Revoked(_))
    };
    assert!(!is_revoked("lab-nf"));
    let authority = Directory::authority(folder.path()).unwrap();
    authority.revoke("lab-nf").unwrap();
    authority.revoke("lab-nf").unwrap();
    assert!(is_revoked("lab-nf") && !is_revoked("server"));
    drop(lab);
    let _again = Directory::open_or_create(folder.path()).unwrap();
    assert!(is_revoked("lab-nf"));
    for name in ["nobody", "../network", "ca", ""] {
        assert!(authority.revoke(name).is_err(), "{name:?}");
    }
    assert!(Directory::authority(&folder.path().join("pki")).is_err(), "there is no lab");
}

#[test]
fn an_application_function_outside_is_revoked_by_its_own_authority_in_the_file_that_the_nef_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Directory::open_or_create(folder.path()).unwrap();
    let ports = lab.choose_ports(None).unwrap();
    let pki = folder.path().join("pki");
    let certificate = |name: &str| X509::from_pem(&fs::read(pki.join(format!("{name}.pem"))).unwrap()).unwrap();
    let crls = || {
        let text = fs::read_to_string(pki.join("nef-clients.crl")).unwrap();
        let begin = "-----BEGIN X509 CRL-----";
        let crls =
            text.split(begin).skip(1).map(|rest| X509Crl::from_pem(format!("{begin}{rest}").as_bytes()).unwrap());
        crls.collect::<Vec<_>>()
    };
    let is_revoked =
        |name: &str| crls().iter().any(|crl| matches!(crl.get_by_cert(&certificate(name)), CrlStatus::Revoked(_)));
    for (crl, authority) in crls().iter().zip(["af-ca", "capif/ca"]) {
        assert!(crl.verify(&certificate(authority).public_key().unwrap()).unwrap(), "{authority}");
    }
    assert_eq!((crls().len(), is_revoked("af-weather")), (2, false));
    let config: toml::Value = toml::from_str(&lab.configuration("exposure", &ports).unwrap()).unwrap();
    let configured = config["nef"]["tls"]["crl"].as_str().unwrap();
    assert_eq!(fs::canonicalize(configured).unwrap(), fs::canonicalize(pki.join("nef-clients.crl")).unwrap());

    Directory::revocations(folder.path()).unwrap().revoke("af-weather").unwrap();
    assert!(is_revoked("af-weather") && !is_revoked("af-msgin5g"));
    drop(lab);
    let _again = Directory::open_or_create(folder.path()).unwrap();
    assert!(is_revoked("af-weather"), "for good");
}
