//! Sessions over WebSocket: what a session does does not depend on what carries it, but how its end is told, and what a
//! peer can do below CoAP, does.

use transport::websocket::{ClientOpening, WebSocket};
use transport::{OpeningLimits, WebSocketCarrier};

use super::*;

const OPENING: OpeningLimits = OpeningLimits { request_octets_max: 4096, request_timeout: PATIENCE };

/// RFC 6455 7.4.1, as a server sends it.
const CLOSE_1000: [u8; 4] = [0x88, 0x02, 0x03, 0xe8];
const CLOSE_1003: [u8; 4] = [0x88, 0x02, 0x03, 0xeb];

/// A UE whose WebSocket is open: its end of it, and the session at the other.
async fn opened(net: &Net) -> (DuplexStream, JoinHandle<Ended>) {
    opened_by(net, peer(Some(&supi_of("ue@x")), None)).await
}

async fn opened_by(net: &Net, peer: ProvenPeer) -> (DuplexStream, JoinHandle<Ended>) {
    let (mut near, far) = duplex(STREAM_OCTETS);
    let core = Arc::clone(&net.core);
    let session = tokio::spawn(async move {
        let config = session::stream_config(&core.limits);
        let carrier = WebSocketCarrier::accept(far, &OPENING, config).await.unwrap();
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        listener::serve(&core, Box::new(carrier), peer, source, "msgin5g".into()).await
    });
    let (mut opening, request) = ClientOpening::new("server.example").unwrap();
    near.write_all(&request).await.unwrap();
    loop {
        let octet = near.read_u8().await.unwrap();
        if let Some(rest) = opening.receive(&[octet]).unwrap() {
            assert!(rest.is_empty());
            return (near, session);
        }
    }
}

async fn last_words(mut near: DuplexStream, session: JoinHandle<Ended>) -> (Vec<u8>, Ended) {
    let mut octets = Vec::new();
    timeout(PATIENCE, near.read_to_end(&mut octets)).await.unwrap().unwrap();
    (octets, timeout(PATIENCE, session).await.unwrap().unwrap())
}

/// The UE's end, which asks to be registered.
fn registering() -> (WebSocket, StreamConnection) {
    let mut machine = StreamConnection::over_websocket(StreamConfig::default());
    let id: UeServiceId = "ue@x".parse().unwrap();
    let body = UeMessage::Registration(Registration { ue_service_id: id, client_profile: None }).encode();
    machine.request(coap::Request::post("msgin5g").content_format(50).payload(body)).unwrap();
    (WebSocket::client(70_000), machine)
}

#[tokio::test]
async fn an_older_a_kid_whose_websocket_opens_after_a_newer_registered_comes_to_no_registration() {
    let keys = Arc::new(Keys { answer: Mutex::new(Some(None)), ..Keys::default() });
    let net = Net::of(Setup { keys: Some(keys), ..Setup::default() }).await;
    net.associate(&supi_of("ue@x"), "ue@x");
    net.associate(&supi_of("ue@x"), "ue-too@x");
    let older = peer(Some(&supi_of("ue@x")), None);
    let a_kid = "0.newer@5gc.mnc001.mcc001.3gppnetwork.org".parse().unwrap();
    let mut newer = net.connect_as(ProvenPeer { a_kid, ..older.clone() }, STREAM_OCTETS);
    assert_eq!(newer.register("ue-too@x").await.code, Code::CREATED);
    let (mut near, session) = opened_by(&net, older).await;
    let (mut socket, mut machine) = registering();
    while let Some(message) = machine.poll_transmit() {
        socket.send(message);
    }
    near.write_all(&socket.poll_transmit().unwrap()).await.unwrap();
    assert_eq!(last_words(near, session).await.1, Ended::KeyWithdrawn);
    assert!(net.core.registry.find(&address("ue@x")).is_none(), "it did not register");
}

#[tokio::test]
async fn a_ue_registers_over_websocket_and_is_released_and_closed_when_the_server_stops() {
    let net = Net::new().await;
    net.associate(&supi_of("ue@x"), "ue@x");
    let (mut near, session) = opened(&net).await;
    let (mut socket, mut machine) = registering();
    let code = 'registered: loop {
        while let Some(message) = machine.poll_transmit() {
            socket.send(message);
        }
        near.write_all(&socket.poll_transmit().unwrap_or_default()).await.unwrap();
        let mut octets = [0; 1024];
        let count = timeout(PATIENCE, near.read(&mut octets)).await.unwrap().unwrap();
        let mut octets = &octets[..count];
        while let Some(message) = socket.receive(&mut octets).unwrap() {
            machine.receive(&message).unwrap();
        }
        while let Some(event) = machine.poll_event() {
            if let StreamEvent::Response { response, .. } = event {
                break 'registered response.code;
            }
        }
    };
    assert_eq!(code, Code::CREATED);
    net.core.sessions.stop_all();
    let (octets, ended) = last_words(near, session).await;
    assert_eq!(ended, Ended::Stopped);
    // 7.04 Release in a binary message, then Close.
    assert_eq!(octets, [&[0x82, 0x02, 0x00, 0xe4][..], &CLOSE_1000].concat());
}

#[tokio::test]
async fn a_text_frame_is_malformed_and_a_close_is_answered() {
    let net = Net::new().await;
    let (mut near, session) = opened(&net).await;
    near.write_all(b"\x81\x80\0\0\0\0").await.unwrap();
    let (octets, ended) = last_words(near, session).await;
    assert_eq!(ended, Ended::Malformed);
    assert!(octets.ends_with(&CLOSE_1003), "{octets:x?}");

    let (mut near, session) = opened(&net).await;
    near.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
    let (octets, ended) = last_words(near, session).await;
    assert_eq!(ended, Ended::ByPeer);
    assert!(octets.ends_with(&CLOSE_1000), "{octets:x?}");
}

#[tokio::test]
async fn a_peer_that_pings_below_coap_and_reads_no_pong_is_closed() {
    let limits = Limits { write_timeout_seconds: 1, outbound_octets_max: 4096, ..Limits::default() };
    let net = Net::with(limits).await;
    let (near, session) = opened(&net).await;
    let (reader, mut writer) = tokio::io::split(near);
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat();
    let flooding = tokio::spawn(async move { while writer.write_all(&ping).await.is_ok() {} });
    assert_eq!(timeout(PATIENCE, session).await.unwrap().unwrap(), Ended::NotReading);
    timeout(PATIENCE, flooding).await.unwrap().unwrap();
    drop(reader);
}
