//! Where requests go besides straight on: redirections, pauses, an SCP, connections that end; and what they say of time.

#![allow(clippy::unwrap_used)]

mod raw;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{any, get};
use raw::{END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, frame};
use sbi::testing::TestAuthority;
use sbi::{
    ClientLimits, Json, ProblemDetails, SbiClient, SbiClientConfig, SbiError, SbiServer, SbiServerConfig, ServerLimits,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use transport::profile::mutual_tls_server;

const SERVER: &str = "11111111-1111-4111-8111-111111111111";
const CLIENT: &str = "22222222-2222-4222-8222-222222222222";

async fn start(authority: &TestAuthority, router: Router) -> (SbiServer, String) {
    let config = SbiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: authority.issue(SERVER, &[]),
        limits: ServerLimits::default(),
    };
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let root = format!("https://localhost:{}", server.local_addr().port());
    (server, root)
}

fn client(authority: &TestAuthority, limits: ClientLimits) -> SbiClient {
    SbiClient::new(SbiClientConfig { tls: authority.issue(CLIENT, &[]), limits }).unwrap()
}

/// Says method, path and body.
async fn echo(request: Request) -> impl IntoResponse {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1_000).await.unwrap();
    Json(json!([parts.method.as_str(), parts.uri.path(), String::from_utf8_lossy(&body)]))
}

fn redirect(status: StatusCode, to: &str) -> Router {
    let answer = (status, [(header::LOCATION, to.to_owned())]);
    Router::new().route("/here", any(async move || answer.clone())).route("/there", any(echo))
}

#[tokio::test]
async fn a_redirection_to_the_same_authority_is_followed_with_method_and_body() {
    for status in [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT] {
        let authority = TestAuthority::new();
        let (_server, root) = start(&authority, redirect(status, "/there")).await;
        let client = client(&authority, ClientLimits::default());
        let answer = client.put::<_, Value>(&format!("{root}/here"), &json!({"a": 1})).await.unwrap();
        assert_eq!(answer.into_body().unwrap(), json!(["PUT", "/there", "{\"a\":1}"]));
    }
}

#[tokio::test]
async fn a_redirection_elsewhere_is_followed_only_where_that_is_allowed() {
    let authority = TestAuthority::new();
    let (_other, elsewhere) = start(&authority, Router::new().route("/there", any(echo))).await;
    let away = redirect(StatusCode::TEMPORARY_REDIRECT, &format!("{elsewhere}/there"));
    let (_server, root) = start(&authority, away).await;
    let here = format!("{root}/here");
    let refused = client(&authority, ClientLimits::default()).get::<Value>(&here).await;
    assert!(matches!(refused, Err(SbiError::Redirected(_))), "{refused:?}");
    let allowed = vec![elsewhere.strip_prefix("https://").unwrap().to_owned()];
    let limits = ClientLimits { redirect_authorities: allowed, ..ClientLimits::default() };
    let answer = client(&authority, limits).get::<Value>(&here).await.unwrap();
    assert_eq!(answer.into_body().unwrap(), json!(["GET", "/there", ""]));
}

