//! mosquitto on loopback: TLS-PSK, QoS 1, persistent sessions.

mod packet;
mod session;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use openssl::ssl::{Ssl, SslContext, SslMethod, SslVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_openssl::SslStream;

use crate::peer::{Peer, Tls, connect_tcp};
use crate::process::Process;
use crate::programs::{free_address, in_sbin};
use crate::wire;
use crate::{Arguments, BenchError};
use session::MqttSession;

/// A broker of our own.
pub(crate) struct Mosquitto {
    name: &'static str,
    program: PathBuf,
    directory: TempDir,
    address: SocketAddr,
    tls13: SslContext,
    tls12: SslContext,
    /// Replaced when it is killed and started again.
    child: Mutex<Child>,
}

/// When mosquitto writes its database to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Now and then, as it comes: what it acknowledged since is lost when it is killed.
    Snapshots,
    /// After every change: the nearest that it has to keeping what it acknowledged.
    EachChange,
}

impl Mosquitto {
    pub(crate) async fn start(arguments: &Arguments, durability: Durability) -> Result<Self, BenchError> {
        let directory = arguments.directory()?;
        let address = free_address().await?;
        std::fs::write(directory.path().join("psk"), format!("{IDENTITY}:{}\n", hex(&KEY)))?;
        let configuration = configuration(directory.path(), address, durability);
        std::fs::write(directory.path().join("mosquitto.conf"), configuration)?;
        let program = in_sbin(&arguments.mosquitto);
        let child = spawn(&program, directory.path(), address).await?;
        let name = match durability {
            Durability::Snapshots => "mosquitto",
            Durability::EachChange => "mosquitto, each change saved",
        };
        let (tls13, tls12) = (context(SslVersion::TLS1_3)?, context(SslVersion::TLS1_2)?);
        Ok(Self { name, program, directory, address, tls13, tls12, child: Mutex::new(child) })
    }

    async fn secure(&self, user: usize, tls: Tls) -> Result<SslStream<TcpStream>, BenchError> {
        let stream = connect_tcp(user, self.address).await?;
        let context = match tls {
            Tls::V1_3 => &self.tls13,
            Tls::V1_2 => &self.tls12,
        };
        let mut stream = SslStream::new(Ssl::new(context)?, stream)?;
        std::pin::Pin::new(&mut stream).connect().await.map_err(BenchError::connection)?;
        Ok(stream)
    }
}

impl Peer for Mosquitto {
    type Session = MqttSession;

    fn name(&self) -> &'static str {
        self.name
    }

    fn process(&self) -> Process {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        Process(child.id().unwrap_or_default())
    }

    async fn handshake(&self, user: usize, tls: Tls) -> Result<(), BenchError> {
        wire::close(self.secure(user, tls).await?).await;
        Ok(())
    }

    async fn connect(&self, user: usize, tls: Tls) -> Result<MqttSession, BenchError> {
        MqttSession::open(self.secure(user, tls).await?, user).await
    }

    fn may_be_killed(&self) -> bool {
        true
    }

    async fn kill_and_restart(&self) -> Result<(), BenchError> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).start_kill()?; // SIGKILL
        while self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let child = spawn(&self.program, self.directory.path(), self.address).await?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
        Ok(())
    }
}

fn configuration(directory: &Path, address: SocketAddr, durability: Durability) -> String {
    let saving = match durability {
        Durability::Snapshots => "",
        Durability::EachChange => "autosave_on_changes true\nautosave_interval 1\n",
    };
    // As root, mosquitto would become another user, who may not write to the directory.
    let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
    format!(
        "listener {port} {ip}\n\
         psk_hint bench\n\
         psk_file {directory}/psk\n\
         use_identity_as_username true\n\
         ciphers ECDHE-PSK-CHACHA20-POLY1305\n\
         persistence true\n\
         persistence_location {directory}/\n\
         {saving}{user}\
         max_queued_messages 0\n\
         max_inflight_messages 64\n\
         set_tcp_nodelay true\n\
         log_type error\n",
        port = address.port(),
        ip = address.ip(),
        directory = directory.display(),
    )
}

