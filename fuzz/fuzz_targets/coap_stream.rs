//! A peer's octets, in whatever pieces, never break a connection's state machine or make it hold more than its limits.
#![no_main]

use coap::{Code, Response, StreamConfig, StreamConnection, StreamEvent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|pieces: Vec<&[u8]>| {
    let mut connection = StreamConnection::new(StreamConfig::default());
    for piece in pieces {
        let received = connection.receive(piece);
        while let Some(event) = connection.poll_event() {
            if let StreamEvent::Request { request } = event {
                let _ = connection.respond(request.exchange, Response::new(Code::CHANGED));
            }
        }
        let _ = connection.poll_transmit();
        if received.is_err() {
            assert!(connection.is_closed());
            return;
        }
    }
});
