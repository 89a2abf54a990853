//! A system that gives the server few file descriptors, and strangers who want all of them.

use std::net::SocketAddr;

use tokio::net::{TcpSocket, TcpStream};

use crate::common::Lab;
use crate::common::foreign_ue::{ForeignUe, TLS_1_3};
use crate::common::function::Function;
use crate::neighbour::eventually;

/// What `ulimit -n` says on most systems.
const FILES_MAX: u32 = 1024;

/// Strangers' connections from one source: fewer than it may have handshakes under way.
const OF_ONE_SOURCE: usize = 250;

async fn silent_connections(server: SocketAddr, sources: u8) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for source in 2..2 + sources {
        for _ in 0..OF_ONE_SOURCE {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, source], 0))).unwrap();
            connections.push(socket.connect(server).await.unwrap());
        }
    }
    connections
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_leave_the_store_its_files_and_ues_are_served() {
    let lab = Lab::start();
    let server = Function::server_with_files(&lab, FILES_MAX, &[]);
    assert!(server.log().contains("fewer connections than configured"), "{}", server.log());
    let [mut alice, mut bob] = [0, 1].map(|subscriber| ForeignUe::registered(&lab, subscriber, server.address()));
    bob.close();
    let strangers = silent_connections(server.address(), 8).await;
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.process_id())).unwrap().count();
    assert!(open < FILES_MAX as usize - 256, "{open} files open");
    assert!(alice.send_storable(&bob.service_id, "1").is_stored());
    eventually("refusals", || server.metric("msgin5g_connections_ended_total{reason=\"too many connections\"}") > 0)
        .await;
    // Strangers are let go when their ClientHello does not come; then there is room again, while they hold on.
    eventually("the handshake", || bob.connect(server.address(), TLS_1_3).is_ok()).await;
    assert_eq!(bob.register().code, "2.01");
    assert_eq!(bob.receive(1), ["1"]);
    assert_eq!(server.admin("/readyz").0, 200);
    assert!(!server.log().contains("no connection accepted"), "{}", server.log());
    drop(strangers);
}
