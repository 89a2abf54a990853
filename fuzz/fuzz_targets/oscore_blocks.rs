//! What a peer with the keys says in blocks: nothing panics, nothing more is held than the limits allow, and every request
//! is answered or handed over.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use coap::oscore::{
    BlockBudget, ContextParameters, Durability, InnerBlocks, KeyId, MasterSecret, Message, OscoreConnection,
    SecurityContext,
};
use coap::{Code, Connection, ConnectionEvent, DatagramConfig, DatagramConnection, Response};
use libfuzzer_sys::fuzz_target;

static CONFIG: LazyLock<Arc<DatagramConfig>> = LazyLock::new(Arc::default);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

const BUDGET: usize = 4_096;

fuzz_target!(|octets: &[u8]| {
    let parameters = ContextParameters {
        master_secret: MasterSecret::new(&[0x5a; 32]).expect("32 octets"),
        master_salt: Vec::new(),
        sender_id: KeyId::new(&[1]).expect("one"),
        recipient_id: KeyId::new(&[2]).expect("one"),
        id_context: None,
    };
    let mut peer = SecurityContext::fresh(&parameters, Durability::Volatile).expect("all in range");
    let ours = SecurityContext::fresh(&parameters.reversed(), Durability::Volatile).expect("all in range");
    let budget = BlockBudget::new(BUDGET);
    let blocks = InnerBlocks { payload_octets_max: 1_024, ..InnerBlocks::for_datagrams(&CONFIG) }.within(&budget);
    let outer = DatagramConnection::new(Arc::clone(&CONFIG), 1).for_oscore();
    let mut side = OscoreConnection::new(outer, ours).with_inner_blocks(&Arc::new(blocks));
    let (mut rest, mut message_id) = (octets, 0_u16);
    // Messages, each after an octet of its length and one of its code.
    while let [length, code, more @ ..] = rest {
        let (body, more) = more.split_at(usize::from(*length).min(more.len()));
        rest = more;
        let Ok(request) = Message::from_body(Code::new(0, 1 + code % 7), body) else { continue };
        let Ok((protected, _)) = peer.protect_request(&request) else { continue };
        message_id = message_id.wrapping_add(1);
        let [high, low] = message_id.to_be_bytes();
        let datagram = [&[0x40, protected.code().octet(), high, low], protected.body()].concat();
        side.receive(&datagram, *START).expect("it is open");
        let mut handed_over = None;
        while let Some(event) = side.poll_event() {
            match event {
                ConnectionEvent::Request { request } => handed_over = Some(request),
                other => panic!("{other:?}"),
            }
        }
        if let Some(request) = handed_over {
            let answer = Response::new(Code::CHANGED).with_payload(vec![0; request.payload.len() * 2]);
            side.respond(request.exchange, &answer, *START).unwrap_or_else(|_| {
                side.respond(request.exchange, &Response::new(Code::CHANGED), *START).expect("it is small");
            });
        }
        assert!(side.poll_transmit().is_some(), "neither answered nor handed over");
        while side.poll_transmit().is_some() {}
        assert!(budget.used() <= BUDGET);
    }
    drop(side);
    assert_eq!(budget.used(), 0);
});
