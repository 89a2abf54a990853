//! Peers with a good certificate that abuse HTTP/2: their connection ends, and others are served all the while.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod raw;

use axum::Router;
use axum::routing::get;
use raw::{CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GET, GOAWAY, HEADERS, PING, RST_STREAM};
use raw::{SETTINGS, frame};
use sbi::testing::TestAuthority;
use sbi::{Json, SbiServer, SbiServerConfig, ServerLimits, ServerMetrics};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use transport::testing::SecurityLog;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const ATTACKER: &str = "22222222-2222-4222-8222-222222222222";
const CLIENT: &str = "33333333-3333-4333-8333-333333333333";

struct Fixture {
    authority: TestAuthority,
    server: SbiServer,
    metrics: ServerMetrics,
}

impl Fixture {
    async fn start() -> Self {
        Self::start_with(ServerLimits::default()).await
    }

    async fn start_with(limits: ServerLimits) -> Self {
        let authority = TestAuthority::new();
        let router = Router::new()
            .route("/", get(async || Json("ok")))
            .route("/long", get(async || Json("x".repeat(100_000))))
            .route("/wait", get(async || std::future::pending::<()>().await));
        let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls: authority.issue(SERVER, &[]), limits };
        let metrics = ServerMetrics::default();
        let server =
            SbiServer::start_observed(config, router, CancellationToken::new(), metrics.clone()).await.unwrap();
        Self { authority, server, metrics }
    }

    /// Sends `flood` until the server has had enough; gives the error code of its GOAWAY, if one came through.
    async fn flooded(&self, flood: Vec<u8>) -> Option<u8> {
        let client = self.authority.client(CLIENT);
        let uri = format!("https://localhost:{}/", self.server.local_addr().port());
        client.get::<String>(&uri).await.unwrap();
        let stream = raw::connect(self.server.local_addr(), &self.authority.issue(ATTACKER, &[])).await;
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = tokio::spawn(async move {
            for _ in 0..10_000 {
                if write.write_all(&flood).await.is_err() {
                    return;
                }
            }
            panic!("all of the flood was taken");
        });
        let (mut code, mut frames) = (None, 0_u32);
        while let Some((kind, _, _, payload)) = raw::next(&mut read).await {
            if kind == GOAWAY && payload[7] != 0 {
                code = Some(payload[7]);
            }
            if frames.is_multiple_of(500) {
                client.get::<String>(&uri).await.unwrap();
            }
            frames += 1;
        }
        writing.await.unwrap();
        client.get::<String>(&uri).await.unwrap();
        code
    }

    fn abused(&self, reason: &str) -> bool {
        let mut registry = prometheus_client::registry::Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.contains(&format!("sbi_connections_abused_total{{reason=\"{reason}\"}} 1"))
    }
}

#[tokio::test]
async fn a_flood_of_pings_or_settings_ends_the_connection() {
    for flood in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[]), frame(8, 0, 0, &[0, 0, 0, 1])] {
        let fixture = Fixture::start().await;
        fixture.flooded(flood.repeat(100)).await;
        assert!(fixture.abused("frame_flood"));
    }
}

