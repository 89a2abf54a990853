//! The processes: the lab for everything but the measured server, and that server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, UdpSocket};
use tokio::process::{Child, Command};

use crate::BenchError;

/// The lab: AUSF, UDM, AAnF and Configuration Function, and a server that is left alone.
pub(super) struct Core {
    program: PathBuf,
    lab_json: PathBuf,
    child: Child,
}

impl Core {
    pub(super) async fn start(program: &Path, directory: &Path) -> Result<Self, BenchError> {
        let mut command = Command::new(program);
        command.arg("lab").arg("--dir").arg(directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| BenchError::Start { program: program.to_owned(), source })?;
        let lab_json = ready(&mut child, "msgin5g lab").await?.into();
        Ok(Self { program: program.to_owned(), lab_json, child })
    }

    pub(super) fn lab_json(&self) -> &Path {
        &self.lab_json
    }

    pub(super) async fn stop(mut self) {
        // It may be gone already.
        let _ = self.child.kill().await;
    }
}

/// The measured server: the lab's own configuration, but with other ports and an empty store.
pub(super) struct ServerProcess {
    child: Child,
    addresses: Addresses,
}

#[derive(Debug, Clone, Copy)]
struct Addresses {
    coaps_tcp: SocketAddr,
    coaps: SocketAddr,
    api: SocketAddr,
    admin: SocketAddr,
}

impl ServerProcess {
    pub(super) async fn start(core: &Core) -> Result<Self, BenchError> {
        Self::start_with(core, &[]).await
    }

    /// With further settings, by the names of their environment variables.
    pub(super) async fn start_with(core: &Core, settings: &[(&str, String)]) -> Result<Self, BenchError> {
        let listeners = [TcpListener::bind(ANY).await?, TcpListener::bind(ANY).await?, TcpListener::bind(ANY).await?];
        let [coaps_tcp, api, admin] = listeners.each_ref().map(TcpListener::local_addr);
        let udp = UdpSocket::bind(ANY).await?;
        let addresses = Addresses { coaps_tcp: coaps_tcp?, coaps: udp.local_addr()?, api: api?, admin: admin? };
        drop((listeners, udp));
        Self::start_at(core, addresses, settings).await
    }

    async fn start_at(core: &Core, addresses: Addresses, settings: &[(&str, String)]) -> Result<Self, BenchError> {
        let directory = core.lab_json.parent().unwrap_or(Path::new("."));
        let mut command = Command::new(&core.program);
        command.arg("--log").arg("error").arg("server").arg("--config").arg(directory.join("config/server.toml"));
        command.env("MSGIN5G_SERVER__LISTEN", addresses.coaps_tcp.to_string());
        command.env("MSGIN5G_API__LISTEN", addresses.api.to_string());
        command.env("MSGIN5G_ADMIN__LISTEN", addresses.admin.to_string());
        command.env("MSGIN5G_HTTPS__LISTEN", ANY);
        command.env("MSGIN5G_WEBSOCKET__LISTEN", ANY);
        command.env("MSGIN5G_COAPS__LISTEN", addresses.coaps.to_string());
        command.env("MSGIN5G_OSCORE__LISTEN_UDP", ANY);
        command.env("MSGIN5G_OSCORE__LISTEN_TCP", ANY);
        // At the NRF it must not take the place of the lab's own.
        command.env("MSGIN5G_NRF__REGISTER", "false");
        command.env("MSGIN5G_STORE__PATH", directory.join("state/bench-server"));
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child =
            command.spawn().map_err(|source| BenchError::Start { program: core.program.clone(), source })?;
        // It says so itself: somebody else may have been given one of its ports meanwhile.
        ready(&mut child, "msgin5g server").await?;
        Ok(Self { child, addresses })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.addresses.coaps_tcp
    }

    /// Where it takes datagrams.
    pub(super) fn coaps(&self) -> SocketAddr {
        self.addresses.coaps
    }

    pub(super) fn admin(&self) -> SocketAddr {
        self.addresses.admin
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// SIGKILL, then the same again.
    pub(super) async fn kill_and_restart(mut self, core: &Core) -> Result<Self, BenchError> {
        self.child.kill().await?;
        Self::start_at(core, self.addresses, &[]).await
    }
}

/// What a program says behind READY.
async fn ready(child: &mut Child, server: &'static str) -> Result<String, BenchError> {
    let failed = |reason: &str| BenchError::Server { server, reason: reason.to_owned() };
    let stdout = child.stdout.take().ok_or_else(|| failed("has no output"))?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if let Some(said) = line.strip_prefix("READY ") {
                return Ok::<_, std::io::Error>(Some(said.to_owned()));
            }
        }
        Ok(None)
    };
    let said = tokio::time::timeout(READY_MAX, ready).await.map_err(|_| failed("is not ready"))??;
    said.ok_or_else(|| failed("ended before it was ready"))
}

const ANY: &str = "127.0.0.1:0";
const READY_MAX: Duration = Duration::from_secs(60);
