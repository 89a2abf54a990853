//! A peer's octets, in whatever pieces or WebSocket messages, never break a connection's state machine or make it hold more than its limits:
//! neither where it is asked, observations included, nor where it observes.
#![no_main]

use coap::{Code, ExchangeId, Observe, Request, Response, StreamConfig, StreamConnection, StreamEvent, StreamLimits};
use libfuzzer_sys::fuzz_target;

const OBSERVATIONS_MAX: usize = 3;

fuzz_target!(|input: (bool, Vec<&[u8]>)| {
    let (websocket, pieces) = input;
    let limits = StreamLimits {
        observations_max: OBSERVATIONS_MAX,
        peer_observations_max: OBSERVATIONS_MAX,
        ..StreamLimits::default()
    };
    let config = StreamConfig { limits, ..StreamConfig::default() };
    let mut connection =
        if websocket { StreamConnection::over_websocket(config) } else { StreamConnection::new(config) };
    for _ in 0..2 * OBSERVATIONS_MAX {
        let _ = connection.request(Request::get("x").observe(Observe::Register));
    }
    let mut observed: Vec<ExchangeId> = Vec::new();
    for piece in pieces {
        let received = connection.receive(piece);
        while let Some(event) = connection.poll_event() {
            match event {
                StreamEvent::Request { request } => {
                    let _ = connection.respond(request.exchange, Response::new(Code::CONTENT).with_observe());
                    if connection.is_observed(request.exchange) {
                        observed.push(request.exchange);
                    }
                }
                StreamEvent::ObservationEnded { exchange } => assert!(!connection.is_observed(exchange)),
                _ => {}
            }
            // One may have ended whose event still waits.
            observed.retain(|exchange| connection.is_observed(*exchange));
            assert!(observed.len() <= OBSERVATIONS_MAX && connection.observations() <= OBSERVATIONS_MAX);
        }
        for exchange in &observed {
            let _ = connection.notify(*exchange, Response::new(Code::CONTENT));
        }
        while connection.poll_transmit().is_some() {}
        if received.is_err() {
            assert!(connection.is_closed());
            return;
        }
    }
});
