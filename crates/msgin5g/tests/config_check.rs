//! `msgin5g config check`: what is wrong with a file is told with the file, the key, and what would be right.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::PathBuf;

use common::msgin5g;
use sbi::CertificateFiles;
use sbi::testing::TestAuthority;
use sbi::testing::tokens::TestIssuer;
use sbi::token::TokenSigner;

/// A configuration of kind `kind` in a folder of its own, and a place for a policy file.
struct Files {
    kind: &'static str,
    config: PathBuf,
    policy: PathBuf,
    _folder: tempfile::TempDir,
}

impl Files {
    fn new(kind: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, policy) = (folder.path().join("function.toml"), folder.path().join("policy.toml"));
        Self { kind, config, policy, _folder: folder }
    }

    /// What `config check` says of the configuration: nothing of a right one.
    fn told(&self, config: &str) -> Option<String> {
        std::fs::write(&self.config, config).unwrap();
        let output = msgin5g().args(["config", "check", "--kind", self.kind]).arg(&self.config).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => None,
            Some(1) => Some(told),
            code => panic!("{code:?}: {told}"),
        }
    }

    /// That it is told with the file, and in these words.
    fn assert_told(&self, config: &str, words: &str) {
        let told = self.told(config).unwrap_or_else(|| panic!("taken for right: {config}"));
        let file = self.config.to_str().unwrap();
        assert!(told.contains(file) && told.contains(words), "expected {words} of {config}: {told}");
    }

    /// The same of a policy file, whose own name is told.
    fn assert_policy_told(&self, config: &str, policy: &str, words: &str) {
        std::fs::write(&self.policy, policy).unwrap();
        let told = self.told(config).unwrap_or_else(|| panic!("taken for right: {policy}"));
        let file = format!("{}{words}", self.policy.display());
        assert!(told.contains(&file), "expected {file} of {policy}: {told}");
    }

    /// That each of these policies is right.
    fn assert_policies_right(&self, config: &str, policies: &[&str]) {
        for policy in policies {
            std::fs::write(&self.policy, policy).unwrap();
            assert_eq!(self.told(config), None, "{policy}");
        }
    }
}

/// Certificates that can be used, `tls` of whoever is to have them, and what else is to be a file.
struct Pki {
    authority: TestAuthority,
    tls: String,
}

impl Pki {
    fn new() -> Self {
        let authority = TestAuthority::new();
        let files = authority.issue(INSTANCE, &["function.example"]);
        let tls = format!("tls = {}\n", Self::table(&files));
        Self { authority, tls }
    }

    fn table(files: &CertificateFiles) -> String {
        let CertificateFiles { certificate, key, ca, .. } = files;
        format!("{{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}")
    }

