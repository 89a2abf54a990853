//! Connections made and closed again, as fast as they go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Meter, USERS_MIN, WARM_UP};
use crate::peer::{Peer, Session, Tls};
use crate::report::{Figure, Report};
use crate::{Arguments, BenchError};

/// Connections under way at once.
const CONCURRENT: usize = 16;

pub(crate) async fn handshakes<P: Peer>(
    peer: &P,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<(), BenchError> {
    for tls in [Tls::V1_3, Tls::V1_2] {
        for registered in [false, true] {
            let figure = measure(peer, arguments, tls, registered).await?;
            report.add(figure);
        }
    }
    Ok(())
}

async fn measure<P: Peer>(peer: &P, arguments: &Arguments, tls: Tls, registered: bool) -> Result<Figure, BenchError> {
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let workers = (0..CONCURRENT).map(|worker| {
        let (done, stop) = (&done, &stop);
        async move {
            // Users of its own: one user's connections come one after the other.
            let mut users = (0..USERS_MIN).skip(worker).step_by(CONCURRENT).cycle();
            while !stop.load(Ordering::Relaxed) {
                let user = users.next().unwrap_or_default();
                if registered {
                    peer.connect(user, tls).await?.close().await?;
                } else {
                    peer.handshake(user, tls).await?;
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, BenchError>(())
        }
    });
    let measured = async {
        tokio::time::sleep(WARM_UP).await;
        let before = done.load(Ordering::Relaxed);
        let meter = Meter::start(peer.process())?;
        tokio::time::sleep(arguments.duration()).await;
        let operations = done.load(Ordering::Relaxed) - before;
        let reading = meter.read(operations)?;
        stop.store(true, Ordering::Relaxed);
        Ok((operations, reading))
    };
    // A worker that fails ends the measurement.
    let (_, (operations, reading)) = futures_util::try_join!(futures_util::future::try_join_all(workers), measured)?;
    let what = if registered { "handshake and registration" } else { "handshake" };
    Ok(Figure {
        work: format!("{} PSK {what}", tls.name()),
        peer: peer.name(),
        operations,
        per_second: reading.per_second,
        server_cpu_us: reading.server_cpu_us,
        ..Figure::default()
    })
}
