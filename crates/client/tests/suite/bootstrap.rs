//! A client that starts from its USIM and the Configuration Function's address (TS 23.554 clause 8.1).

use std::sync::Arc;

use client::{Client, ClientConfig, ClientError, ConfigurationFunction, SharedKeySource, UeConfiguration};
use coap::{Code, ExchangeId, Observe, Request, Response, StreamConfig, StreamConnection, StreamEvent, StreamLimits};

use crate::server::{FQDN, ME, Peer, Server, patiently};

const RESOURCE: [&str; 4] = ["su-uc", "v1", "val-services", "msgin5g"];
const XML: u16 = 41;

/// A document that names this server.
fn document(server: &Server, ue_service_id: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><seal-UE-configuration \
         xmlns=\"urn:3gpp:ns:seal: MSGin5GUEConfig:1.0\"><on-network>\
         <MSGin5G-Server-address>coaps+tcp://{FQDN}/msgin5g</MSGin5G-Server-address>\
         <MSGin5G-UE-Service-id>{ue_service_id}</MSGin5G-UE-Service-id><Segment-size>1024</Segment-size>\
         <anyExt><Connect-address>{}</Connect-address></anyExt></on-network></seal-UE-configuration>",
        server.address
    )
}

fn content(text: &str) -> Response {
    Response::new(Code::CONTENT).with_content_format(XML).with_payload(text)
}

/// A Configuration Function that the test plays, and how to reach it.
struct Function {
    server: Server,
    client_side: ConfigurationFunction,
}

impl Function {
    async fn start() -> Self {
        let server = Server::start().await;
        let config = server.config();
        let mut client_side = ConfigurationFunction::new(server.address.to_string(), FQDN.parse().unwrap());
        client_side.limits = config.limits;
        Self { server, client_side }
    }

    fn keys(&self) -> Arc<SharedKeySource> {
        Arc::new(SharedKeySource::new(self.server.home.clone()))
    }

    async fn accept(&self) -> Peer {
        let mut peer = self.server.accept().await;
        let limits = StreamLimits { peer_observations_max: 4, ..StreamLimits::default() };
        peer.coap = StreamConnection::new(StreamConfig { limits, ..StreamConfig::default() });
        peer
    }

