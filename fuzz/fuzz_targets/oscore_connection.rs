//! Datagrams of anybody, to a listener's reader and to a connection under a context: nothing of them reaches the driver as
//! a request or a response, and no answer to a stranger names another message.
#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use coap::oscore::{
    AkmaRequest, ContextParameters, Durability, KeyId, MasterSecret, Message, OscoreConnection, Provenance,
    SecurityContext,
};
use coap::{Code, Connection, ConnectionEvent, DatagramConfig, DatagramConnection, Request, Unbound};
use libfuzzer_sys::fuzz_target;

static CONFIG: LazyLock<Arc<DatagramConfig>> = LazyLock::new(Arc::default);
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn connection() -> OscoreConnection<DatagramConnection> {
    let parameters = ContextParameters {
        master_secret: MasterSecret::new(&[0x5a; 32]).expect("32 octets"),
        master_salt: Vec::new(),
        sender_id: KeyId::new(&[1]).expect("one"),
        recipient_id: KeyId::new(&[2]).expect("one"),
        id_context: None,
    };
    let context = SecurityContext::fresh(&parameters, Durability::Volatile).expect("all in range");
    OscoreConnection::new(DatagramConnection::new(Arc::clone(&CONFIG), 1).for_oscore(), context)
}

fuzz_target!(|octets: &[u8]| {
    let mut connection = connection();
    connection.request(&Request::post("x"), *START).expect("there is room");
    let mut rest = octets;
    // Datagrams, each after an octet of its length.
    while let Some((&length, more)) = rest.split_first() {
        let (datagram, more) = more.split_at(usize::from(length).min(more.len()));
        rest = more;
        if let Some(unbound) = Unbound::parse(datagram) {
            let answer = unbound.answer(&Message::new(Code::UNAUTHORIZED, &[], b"").expect("small"), 7);
            assert!(answer.len() <= 12 && Unbound::parse(&answer).is_some_and(|answer| !answer.is_request()));
            assert!(!unbound.is_request() || unbound.reset().is_none());
            let _ = (unbound.kid(), unbound.is_block(), AkmaRequest::from_message(unbound.message()));
        }
        assert_ne!(connection.provenance(datagram, *START), Provenance::Proven);
        let _ = connection.receive(datagram, *START);
        while let Some(event) = connection.poll_event() {
            let forged = matches!(event, ConnectionEvent::Request { .. } | ConnectionEvent::Response { .. });
            assert!(!forged, "{event:?}");
        }
        while connection.poll_transmit().is_some() {}
    }
});