    /// A file beside the certificates.
    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.authority.directory().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// A key of a configuration, and a file that it names.
type Opened = (&'static str, PathBuf);

const INSTANCE: &str = "4947a69a-f61b-4bc1-b9da-47c9c5d14b64";

#[test]
fn a_wrong_entry_of_a_configuration_function_is_told_with_its_key_and_what_would_be_right() {
    let files = Files::new("configuration");
    let pki = Pki::new();
    let tls = &pki.tls;
    let base = format!("listen = '127.0.0.1:0'\ndata = 'd'\n{tls}");
    let by_tls = "[authorization]\nmode = 'tls'\n";
    let coap =
        "[coap]\nfqdn = 'cm.example'\nserver_address = 'coaps+tcp://msgin5g.example/msgin5g'\naanf = 'https://aanf'\n";
    let good = format!("{base}{by_tls}{coap}");
    assert_eq!(files.told(&good), None);

    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    for (config, words) in [
        // What is missing, misspelled, or of another type.
        (changed("data = 'd'\n", ""), "missing field `data`"),
        (changed("listen = '127.0.0.1:0'", "listen = 'localhost'"), "listen: invalid socket address"),
        (changed("data = 'd'", "dta = 'd'"), "unknown field `dta`"),
        (changed("key = ", "kee = "), "tls"),
        (format!("{good}segment_sise = 7\n"), "coap.segment_sise: unknown field `segment_sise`"),
        (format!("{good}segment_size = 'large'\n"), "coap.segment_size: invalid type: string"),
        (changed("'cm.example'", "'a b'"), "coap.fqdn: "),
        (format!("{base}[provisioner]\n"), "provisioner: invalid type: map, expected a sequence"),
        (format!("{good}[[provisioner]]\nnf_instance = 'x'\n"), "unknown field `nf_instance`"),
        (format!("{good}[tables\n"), " (line 10, column 8): unclosed table"),
        // What would let nobody in, or the wrong ones.
        (
            format!("{base}{coap}"),
            "authorization.issuer: there is none, and no peer with mode \"tls\": nobody could get in; name",
        ),
        (format!("{good}[[provisioner]]\n"), "provisioner[0] needs nf_instance_id or dns_name"),
        (format!("{good}[[reader]]\ndns_name = 'a'\n[[reader]]\n"), "reader[1] needs nf_instance_id or dns_name"),
        (format!("{base}{by_tls}leeway_seconds = 31\n"), "authorization.leeway_seconds is 30 at most"),
        (
            format!("{base}{by_tls}[[authorization.issuer]]\nnf_instance_id = ''\nkeys = 'k'\n"),
            "authorization.issuer[0].nf_instance_id is empty: give the NF instance ID of the NRF",
        ),
        (
            format!(
                "{base}{by_tls}[[authorization.nds_ip]]\nlisten = '127.0.0.1:0'\nnetworks = []\nprotected_by = 'x'\n"
            ),
            "authorization.nds_ip[0].networks is empty: name those that are protected",
        ),
        // What no UE could use.
        (changed("coaps+tcp://", "coaps://"), "coap.server_address must be coaps+tcp://FQDN[:PORT]/PATH"),
        (format!("{good}segment_size = 0\n"), "coap.segment_size must be 1 or more"),
        (
            changed("'https://aanf'", "'http://aanf'"),
            "coap.aanf must be an https URL, \"nrf\", or \"nrf, \" and an https URL",
        ),
        (changed("'https://aanf'", "'nrf'"), "coap.aanf is \"nrf\", and there is no section [nrf]"),
        (
            format!("{good}aanf_routes = [{{ routing_indicators = ['1'], root = 'aanf' }}]\n"),
            "coap.aanf_routes: root must be an https URI",
        ),
        (
            format!("{good}aanf_routes = [{{ routing_indicators = [], root = 'https://a' }}]\n"),
            "coap.aanf_routes: routing_indicators must not be empty",
        ),
        (
            format!("{good}[coap.notifications]\nnotifier = []\n"),
            "coap.notifications.notifier needs nf_instance_id or dns_name",
        ),
        (format!("{good}[coap.limits]\nconnections_max = 0\n"), "coap.limits.connections_max must be 1 or more"),
        (
            format!("{good}[coap.limits]\nconnections_per_a_kid_max = 0\n"),
            "coap.limits.connections_per_a_kid_max must be 1 or more",
        ),
        (
            format!("{good}[coap.limits]\nrevalidation_seconds = 0\n"),
            "coap.limits.revalidation_seconds must be 1 second to 100 years",
        ),
        (format!("{good}[tables]\npage_max = 0\n"), "tables.page_max must be 1 or more"),
        (format!("{good}[nrf]\nroot = 'http://nrf'\n"), "nrf.root must be an https URI without query"),
        (
            format!("{good}[nrf]\nroot = 'https://nrf'\n[nrf.limits]\nheart_beat_seconds = 0\n"),
            "nrf.limits.heart_beat_seconds must be 1 to ",
        ),
    ] {
        files.assert_told(&config, words);
    }
}

#[test]
fn a_wrong_entry_of_a_policy_file_is_told_with_that_file_the_key_and_what_would_be_right() {
    let pki = Pki::new();
    let tls = &pki.tls;
    let files = Files::new("configuration");
    let config = format!(
        "policy = {:?}\nlisten = '127.0.0.1:0'\ndata = 'd'\n{tls}authorization = {{ mode = 'tls' }}\n",
        files.policy
    );
    files.assert_told(&config, "policy.toml: No such file");
    files.assert_policies_right(&config, &["", "[[provisioner]]\ndns_name = 'a'\n[[reader]]\nnf_instance_id = 'b'\n"]);
    for (policy, words) in [
        ("[[provisioner]]\n", ": provisioner[0] needs nf_instance_id or dns_name"),
        ("[[reader]]\ndns_name = 'a'\n[[reader]]\n", ": reader[1] needs nf_instance_id or dns_name"),
        ("[[provisioners]]\ndns_name = 'a'\n", " (line 1, column 3): unknown field `provisioners`"),
        ("[[reader]]\ndns = 'a'\n", " (line 2, column 1): unknown field `dns`"),
        ("[[reader]]\ndns_name = 7\n", " (line 2, column 12): invalid type: integer"),
        ("reader = 'a'\n", " (line 1, column 10): invalid type: string"),
        ("[[reader\n", " (line 1, column "),
        ("listen = '127.0.0.1:0'\n", " (line 1, column 1): unknown field `listen`"),
    ] {
        files.assert_policy_told(&config, policy, words);
    }
    // The entries stand in one place.
    files.assert_told(
        &format!("{config}[[reader]]\ndns_name = 'a'\n"),
        "policy: the file holds every [[provisioner]] and [[reader]]",
    );

    let files = Files::new("aanf");
    let config = format!(
        "policy = {:?}\nlisten = '127.0.0.1:0'\ndata = 'd'\n{tls}authorization = {{ mode = 'tls' }}\n",
        files.policy
    );
    files.assert_told(&config, "policy.toml: No such file");
    let af = "[[af]]\ndns_name = 'a'\n";
    files.assert_policies_right(
        &config,
        &["", &format!("{af}fqdns = ['af.example']\n"), &format!("{af}may_register = true\n")],
    );
    for (policy, words) in [
        ("[[af]]\nfqdns = ['a.example']\n".to_owned(), ": af[0] needs nf_instance_id or dns_name"),
        (af.to_owned(), ": af[0] may do nothing: give it fqdns, may_register or may_provision"),
        (format!("{af}may_register = true\n").repeat(2), ": af[0] names the same peer as another entry"),
        (format!("{af}fqdn = 'a.example'\n"), " (line 3, column 1): unknown field `fqdn`"),
        (format!("{af}fqdns = 'a.example'\n"), " (line 3, column 9): invalid type: string"),
        (format!("{af}fqdns = ['a b']\n"), " (line 3, column "),
        ("kaf_lifetime_seconds = 1\n".to_owned(), " (line 1, column 1): unknown field `kaf_lifetime_seconds`"),
    ] {
        files.assert_policy_told(&config, &policy, words);
    }
    files.assert_told(&format!("{config}{af}may_register = true\n"), "policy: the file holds every [[af]]");
}

/// A configuration of each function that is right, with every kind of file that its start opens, and those files by the key that
/// is told with them.
fn functions(pki: &Pki) -> Vec<(&'static str, String, Vec<Opened>)> {
    let issue = |instance: &str| {
        let files = pki.authority.issue(instance, &["function.example"]);
        let crl = pki.authority.directory().join(format!("{instance}.crl"));
        std::fs::copy(pki.authority.crl(&[], 2099), &crl).unwrap();
        let ca = pki.authority.directory().join(format!("{instance}.ca"));
        std::fs::copy(pki.authority.ca(), &ca).unwrap();
        CertificateFiles { ca, crl: Some(crl), ..files }
    };
    let table = |files: &CertificateFiles| {
        let CertificateFiles { certificate, key, ca, crl } = files;
        format!("{{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?}, crl = {:?} }}", crl.as_ref().unwrap())
    };
    let of_tls = |key: &'static str, files: &CertificateFiles| {
        [&files.certificate, &files.key, &files.ca, files.crl.as_ref().unwrap()].map(|path| (key, path.clone()))
    };
    let issuer = TestIssuer::new(&pki.authority, "0a1b2c3d-0000-4000-8000-000000000001").entry();
    let authorization =
        format!("[[authorization.issuer]]\nnf_instance_id = '{}'\nkeys = {:?}\n", issuer.nf_instance_id, issuer.keys);
    let of_issuer = ("authorization.issuer", issuer.keys.clone());
    let token_key = || TokenSigner::generate_pem().unwrap();
    let mut functions = Vec::new();

    let tls = issue("0a1b2c3d-0000-4000-8000-00000000000a");
    let storage_key = pki.file("storage.key", &"ab".repeat(32));
    let config = format!(
        "listen = '127.0.0.1:0'\ndata = 'd'\nstorage_key = {storage_key:?}\ntls = {}\n{authorization}",
        table(&tls)
    );
    let opened = of_tls("tls", &tls).into_iter().chain([of_issuer.clone(), ("storage key", storage_key)]).collect();
    functions.push(("aanf", config, opened));

    let tls = issue("0a1b2c3d-0000-4000-8000-00000000000b");
    let config = format!("listen = '127.0.0.1:0'\ndata = 'd'\ntls = {}\n{authorization}", table(&tls));
    functions.push(("configuration", config, of_tls("tls", &tls).into_iter().chain([of_issuer.clone()]).collect()));

    let (outside, inside) =
        (issue("0a1b2c3d-0000-4000-8000-00000000000c"), issue("0a1b2c3d-0000-4000-8000-00000000000d"));
    let capif = issue("0a1b2c3d-0000-4000-8000-00000000000e");
    let (signing, credential) = (pki.file("nef.key", &token_key()), pki.file("credential", "abcd"));
    let authority = issue("0a1b2c3d-0000-4000-8000-00000000000f");
    let state = pki.authority.directory().join("capif");
    std::fs::create_dir(&state).unwrap();
    let core_signing = pki.file("capif/token.key", &token_key());
    let invoker_ca = pki.file("invoker.ca", &std::fs::read_to_string(pki.authority.ca()).unwrap());
    let core_ca = pki.file("core.ca", &std::fs::read_to_string(pki.authority.ca()).unwrap());
    let config = format!(
        "[nef]\nlisten = '127.0.0.1:0'\ndata = 'd'\ntls = {}\ninside = {}\nakma = {{ aanf = 'https://aanf' }}\n\
         tokens = {{ key = {signing:?} }}\n\
         [nef.capif]\ncore_function = 'https://core'\nca = {core_ca:?}\ninvoker_ca = {invoker_ca:?}\n\
         registration_credential = {credential:?}\ndata = 'nef-capif'\n\
         interfaces = [{{ ipv4Addr = '127.0.0.1', port = 1, securityMethods = ['PKI'] }}]\n\
         [capif]\nlisten = '127.0.0.1:0'\ndata = {state:?}\ntls = {}\n\
         authority = {{ certificate = {:?}, key = {:?} }}\n",
        table(&outside),
        table(&inside),
        table(&capif),
        authority.certificate,
        authority.key,
    );
    let opened = of_tls("nef.tls", &outside).into_iter().chain(of_tls("nef.inside", &inside)).chain([
        ("nef.tokens.key", signing),
        ("nef.capif.ca", core_ca),
        ("nef.capif.invoker_ca", invoker_ca.clone()),
        ("nef.capif.registration_credential", credential.clone()),
        ("capif.authority", authority.certificate.clone()),
        ("capif.authority", authority.key.clone()),
        ("token.key", core_signing),
    ]);
    functions.push(("exposure", config, opened.chain(of_tls("capif.tls", &capif)).collect()));

    let own = issue("0a1b2c3d-0000-4000-8000-000000000010");
    let (af, https) = (issue("0a1b2c3d-0000-4000-8000-000000000011"), issue("0a1b2c3d-0000-4000-8000-000000000012"));
    let targets = issue("0a1b2c3d-0000-4000-8000-000000000013");
    let invokers_crl = pki.authority.directory().join("invokers.crl");
    std::fs::copy(pki.authority.crl(&[], 2099), &invokers_crl).unwrap();
    let server_invoker_ca = pki.file("server-invoker.ca", &std::fs::read_to_string(pki.authority.ca()).unwrap());
    let server_core_ca = pki.file("server-core.ca", &std::fs::read_to_string(pki.authority.ca()).unwrap());
    let server_credential = pki.file("server-credential", "abcd");
    let config = format!(
        "certificates = {}\nserver = {{ fqdn = 'msgin5g.example' }}\nstore = {{ path = 's' }}\n\
         akma = {{ nef = 'https://nef', af = {{ client_id = 'us', certificates = {} }} }}\n\
         configuration_function = {{ url = 'https://cf' }}\nadmin = {{ listen = '127.0.0.1:0' }}\n\
         https = {{ listen = '127.0.0.1:0', certificates = {} }}\n\
         [api]\ntargets = {{ ca = {:?}, crl = {:?} }}\n\
         [capif]\nlisten = '127.0.0.1:0'\ncrl = {invokers_crl:?}\n\
         [capif.aef]\ncore_function = 'https://core'\nca = {server_core_ca:?}\ninvoker_ca = {server_invoker_ca:?}\n\
         registration_credential = {server_credential:?}\ndata = 'server-capif'\n\
         interfaces = [{{ ipv4Addr = '127.0.0.1', port = 1, securityMethods = ['PKI'] }}]\n{authorization}",
        table(&own),
        table(&af),
        table(&https),
        targets.ca,
        targets.crl.as_ref().unwrap(),
    );
    let opened = of_tls("certificates", &own).into_iter().chain(of_tls("akma.af.certificates", &af)).chain([
        of_issuer,
        ("https.certificates", https.certificate),
        ("https.certificates", https.key),
        ("api.targets", targets.ca),
        ("api.targets", targets.crl.unwrap()),
        ("capif.crl", invokers_crl),
        ("capif.aef.ca", server_core_ca),
        ("capif.aef.invoker_ca", server_invoker_ca),
        ("capif.aef.registration_credential", server_credential),
    ]);
    functions.push(("server", config, opened.collect()));
    functions
}

#[test]
fn every_file_that_a_start_opens_is_opened_and_one_that_cannot_be_used_is_told_with_its_key() {
    let pki = Pki::new();
    for (kind, config, opened) in functions(&pki) {
        let files = Files::new(kind);
        assert_eq!(files.told(&config), None, "{kind}: {config}");
        for (key, path) in opened {
            let right = std::fs::read(&path).unwrap();
            for wrong in [None, Some(""), Some("-----BEGIN NONSENSE-----\nAA==\n-----END NONSENSE-----\n")] {
                // Any octets may be a credential, none may not.
                if key.ends_with("registration_credential") && wrong.is_some_and(|text| !text.is_empty()) {
                    continue;
                }
                match wrong {
                    Some(text) => std::fs::write(&path, text).unwrap(),
                    None => std::fs::remove_file(&path).unwrap(),
                }
                // A key that is not there yet is made by the start.
                if wrong.is_none() && key == "token.key" {
                    assert_eq!(files.told(&config), None, "{kind}: no {}", path.display());
                    continue;
                }
                files.assert_told(&config, key);
                files.assert_told(&config, path.to_str().unwrap());
            }
            std::fs::write(&path, right).unwrap();
            assert_eq!(files.told(&config), None, "{kind} with {} put back", path.display());
        }
        // Nothing was made by looking.
        let made = ["d", "s", "nef-capif", "server-capif"];
        assert!(made.iter().all(|name| !std::path::Path::new(name).exists()));
    }
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let pki = Pki::new();
    let (own, other) = (pki.authority.issue(INSTANCE, &[]), pki.authority.issue(&INSTANCE.replace('4', "5"), &[]));
    let tls = Pki::table(&CertificateFiles { key: other.key.clone(), ..own });
    let config = format!("listen = '127.0.0.1:0'\ndata = 'd'\ntls = {tls}\nauthorization = {{ mode = 'tls' }}\n");
    let files = Files::new("aanf");
    files.assert_told(&config, "tls: the private key ");
    files.assert_told(&config, "does not belong to the certificate");
}

#[test]
fn limits_that_would_serve_nobody_are_told_with_their_key_and_what_they_must_be() {
    let pki = Pki::new();
    let server_limits = [
        ("connections_max", "0", "must be 1 or more"),
        ("connections_per_peer_max", "0", "must be 1 or more"),
        ("handshakes_max", "0", "must be 1 or more"),
        ("handshakes_per_source_max", "0", "must be 1 or more"),
        ("handshake_timeout_seconds", "0", "must be 1 or more"),
        ("streams_per_connection_max", "0", "must be 1 or more"),
        ("requests_max", "0", "must be 1 or more"),
        ("requests_max", "9000000000000000000", "must be 4294967295 or less"),
        ("request_body_bytes_max", "0", "must be 1 or more"),
        ("header_list_bytes_max", "10", "must be 1024 or more"),
        ("stream_window_bytes", "4294967295", "must be 2147483647 or less"),
        ("bodies_per_peer_max", "0", "must be 1 or more"),
        ("body_timeout_seconds", "0", "must be 1 or more"),
        ("request_timeout_seconds", "9000000000000000000", "must be 3155760000 or less"),
        ("reload_interval_seconds", "0", "must be 1 or more"),
    ];
    let client_limits = [
        ("request_timeout_milliseconds", "0", "must be 1 or more"),
        ("connect_timeout_milliseconds", "0", "must be 1 or more"),
        ("requests_outstanding_max", "0", "must be 1 or more"),
        ("connections_per_peer_max", "0", "must be 1 or more"),
        ("response_body_bytes_max", "0", "must be 1 or more"),
        ("scp", "'http://scp'", "must be an https URI"),
    ];
    type Members<'a> = &'a [(&'a str, &'a str, &'a str)];
    type Sections<'a> = &'a [(&'a str, Members<'a>)];
    let others: [(&str, Sections); 4] = [
        (
            "aanf",
            &[
                ("limits", &server_limits),
                ("notifications.limits", &client_limits),
                ("tables", &[("contexts_max", "0", "must be 1 or more")]),
                ("tables", &[("application_keys_per_context_max", "0", "must be 1 or more")]),
                ("store", &[("queue_batches_max", "0", "must be 1 or more")]),
            ],
        ),
        (
            "configuration",
            &[
                ("limits", &server_limits),
                ("tables", &[("associations_max", "0", "must be 1 or more")]),
                ("tables", &[("group_members_max", "0", "must be 1 or more")]),
                ("store", &[("group_batches_max", "0", "must be 1 or more")]),
            ],
        ),
        (
            "exposure",
            &[
                ("nef.limits", &server_limits),
                ("nef.requests", &client_limits),
                ("nef.akma.requests", &client_limits[..1]),
                ("nef.store", &[("queue_batches_max", "0", "must be 1 or more")]),
                ("nef.capif.limits", &[("questions_max", "0", "must be 1 or more")]),
                ("capif.limits", &server_limits),
                ("capif.tables", &[("invokers_max", "0", "must be 1 or more")]),
                ("capif.tables", &[("apis_max", "0", "must be 1 or more")]),
            ],
        ),
        (
            "server",
            &[
                ("api.limits", &server_limits),
                ("capif.limits", &server_limits[..1]),
                ("https.limits", &server_limits[..1]),
                ("api.requests", &client_limits),
                ("akma.requests", &client_limits[..1]),
                ("configuration_function.requests", &client_limits[..1]),
                ("akma.lookups", &[("in_flight_max", "0", "must be 1 or more")]),
                ("akma.lookups", &[("timeout_ms", "0", "must be 1 or more")]),
                ("tls.handshakes", &[("in_progress_max", "0", "must be 1 or more")]),
                ("tls.handshakes", &[("octets_max", "1", "must be 512 or more")]),
                ("store.options.limits", &[("registrations_max", "0", "must be 1 or more")]),
                ("store.options.database", &[("group_batches_max", "0", "must be 1 or more")]),
            ],
        ),
    ];
    for (kind, config, _) in functions(&pki) {
        let files = Files::new(kind);
        let sections = others.iter().find(|(name, _)| *name == kind).unwrap().1;
        for (section, members) in sections {
            for (member, value, told) in *members {
                let mut table: toml::Table = config.parse().unwrap();
                let mut at = &mut table;
                for name in section.split('.') {
                    let below = at.entry(name).or_insert_with(|| toml::Table::new().into());
                    at = below.as_table_mut().unwrap();
                }
                let value = format!("x = {value}").parse::<toml::Table>().unwrap().remove("x").unwrap();
                at.insert((*member).to_owned(), value);
                files.assert_told(&table.to_string(), &format!("{section}.{member} {told}"));
            }
        }
    }
}
