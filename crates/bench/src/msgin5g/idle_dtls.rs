//! Memory of registered devices over DTLS that do nothing, and what it costs that one of them does something.

use std::path::Path;
use std::time::{Duration, Instant};

use dtls::ClientConfig;
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::devices::Server;
use super::programs::{Core, ServerProcess};
use super::users::User;
use super::{read_lab, users};
use crate::datagram::Link;
use crate::process::Process;
use crate::programs::find_or_build;
use crate::report::{Figure, Report};
use crate::workload::{IDLE_LIVE, Meter, REQUEST_LIVE, attacked};
use crate::{Arguments, BenchError};

/// Sessions live, then the same frozen, each with a server and a store of its own.
pub(crate) async fn idle_dtls(arguments: &Arguments, report: &mut Report) -> Result<(), BenchError> {
    let directory = arguments.directory()?;
    let program = find_or_build(arguments)?;
    let core = Core::start(&program, &directory.path().join("lab")).await?;
    let lab_path = core.lab_json().to_owned();
    let lab = read_lab(&lab_path)?;
    let count = usize::try_from(arguments.devices).unwrap_or(usize::MAX);
    let users = users::provision(&lab, lab_path.parent().unwrap_or(Path::new(".")), count + WARM_UP).await?;
    for state in [State::Live, State::Frozen] {
        let store = directory.path().join(state.name());
        let settings = [
            ("MSGIN5G_LIMITS__DATAGRAM_FREEZE_MILLISECONDS", state.freeze_milliseconds().to_owned()),
            ("MSGIN5G_STORE__PATH", store.display().to_string()),
        ];
        let process = ServerProcess::start_with(&core, &settings).await?;
        let server = Server::new(process.coaps(), &lab)?;
        measure(&process, &server, &users, state, arguments, report).await?;
    }
    core.stop().await;
    Ok(())
}

async fn measure(
    process: &ServerProcess,
    server: &Server,
    users: &[User],
    state: State,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), BenchError> {
    let measured = Process(process.pid());
    let (warm_up, users) = users.split_at_checked(WARM_UP).unwrap_or_default();
    // What the first sessions cost once is not the cost of a session.
    let mut first = register(server, warm_up, 0).await?;
    ask(server, warm_up, &mut first).await?;
    settle(process, state, WARM_UP).await?;
    let before = measured.resident_bytes()?;
    let meter = Meter::start(measured)?;
    let mut devices = register(server, users, WARM_UP).await?;
    let handshakes = meter.read(devices.len() as u64)?;
    settle(process, state, WARM_UP + devices.len()).await?;
    let after = measured.resident_bytes()?;
    report.add(Figure {
        work: state.work().to_owned(),
        peer: "msgin5g",
        operations: devices.len() as u64,
        per_second: handshakes.per_second,
        server_cpu_us: handshakes.server_cpu_us,
        bytes_each: Some(after.saturating_sub(before) as f64 / devices.len().max(1) as f64),
        resident_bytes: Some(after),
        ..Figure::default()
    });
    let asking = devices.len().min(ASKING_MAX);
    let (some, their) = (devices.split_at_mut(asking).0, users.split_at(asking).0);
    let meter = Meter::start(measured)?;
    ask(server, their, some).await?;
    let rate = meter.read(asking as u64)?.per_second;
    // That they are frozen again is part of it.
    settle(process, state, WARM_UP + devices.len()).await?;
    report.add(Figure {
        work: state.request().to_owned(),
        peer: "msgin5g",
        operations: asking as u64,
        per_second: rate,
        server_cpu_us: meter.read(asking as u64)?.server_cpu_us,
        ..Figure::default()
    });
    report.add(attacked("msgin5g", measured, process.coaps(), arguments, state.name()).await?);
    Ok(())
}

async fn register(server: &Server, users: &[User], from: usize) -> Result<Vec<Link>, BenchError> {
    futures_util::stream::iter(users.iter().enumerate())
        .map(|(number, user)| async move {
            let mut link = server.handshake(from + number, user, ClientConfig::new).await?;
            server.register(&mut link, user).await?;
            link.rest();
            Ok(link)
        })
        .buffered(CONCURRENT)
        .try_collect()
        .await
}

async fn ask(server: &Server, users: &[User], devices: &mut [Link]) -> Result<(), BenchError> {
    futures_util::stream::iter(devices.iter_mut().zip(users))
        .map(|(link, user)| async move {
            server.ask(link, user, &[0; PAYLOAD_OCTETS]).await?;
            link.rest();
            Ok(())
        })
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await
}

/// Waits until every session is in the state that is measured, and the server has put its memory in order.
async fn settle(process: &ServerProcess, state: State, sessions: usize) -> Result<(), BenchError> {
    let until = Instant::now() + FREEZE_MAX;
    while state == State::Frozen && frozen(process).await? < sessions {
        if Instant::now() > until {
            return Err(BenchError::Protocol("sessions are not frozen".to_owned()));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    if state == State::Live {
        // Until the handshakes' last flights are let go.
        tokio::time::sleep(LIVE_SETTLE).await;
    }
    Ok(())
}

/// As the server's metrics say.
async fn frozen(process: &ServerProcess) -> Result<usize, BenchError> {
    let mut stream = TcpStream::connect(process.admin()).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let line = text.lines().find_map(|line| line.strip_prefix("dtls_sessions_frozen "));
    line.and_then(|value| value.parse().ok()).ok_or_else(|| BenchError::Protocol("no dtls_sessions_frozen".to_owned()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Frozen,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Frozen => "frozen",
        }
    }

    fn work(self) -> &'static str {
        match self {
            Self::Live => IDLE_LIVE,
            Self::Frozen => "idle DTLS session, frozen",
        }
    }

    fn request(self) -> &'static str {
        match self {
            Self::Live => REQUEST_LIVE,
            Self::Frozen => "one request over it, thawed for it and frozen again",
        }
    }

    fn freeze_milliseconds(self) -> &'static str {
        match self {
            Self::Live => "0",
            Self::Frozen => "1000",
        }
    }
}

/// Sessions that are made before anything is measured.
const WARM_UP: usize = 64;
/// Devices that do something at once.
const CONCURRENT: usize = 32;
/// Requests that are measured at most.
const ASKING_MAX: usize = 10_000;
/// Of such a request.
const PAYLOAD_OCTETS: usize = 16;
/// How long it may take until all sessions are frozen.
const FREEZE_MAX: Duration = Duration::from_secs(900);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LIVE_SETTLE: Duration = Duration::from_secs(12);
