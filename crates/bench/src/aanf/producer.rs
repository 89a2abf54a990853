//! A producer in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::domain::Domain;
use super::ues::AF_FQDN;
use crate::process::Process;
use crate::{Arguments, BenchError, programs};

/// A producer under measurement.
pub(crate) struct Producer {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    address: SocketAddr,
    child: Child,
}

impl Producer {
    /// `msgin5g aanf`, set up as for service: tokens demanded, keys encrypted on disk, every change synced.
    pub(crate) async fn aanf(arguments: &Arguments, domain: &Domain, directory: &Path) -> Result<Self, BenchError> {
        let address = programs::free_address().await?;
        let (storage_key, config) = (directory.join("storage.key"), directory.join("aanf.toml"));
        std::fs::write(&storage_key, "5a".repeat(32))?;
        let tls = &domain.producer;
        let text = format!(
            "listen = '{address}'\n\
             data = '{data}'\n\
             storage_key = '{storage_key}'\n\
             [tls]\ncertificate = '{certificate}'\nkey = '{key}'\nca = '{ca}'\n\
             [[authorization.issuer]]\nnf_instance_id = '{issuer}'\nkeys = '{issuer_keys}'\n\
             [[af]]\nnf_instance_id = '{consumer}'\nmay_register = true\nsupi_access = true\nfqdns = ['{AF_FQDN}']\n",
            data = directory.join(STATE).display(),
            storage_key = storage_key.display(),
            certificate = tls.certificate.display(),
            key = tls.key.display(),
            ca = tls.ca.display(),
            issuer = domain.issuer_id,
            issuer_keys = domain.issuer_keys.display(),
            consumer = domain.consumer_id,
        );
        std::fs::write(&config, text)?;
        let program = programs::find_or_build(arguments)?;
        let arguments = ["--log", "error", "aanf", "--config"].map(str::to_owned).into_iter();
        Self::start("msgin5g", program, arguments.chain([config.display().to_string()]).collect(), address).await
    }

    /// nghttpd, which gives the same answers from files whatever it is asked.
    pub(crate) async fn nghttpd(
        program: &Path,
        domain: &Domain,
        directory: &Path,
        answers: &[(&str, String)],
    ) -> Result<Self, BenchError> {
        let address = programs::free_address().await?;
        let root = directory.join("htdocs");
        for (path, answer) in answers {
            let file = root.join(path.trim_start_matches('/'));
            if let Some(parent) = file.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(file, answer)?;
        }
        let tls = &domain.producer;
        let arguments = [
            format!("--address={}", address.ip()),
            format!("--htdocs={}", root.display()),
            "--verify-client".to_owned(),
            address.port().to_string(),
            tls.key.display().to_string(),
            tls.certificate.display().to_string(),
        ];
        Self::start("nghttpd", programs::in_sbin(program), arguments.into(), address).await
    }

    async fn start(
        name: &'static str,
        program: PathBuf,
        arguments: Vec<String>,
        address: SocketAddr,
    ) -> Result<Self, BenchError> {
        let child = spawn(name, &program, &arguments, address).await?;
        Ok(Self { name, program, arguments, address, child })
    }

    /// Its name in the figures.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The process whose time and memory count.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id().unwrap_or_default())
    }

    /// The URI of one of its resources.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// SIGKILL, then started again on the same files; how long that took until it listened.
    pub(crate) async fn kill_and_restart(&mut self) -> Result<Duration, BenchError> {
        self.child.kill().await?;
        let since = Instant::now();
        self.child = spawn(self.name, &self.program, &self.arguments, self.address).await?;
        Ok(since.elapsed())
    }
}

/// Starts it, and waits until it listens: it does so when it is ready.
async fn spawn(
    name: &'static str,
    program: &Path,
    arguments: &[String],
    address: SocketAddr,
) -> Result<Child, BenchError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|source| BenchError::Start { program: program.to_owned(), source })?;
    let since = Instant::now();
    while since.elapsed() < READY_MAX {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            return Err(BenchError::Server { server: name, reason: format!("ended with {status}") });
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Err(BenchError::Server { server: name, reason: "does not listen".to_owned() })
}

/// The directory of the AAnF's database.
pub(crate) const STATE: &str = "aanf";
const READY_MAX: Duration = Duration::from_secs(300);
/// How exactly the time until it is ready is told.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
