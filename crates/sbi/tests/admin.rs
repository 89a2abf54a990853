//! Health and metrics, asked with plain HTTP/1.1.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sbi::admin::{AdminServer, Health};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_follows_every_check_and_metrics_are_open_metrics() {
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    registry.register("things", "Things", counter.clone());
    counter.inc();
    let health = Health::new();
    health.ready("store");
    let shutdown = CancellationToken::new();
    let server = AdminServer::start(([127, 0, 0, 1], 0).into(), Arc::new(registry), health.clone(), shutdown.clone())
        .await
        .unwrap();
    let address = server.local_addr();

    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    health.not_ready("store", "disk gone");
    let answer = get(address, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("store: disk gone"), "{answer}");
    health.ready("store");
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));

    let answer = get(address, "/metrics").await;
    assert!(answer.contains("application/openmetrics-text") && answer.contains("things_total 1"), "{answer}");

    shutdown.cancel();
    server.stopped().await;
    assert!(TcpStream::connect(address).await.is_err());
}