async fn spawn(program: &Path, directory: &Path, address: SocketAddr) -> Result<Child, BenchError> {
    let mut command = Command::new(program);
    command.arg("-c").arg(directory.join("mosquitto.conf")).stdin(Stdio::null()).kill_on_drop(true);
    let started = |source| BenchError::Start { program: program.to_owned(), source };
    let mut child = command.spawn().map_err(started)?;
    for _ in 0..START_ATTEMPTS {
        if TcpStream::connect(address).await.is_ok() {
            return Ok(child);
        }
        if let Some(status) = child.try_wait()? {
            return Err(BenchError::Server { server: "mosquitto", reason: format!("ended with {status}") });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(BenchError::Server { server: "mosquitto", reason: "does not listen".to_owned() })
}

fn context(version: SslVersion) -> Result<SslContext, BenchError> {
    let mut context = SslContext::builder(SslMethod::tls_client())?;
    context.set_min_proto_version(Some(version))?;
    context.set_max_proto_version(Some(version))?;
    context.set_cipher_list("ECDHE-PSK-CHACHA20-POLY1305")?;
    context.set_ciphersuites("TLS_AES_128_GCM_SHA256")?;
    context.set_groups_list("X25519")?;
    context.set_psk_client_callback(|_, _, identity, key| {
        let identity_z = [IDENTITY.as_bytes(), &[0]].concat();
        match (identity.get_mut(..identity_z.len()), key.get_mut(..KEY.len())) {
            (Some(identity), Some(key)) => {
                identity.copy_from_slice(&identity_z);
                key.copy_from_slice(&KEY);
                Ok(KEY.len())
            }
            _ => Ok(0),
        }
    });
    Ok(context.build())
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

// One identity for everybody: mosquitto looks through its list of keys from the front.
const IDENTITY: &str = "bench";
const KEY: [u8; 32] = [0x5a; 32];
const START_ATTEMPTS: u32 = 200;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::peer::{Event, Session};
    use clap::Parser;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: Arguments,
    }

    async fn broker(durability: Durability) -> Mosquitto {
        Mosquitto::start(&CommandLine::parse_from(["bench"]).arguments, durability).await.unwrap()
    }

    #[tokio::test]
    async fn what_one_sends_the_other_receives_over_either_version() {
        let broker = broker(Durability::Snapshots).await;
        let mut recipient = broker.connect(1, Tls::V1_2).await.unwrap();
        let mut sender = broker.connect(0, Tls::V1_3).await.unwrap();
        let number = sender.send(1, b"hello").unwrap();
        assert!(matches!(sender.event().await.unwrap(), Event::Taken(taken) if taken == number));
        assert!(matches!(recipient.event().await.unwrap(), Event::Received(payload) if payload == b"hello"));
        broker.handshake(2, Tls::V1_3).await.unwrap();
        broker.handshake(2, Tls::V1_2).await.unwrap();
    }

    #[tokio::test]
    async fn a_user_that_was_away_gets_what_waits_even_after_a_kill() {
        let broker = broker(Durability::EachChange).await;
        broker.connect(1, Tls::V1_3).await.unwrap().close().await.unwrap();
        let mut sender = broker.connect(0, Tls::V1_3).await.unwrap();
        for _ in 0..3 {
            sender.send(1, b"later").unwrap();
            assert!(matches!(sender.event().await.unwrap(), Event::Taken(_)));
        }
        sender.close().await.unwrap();
        broker.kill_and_restart().await.unwrap();
        // All but the last: it acknowledges before it saves.
        let mut recipient = broker.connect(1, Tls::V1_3).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(recipient.event().await.unwrap(), Event::Received(payload) if payload == b"later"));
        }
    }
}
