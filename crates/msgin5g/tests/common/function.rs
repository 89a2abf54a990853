//! One network function beside the lab's, started from the lab's configuration file with some of its keys overridden.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use sbi::naanf::AnchorRoute;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Lab, msgin5g, signal};

/// How long a process that was told to stop may take before that is a failure.
const STOP_DEADLINE: Duration = Duration::from_secs(90);

/// `msgin5g FUNCTION --config DIR/config/FUNCTION.toml`.
pub struct Function {
    name: &'static str,
    config: PathBuf,
    log: PathBuf,
    /// What the program is told besides.
    arguments: &'static [&'static str],
    /// Whether it does at the NRF what its configuration says.
    registers: bool,
    environment: Vec<(&'static str, String)>,
    files_max: Option<u32>,
    /// A program that runs what follows in other circumstances, and its arguments; nothing if empty.
    runner: Vec<String>,
    process: Option<Child>,
    ready: Value,
}

impl Function {
    /// A second MSGin5G Server of the lab's name, with a store and ports of its own.
    pub fn server(lab: &Lab, environment: &[(&'static str, &str)]) -> Self {
        Self::start(lab, "server", Self::server_variables(lab, environment))
    }

    /// The same, allowed so many open files.
    pub fn server_with_files(lab: &Lab, files_max: u32, environment: &[(&'static str, &str)]) -> Self {
        let variables = Self::server_variables(lab, environment);
        Self::start_in(lab, "server", variables, Some(files_max), Vec::new())
    }

    /// The same, run by another program.
    pub fn server_run_by(lab: &Lab, runner: Vec<String>, environment: &[(&'static str, &str)]) -> Self {
        Self::start_in(lab, "server", Self::server_variables(lab, environment), None, runner)
    }

    fn server_variables(lab: &Lab, environment: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("MSGIN5G_SERVER__LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_API__LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_HTTPS__LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_WEBSOCKET__LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_COAPS__LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_OSCORE__LISTEN_UDP", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_OSCORE__LISTEN_TCP", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_STORE__PATH", lab.path("state/second-server").display().to_string()),
        ];
        variables.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        variables
    }

    /// A second AAnF, with a store and a port of its own.
    pub fn aanf(lab: &Lab, environment: &[(&'static str, &str)]) -> Self {
        let mut variables = vec![
            ("MSGIN5G_LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_DATA", lab.path("state/second-aanf").display().to_string()),
        ];
        variables.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self::start(lab, "aanf", variables)
    }

    /// A second Configuration Function of the lab's name, with a store and ports of its own.
    pub fn configuration(lab: &Lab, environment: &[(&'static str, &str)]) -> Self {
        let mut variables = vec![
            ("MSGIN5G_LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_COAP__LISTEN", "127.0.0.1:0".to_owned()),
            ("MSGIN5G_DATA", lab.path("state/second-configuration").display().to_string()),
        ];
        variables.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self::start(lab, "configuration", variables)
    }

    /// A second NEF, with a store and ports of its own; what it has of CAPIF stays out of use.
    pub fn nef(lab: &Lab, environment: &[(&'static str, &str)]) -> Self {
        let mut variables: Vec<_> = [
            "MSGIN5G_NEF__LISTEN",
            "MSGIN5G_NEF__MSGIN5G__LISTEN",
            "MSGIN5G_NEF__CAPIF_PSK_LISTEN",
            "MSGIN5G_CAPIF__LISTEN",
        ]
        .map(|key| (key, "127.0.0.1:0".to_owned()))
        .into_iter()
        .collect();
        for (key, folder) in
            [("MSGIN5G_NEF__DATA", "nef"), ("MSGIN5G_NEF__CAPIF__DATA", "nef-capif"), ("MSGIN5G_CAPIF__DATA", "capif")]
        {
            variables.push((key, lab.path(&format!("state/second-{folder}")).display().to_string()));
        }
        variables.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self::start(lab, "exposure", variables)
    }

    /// Function `name` with this configuration, written to `file` in the lab's folder, and all its decisions in its log.
    pub fn configured(lab: &Lab, name: &'static str, file: &str, config: &toml::Table) -> Self {
        let path = lab.path(file);
        std::fs::write(&path, toml::to_string(config).unwrap()).unwrap();
        let log = path.with_extension("log");
        let mut function = Self {
            name,
            config: path,
            log,
            arguments: &["--log", "info,audit=debug"],
            registers: true,
            environment: Vec::new(),
            files_max: None,
            runner: Vec::new(),
            process: None,
            ready: Value::Null,
        };
        function.start_again();
        function
    }

    fn start(lab: &Lab, name: &'static str, environment: Vec<(&'static str, String)>) -> Self {
        Self::start_in(lab, name, environment, None, Vec::new())
    }

    fn start_in(
        lab: &Lab,
        name: &'static str,
        environment: Vec<(&'static str, String)>,
        files_max: Option<u32>,
        runner: Vec<String>,
    ) -> Self {
        let config = lab.path(&format!("config/{name}.toml"));
        let log = lab.path(&format!("second-{name}.log"));
        let mut function = Self {
            name,
            config,
            log,
            arguments: &[],
            registers: false,
            environment,
            files_max,
            runner,
            process: None,
            ready: Value::Null,
        };
        function.start_again();
        function
    }

    /// Starts it again after [`Function::stop`] or [`Function::kill`], with the same state and on other ports.
    pub fn start_again(&mut self) {
        let mut process = self.spawn();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.process = Some(process);
        self.ready =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} printed {line:?}: {}", self.name, self.log()));
    }

    /// Starts it again, which fails; how it ended.
    pub fn fails_to_start(&mut self) -> ExitStatus {
        let mut process = self.spawn();
        let mut printed = String::new();
        process.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "", "{} has started: {}", self.name, self.log());
        process.wait().unwrap()
    }

    fn spawn(&self) -> Child {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        self.program()
            .args(self.arguments)
            .args(["--json", self.name, "--config"])
            .arg(&self.config)
            .envs(self.registers_nowhere())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// It is the lab's function once more: at the NRF it must not take that one's place, nor end it when it stops.
    fn registers_nowhere(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let keys: &[_] = match self.name {
            _ if self.registers => &[],
            "exposure" => &["MSGIN5G_NEF__NRF__REGISTER", "MSGIN5G_CAPIF__NRF__REGISTER"],
            _ => &["MSGIN5G_NRF__REGISTER"],
        };
        keys.iter().map(|key| (*key, "false"))
    }

    fn program(&self) -> Command {
        let program = msgin5g();
        if let [runner, arguments @ ..] = self.runner.as_slice() {
            let mut command = Command::new(runner);
            command.args(arguments).arg(program.get_program()).stdin(Stdio::null());
            return command;
        }
        let Some(files_max) = self.files_max else { return program };
        let mut shell = Command::new("bash");
        shell.stdin(Stdio::null()).args(["-c", &format!("ulimit -n {files_max} && exec \"$0\" \"$@\"")]);
        shell.arg(program.get_program());
        shell
    }

    /// The process ID while it runs.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Where its main interface is.
    pub fn address(&self) -> SocketAddr {
        self.ready["listen"].as_str().unwrap().parse().unwrap()
    }

    /// Where its interface for UEs is, where that is another one.
    pub fn coap_address(&self) -> SocketAddr {
        self.ready["coap"].as_str().expect("it serves UEs beside").parse().unwrap()
    }

    /// The root of its HTTP/2 API, where that is another interface.
    pub fn api_root(&self) -> String {
        format!("https://{}", self.ready["api"].as_str().expect("it has an API"))
    }

    /// The root of its interface for UEs over HTTPS.
    pub fn https_root(&self) -> String {
        format!("https://{}", self.ready["https"].as_str().expect("it serves devices over HTTPS"))
    }

    /// The root of its main interface, if that is HTTP/2.
    pub fn root(&self) -> String {
        format!("https://{}", self.address())
    }

    /// What its configuration file says at `section.key`, which is a text.
    pub fn configured_at(&self, section: &str, key: &str) -> String {
        let config: toml::Table = std::fs::read_to_string(&self.config).unwrap().parse().unwrap();
        config[section][key].as_str().unwrap().to_owned()
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.process.as_ref().expect("it runs"), name);
    }

    /// SIGTERM. Returns at once.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                self.process = Some(process);
                panic!("{} did not stop", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGTERM, and the wait for a graceful end.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// A page of its management interface: status and text.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.ready["admin"].as_str().expect("it has an admin interface")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    /// The sample of this name and these labels, as OpenMetrics writes them; 0 if there is none yet.
    pub fn metric(&self, sample: &str) -> u64 {
        let (_, text) = self.admin("/metrics");
        text.lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
            .map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Waits until that sample is at least `count`. The deadline only tells "never" from "not yet".
    #[track_caller]
    pub fn metric_reaches(&self, sample: &str, count: u64) {
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.metric(sample) < count {
            assert!(Instant::now() < deadline, "{sample} is {} and not {count}", self.metric(sample));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// An AUSF like the lab's with another AKMA anchor function, and others for some routing indicators. Returns its root; it lives
/// as long as the runtime.
pub async fn ausf_of(lab: &Lab, aanf: &str, routes: Vec<AnchorRoute>) -> String {
    let file = std::fs::read_to_string(lab.path("config/ausf.toml")).unwrap();
    let mut config: lab::ausf::Config = toml::from_str(&file).unwrap();
    config.aanf = Some(aanf.to_owned());
    config.aanf_routes = routes;
    // It is the lab's once more, and must not take that one's place.
    config.nrf.as_mut().unwrap().register = false;
    config.sbi.listen = free_address();
    let root = format!("https://{}", config.sbi.listen);
    lab::ausf::start(config, CancellationToken::new()).await.unwrap();
    root
}

/// The lab's configuration of function `name`.
pub fn configuration(lab: &Lab, name: &str) -> toml::Table {
    std::fs::read_to_string(lab.path(&format!("config/{name}.toml"))).unwrap().parse().unwrap()
}

/// The configuration of a server like the lab's for [`Function::configured`]: a store of its own in `state/NAME`, ports of its
/// own, UEs over TLS alone, and not at the NRF, where others find the lab's.
pub fn second_server(lab: &Lab, name: &str) -> toml::Table {
    let mut config = configuration(lab, "server");
    for section in ["coaps", "https", "oscore", "websocket"] {
        config.remove(section);
    }
    let store = lab.path(&format!("state/{name}")).display().to_string();
    for (section, key, value) in [
        ("server", "listen", "127.0.0.1:0"),
        ("api", "listen", "127.0.0.1:0"),
        ("admin", "listen", "127.0.0.1:0"),
        ("store", "path", store.as_str()),
    ] {
        config[section].as_table_mut().unwrap().insert(key.to_owned(), value.into());
    }
    config["nrf"].as_table_mut().unwrap().insert("register".to_owned(), false.into());
    config
}

/// A server like the lab's that exposes its APIs to API invokers itself, and a CAPIF core function of its own at which it alone
/// publishes and the lab's onboarding credentials are unspent. It takes notifications of a NEF that is none of the lab's. Its only application server is the lab's first one outside.
pub fn exposing_server(lab: &Lab) -> (Function, Function) {
    let credential = "for the server alone";
    let mut core = configuration(lab, "exposure");
    core.remove("nef");
    let digest = hex::encode(openssl::sha::sha256(credential.as_bytes()));
    let core_section = core["capif"].as_table_mut().unwrap();
    for (key, value) in [
        // Not port 0: it tells its callers where it is.
        ("listen", json!(free_address())),
        ("data", json!(lab.path("state/own-capif"))),
        ("registration", json!([{"name": "server", "token_sha256": digest}])),
    ] {
        core_section.insert(key.to_owned(), toml::Value::try_from(value).unwrap());
    }
    core_section["nrf"].as_table_mut().unwrap().insert("register".to_owned(), false.into());
    let core = Function::configured(lab, "exposure", "own-capif.toml", &core);

    std::fs::write(lab.path("own-capif.credential"), credential).unwrap();
    let weather = &lab.lab_json()["external_application_servers"][0];
    let (by_certificate, by_psk) = (free_address(), free_address());
    let interface = |address: SocketAddr, methods: &[&str]| json!({"ipv4Addr": address.ip(), "port": address.port(), "securityMethods": methods});
    let mut server = second_server(lab, "own-server");
    let application_server = json!([{"as_service_id": weather["as_service_id"], "dns_name": weather["fqdn"]}]);
    server.insert("application_server".to_owned(), toml::Value::try_from(application_server).unwrap());
    // Application functions outside have an authority of their own, which opens nothing at the server.
    let targets = json!({"ca": lab.path("pki/af-ca.pem")});
    server["api"].as_table_mut().unwrap().insert("targets".to_owned(), toml::Value::try_from(targets).unwrap());
    let exposure = json!({
        "nef": lab.lab_json()["core"]["nef"],
        "scs_as_id": "own-server",
        "notification_listen": free_address(),
        "notifier": {"dns_name": "nef.elsewhere.example"},
    });
    server.insert("exposure".to_owned(), toml::Value::try_from(exposure).unwrap());
    let capif = json!({
        "listen": by_certificate,
        "psk_listen": by_psk,
        "aef": {
            "core_function": core.root(),
            "ca": lab.path("pki/ca.pem"),
            "invoker_ca": lab.path("pki/capif/ca.pem"),
            "registration_credential": lab.path("own-capif.credential"),
            "data": lab.path("state/own-server-capif"),
            "interfaces": [interface(by_certificate, &["PKI", "OAUTH"]), interface(by_psk, &["PSK"])],
        },
    });
    server.insert("capif".to_owned(), toml::Value::try_from(capif).unwrap());
    let server = Function::configured(lab, "server", "own-server.toml", &server);
    (core, server)
}

/// An address on loopback that nobody listens on, and that the system gives nobody who asks for any: below the range that
/// it takes those from, and those of the labs.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 1_000).unwrap() * 8;
    loop {
        let port = 11_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.char_indices().rev().nth(8_000).map_or(0, |(at, _)| at);
            eprintln!("--- the end of the log of {} ---\n{}", self.name, &log[tail..]);
        }
    }
}
