//! The command line, run as its users run it: on its own, and against a lab.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use common::{Lab, msgin5g};
use sbi::{CertificateFiles, testing::TestAuthority};
use serde_json::Value;

const METER: &str = "meter-1@lab.example";
const VALVE: &str = "valve-2@lab.example";

fn run(arguments: &[&str]) -> Output {
    msgin5g().args(arguments).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

/// Runs a command that must succeed; yields its JSON, one value a line.
#[track_caller]
fn json(arguments: &[&str]) -> Vec<Value> {
    let output = msgin5g().arg("--json").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command that must end with this code; yields what it told.
#[track_caller]
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// A lab with a place for profiles.
struct Scene {
    lab: Lab,
    folder: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        Self { lab: Lab::start(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The profile of one of the lab's subscribers.
    fn profile(&self, subscriber: &str) -> String {
        let path = self.path(&format!("{subscriber}.toml"));
        let out = path.to_str().unwrap();
        let lab = self.lab_json();
        json(&["client", "profile", "--lab", &lab, "--subscriber", subscriber, "--out", out]);
        out.to_owned()
    }

    fn lab_json(&self) -> String {
        self.lab.lab_json_path().to_str().unwrap().to_owned()
    }
}

/// `client listen` under way.
struct Listener {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Listener {
    fn start(profile: &str, arguments: &[&str]) -> Self {
        let mut process = msgin5g()
            .args(["--json", "client", "listen", "--profile", profile])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the listener printed {line:?}"))
    }

    fn end(mut self) -> Option<i32> {
        self.process.wait().unwrap().code()
    }

    fn interrupt(self) -> Option<i32> {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.end()
    }
}

/// Chain 1: MILENAGE test set 1 of TS 35.208, and the AKMA derivations computed on their own with another tool.
const CHAIN: [&str; 22] = [
    "keys",
    "derive",
    "--k",
    "465b5ce8b199b49faa5f0a2ee238a6bc",
    "--opc",
    "cd63cb71954a9f4e48a5994e37a02baf",
    "--rand",
    "23553cbe9637a89d218ae64dae47bf35",
    "--sqn",
    "ff9bb4d0b607",
    "--amf",
    "b9b9",
    "--snn",
    "5G:mnc001.mcc001.3gppnetwork.org",
    "--supi",
    "imsi-001010000000001",
    "--routing-indicator",
    "1234",
    "--af-fqdn",
    "msgin5g.example.com",
    "--ua-protocol",
    "0100000007",
];

#[test]
fn keys_derive_prints_the_whole_chain() {
    let chain = json(&CHAIN).remove(0);
    let a_tid = "a4763ff6a5427c58fa51f62e036c2aa33c88343cdda5f17db86cf1ab7b5661b6";
    let expected = serde_json::json!({
        "autn": "55f328b43577b9b94a9ffac354dfafb3",
        "res_star": "f236a7417272bfb2d66d4d670733b527",
        "k_ausf": "474698caf02cc715db2ec0726510cfee6caa5bb1a649cb01224f2e23af94de1b",
        "k_seaf": "8dff166c02edd5b177950d50cdd3fe93756cc53951856a95cb5ee9aabd35e220",
        "k_akma": "176cdc89b8bc8634d912bf84cb7ed7b85afe1b8802afa110d1100a881df659a3",
        "a_tid": a_tid,
        "a_kid": format!("1234.{a_tid}@5gc.mnc001.mcc001.3gppnetwork.org"),
        "k_af": "57928ae6395cc0034792b1fbde071749542ec5c57da5e4d302ac654060923771",
    });
    assert_eq!(chain, expected);
    // A bare IMSI is the same subscriber, and OP of that test set gives its OPc.
    let bare: Vec<&str> = CHAIN
        .iter()
        .map(|argument| match *argument {
            "imsi-001010000000001" => "001010000000001",
            "--opc" => "--op",
            "cd63cb71954a9f4e48a5994e37a02baf" => "cdc202d5123e20f62b6d676ac72cb318",
            other => other,
        })
        .collect();
    assert_eq!(json(&bare).remove(0), expected);
    let shown = text(&run(&CHAIN).stdout);
    assert!(shown.contains("K_AF    57928ae6") && shown.contains("TS 33.535 A.4"), "{shown}");
}

#[test]
fn keys_derive_knows_tuak() {
    let tuak: Vec<&str> = CHAIN
        .iter()
        .map(|argument| match *argument {
            "cd63cb71954a9f4e48a5994e37a02baf" => "bd04d9530e87513c5d837ac2ad954623a8e2330c115305a73eb45d1f40cccbff",
            other => other,
        })
        .chain(["--algorithm", "tuak"])
        .collect();
    let chain = json(&tuak).remove(0);
    assert_ne!(chain["k_ausf"], json(&CHAIN).remove(0)["k_ausf"]);
    assert_eq!(chain["k_af"].as_str().unwrap().len(), 64);
}

#[test]
fn what_cannot_be_meant_ends_with_code_2_and_says_why() {
    for arguments in [
        &["nonsense"][..],
        &["client"],
        &["client", "send", "--profile", "x", "--to", "ue:a"],
        &["client", "send", "--profile", "x", "--to", "ue:a", "--payload", "a", "--payload-file", "b"],
        &["client", "listen", "--profile", "x", "--for", "soon"],
        &["server"],
        &["lab"],
        &["config", "check"],
        &["subscriber", "list"],
        &["keys", "derive"],
        &["completions", "tcl"],
        &["--log-format", "xml", "config", "check", "x"],
        &["--log", "server=loud", "config", "check", "x"],
    ] {
        let told = fails(2, arguments);
        assert!(told.starts_with("error: ") || told.contains("Usage:"), "{arguments:?}: {told}");
    }
    let mut wrong = CHAIN.to_vec();
    wrong[3] = "465b5ce8b199b49faa5f0a2ee238a6";
    let told = fails(2, &wrong);
    assert!(told.contains("--k: expected 32 hexadecimal digits") && !told.contains("465b"), "{told}");
    let told = fails(2, &["keys", "derive", "--k", "00"]);
    assert!(told.contains("--rand"), "{told}");
}

#[test]
fn help_version_completions_and_manual_pages_come_from_one_description() {
    assert!(text(&run(&["--version"]).stdout).starts_with("msgin5g "));
    assert!(text(&run(&["client", "send", "--help"]).stdout).contains("--store-and-forward"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(text(&run(&["completions", shell]).stdout).contains("msgin5g"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man");
    json(&["man", "--out", pages.to_str().unwrap()]);
    for page in ["msgin5g.1", "msgin5g-client-send.1", "msgin5g-keys-derive.1", "msgin5g-lab.1"] {
        assert!(fs::read_to_string(pages.join(page)).unwrap().contains(".TH"), "{page}");
    }
}

#[test]
fn files_that_cannot_be_used_end_with_code_1_and_a_next_step() {
    let told = fails(1, &["server", "--config", "/nonexistent.toml"]);
    assert!(told.contains("/nonexistent.toml") && told.contains("help: "), "{told}");
    let told = fails(1, &["client", "profile", "--lab", "/nonexistent", "--subscriber", "0"]);
    assert!(told.contains("msgin5g lab --dir"), "{told}");
}

#[test]
fn a_profile_on_standard_output_is_toml_or_json_and_the_same() {
    let scene = Scene::start();
    let lab = scene.lab_json();
    let arguments = ["client", "profile", "--lab", &lab, "--subscriber", "0"];
    let toml: toml::Table = text(&run(&arguments).stdout).parse().unwrap();
    assert_eq!(json(&arguments), [serde_json::to_value(toml).unwrap()]);
}

#[test]
fn variables_of_other_functions_do_no_harm_and_unknown_ones_are_warned_about() {
    let scene = Scene::start();
    let profile = scene.profile("0");
    let checked = msgin5g()
        .args(["config", "check", &profile])
        .env("MSGIN5G_AKMA__AANF", "https://127.0.0.1:1")
        .env("MSGIN5G_LIMITS__REVALIDATION_SECONDS", "1")
        .env("MSGIN5G_NOBODYS__KEY", "1")
        .output()
        .unwrap();
    let told = text(&checked.stderr);
    assert!(checked.status.success(), "{told}");
    assert!(told.contains("MSGIN5G_NOBODYS__KEY") && !told.contains("REVALIDATION"), "{told}");
}

#[test]
fn config_check_knows_each_kind_of_file_and_names_what_is_wrong() {
    let scene = Scene::start();
    for kind in ["server", "aanf", "configuration"] {
        let file = scene.lab.path(&format!("config/{kind}.toml"));
        let file = file.to_str().unwrap();
        let checked = json(&["config", "check", file]).remove(0);
        assert_eq!((checked["kind"].as_str(), checked["valid"].as_bool()), (Some(kind), Some(true)));
        json(&["config", "check", file, "--kind", kind]);
    }
    let profile = scene.profile("0");
    assert_eq!(json(&["config", "check", &profile]).remove(0)["kind"], "client");

    let good = fs::read_to_string(scene.lab.path("config/server.toml")).unwrap();
    let broken = scene.path("broken.toml");
    let file = broken.to_str().unwrap();
    for (change, expected) in [
        (good.replace("[limits]", "") + "\n[limits]\nconnections_max = \"many\"\n", "limits.connections_max: "),
        (good.clone() + "\n[limits]\nconections_max = 1\n", "conections_max"),
        (good.clone() + "\n[limits]\nconnections_max = 0\n", "limits.connections_max"),
        (good.replace("fqdn = ", "fqdn = 7 #"), "server.fqdn"),
        (good.clone() + "\n[store\n", "line "),
    ] {
        fs::write(&broken, change).unwrap();
        let told = fails(1, &["config", "check", file, "--kind", "server"]);
        assert!(told.contains(expected), "expected {expected}: {told}");
    }
    // Half of everybody is no network that something else protects; what an operator can have for itself is.
    for (network, valid) in [("128.0.0.0/1", false), ("8000::/1", false), ("10.0.0.0/8", true)] {
        let mut stated: toml::Table = good.parse().unwrap();
        let statement = serde_json::json!([{
            "listen": "127.0.0.1:0", "networks": [network], "protected_by": "IPsec", "dns_name": "as.example"
        }]);
        let statement = toml::Value::try_from(statement).unwrap();
        stated["authorization"].as_table_mut().unwrap().insert("nds_ip".to_owned(), statement);
        fs::write(&broken, stated.to_string()).unwrap();
        if valid {
            json(&["config", "check", file, "--kind", "server"]);
        } else {
            let told = fails(1, &["config", "check", file, "--kind", "server"]);
            assert!(told.contains("authorization.nds_ip") && told.contains("not a network"), "{network}: {told}");
        }
    }
    let policy = scene.path("policy.toml");
    let mut aanf: toml::Table = fs::read_to_string(scene.lab.path("config/aanf.toml")).unwrap().parse().unwrap();
    let rules = toml::Table::from_iter([("af".to_owned(), aanf.remove("af").unwrap())]);
    aanf.insert("policy".to_owned(), policy.to_str().unwrap().into());
    fs::write(&broken, aanf.to_string()).unwrap();
    let told = fails(1, &["config", "check", file, "--kind", "aanf"]);
    assert!(told.contains("policy.toml: No such file"), "{told}");
    fs::write(&policy, "[[af]]\ndns_name = 'af.example'\nfqdn = 'af.example'\n").unwrap();
    let told = fails(1, &["config", "check", file, "--kind", "aanf"]);
    assert!(told.contains("policy.toml (line 3, column 1): unknown field `fqdn`"), "{told}");
    fs::write(&policy, rules.to_string()).unwrap();
    assert_eq!(json(&["config", "check", file]).remove(0)["kind"], "aanf");
    fs::write(&broken, "listen = \"127.0.0.1:0\"\n").unwrap();
    assert!(fails(2, &["config", "check", file]).contains("--kind"));

    let server = scene.lab.path("config/server.toml");
    let check = |variable: &str, value: &str| {
        msgin5g().args(["config", "check"]).arg(&server).env(variable, value).output().unwrap()
    };
    assert!(check("MSGIN5G_LIMITS__DELIVERY_WINDOW", "8").status.success());
    let output = check("MSGIN5G_LIMITS__DELIVERY_WINDOW", "wide");
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("MSGIN5G_LIMITS__DELIVERY_WINDOW") && told.contains("limits.delivery_window"), "{told}");
}

#[test]
fn config_check_reads_policy_files_and_says_what_is_wrong_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let (config, policy) = (directory.path().join("config.toml"), directory.path().join("policy.toml"));
    let file = config.to_str().unwrap();
    let authority = TestAuthority::new();
    let CertificateFiles { certificate, key, ca, .. } = authority.issue("4947a69a-f61b-4bc1-b9da-47c9c5d14b64", &[]);
    let tls = format!("{{ certificate = {certificate:?}, key = {key:?}, ca = {ca:?} }}");
    let digest = "ab".repeat(32);
    let credential =
        |section: &str, rest: &str| format!("[[{section}]]\nname = 'one'\ntoken_sha256 = '{digest}'\n{rest}\n");

    let nef = format!(
        "[nef]\nlisten = '127.0.0.1:0'\ndata = 'd'\npolicy = {policy:?}\ntls = {tls}\ninside = {tls}\n\
         akma = {{ aanf = 'https://aanf' }}\n"
    );
    let af = |rest: &str| format!("[[af]]\naf_id = 'weather'\n{rest}\n");
    let server = format!(
        "policy = {policy:?}\ncertificates = {tls}\nauthorization = {{ mode = 'tls' }}\nserver = {{ fqdn = 'msgin5g.example' }}\n\
         akma = {{ aanf = 'https://aanf' }}\nconfiguration_function = {{ url = 'https://cf' }}\nstore = {{ path = 's' }}\n\
         api = {{ listen = '127.0.0.1:0' }}\nadmin = {{ listen = '127.0.0.1:0' }}\n"
    );
    let capif = format!("[capif]\nlisten = '127.0.0.1:0'\ndata = 'd'\npolicy = {policy:?}\ntls = {tls}\n");
    let (onboarding, registration) = (credential("onboarding", ""), credential("registration", "apis = ['x']"));
    let upper = onboarding.replace("ab", "AB");

    type Wrong<'a> = (String, &'a str);
    let cases: [(&str, &str, String, Vec<Wrong>); 3] = [
        (
            "exposure",
            &nef,
            af("dns_name = 'w.example'\nfqdns = ['w.example']"),
            vec![
                (af("fqdns = ['w.example']"), "af[0] needs dns_name or certificate_sha256"),
                (af("dns_name = 'w.example'"), "af[0] may do nothing: give it fqdns or as_service_ids"),
                (
                    af("dns_name = 'w.example'\nas_service_ids = ['w@example']"),
                    "af[0] has as_service_ids, but there is no [nef.msgin5g]",
                ),
                (
                    af("certificate_sha256 = 'ab'\nfqdns = ['w.example']"),
                    "af[0] has a certificate_sha256 that is not 64 hexadecimal digits",
                ),
                (
                    af("dns_name = 'w.example'\nfqdns = ['w.example']\nrequests_burst = 0"),
                    "af[0] may ask for nothing: its limits must not be 0",
                ),
                (af("dns_name = 'w.example'\nfqdns = ['w.example']").repeat(2), "af[1] has the af_id of another entry"),
                (af("dns_name = 'w.example'\nfqdn = ['w.example']"), "(line 4, column 1): unknown field `fqdn`"),
                (af("fqdns = 'w.example'"), "(line 3, column 9): invalid type"),
            ],
        ),
        (
            "server",
            &server,
            "[[application_server]]\nas_service_id = 'billing@example'\ndns_name = 'billing.example'\n\
             [[topic]]\nname = 'alerts/*'\nsubscribers = ['UE:*']\n"
                .to_owned(),
            vec![
                (
                    "[[application_server]]\nas_service_id = 'billing@example'\n".to_owned(),
                    "application_server needs nf_instance_id or dns_name",
                ),
                (
                    "[[application_server]]\nas_service_id = 'b'\ndns_name = 'b'\ntarget_uris = ['http://b']\n"
                        .to_owned(),
                    "application_server.target_uris must be https URLs",
                ),
                ("[[topic]]\nname = ''\n".to_owned(), "topic.name must be a Messaging Topic"),
                ("[[topic_server]]\nserver_id = 'east'\n".to_owned(), "topic_server needs nf_instance_id or dns_name"),
                ("[[broadcast_area]]\narea = 'north'\n".to_owned(), "broadcast.gateway is needed for broadcast areas"),
                ("[[topic]]\nname = 'a'\nsubscribers = ['UE:**']\n".to_owned(), "(line 3, column "),
                ("[[topics]]\nname = 'a'\n".to_owned(), "(line 1, column 3): unknown field `topics`"),
            ],
        ),
        (
            "exposure",
            &capif,
            [&*onboarding, &registration.replace("ab", "cd")].concat(),
            vec![
                (onboarding.repeat(2), "onboarding: name \"one\" is empty or comes twice"),
                ([&*onboarding, &registration].concat(), "registration \"one\": token_sha256 must be"),
                (upper, "onboarding \"one\": token_sha256 must be 64 lower-case hexadecimal digits"),
                (credential("onboarding", "dns_names = ['a b']"), "dns_names has \"a b\", which is no DNS name"),
                (credential("registration", "dns_names = ['a b']"), "dns_names has \"a b\", which is no DNS name"),
                (credential("registration", "apis = ['a/b']"), "apis has \"a/b\", which can be no API's name"),
                (
                    credential(
                        "onboarding",
                        "[[onboarding.allowed_time]]\nfrom = '2027-01-01T00:00:00Z'\nuntil = '2026-01-01T00:00:00Z'",
                    ),
                    "an allowed_time ends before it begins",
                ),
                (credential("registration", "may_publish = true"), "(line 4, column 1): unknown field `may_publish`"),
                ("[[onboarding]]\nname = 'one'\n".to_owned(), "missing field `token_sha256`"),
            ],
        ),
    ];
    for (kind, text, good, wrong) in cases {
        fs::write(&config, text).unwrap();
        let _ = fs::remove_file(&policy);
        let check = ["config", "check", file, "--kind", kind];
        assert!(fails(1, &check).contains("policy.toml: No such file"));
        fs::write(&policy, &good).unwrap();
        assert_eq!(json(&check).remove(0)["valid"], true, "{good}");
        for (rules, expected) in wrong {
            fs::write(&policy, &rules).unwrap();
            let told = fails(1, &check);
            assert!(told.contains("policy.toml") && told.contains(expected), "expected {expected} of {rules}: {told}");
        }
    }
    // The entries stand in one place.
    fs::write(&policy, &onboarding).unwrap();
    fs::write(&config, format!("{capif}{}", onboarding.replace("[[onboarding]]", "[[capif.onboarding]]"))).unwrap();
    let told = fails(1, &["config", "check", file]);
    assert!(told.contains("capif.policy: the file holds every [[onboarding]]"), "{told}");
}

#[test]
fn each_function_runs_from_its_file_and_stops_in_order() {
    let mut scene = Scene::start();
    assert!(scene.lab.stop().success());
    for kind in ["aanf", "configuration", "server"] {
        let mut process = msgin5g()
            .args(["--json", kind, "--config"])
            .arg(scene.lab.path(&format!("config/{kind}.toml")))
            .env(if kind == "server" { "MSGIN5G_SERVER__LISTEN" } else { "MSGIN5G_LISTEN" }, "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["ready"], kind);
        assert!(!ready["listen"].as_str().unwrap().ends_with(":0"), "{ready}");
        assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
        assert!(process.wait().unwrap().success(), "{kind}");
    }
}

#[test]
fn a_message_is_delivered_reported_stored_and_given_up() {
    let scene = Scene::start();
    let (meter, valve) = (scene.profile(METER), scene.profile("1"));
    let authenticated = json(&["client", "authenticate", "--profile", &meter]).remove(0);
    let registered = json(&["client", "register", "--profile", &meter]).remove(0);
    assert_eq!(registered["a_kid"], authenticated["a_kid"], "the keys kept are used");
    assert_eq!(registered["tls_version"], "TLS 1.3");
    // It registers with keys of its own making where there are none.
    json(&["client", "register", "--profile", &valve]);
    let status = json(&["client", "status", "--profile", &valve]).remove(0);
    assert_eq!((&status["registered"], &status["in_use"]), (&Value::Bool(true), &Value::Bool(false)));

    let mut listener = Listener::start(&valve, &["--count", "2"]);
    let to = format!("ue:{VALVE}");
    let send = ["client", "send", "--profile", &meter, "--to", &to, "--store-and-forward"];
    let with = |more: &[&'static str]| -> Vec<&str> { send.iter().copied().chain(more.iter().copied()).collect() };
    let sent = json(&with(&["--payload", "open 20 %", "--app", "valves", "--priority", "high", "--report"])).remove(0);
    assert!(["delivered", "stored"].contains(&sent["outcome"].as_str().unwrap()), "{sent}");
    assert_eq!(sent["report"]["status"], "success");
    let message = listener.next();
    assert_eq!(message["message_id"], sent["message_id"]);
    assert_eq!(message["from"], format!("UE:{METER}"));
    assert_eq!(message["text"], "open 20 %");
    assert_eq!((&message["application_id"], &message["priority"]), (&"valves".into(), &"HIGH".into()));
    let status = json(&["client", "status", "--profile", &valve]).remove(0);
    assert_eq!(status["in_use"], true);
    assert!(fails(1, &["client", "listen", "--profile", &valve]).contains("in use"));

    // Octets that are no text, from standard input.
    let mut sending = msgin5g();
    sending.args(with(&["--payload-file", "-"])).stdin(Stdio::piped());
    let mut sending = sending.spawn().unwrap();
    std::io::Write::write_all(&mut sending.stdin.take().unwrap(), &[0xff, 0, 0xfe]).unwrap();
    assert!(sending.wait().unwrap().success());
    let message = listener.next();
    assert_eq!((&message["payload"], message.get("text")), (&"/wD+".into(), None));
    assert_eq!(listener.end(), Some(0));

    // Away: kept if it may be, else refused.
    let told = run(&["client", "send", "--profile", &meter, "--to", &to, "--payload", "now or never"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told.stdout).contains("TARGET_UNREACHABLE"), "{}", text(&told.stdout));
    let stored = json(&with(&["--payload", "later", "--expires", "1h"])).remove(0);
    assert_eq!(stored["outcome"], "stored");
    let mut listener = Listener::start(&valve, &[]);
    assert_eq!(listener.next()["message_id"], stored["message_id"]);
    assert_eq!(listener.interrupt(), Some(0));
    // It was accepted: it does not come again.
    assert_eq!(
        run(&["client", "listen", "--profile", &valve, "--count", "1", "--for", "500ms"]).status.code(),
        Some(1)
    );

    json(&["client", "deregister", "--profile", &valve]);
    assert_eq!(json(&["client", "status", "--profile", &valve]).remove(0)["registered"], false);
    let gone = msgin5g().arg("--json").args(with(&["--payload", "gone"])).output().unwrap();
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stdout).contains("UNKNOWN_TARGET"), "{}", text(&gone.stdout));
}

#[test]
fn a_message_sent_again_under_its_id_is_delivered_once() {
    let scene = Scene::start();
    let (meter, valve) = (scene.profile("0"), scene.profile("1"));
    json(&["client", "register", "--profile", &valve]);
    let to = format!("ue:{VALVE}");
    let send = |id: &str, payload: &str| {
        let send = ["client", "send", "--profile", &meter, "--to", &to, "--store-and-forward"];
        msgin5g().args(send).args(["--message-id", id, "--payload", payload]).output().unwrap()
    };
    assert!(send("reading-1", "21.5").status.success());
    assert!(send("reading-1", "21.5").status.success());
    let other = send("reading-1", "99.9");
    assert!(text(&other.stdout).contains("MESSAGE_ID_REUSED"), "{}", text(&other.stdout));
    assert!(send("reading-2", "21.6").status.success());
    let mut listener = Listener::start(&valve, &["--count", "2"]);
    assert_eq!(listener.next()["message_id"], "reading-1");
    assert_eq!(listener.next()["message_id"], "reading-2");
    assert_eq!(listener.end(), Some(0));
}

#[test]
fn a_new_subscriber_is_provisioned_and_may_do_what_its_associations_say() {
    let scene = Scene::start();
    let lab = scene.lab_json();
    let (supi, name) = ("imsi-001010000000042", "crane-42@lab.example");
    let added = json(&["subscriber", "add", "--lab", &lab, "--supi", supi, "--gpsi", "msisdn-99900000042"]).remove(0);
    assert_eq!(added["new"], true);
    let listed = json(&["subscriber", "list", "--lab", &lab]);
    assert!(listed.iter().any(|subscriber| subscriber["supi"] == supi));
    assert!(listed.iter().all(|subscriber| subscriber.get("k").is_none()));

    // Its profile is written by hand: that of another subscriber with other keys and another name.
    let mut profile: toml::Table = fs::read_to_string(scene.profile("0")).unwrap().parse().unwrap();
    profile.insert("ue_service_id".into(), name.into());
    let usim = profile["keys"]["usim"].as_table_mut().unwrap();
    usim.insert("supi".into(), supi.into());
    usim.insert("k".into(), added["k"].as_str().unwrap().into());
    usim.insert("opc".into(), added["opc"].as_str().unwrap().into());
    let crane = scene.path("crane.toml");
    fs::write(&crane, profile.to_string()).unwrap();
    let crane = crane.to_str().unwrap();

    let register = ["client", "register", "--profile", crane];
    let told = fails(1, &register);
    assert!(told.contains("NOT_ASSOCIATED") && told.contains("association add"), "{told}");
    let association = ["--lab", &lab, "--ue-id", supi, "--ue-service-id", name];
    let associate =
        |verb: &'static str| -> Vec<&str> { ["association", verb].into_iter().chain(association).collect() };
    assert_eq!(json(&associate("add")).remove(0)["new"], true);
    assert_eq!(json(&associate("add")).remove(0)["new"], false);
    json(&register);

    // The same without a lab.json: address, certificate, key and authority by hand.
    let description = scene.lab.lab_json();
    let url = description["core"]["configuration"].as_str().unwrap();
    let pki = |name: &str| scene.lab.path(&format!("pki/{name}")).to_str().unwrap().to_owned();
    let (cert, key, ca) = (pki("provisioner.pem"), pki("provisioner.key"), pki("ca.pem"));
    let by_hand = ["--url", url, "--cert", &cert, "--key", &key, "--ca", &ca];
    let list: Vec<&str> = ["association", "list", "--ue-id", supi].into_iter().chain(by_hand).collect();
    assert_eq!(json(&list), [serde_json::json!({"ueId": supi, "ueServiceId": name})]);
    assert!(json(&["association", "list", "--lab", &lab]).len() > 1);

    // Another function's certificate may not provision.
    let (cert, key) = (pki("lab-nf.pem"), pki("lab-nf.key"));
    let wrong = ["association", "list", "--url", url, "--cert", &cert, "--key", &key, "--ca", &ca];
    assert!(fails(1, &wrong).contains("help: "));

    json(&associate("remove"));
    assert!(fails(1, &register).contains("NOT_ASSOCIATED"));
    json(&["subscriber", "remove", "--lab", &lab, "--supi", supi]);
    assert!(fails(1, &["subscriber", "remove", "--lab", &lab, "--supi", supi]).contains("no such subscriber"));
    assert!(fails(1, &["client", "authenticate", "--profile", crane]).contains("help: "));
}

#[test]
fn every_kind_of_subscription_authenticates_and_one_without_akma_is_refused() {
    let scene = Scene::start();
    for (subscriber, what) in [("5", "TUAK"), ("6", "EAP-AKA'")] {
        let profile = scene.profile(subscriber);
        json(&["client", "register", "--profile", &profile]);
        // A second run of the method, with the sequence numbers of the first.
        json(&["client", "authenticate", "--profile", &profile]);
        assert_eq!(json(&["client", "register", "--profile", &profile]).remove(0)["result"], "registered", "{what}");
    }
    let told = fails(1, &["client", "register", "--profile", &scene.profile("7")]);
    assert!(told.contains("AKMA"), "{told}");
    // A USIM with another K does not take the network's challenge.
    let wrong = scene.profile("0");
    let profile = fs::read_to_string(&wrong).unwrap();
    let k = profile.lines().find(|line| line.starts_with("k = ")).unwrap();
    fs::write(&wrong, profile.replace(k, "k = \"00000000000000000000000000000000\"")).unwrap();
    let told = fails(1, &["client", "authenticate", "--profile", &wrong]);
    assert!(told.contains("does not prove knowledge of K"), "{told}");
}

#[test]
fn a_home_network_that_lost_its_sequence_numbers_is_resynchronised() {
    let scene = Scene::start();
    let lab = scene.lab_json();
    for (subscriber, method) in [("0", "5g-aka"), ("6", "eap-aka-prime")] {
        let profile = scene.profile(subscriber);
        for _ in 0..3 {
            json(&["client", "authenticate", "--profile", &profile]);
        }
        let known = &scene.lab.lab_json()["subscribers"][subscriber.parse::<usize>().unwrap()];
        let of = |name: &str| known[name].as_str().unwrap().to_owned();
        json(&["subscriber", "remove", "--lab", &lab, "--supi", &of("supi")]);
        let add =
            ["subscriber", "add", "--lab", &lab, "--supi", &of("supi"), "--gpsi", &of("gpsi"), "--method", method];
        let keys = ["--k", &of("k"), "--opc", &of("opc")];
        json(&add.into_iter().chain(keys).collect::<Vec<_>>());
        json(&["client", "authenticate", "--profile", &profile]);
        json(&["client", "register", "--profile", &profile]);
    }
}

#[test]
fn keys_may_come_from_a_file_or_a_command() {
    let scene = Scene::start();
    let usim = scene.profile("0");
    json(&["client", "authenticate", "--profile", &usim]);
    let keys = scene.path("0.state/akma.json");
    let head = fs::read_to_string(&usim).unwrap();
    let head = head.split("[keys.usim]").next().unwrap();
    let file = scene.path("file.toml");
    fs::write(&file, format!("{head}[keys.file]\npath = \"0.state/akma.json\"\n")).unwrap();
    json(&["client", "register", "--profile", file.to_str().unwrap()]);
    let command = scene.path("command.toml");
    let program = format!("{head}[keys.command]\nprogram = \"cat\"\narguments = [{:?}]\n", keys.to_str().unwrap());
    fs::write(&command, program).unwrap();
    json(&["client", "register", "--profile", command.to_str().unwrap()]);

    // The SIM authenticates anew elsewhere: the old keys are void, and the file has only those.
    let old = fs::read(&keys).unwrap();
    json(&["client", "authenticate", "--profile", &usim]);
    let new = fs::read(&keys).unwrap();
    fs::write(&keys, old).unwrap();
    let told = fails(1, &["client", "register", "--profile", file.to_str().unwrap()]);
    assert!(told.contains("run a new primary authentication"), "{told}");
    fs::write(&keys, new).unwrap();
    json(&["client", "register", "--profile", file.to_str().unwrap()]);
}

#[test]
fn a_listener_outlives_the_server() {
    let mut scene = Scene::start();
    let (meter, valve) = (scene.profile("0"), scene.profile("1"));
    json(&["client", "register", "--profile", &valve]);
    let mut listener = Listener::start(&valve, &["--count", "2"]);
    let to = format!("ue:{VALVE}");
    let send = ["client", "send", "--profile", &meter, "--to", &to, "--store-and-forward", "--payload", "x"];
    let first = json(&send).remove(0);
    assert_eq!(listener.next()["message_id"], first["message_id"]);
    scene.lab.kill();
    scene.lab.start_again();
    let second = json(&send).remove(0);
    assert_eq!(listener.next()["message_id"], second["message_id"]);
    assert_eq!(listener.end(), Some(0));
}

#[test]
fn a_listener_that_cannot_remember_what_it_took_takes_nothing() {
    let scene = Scene::start();
    let (meter, valve) = (scene.profile("0"), scene.profile("1"));
    json(&["client", "register", "--profile", &valve]);
    let to = format!("ue:{VALVE}");
    let sent =
        json(&["client", "send", "--profile", &meter, "--to", &to, "--store-and-forward", "--payload", "x"]).remove(0);
    // No file may grow, as on a full disk; the signal that says so is not to end the program.
    let script = format!(
        "trap '' XFSZ; ulimit -f 0; exec '{}' client listen --profile '{valve}'",
        env!("CARGO_BIN_EXE_msgin5g")
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot use"), "{}", text(&output.stderr));
    let mut listener = Listener::start(&valve, &["--count", "1"]);
    assert_eq!(listener.next()["message_id"], sent["message_id"]);
    assert_eq!(listener.end(), Some(0));
}

#[test]
fn neither_keys_nor_supi_nor_payload_reach_a_log_and_files_with_keys_are_private() {
    let scene = Scene::start();
    let (meter, valve) = (scene.profile("0"), scene.profile("1"));
    json(&["client", "register", "--profile", &valve]);
    let to = format!("ue:{VALVE}");
    let payload = "a payload nobody else may read";
    let mut told = String::new();
    for arguments in [
        &["client", "authenticate", "--profile", &meter][..],
        &["client", "send", "--profile", &meter, "--to", &to, "--store-and-forward", "--payload", payload],
        &["client", "status", "--profile", &meter],
    ] {
        let output = msgin5g().args(["--log", "trace"]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        told += &(text(&output.stdout) + &text(&output.stderr));
    }
    let subscriber = &scene.lab.lab_json()["subscribers"][0];
    let keys: Value = serde_json::from_slice(&fs::read(scene.path("0.state/akma.json")).unwrap()).unwrap();
    let supi = subscriber["supi"].as_str().unwrap();
    let told = told.to_lowercase();
    for secret in [&subscriber["k"], &subscriber["opc"], &keys["k_akma"]] {
        assert!(!told.contains(secret.as_str().unwrap()), "a key is in the log");
    }
    for private in [supi, &supi["imsi-".len()..], payload] {
        assert!(!told.contains(private), "{private} is in the log");
    }
    for file in [Path::new(&meter), &scene.path("0.state/akma.json"), &scene.path("0.state/usim.json")] {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file).unwrap().permissions());
        assert_eq!(mode & 0o077, 0, "{} can be read by others", file.display());
    }
}