    /// The next question on a connection.
    async fn asked(peer: &mut Peer) -> Request {
        loop {
            match peer.event().await.expect("the client asks") {
                StreamEvent::Request { request } => {
                    assert_eq!((request.method, request.accept), (Code::GET, Some(XML)));
                    assert_eq!(request.path[..4], RESOURCE);
                    assert_eq!(request.path[4], "ue-configurations");
                    return request;
                }
                StreamEvent::PeerReady { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Answers the next question on a new connection.
    async fn answer(&self, response: Response) -> Request {
        let mut peer = self.accept().await;
        let request = Self::asked(&mut peer).await;
        peer.respond(request.exchange, response).await;
        // What was written arrives before the end.
        while peer.event().await.is_some() {}
        request
    }

    async fn observed(&self, response: Response) -> (Peer, ExchangeId) {
        let mut peer = self.accept().await;
        let request = Self::asked(&mut peer).await;
        assert_eq!(request.observe, Some(Observe::Register));
        peer.respond(request.exchange, response.with_observe()).await;
        assert!(peer.coap.is_observed(request.exchange));
        (peer, request.exchange)
    }
}

#[tokio::test]
async fn a_client_becomes_who_the_function_says_at_the_server_it_names() {
    let function = Function::start().await;
    let text = document(&function.server, ME);
    let asking = function.client_side.retrieve(function.keys());
    let (retrieved, request) = tokio::join!(asking, function.answer(content(&text).with_max_age(300)));
    let retrieved = retrieved.unwrap();
    assert_eq!((request.query.len(), request.observe), (0, None));
    assert_eq!((retrieved.document.as_slice(), retrieved.fresh_for.as_secs()), (text.as_bytes(), 300));
    let config = ClientConfig::from_ue_configuration(&retrieved.configuration);
    assert_eq!((config.ue_service_id.as_str(), config.segment_size, config.path.as_str()), (ME, Some(1024), "msgin5g"));
    let (client, _incoming) = Client::start(config, function.server.home.clone()).unwrap();
    let _peer = function.server.accept_registered().await;
    patiently(client.registered()).await.unwrap();
}

#[tokio::test]
async fn one_of_several_identities_can_be_asked_for() {
    let mut function = Function::start().await;
    function.client_side.ue_service_id = Some(ME.parse().unwrap());
    let text = document(&function.server, ME);
    let asking = function.client_side.retrieve(function.keys());
    let (retrieved, request) = tokio::join!(asking, function.answer(content(&text)));
    assert!(retrieved.is_ok());
    assert_eq!(request.query, [format!("ue-service-id={ME}")]);
}

#[tokio::test]
async fn a_refusal_or_a_document_that_cannot_be_used_is_told() {
    let function = Function::start().await;
    let problem = r#"{"status":404,"cause":"NOT_ASSOCIATED"}"#;
    for (response, is_final, words) in [
        (Response::new(Code::NOT_FOUND).with_content_format(50).with_payload(problem), true, "4.04: NOT_ASSOCIATED"),
        (Response::new(Code::SERVICE_UNAVAILABLE), false, "5.03"),
        (content("<html></html>"), true, "no UE configuration document"),
        (content(&"<a>".repeat(20_000)), true, "at most 16384"),
        (Response::new(Code::CONTENT).with_content_format(50).with_payload("{}"), false, "no XML"),
    ] {
        let asking = function.client_side.retrieve(function.keys());
        let (refused, _) = tokio::join!(asking, function.answer(response));
        let error = refused.unwrap_err();
        assert!(error.is_final() == is_final && error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn what_was_said_before_is_gone_by_while_fresh_and_when_the_function_is_away() {
    let function = Function::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("ue-configuration.json");
    let text = document(&function.server, ME);
    let asking = function.client_side.obtain(function.keys(), &kept);
    let (obtained, _) = tokio::join!(asking, function.answer(content(&text).with_max_age(3600)));
    let configuration = obtained.unwrap();
    // Fresh: nobody is asked, and nobody would answer.
    assert_eq!(function.client_side.obtain(function.keys(), &kept).await.unwrap(), configuration);
    // Not fresh any more: asked again.
    let asking = function.client_side.obtain(function.keys(), &kept);
    std::fs::remove_file(&kept).unwrap();
    let (obtained, _) = tokio::join!(asking, function.answer(content(&text).with_max_age(0)));
    assert_eq!(obtained.unwrap(), configuration);
    let other = document(&function.server, "valve-2@lab.example");
    let asking = function.client_side.obtain(function.keys(), &kept);
    let (obtained, _) = tokio::join!(asking, function.answer(content(&other).with_max_age(0)));
    assert_eq!(obtained.unwrap().ue_service_id.as_str(), "valve-2@lab.example");
    // A refusal counts, whatever was said before.
    let asking = function.client_side.obtain(function.keys(), &kept);
    let (obtained, _) = tokio::join!(asking, function.answer(Response::new(Code::NOT_FOUND)));
    assert!(matches!(obtained, Err(ClientError::ConfigurationRefused { .. })));
    // Away: what it said last holds on.
    let away = function.client_side.clone();
    let keys = function.keys();
    drop(function);
    let obtained = away.obtain(keys.clone(), &kept).await.unwrap();
    assert_eq!(obtained.ue_service_id.as_str(), "valve-2@lab.example");
    std::fs::remove_file(&kept).unwrap();
    assert!(matches!(away.obtain(keys, &kept).await, Err(ClientError::Unreachable { .. })));
}

#[tokio::test]
async fn changes_are_followed_across_lost_connections_and_kept() {
    let function = Function::start().await;
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("ue-configuration.json");
    let parse = |text: &str| UeConfiguration::parse(text.as_bytes()).unwrap();
    let (first, second, third) =
        (document(&function.server, "a@x"), document(&function.server, "b@x"), document(&function.server, "c@x"));
    let mut followed = function.client_side.follow(function.keys(), Some(kept.clone())).unwrap();
    let (mut peer, exchange) = function.observed(content(&first)).await;
    // A notification.
    peer.coap.notify(exchange, content(&second)).unwrap();
    let ended = async { while peer.event().await.is_some() {} };
    let known = parse(&first);
    let changed = tokio::select! {
        changed = patiently(followed.changed_from(&known)) => changed,
        () = ended => panic!("the client left"),
    };
    assert_eq!(changed, parse(&second));
    assert_eq!(function.client_side.kept(&kept), Some(parse(&second)));
    // The connection is lost, and something changes meanwhile.
    drop(peer);
    let (mut peer, exchange) = function.observed(content(&third)).await;
    assert_eq!(patiently(followed.changed_from(&parse(&second))).await, parse(&third));
    // The association goes: the client asks again, until there is one.
    peer.coap.notify(exchange, Response::new(Code::NOT_FOUND)).unwrap();
    while peer.event().await.is_some() {}
    let (_peer, _) = function.observed(content(&first)).await;
    assert_eq!(patiently(followed.changed_from(&parse(&third))).await, parse(&first));
    assert_eq!(function.server.home.authentications(), 1, "one authentication serves all connections");
}

#[tokio::test]
async fn a_document_that_cannot_be_used_changes_nothing() {
    let function = Function::start().await;
    let good = document(&function.server, "a@x");
    let known = UeConfiguration::parse(good.as_bytes()).unwrap();
    let mut followed = function.client_side.follow(function.keys(), None).unwrap();
    let (mut peer, exchange) = function.observed(content(&good)).await;
    peer.coap.notify(exchange, content("<!DOCTYPE x><x/>")).unwrap();
    while peer.event().await.is_some() {}
    let (mut peer, exchange) = function.observed(content(&good)).await;
    let next = document(&function.server, "b@x");
    peer.coap.notify(exchange, content(&next)).unwrap();
    let ended = async { while peer.event().await.is_some() {} };
    let changed = tokio::select! {
        changed = patiently(followed.changed_from(&known)) => changed,
        () = ended => panic!("the client left"),
    };
    assert_eq!(changed.ue_service_id.as_str(), "b@x");
}

#[tokio::test]
async fn a_function_that_refuses_the_keys_gets_others_once() {
    let function = Function::start().await;
    let keys = function.keys();
    let text = document(&function.server, ME);
    let asking = function.client_side.retrieve(keys.clone());
    let (retrieved, _) = tokio::join!(asking, function.answer(content(&text)));
    retrieved.unwrap();
    function.server.home.forget();
    let asking = function.client_side.retrieve(keys);
    let serving = async {
        assert!(function.server.try_accept().await.is_none());
        function.answer(content(&text)).await
    };
    let (retrieved, _) = tokio::join!(asking, serving);
    assert!(retrieved.is_ok());
    assert_eq!(function.server.home.authentications(), 2);
}
