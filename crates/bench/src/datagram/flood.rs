//! An attack: ClientHellos at a steady rate, from many addresses that never answer.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dtls::{Connection, Event, PresharedKey};

use super::Dtls;
use crate::BenchError;

/// Goes on until it is stopped or dropped.
pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// ClientHellos of `dtls` to `server`, so many a second.
    pub(crate) fn start(server: SocketAddr, dtls: Dtls, per_second: u32) -> Result<Self, BenchError> {
        let hellos = (0..HELLOS).map(|number| hello(server, dtls, number)).collect::<Result<Vec<_>, _>>()?;
        let sockets = (0..SOURCES).map(|number| bound(number, server)).collect::<Result<Vec<_>, _>>()?;
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, count) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let pairs = hellos.iter().cycle().zip(sockets.iter().cycle());
            for (number, (hello, socket)) in (0_u64..).zip(pairs) {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let due = started + Duration::from_secs_f64(number as f64 / f64::from(per_second));
                let early = due.saturating_duration_since(Instant::now());
                // Sleep is coarse: it sends what has become due since.
                if early > Duration::from_millis(1) {
                    std::thread::sleep(early);
                }
                // A server that has no room for it drops it: that is its way out.
                let _ = socket.send(hello);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { stop, sent, thread: Some(thread) })
    }

    /// ClientHellos sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It has nothing that could fail.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The first flight of a client of its own.
fn hello(server: SocketAddr, dtls: Dtls, number: usize) -> Result<Vec<u8>, BenchError> {
    let config = dtls.client(format!("flood-{number}").as_bytes());
    let mut client = Connection::client(Arc::new(config), Instant::now(), server).map_err(BenchError::connection)?;
    // DTLS 1.3 binds the ClientHello to the key, here one that no server has.
    while let Some(event) = client.poll_event() {
        if let Event::KeyNeeded(_) = event {
            let key = PresharedKey::new(&[0x77; 32]).map_err(BenchError::connection)?;
            client.provide_key(Instant::now(), &key).map_err(BenchError::connection)?;
        }
    }
    let transmit = client.poll_transmit();
    transmit
        .map(|transmit| transmit.payload.to_vec())
        .ok_or_else(|| BenchError::Connection("no ClientHello".to_owned()))
}

/// Away from where the devices are.
fn bound(number: u16, server: SocketAddr) -> Result<UdpSocket, BenchError> {
    let [high, low] = number.to_be_bytes();
    let socket = UdpSocket::bind(SocketAddr::new(Ipv4Addr::new(127, 8, high, low.max(1)).into(), 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Different ones, in turn.
const HELLOS: usize = 1_000;
/// Addresses they come from, in turn.
const SOURCES: u16 = 256;
