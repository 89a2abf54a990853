//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// What to measure, and against what.
#[derive(Args, Debug, Clone)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value = "all")]
    pub work: Work,
    /// Which servers to measure
    #[arg(long, value_enum, default_value = "both")]
    pub peer: PeerChoice,
    /// How long each figure is measured
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub seconds: u64,
    /// Octets of a message's payload, at least 16
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(16..=2048))]
    pub payload: u32,
    /// Fixed rates to measure latency at, in messages a second
    #[arg(long, value_name = "N,N", value_delimiter = ',', default_values_t = [200, 1_000, 4_000])]
    pub rates: Vec<u32>,
    /// Idle connections whose memory is measured
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub idle: usize,
    /// Idle devices over DTLS whose memory is measured, live and frozen
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=2_000_000))]
    pub devices: u64,
    /// Messages to store for recipients that are away
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    pub stored: usize,
    /// AKMA contexts registered at the AKMA anchor function
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=9_999_999))]
    pub contexts: u64,
    /// The msgin5g program to measure [default: beside this program; built first when run by cargo]
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Measure the server of this running lab instead of starting one
    #[arg(long, value_name = "FILE", requires = "pid")]
    pub lab: Option<PathBuf>,
    /// The process of that lab's server
    #[arg(long, value_name = "PID", requires = "lab")]
    pub pid: Option<u32>,
    /// The mosquitto program
    #[arg(long, value_name = "FILE", default_value = "mosquitto")]
    pub mosquitto: PathBuf,
    /// The nghttpd program
    #[arg(long, value_name = "FILE", default_value = "nghttpd")]
    pub nghttpd: PathBuf,
    /// libcoap's example server, built with OpenSSL
    #[arg(long, value_name = "FILE", default_value = "coap-server-openssl")]
    pub libcoap: PathBuf,
    /// ClientHellos a second of the flood beside which devices over DTLS are measured
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub flood: u32,
    /// Directory for the servers' files [default: a temporary one]. Durable figures mean something only on the disk
    /// that counts: not on a memory file system
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// All of it
    All,
    /// TLS-PSK handshakes, without and with registration
    Handshakes,
    /// CoAP over DTLS: handshakes, requests and memory, with and without a flood of ClientHellos beside
    Datagrams,
    /// Messages from UE to UE, at fixed rates and as many as go
    Messages,
    /// Messages to recipients that are away; the server killed; the messages fetched
    Store,
    /// Memory of idle registered connections
    Memory,
    /// Registered devices over DTLS that do nothing: memory of each, live and frozen, and time of a request over them. Takes
    /// minutes, and is no part of `all`
    IdleDtls,
    /// The AKMA anchor function: registrations, memory, a restart, answers with K_AF
    Aanf,
}

impl Work {
    pub(crate) fn includes(self, work: Work) -> bool {
        self == work || self == Work::All && work != Work::IdleDtls
    }

    /// Whether UEs connect and send: the MSGin5G Server and mosquitto.
    pub(crate) fn includes_messaging(self) -> bool {
        !matches!(self, Work::Aanf | Work::Datagrams | Work::IdleDtls)
    }
}

/// Which servers to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PeerChoice {
    /// mosquitto, libcoap or nghttpd, then msgin5g
    Both,
    /// mosquitto only
    Mosquitto,
    /// libcoap only
    Libcoap,
    /// nghttpd only
    Nghttpd,
    /// msgin5g only
    Msgin5g,
}

impl PeerChoice {
    pub(crate) fn includes_mosquitto(self) -> bool {
        matches!(self, PeerChoice::Both | PeerChoice::Mosquitto)
    }

    pub(crate) fn includes_libcoap(self) -> bool {
        matches!(self, PeerChoice::Both | PeerChoice::Libcoap)
    }

    pub(crate) fn includes_nghttpd(self) -> bool {
        matches!(self, PeerChoice::Both | PeerChoice::Nghttpd)
    }

    pub(crate) fn includes_msgin5g(self) -> bool {
        matches!(self, PeerChoice::Both | PeerChoice::Msgin5g)
    }
}

impl Arguments {
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.max(1))
    }

    /// How many different users the workloads need.
    pub(crate) fn users(&self) -> usize {
        let idle = if self.work.includes(Work::Memory) { self.idle } else { 0 };
        idle.max(crate::workload::USERS_MIN)
    }

    pub(crate) fn payload_octets(&self) -> usize {
        self.payload as usize
    }

    /// A directory of its own for one server.
    pub(crate) fn directory(&self) -> std::io::Result<tempfile::TempDir> {
        match &self.dir {
            Some(parent) => {
                std::fs::create_dir_all(parent)?;
                tempfile::Builder::new().prefix("bench-").tempdir_in(parent)
            }
            None => tempfile::Builder::new().prefix("bench-").tempdir(),
        }
    }
}
