//! Addresses for servers that are to come back at theirs.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

/// One that nobody listens on, and that the system gives nobody who asks for any: below the range that it takes those from,
/// and those of labs that other tests start.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 1_000).unwrap() * 8;
    loop {
        let port = 11_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
}