#[tokio::test]
async fn a_flood_of_empty_data_ends_the_connection() {
    let fixture = Fixture::start().await;
    // Of one stream that never ends; its opening is repeated, which by itself is an error of that stream only.
    let mut flood = frame(HEADERS, END_HEADERS, 1, GET);
    flood.extend(frame(DATA, 0, 1, &[]).repeat(2_100));
    fixture.flooded(flood).await;
    assert!(fixture.abused("frame_flood") || fixture.abused("enhance_your_calm"));
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let fixture = Fixture::start().await;
    let flood = (0..1_000).flat_map(|request| {
        let stream = 2 * request + 1;
        let opened = frame(HEADERS, END_HEADERS | END_STREAM, stream, GET);
        [opened, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
    // A peer that writes on may not get to read the GOAWAY.
    assert!(fixture.flooded(flood.collect()).await.is_none_or(|code| code == ENHANCE_YOUR_CALM));
    assert!(fixture.abused("enhance_your_calm"));
}

#[tokio::test]
async fn a_header_block_without_end_ends_the_connection() {
    let fixture = Fixture::start().await;
    let stream = raw::connect(fixture.server.local_addr(), &fixture.authority.issue(ATTACKER, &[])).await;
    let (mut read, mut write) = tokio::io::split(stream);
    let writing = tokio::spawn(async move {
        let mut sent = write.write_all(&frame(HEADERS, END_STREAM, 1, GET)).await;
        // A literal of 100 octets in each: 100 MB in all, if they were taken.
        let header = [&b"\x00\x05x-abc\x64"[..], &[b'a'; 100]].concat();
        for _ in 0..1_000_000 {
            if sent.is_err() {
                return;
            }
            sent = write.write_all(&frame(CONTINUATION, 0, 1, &header)).await;
        }
        panic!("all of the header block was taken");
    });
    if let Some((.., payload)) = raw::next_of(&mut read, GOAWAY).await {
        assert_ne!(payload[7], 0);
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn headers_over_the_limit_are_refused_and_the_connection_serves_on() {
    let fixture = Fixture::start().await;
    let mut stream = raw::connect(fixture.server.local_addr(), &fixture.authority.issue(ATTACKER, &[])).await;
    // 20,000 octets in one literal: over the 16,384 of a header list, in two frames of 16,384 at most.
    let value = vec![b'a'; 20_000];
    let block = [GET, b"\x00\x05x-abc\x7f\xa1\x9b\x01", &value].concat();
    let (first, second) = block.split_at(16_000);
    stream.write_all(&frame(HEADERS, END_STREAM, 1, first)).await.unwrap();
    stream.write_all(&frame(CONTINUATION, END_HEADERS, 1, second)).await.unwrap();
    let (_, _, id, payload) = raw::next_of(&mut stream, HEADERS).await.unwrap();
    assert_eq!(id, 1);
    // `:status` as a literal with the name of the static table's eighth entry.
    assert!(payload.windows(3).any(|octets| octets == b"431") || payload[0] == 0x48, "{payload:?}");
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 3, GET)).await.unwrap();
    loop {
        let (_, _, id, payload) = raw::next_of(&mut stream, HEADERS).await.unwrap();
        if id == 3 {
            assert_eq!(payload[0], 0x88, ":status 200");
            return;
        }
    }
}

#[tokio::test]
async fn one_stream_too_many_is_refused_and_the_others_go_on() {
    let fixture = Fixture::start().await;
    let mut stream = raw::connect(fixture.server.local_addr(), &fixture.authority.issue(ATTACKER, &[])).await;
    let wait = b"\x82\x87\x44\x05/wait\x41\x09localhost";
    for request in 0..=ServerLimits::default().streams_per_connection_max {
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * request + 1, wait)).await.unwrap();
    }
    let (_, _, id, payload) = raw::next_of(&mut stream, RST_STREAM).await.unwrap();
    assert_eq!((id, payload[3]), (513, 7), "REFUSED_STREAM, for the last one");
    let uri = format!("https://localhost:{}/", fixture.server.local_addr().port());
    fixture.authority.client(CLIENT).get::<String>(&uri).await.unwrap();
}

/// `GET https://localhost/long`, in HPACK.
const GET_LONG: &[u8] = b"\x82\x87\x44\x05/long\x41\x09localhost";
/// SETTINGS_INITIAL_WINDOW_SIZE of that many octets.
fn window(octets: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&[0, 4][..], &octets.to_be_bytes()].concat())
}

#[tokio::test]
async fn a_peer_that_lets_no_answer_out_loses_its_connection_although_it_answers_pings() {
    let log = SecurityLog::record();
    // Nothing; next to nothing; and as much as all streams of a connection have together by default. Of an answer of four octets
    // also all but the last.
    for (request, octets) in [(GET_LONG, 0), (GET_LONG, 1), (GET_LONG, 65_535), (GET, 0), (GET, 1), (GET, 3)] {
        let limits = ServerLimits {
            answer_timeout_seconds: 1,
            keepalive_interval_seconds: 1,
            keepalive_timeout_seconds: 60,
            ..ServerLimits::default()
        };
        let fixture = Fixture::start_with(limits).await;
        let attacker = fixture.authority.issue(ATTACKER, &[]);
        let stream = raw::connect(fixture.server.local_addr(), &attacker).await;
        let (mut read, mut write) = tokio::io::split(stream);
        write.write_all(&window(octets)).await.unwrap();
        for number in 0..50 {
            write.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, request)).await.unwrap();
        }
        // Until the server hangs up, which is what this waits for.
        while let Some((kind, flags, _, payload)) = raw::next(&mut read).await {
            if kind == PING && flags == 0 && write.write_all(&frame(PING, 1, 0, &payload)).await.is_err() {
                break;
            }
        }
        assert!(fixture.abused("answers_not_taken"), "{request:?} {octets}");
        let uri = format!("https://localhost:{}/long", fixture.server.local_addr().port());
        let whole = fixture.authority.client(CLIENT).get::<String>(&uri).await.unwrap().into_body().unwrap();
        assert_eq!(whole.len(), 100_000, "others are answered whole");
    }
    log.tells("HTTP/2 abused, connection closed", &[("reason", "answers_not_taken")]).await;
}
