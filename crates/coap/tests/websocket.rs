//! CoAP over WebSockets (RFC 8323 4): the framing, and the connection over it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use coap::{
    Code, ConnectionEvent, Observe, Release, Request, Response, StreamConfig, StreamConnection, StreamError,
    StreamLimits,
};
use proptest::prelude::*;

fn open() -> StreamConnection {
    let limits = StreamLimits { peer_observations_max: 1, ..StreamLimits::default() };
    let mut connection = StreamConnection::over_websocket(StreamConfig { limits, ..StreamConfig::default() });
    // A CSM without options.
    connection.receive(&[0x00, 0xe1]).unwrap();
    assert!(matches!(connection.poll_event(), Some(ConnectionEvent::PeerReady { .. })));
    connection.poll_transmit().unwrap();
    connection
}

fn carry(from: &mut StreamConnection, to: &mut StreamConnection) -> usize {
    let mut messages = 0;
    while let Some(message) = from.poll_transmit() {
        assert_eq!(message[0] >> 4, 0, "Len is 0");
        to.receive(&message).unwrap();
        messages += 1;
    }
    messages
}

#[test]
fn messages_have_no_length_and_each_goes_alone() {
    let mut connection = StreamConnection::over_websocket(StreamConfig::default());
    let first = connection.request(Request::get("x")).unwrap();
    connection.request(Request::post("y").payload(vec![7; 400])).unwrap();
    let csm = connection.poll_transmit().unwrap();
    // Max-Message-Size 66560.
    assert_eq!(csm, [0x00, 0xe1, 0x23, 0x01, 0x04, 0x00]);
    let get = connection.poll_transmit().unwrap();
    assert_eq!((&get[..2], &get[6..]), (&[0x04, 0x01][..], &[0xb1, b'x'][..]));
    let post = connection.poll_transmit().unwrap();
    assert_eq!((post[0], post.len()), (0x04, 2 + 4 + 2 + 1 + 400));
    assert_eq!((connection.poll_transmit(), connection.transmit_octets()), (None, 0));
    connection.receive(&[0x00, 0xe1]).unwrap();
    let answer = [&[0x04, 0x45][..], &get[2..6], &[0xff, b'!']].concat();
    connection.receive(&answer).unwrap();
    connection.poll_event().unwrap();
    let response = Response::new(Code::CONTENT).with_payload(*b"!");
    assert_eq!(connection.poll_event(), Some(ConnectionEvent::Response { exchange: first, response }));
}

#[test]
fn what_is_not_one_whole_message_of_length_0_ends_the_connection() {
    for (octets, error) in [
        (&[][..], StreamError::Malformed("shorter than its header")),
        (&[0x00], StreamError::Malformed("shorter than its header")),
        (&[0x02, 0x01, 7], StreamError::Malformed("shorter than its header")),
        (&[0x09, 0x01], StreamError::TokenLengthReserved(9)),
        (&[0x20, 0x01, 0xb1, b'x'], StreamError::Malformed("length in a WebSocket message")),
        (&[0xd0, 0x01, 0x01], StreamError::Malformed("length in a WebSocket message")),
        (&[0x00, 0x20], StreamError::ReservedCode { code: Code::from_octet(0x20) }),
    ] {
        let mut connection = open();
        assert_eq!(connection.receive(octets), Err(error), "{octets:02x?}");
        assert_eq!(connection.poll_transmit().unwrap()[..2], [0x00, 0xe5], "Abort");
        assert!(connection.is_closed());
    }
}

#[test]
fn a_message_over_our_size_ends_the_connection() {
    let mut connection = open();
    let (octets, octets_max) = (66_561, 66_560);
    let large = vec![0; octets];
    let error = StreamError::MessageTooLarge { octets: octets as u64, octets_max };
    assert_eq!(connection.receive(&large), Err(error));
}

#[test]
fn requests_go_both_ways_with_observation_pings_and_release() {
    let mut sides = [open(), open()];
    let [client, server] = &mut sides;
    let observed = client.request(Request::get("x").observe(Observe::Register)).unwrap();
    carry(client, server);
    let Some(ConnectionEvent::Request { request }) = server.poll_event() else { panic!("no request") };
    let content = |text: &str| Response::new(Code::CONTENT).with_observe().with_payload(text);
    server.respond(request.exchange, content("1")).unwrap();
    server.notify(request.exchange, content("2")).unwrap();
    let asked = server.request(Request::post("y").payload(vec![7; 1_000])).unwrap();
    server.ping().unwrap();
    assert_eq!(carry(server, client), 4);
    for text in ["1", "2"] {
        let response = content(text);
        assert_eq!(client.poll_event(), Some(ConnectionEvent::Response { exchange: observed, response }));
    }
    let Some(ConnectionEvent::Request { request }) = client.poll_event() else { panic!("no request") };
    assert_eq!(request.payload, [7; 1_000]);
    client.respond(request.exchange, Response::new(Code::CHANGED)).unwrap();
    client.release(&Release::default()).unwrap();
    carry(client, server);
    assert_eq!(server.poll_event(), Some(ConnectionEvent::Pong { custody: false }));
    let response = Response::new(Code::CHANGED);
    assert_eq!(server.poll_event(), Some(ConnectionEvent::Response { exchange: asked, response }));
    assert!(matches!(server.poll_event(), Some(ConnectionEvent::Released { .. })));
    assert!(sides.iter().all(StreamConnection::is_settled));
}

proptest! {
    #[test]
    fn messages_of_any_size_arrive_as_they_were_sent(
        payload in prop::collection::vec(any::<u8>(), 0..3_000),
        path in "[a-z]{0,40}(/[a-z]{1,40}){0,3}",
    ) {
        let mut sides = [open(), open()];
        let [client, server] = &mut sides;
        // A peer that takes more than the base.
        client.receive(&[0x00, 0xe1, 0x22, 0x20, 0x00]).unwrap();
        client.request(Request::post(&path).content_format(50).payload(&payload)).unwrap();
        prop_assert_eq!(carry(client, server), 1);
        let Some(ConnectionEvent::Request { request }) = server.poll_event() else { panic!("no request") };
        prop_assert_eq!(request.path.join("/"), path.trim_start_matches('/'));
        prop_assert_eq!(request.payload, payload);
    }

    #[test]
    fn arbitrary_messages_never_panic(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        let mut connection = open();
        for message in messages {
            let received = connection.receive(&message);
            let mut aborted = false;
            while let Some(event) = connection.poll_event() {
                aborted |= matches!(event, ConnectionEvent::Aborted { .. });
            }
            prop_assert_eq!(received.is_err() || aborted, connection.is_closed());
            if connection.is_closed() {
                break;
            }
        }
    }
}
