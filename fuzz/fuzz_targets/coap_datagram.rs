//! A peer's datagrams, whatever is in them and whenever they come, never break an association's state machine, make it hold
//! more than its limits, or keep it busy: it always comes to rest.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::{
    Code, ConnectionEvent, DatagramConfig, DatagramConnection, DatagramLimits, ExchangeId, Observe, Request, Response,
};
use libfuzzer_sys::fuzz_target;

const OBSERVATIONS_MAX: usize = 3;
const BODY_MAX: u32 = 4_096;

fuzz_target!(|input: (u64, Vec<(u16, u8, &[u8])>)| {
    let (seed, datagrams) = input;
    let config = DatagramConfig {
        max_message_size_own: BODY_MAX,
        limits: DatagramLimits {
            observations_max: OBSERVATIONS_MAX,
            peer_observations_max: OBSERVATIONS_MAX,
            block_octets_max: 64,
            datagram_octets_max: 200,
            message_ids_max: 8,
            answers_octets_max: 1_000,
            ..DatagramLimits::default()
        },
        ..DatagramConfig::default()
    };
    let mut connection = DatagramConnection::new(Arc::new(config), seed);
    let mut now = Instant::now();
    let mut asked: Vec<ExchangeId> = Vec::new();
    for number in 0..3 {
        let observe = Request::get("x").observe(Observe::Register);
        asked.extend(connection.request(observe, now));
        asked.extend(connection.request(Request::post("x").payload(vec![number; 500]), now));
    }
    let mut observed: Vec<ExchangeId> = Vec::new();
    let mut last_sent: Option<Vec<u8>> = None;
    for (pause, how, octets) in datagrams {
        now += Duration::from_millis(pause.into());
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        // As it is, or as an answer to what was sent last: its Message ID and, every other time, its token.
        let mut datagram = octets.to_vec();
        if let (Some(sent), true) = (&last_sent, how & 1 == 1) {
            for place in 2..if how & 2 == 2 { 8 } else { 4 } {
                if let (Some(octet), Some(sent)) = (datagram.get_mut(place), sent.get(place)) {
                    *octet = *sent;
                }
            }
        }
        if how & 4 == 4 {
            connection.challenge_address([how; 8]);
            let _ = connection.question_address([how; 8], now);
        }
        connection.receive(&datagram, now).expect("no datagram ends it");
        while let Some(event) = connection.poll_event() {
            match event {
                ConnectionEvent::Request { request } => {
                    assert!(request.payload.len() <= BODY_MAX as usize);
                    let response =
                        Response::new(Code::CONTENT).with_observe().with_payload(vec![7; usize::from(how) * 8]);
                    if how & 8 == 0 {
                        let _ = connection.respond(request.exchange, response, now);
                    }
                    if connection.is_observed(request.exchange) {
                        observed.push(request.exchange);
                    }
                }
                ConnectionEvent::Response { exchange, response } => {
                    assert!(asked.contains(&exchange) && response.payload.len() <= BODY_MAX as usize);
                }
                ConnectionEvent::Failed { exchange, .. } => assert!(asked.contains(&exchange)),
                ConnectionEvent::ObservationEnded { exchange } => assert!(!connection.is_observed(exchange)),
                _ => {}
            }
            observed.retain(|exchange| connection.is_observed(*exchange));
            assert!(observed.len() <= OBSERVATIONS_MAX && connection.observations() <= OBSERVATIONS_MAX);
        }
        for exchange in &observed {
            let _ = connection.notify(*exchange, Response::new(Code::CONTENT).with_payload(vec![1; 300]), now);
        }
        while let Some(sent) = connection.poll_transmit() {
            assert!(sent.len() <= 300, "a datagram of {} octets", sent.len());
            last_sent = Some(sent);
        }
    }
    // Nobody answers any more: what is under way fails, what is remembered is forgotten.
    for _ in 0..10_000 {
        let Some(at) = connection.poll_timeout() else { break };
        assert!(at > now || connection.poll_timeout().is_some());
        now = now.max(at);
        connection.handle_timeout(now);
        assert!(connection.poll_timeout().is_none_or(|next| next > now), "still due");
        while connection.poll_transmit().is_some() {}
        while connection.poll_event().is_some() {}
    }
    assert_eq!(connection.poll_timeout(), None);
    assert_eq!(connection.requests_outstanding(), 0);
});
