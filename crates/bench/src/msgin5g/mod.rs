//! The MSGin5G Server in a process of its own, its core network in another, so that only the server is measured.

mod devices;
mod idle_dtls;
mod programs;
mod session;
mod users;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use akma::{AfId, Fqdn, k_af};
use lab::LabJson;
use tempfile::TempDir;
use transport::{ClientStream, OfferedVersions, PskClientConfig, PskConnector};

use crate::peer::{Peer, Tls, connect_tcp};
use crate::process::Process;
use crate::programs::find_or_build;
use crate::wire;
use crate::{Arguments, BenchError};
pub(crate) use devices::Devices;
pub(crate) use idle_dtls::idle_dtls;
use programs::{Core, ServerProcess};
use session::UeSession;
use users::User;

/// A server of our own, or of a lab that runs already.
pub(crate) struct Msgin5g {
    address: SocketAddr,
    fqdn: Fqdn,
    path: String,
    users: Vec<User>,
    tls13: PskConnector,
    tls12: PskConnector,
    server: Server,
    /// Gone when this is dropped, after the processes.
    _directory: Option<TempDir>,
}

enum Server {
    Own(Box<Own>),
    Running(u32),
}

struct Own {
    core: Core,
    /// Replaced when it is killed and started again.
    process: Mutex<Option<ServerProcess>>,
}

impl Msgin5g {
    pub(crate) async fn start(arguments: &Arguments) -> Result<Self, BenchError> {
        let (lab_path, server, address, directory) = match (&arguments.lab, arguments.pid) {
            (Some(lab), Some(pid)) => (lab.clone(), Server::Running(pid), None, None),
            _ => {
                let directory = arguments.directory()?;
                let program = find_or_build(arguments)?;
                let core = Core::start(&program, &directory.path().join("lab")).await?;
                let process = ServerProcess::start(&core).await?;
                let (lab, address) = (core.lab_json().to_owned(), process.address());
                (
                    lab,
                    Server::Own(Box::new(Own { core, process: Mutex::new(Some(process)) })),
                    Some(address),
                    Some(directory),
                )
            }
        };
        let lab = read_lab(&lab_path)?;
        let users = users::provision(&lab, lab_path.parent().unwrap_or(Path::new(".")), arguments.users()).await?;
        let connector = |versions| {
            PskConnector::new(PskClientConfig { versions, ..PskClientConfig::default() })
                .map_err(|error| BenchError::Provision(error.to_string()))
        };
        Ok(Self {
            address: address.unwrap_or(lab.server.coaps_tcp),
            fqdn: lab.server.fqdn.parse().map_err(|_| BenchError::Provision("server.fqdn of lab.json".to_owned()))?,
            path: lab.server.path,
            users,
            tls13: connector(OfferedVersions::Tls13)?,
            tls12: connector(OfferedVersions::Tls12)?,
            server,
            _directory: directory,
        })
    }

    pub(crate) async fn stop(self) {
        if let Server::Own(own) = self.server {
            drop(own.process);
            own.core.stop().await;
        }
    }

    async fn secure(&self, user: usize, tls: Tls) -> Result<(ClientStream, &User), BenchError> {
        let stream = connect_tcp(user, self.address).await?;
        let connector = match tls {
            Tls::V1_3 => &self.tls13,
            Tls::V1_2 => &self.tls12,
        };
        let user = self.users.get(user).ok_or_else(|| BenchError::Provision("too few users".to_owned()))?;
        let key = |protocol| k_af(&user.keys.k_akma, &AfId::new(self.fqdn.clone(), protocol));
        let stream =
            connector.connect(stream, &self.fqdn, &user.keys.a_kid, key).await.map_err(BenchError::connection)?;
        Ok((stream, user))
    }
}

impl Peer for Msgin5g {
    type Session = UeSession;

    fn name(&self) -> &'static str {
        "msgin5g"
    }

    fn process(&self) -> Process {
        match &self.server {
            Server::Running(pid) => Process(*pid),
            Server::Own(own) => {
                let process = own.process.lock().unwrap_or_else(PoisonError::into_inner);
                Process(process.as_ref().map_or(0, ServerProcess::pid))
            }
        }
    }

    async fn handshake(&self, user: usize, tls: Tls) -> Result<(), BenchError> {
        wire::close(self.secure(user, tls).await?.0).await;
        Ok(())
    }

    async fn connect(&self, user: usize, tls: Tls) -> Result<UeSession, BenchError> {
        let (stream, user) = self.secure(user, tls).await?;
        UeSession::register(stream, &self.path, &user.ue_service_id).await
    }

    fn may_be_killed(&self) -> bool {
        matches!(self.server, Server::Own(_))
    }

    async fn kill_and_restart(&self) -> Result<(), BenchError> {
        let Server::Own(own) = &self.server else { return Ok(()) };
        let running = own.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            let restarted = running.kill_and_restart(&own.core).await?;
            *own.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(restarted);
        }
        Ok(())
    }
}

fn read_lab(path: &PathBuf) -> Result<LabJson, BenchError> {
    let text = std::fs::read(path)?;
    serde_json::from_slice(&text).map_err(|error| BenchError::Provision(format!("{}: {error}", path.display())))
}
