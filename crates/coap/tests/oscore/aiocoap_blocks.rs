//! Bodies in blocks inside the protection, with aiocoap at the other end of both directions.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Instant;

use coap::oscore::{InnerBlocks, OscoreConnection};
use coap::{Connection, ConnectionEvent, DatagramConfig, DatagramConnection, Request, Response};

use super::aiocoap::{LOOK, Peer, SILENCE, directory, ended_well, python, script, started};
use super::*;

fn connection(context: SecurityContext) -> OscoreConnection<DatagramConnection> {
    let config = Arc::new(DatagramConfig::default());
    let blocks = Arc::new(InnerBlocks::for_datagrams(&config));
    OscoreConnection::new(DatagramConnection::new(config, 77).for_oscore(), context).with_inner_blocks(&blocks)
}

/// Sends what is to be sent; what comes next, if anything comes soon.
fn step(socket: &UdpSocket, side: &mut dyn Connection) -> Option<ConnectionEvent> {
    let mut buffer = [0; 2_048];
    while let Some(datagram) = side.poll_transmit() {
        assert!(datagram.len() <= 1_152, "larger than a datagram should be: {}", datagram.len());
        socket.send(&datagram).unwrap();
    }
    match socket.recv(&mut buffer) {
        Ok(octets) => side.receive(&buffer[..octets], Instant::now()).unwrap(),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        // It has ended.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) => panic!("{error}"),
    }
    if side.poll_timeout().is_some_and(|due| due <= Instant::now()) {
        side.handle_timeout(Instant::now());
    }
    side.poll_event()
}

#[test]
fn aiocoap_sends_and_fetches_large_bodies_in_blocks_that_are_protected_each() {
    let (_, server) = pair();
    let mut side = connection(server);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    let directory = directory(&parameters());
    let base = format!("coap://{}", socket.local_addr().unwrap());
    let mut client = started(python().arg(script("client.py")).arg("blocks").arg(base).arg(directory.path()));
    // The first datagram says where the client is.
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let (_, peer) = socket.peek_from(&mut [0; 2_048]).unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket.connect(peer).unwrap();
    let mut taken = Vec::new();
    while client.try_wait().unwrap().is_none() {
        let Some(ConnectionEvent::Request { request }) = step(&socket, &mut side) else { continue };
        taken.push(request.payload.len());
        let answer = Response::new(Code::CHANGED).with_payload(request.payload);
        side.respond(request.exchange, &answer, Instant::now()).unwrap();
    }
    ended_well(client);
    assert_eq!(taken, [3_000, 6_000], "the one that is too large was never handed over");
}

#[test]
fn aiocoap_takes_and_gives_large_bodies_in_blocks_that_are_protected_each() {
    let directory = directory(&parameters().reversed());
    let peer = Peer::start(directory.path());
    let (client, _) = pair();
    let mut side = connection(client);
    let body: Vec<u8> = (0..250).cycle().take(5_000).collect();
    let hello = Request::post("hello").content_format(50).payload(&body[..]);
    let upper: Vec<u8> = body.iter().map(u8::to_ascii_uppercase).collect();
    for (request, expected) in [
        (hello, upper),
        (Request::post("large").payload(&body[..]), body.iter().rev().copied().collect()),
        (Request::get("large"), (0..250).cycle().take(3_000).collect()),
    ] {
        let exchange = side.request(&request, Instant::now()).unwrap();
        let asked = Instant::now();
        let response = loop {
            assert!(asked.elapsed() < SILENCE, "no answer");
            match step(&peer.socket, &mut side) {
                Some(ConnectionEvent::Response { exchange: answered, response }) if answered == exchange => {
                    break response;
                }
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        };
        assert!(response.code.is_success(), "{response:?}");
        assert_eq!(response.payload, expected);
    }
}