#[tokio::test]
async fn a_callback_is_sent_on_below_its_own_uri_only_whatever_authorities_are_allowed() {
    let authority = TestAuthority::new();
    let (_other, elsewhere) = start(&authority, Router::new().route("/{*any}", any(echo))).await;
    for (to, sent_on) in [
        ("/here/below".to_owned(), true),
        ("/there".to_owned(), false),
        ("/here/../there".to_owned(), false),
        ("/here/%2e%2e/there".to_owned(), false),
        (format!("{elsewhere}/here/below"), false),
    ] {
        let router = redirect(StatusCode::PERMANENT_REDIRECT, &to).route("/here/{*below}", any(echo));
        let (_server, root) = start(&authority, router).await;
        let allowed = vec![elsewhere.strip_prefix("https://").unwrap().to_owned()];
        let limits = ClientLimits { redirect_authorities: allowed, ..ClientLimits::default() };
        let client = client(&authority, limits).for_callbacks();
        let answer = client.post::<_, Value>(&format!("{root}/here"), &json!({"a": 1})).await;
        if sent_on {
            let body = answer.unwrap().into_body().unwrap();
            assert_eq!(body, json!(["POST", "/here/below", "{\"a\":1}"]));
        } else {
            assert!(matches!(answer, Err(SbiError::Redirected(_))), "{to}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_redirection_to_plain_http_is_refused() {
    let authority = TestAuthority::new();
    let (_server, root) = start(&authority, redirect(StatusCode::TEMPORARY_REDIRECT, "http://localhost/there")).await;
    let refused = client(&authority, ClientLimits::default()).get::<Value>(&format!("{root}/here")).await;
    assert!(matches!(refused, Err(SbiError::Redirected(_))), "{refused:?}");
}

#[tokio::test]
async fn a_redirection_in_circles_ends_after_three() {
    let authority = TestAuthority::new();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let circle = async move || {
        count.fetch_add(1, Ordering::Relaxed);
        (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/here")])
    };
    let (_server, root) = start(&authority, Router::new().route("/here", get(circle))).await;
    let refused = client(&authority, ClientLimits::default()).get::<Value>(&format!("{root}/here")).await;
    assert!(matches!(refused, Err(SbiError::Redirected(_))), "{refused:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    let limits = ClientLimits { redirects_max: 0, ..ClientLimits::default() };
    let plain = client(&authority, limits).get::<Value>(&format!("{root}/here")).await.unwrap_err();
    assert_eq!(plain.problem().unwrap().status, Some(307));
}

#[tokio::test]
async fn a_pause_until_a_date_is_one_of_so_many_seconds() {
    let authority = TestAuthority::new();
    let busy = Router::new().route(
        "/busy",
        get(async || {
            let headers = [("retry-after", "Sun, 06 Nov 1994 09:49:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
            (http::StatusCode::SERVICE_UNAVAILABLE, headers)
        }),
    );
    let (_server, root) = start(&authority, busy).await;
    let client = client(&authority, ClientLimits { pause_seconds_max: 10_000, ..ClientLimits::default() });
    let refused = client.get::<Value>(&format!("{root}/busy")).await.unwrap_err();
    assert_eq!(refused.problem().unwrap().retry_after_seconds, Some(3_600));
    let paused = client.get::<Value>(&format!("{root}/busy")).await.unwrap_err();
    assert!(matches!(paused, SbiError::Paused { seconds: 3_000..=3_600 }), "{paused:?}");
}

#[tokio::test]
async fn a_peer_that_asks_for_a_pause_gets_one_and_others_do_not() {
    let authority = TestAuthority::new();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let busy = Router::new().route(
        "/busy",
        get(async move || {
            count.fetch_add(1, Ordering::Relaxed);
            ProblemDetails::overloaded(3_600)
        }),
    );
    let (_server, root) = start(&authority, busy.route("/here", any(echo))).await;
    let (_other, elsewhere) = start(&authority, Router::new().route("/here", any(echo))).await;
    let client = client(&authority, ClientLimits { pause_seconds_max: 1_000, ..ClientLimits::default() });
    let refused = client.get::<Value>(&format!("{root}/busy")).await.unwrap_err();
    assert_eq!(refused.problem().unwrap().retry_after_seconds, Some(3_600));
    for path in ["busy", "here"] {
        let paused = client.get::<Value>(&format!("{root}/{path}")).await.unwrap_err();
        assert!(matches!(paused, SbiError::Paused { seconds: 900..=1_000 }), "{paused:?}");
        assert!(paused.is_transient());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "no request went out meanwhile");
    client.get::<Value>(&format!("{elsewhere}/here")).await.unwrap();
}

#[tokio::test]
async fn through_an_scp_requests_name_their_peer() {
    let authority = TestAuthority::new();
    let scp = Router::new().route(
        "/prefix/naanf/v1",
        get(async |headers: HeaderMap| {
            Json(headers.get("3gpp-sbi-target-apiroot").map(|root| root.to_str().unwrap().to_owned()))
        }),
    );
    let (_scp, root) = start(&authority, scp).await;
    let limits = ClientLimits { scp: Some(format!("{root}/prefix/")), ..ClientLimits::default() };
    let answer = client(&authority, limits).get::<String>("https://aanf.example.com:9443/naanf/v1").await.unwrap();
    assert_eq!(answer.into_body().unwrap(), "https://aanf.example.com:9443");
    let limits = ClientLimits { scp: Some("http://scp.example.com".to_owned()), ..ClientLimits::default() };
    let tls = authority.issue(CLIENT, &[]);
    assert!(matches!(SbiClient::new(SbiClientConfig { tls, limits }), Err(SbiError::InvalidUri)));
}

/// Answers HTTP/2 by hand: the first request, on its own connection, with `refusal`; every later one with 204.
async fn refuses_once(authority: &TestAuthority, refusal: Vec<u8>, close: bool) -> (String, Arc<AtomicU32>) {
    let context = mutual_tls_server(&authority.issue(SERVER, &[])).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let requests = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let mut stream = raw::accept(&context, listener.accept().await.unwrap().0).await;
            let (count, refusal) = (Arc::clone(&count), refusal.clone());
            tokio::spawn(async move {
                while let Some((_, _, id, _)) = raw::next_of(&mut stream, HEADERS).await {
                    let first = count.fetch_add(1, Ordering::Relaxed) == 0;
                    // `:status: 204` of the static table.
                    let answer =
                        if first { refusal.clone() } else { frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x89]) };
                    stream.write_all(&answer).await.unwrap();
                    if first && close {
                        // Read on until the client leaves: TCP would take back what it has not read yet.
                        let _ = stream.shutdown().await;
                    }
                }
            });
        }
    });
    (root, requests)
}

#[tokio::test]
async fn a_request_that_was_provably_not_looked_at_is_sent_once_more() {
    // GOAWAY, last stream 0, NO_ERROR; and RST_STREAM of stream 1, REFUSED_STREAM.
    for (refusal, close) in [(frame(GOAWAY, 0, 0, &[0; 8]), true), (frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]), false)] {
        let authority = TestAuthority::new();
        let (root, requests) = refuses_once(&authority, refusal, close).await;
        let client = client(&authority, ClientLimits::default());
        let answer = client.post::<_, Value>(&format!("{root}/once"), &json!({})).await.unwrap();
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(requests.load(Ordering::Relaxed), 2);
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_looked_at_is_not_sent_again() {
    // GOAWAY whose last stream is the request's, then the connection ends; RST_STREAM, INTERNAL_ERROR; just an end.
    let gone = frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    for (refusal, close) in [(gone, true), (frame(RST_STREAM, 0, 1, &[0, 0, 0, 2]), false), (Vec::new(), true)] {
        let authority = TestAuthority::new();
        let (root, requests) = refuses_once(&authority, refusal, close).await;
        let client = client(&authority, ClientLimits::default());
        let failed = client.post::<_, Value>(&format!("{root}/once"), &json!({})).await;
        assert!(matches!(failed, Err(SbiError::Unreachable(_))), "{failed:?}");
        assert_eq!(requests.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_request_says_how_long_it_is_waited_for() {
    let authority = TestAuthority::new();
    let told = Router::new().route(
        "/here",
        get(async |headers: HeaderMap| {
            let told = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            Json([told("3gpp-sbi-max-rsp-time"), told("3gpp-sbi-sender-timestamp")])
        }),
    );
    let (_server, root) = start(&authority, told).await;
    let client = client(&authority, ClientLimits { request_timeout_milliseconds: 60_000, ..ClientLimits::default() });
    let [patience, sent] = client.get::<[String; 2]>(&format!("{root}/here")).await.unwrap().into_body().unwrap();
    assert!((1..=60_000).contains(&patience.parse::<u32>().unwrap()), "{patience}");
    assert!(sent.ends_with(" GMT") && sent.len() == 33, "{sent}");
}

/// Asks `path` with headers of one's own; gives the status.
async fn ask_with(authority: &TestAuthority, server: &SbiServer, path: &str, headers: &[(&str, &str)]) -> u8 {
    let mut stream = raw::connect(server.local_addr(), &authority.issue(CLIENT, &[])).await;
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut block = [b"\x82\x87\x44".to_vec(), text(path), b"\x41".to_vec(), text("localhost")].concat();
    for (name, value) in headers {
        block.extend([vec![0], text(name), text(value)].concat());
    }
    stream.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)).await.unwrap();
    let (_, _, _, payload) = raw::next_of(&mut stream, HEADERS).await.unwrap();
    *payload.first().unwrap()
}

/// `:status: 200` of the static table; another status that is not in there is a literal with its name.
const OK: u8 = 0x88;
const LITERAL_STATUS: u8 = 0x48;

#[tokio::test]
async fn the_sender_s_patience_ends_a_request_and_one_that_is_late_already_is_not_begun() {
    let authority = TestAuthority::new();
    let begun = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&begun);
    let router = Router::new().route("/ok", any(echo)).route(
        "/wait",
        get(async move || {
            count.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        }),
    );
    let (server, _) = start(&authority, router).await;
    let patience = ("3gpp-sbi-max-rsp-time", "100");
    assert_eq!(ask_with(&authority, &server, "/ok", &[patience]).await, OK);
    // A server's own limit would be ten seconds.
    assert_eq!(ask_with(&authority, &server, "/wait", &[patience]).await, LITERAL_STATUS);
    assert_eq!(begun.load(Ordering::Relaxed), 1);
    let over = ("3gpp-sbi-max-rsp-time", "0");
    assert_eq!(ask_with(&authority, &server, "/wait", &[over]).await, LITERAL_STATUS);
    assert_eq!(begun.load(Ordering::Relaxed), 1, "nobody waits for it");
}

#[tokio::test]
async fn what_a_request_is_about_goes_on_inside_the_domain_only() {
    let authority = TestAuthority::new();
    let seen = Router::new().route(
        "/seen",
        get(async |headers: HeaderMap| {
            Json(headers.get("3gpp-sbi-correlation-info").map(|value| value.to_str().unwrap().to_owned()))
        }),
    );
    let (_inner, inner) = start(&authority, seen).await;
    let outside = client(&authority, ClientLimits::default());
    let inside = outside.clone().inside_domain();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let notes = Arc::clone(&told);
    let router = Router::new().route(
        "/outer",
        get(async move || {
            for client in [&inside, &outside] {
                let seen = client.get::<Option<String>>(&format!("{inner}/seen")).await.unwrap().into_body().unwrap();
                notes.lock().unwrap().push(seen);
            }
        }),
    );
    let (outer, _) = start(&authority, router).await;
    let about = ("3gpp-sbi-correlation-info", "imsi-001010000000001");
    assert_eq!(ask_with(&authority, &outer, "/outer", &[about]).await, OK);
    assert_eq!(*told.lock().unwrap(), [Some("imsi-001010000000001".to_owned()), None]);
}

#[tokio::test]
async fn when_streams_are_all_in_use_another_connection_is_opened() {
    let authority = TestAuthority::new();
    let (entered, release) = (Arc::new(tokio::sync::Semaphore::new(0)), CancellationToken::new());
    let (enters, waits) = (Arc::clone(&entered), release.clone());
    let router = Router::new().route(
        "/wait",
        get(async move |axum::extract::ConnectInfo(from): axum::extract::ConnectInfo<std::net::SocketAddr>| {
            enters.add_permits(1);
            waits.cancelled().await;
            Json(from.port())
        }),
    );
    let config = SbiServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: authority.issue(SERVER, &[]),
        limits: ServerLimits { streams_per_connection_max: 2, ..ServerLimits::default() },
    };
    let server = SbiServer::start(config, router, CancellationToken::new()).await.unwrap();
    let uri = format!("https://localhost:{}/wait", server.local_addr().port());
    let client = client(&authority, ClientLimits { request_timeout_milliseconds: 60_000, ..ClientLimits::default() });
    let mut asked = tokio::task::JoinSet::new();
    for _ in 1..=6 {
        let (client, uri) = (client.clone(), uri.clone());
        asked.spawn(async move { client.get::<u16>(&uri).await.unwrap().into_body().unwrap() });
        // One after the other: each finds the earlier ones in their handlers.
        entered.acquire().await.unwrap().forget();
    }
    release.cancel();
    let mut ports = asked.join_all().await;
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 3);
}
