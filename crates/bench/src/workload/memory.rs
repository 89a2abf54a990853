//! Many connections that do nothing.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use super::USERS_MIN;
use crate::peer::{Peer, Session, Tls};
use crate::report::{Figure, Report};
use crate::{Arguments, BenchError};

/// Connections being made at once.
const CONCURRENT: usize = 32;
/// How long the server has to put its memory in order.
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) async fn memory<P: Peer>(peer: &P, arguments: &Arguments, report: &mut Report) -> Result<(), BenchError> {
    report.add(measure(peer, arguments, Tls::V1_3).await?);
    if peer.may_be_killed() {
        // Memory that was freed is used again without being counted: each figure needs a fresh process.
        peer.kill_and_restart().await?;
        report.add(measure(peer, arguments, Tls::V1_2).await?);
    }
    Ok(())
}

async fn measure<P: Peer>(peer: &P, arguments: &Arguments, tls: Tls) -> Result<Figure, BenchError> {
    let process = peer.process();
    // What the first connections cost once is not the cost of a connection.
    for user in 0..USERS_MIN {
        peer.connect(user, tls).await?.close().await?;
    }
    tokio::time::sleep(SETTLE).await;
    let before = process.resident_bytes()?;
    let sessions: Vec<P::Session> = futures_util::stream::iter(0..arguments.idle)
        .map(|user| peer.connect(user, tls))
        .buffer_unordered(CONCURRENT)
        .try_collect()
        .await?;
    tokio::time::sleep(SETTLE).await;
    let after = process.resident_bytes()?;
    let count = sessions.len();
    futures_util::stream::iter(sessions).map(Session::close).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
    Ok(Figure {
        work: format!("idle registered connection, {}", tls.name()),
        peer: peer.name(),
        operations: count as u64,
        bytes_each: Some(after.saturating_sub(before) as f64 / count.max(1) as f64),
        ..Figure::default()
    })
}
