//! Sessions over restarts at any moment: no nonce comes again, and the peers read on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::connection::{Closed, Event, Transmit};
use crate::key::PresharedKey;
use crate::limits::{SEALED_RECORDS_MAX, SEALED_RECORDS_MAX_DTLS13};
use crate::listener::{Incoming, Listener};
use crate::record::written;

const SEALING: [u8; 32] = [3; 32];

fn client_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 40_000))
}

fn server_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 5_684))
}

fn sealing(start: u32) -> SealingKey {
    SealingKey::new(&SEALING, start).unwrap()
}

/// An established client and its server; nothing between them is lost but what a test drops.
struct Pair {
    now: Instant,
    /// Client and server.
    ends: [Option<Connection>; 2],
    configs: (Arc<ClientConfig>, Arc<ServerConfig>),
    received: [Vec<u32>; 2],
    sent: [Vec<u32>; 2],
}

impl Pair {
    fn new(suite: CipherSuite) -> Self {
        let now = Instant::now();
        let (mut client, mut server) = (ClientConfig::new(b"meter-7"), ServerConfig::default());
        client.session.cipher_suites = vec![suite];
        client.connection_id = ConnectionId::new(b"cl").ok();
        server.session.cipher_suites = vec![suite];
        let configs = (Arc::new(client), Arc::new(server));
        let listener = Listener::new(Arc::clone(&configs.1), now).unwrap();
        let client = Connection::client(Arc::clone(&configs.0), now, server_address()).unwrap();
        let ends = [Some(client), None];
        let mut pair = Self { now, ends, configs, received: Default::default(), sent: Default::default() };
        while pair.ends[1].is_none() {
            pair.events(0);
            let hello = pair.end(0).poll_transmit().unwrap().payload;
            match listener.handle_datagram(now, client_address(), &hello) {
                Incoming::Reply(reply) => {
                    pair.end(0).handle_datagram(now, server_address(), &reply.payload);
                }
                Incoming::Hello(proven) => {
                    pair.ends[1] = Some(proven.accept(now, ConnectionId::new(b"server").unwrap()).unwrap());
                }
                _ => panic!(),
            }
        }
        pair.deliver();
        for end in [0, 1] {
            pair.send(end);
        }
        pair.deliver();
        pair.rest();
        pair
    }

    fn end(&mut self, end: usize) -> &mut Connection {
        self.ends[end].as_mut().unwrap()
    }

    fn events(&mut self, end: usize) {
        let now = self.now;
        while let Some(event) = self.end(end).poll_event() {
            match event {
                Event::KeyNeeded(_) => {
                    self.end(end).provide_key(now, &PresharedKey::new(&[7; 32]).unwrap()).unwrap();
                }
                Event::ApplicationData { payload, .. } => {
                    self.received[end].push(u32::from_be_bytes(payload.try_into().unwrap()));
                }
                // Of keys that are used up, or of a KeyUpdate whose number the peer does not find.
                Event::Closed(Closed::Failed(Error::WriteKeyExhausted | Error::HandshakeTimeout { .. })) => {}
                Event::Closed(closed) => panic!("{closed:?}"),
                _ => {}
            }
        }
    }

    fn arrive(&mut self, at: usize, transmit: &Transmit) {
        let (now, from) = (self.now, if at == 0 { server_address() } else { client_address() });
        self.end(at).handle_datagram(now, from, &transmit.payload);
        self.events(at);
    }

    /// Passes everything on until both are silent.
    fn deliver(&mut self) {
        loop {
            let mut silent = true;
            for end in [0, 1] {
                self.events(end);
                while let Some(transmit) = self.end(end).poll_transmit() {
                    silent = false;
                    self.arrive(1 - end, &transmit);
                }
            }
            if silent {
                return;
            }
        }
    }

    /// Until nothing is under way.
    fn rest(&mut self) {
        while let Some(due) = (0..2).filter_map(|end| self.end(end).poll_timeout()).min() {
            self.now = self.now.max(due);
            let now = self.now;
            for end in [0, 1] {
                self.end(end).handle_timeout(now);
            }
            self.deliver();
        }
    }

    fn send(&mut self, end: usize) {
        self.try_send(end).unwrap();
    }

    fn try_send(&mut self, end: usize) -> Result<(), Error> {
        let (now, number) = (self.now, self.sent[end].len() as u32);
        self.end(end).send(now, &number.to_be_bytes())?;
        self.sent[end].push(number);
        Ok(())
    }

    /// What an end sends just now is lost.
    fn lose(&mut self, end: usize) {
        while self.end(end).poll_transmit().is_some() {}
        self.received[1 - end].extend(self.sent[end].last());
    }

    fn freeze(&mut self, end: usize) -> Frozen {
        self.freeze_unless_closed(end).unwrap()
    }

    fn freeze_unless_closed(&mut self, end: usize) -> Result<Frozen, Error> {
        self.rest();
        if self.end(end).is_closed() {
            return Err(Error::Closed);
        }
        Ok(self.ends[end].take().unwrap().freeze().map_err(|(_, error)| error).unwrap())
    }

    fn thaw(&mut self, end: usize, frozen: Frozen) {
        let (client, server) = &self.configs;
        self.ends[end] = Some(match end {
            0 => frozen.thaw_client(Arc::clone(client), self.now).unwrap(),
            _ => frozen.thaw_server(Arc::clone(server), self.now).unwrap(),
        });
    }
}

/// Key, next number, and the first that may not be written.
fn written_with(frozen: &Frozen) -> (Vec<u8>, u64, u64) {
    let (_, mut secrets) = frozen.decode().unwrap();
    let (key, sequence, end) = secrets.write_mut().unwrap();
    (key.to_vec(), *sequence, *end)
}

/// As if it had sent so many records more, or as many as it may.
fn advance(frozen: &Frozen, records: u64) -> Frozen {
    let (state, mut secrets) = frozen.decode().unwrap();
    let (key, sequence, end) = secrets.write_mut().unwrap();
    let to = sequence.saturating_add(records).min(*end);
    written::note(key, *sequence..to);
    *sequence = to;
    state.freeze(&secrets).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Either side is handed over at any moment, any number of times in a row: everything arrives, no nonce comes again, and
    /// the keys may be used and updated as without.
    #[test]
    fn a_session_that_is_handed_over_goes_on_as_if_nothing_were(
        suite in 0_usize..10,
        steps in prop::collection::vec((0_u8..10, 0_usize..2), 1..60),
    ) {
        written::watch();
        let suite = CipherSuite::ALL[suite];
        let mut pair = Pair::new(suite);
        let mut start = 1;
        for (step, end) in steps {
            match step {
                0 | 1 => pair.send(end),
                2 => {
                    pair.send(end);
                    pair.lose(end);
                }
                3 if suite.version() == ProtocolVersion::Dtls13 => {
                    let now = pair.now;
                    prop_assert!(matches!(pair.end(end).update_keys(now, start % 2 == 0), Ok(()) | Err(Error::UpdatePending)));
                }
                _ => {
                    let frozen = pair.freeze(end);
                    let before = written_with(&frozen);
                    prop_assert!(before.2 >= suite.aead().records_max().min((1 << 48) - 1));
                    let (sealed, _) = sealing(start).hand_over(frozen, b"whose").map_err(|(_, error)| error).unwrap();
                    start += 1;
                    let opens = sealing(start);
                    let (frozen, attached) = opens.open_with(&sealed).unwrap();
                    prop_assert_eq!(attached.as_slice(), b"whose");
                    prop_assert_eq!(written_with(&frozen), before);
                    // Nobody else goes on with it.
                    prop_assert_eq!(opens.open(&sealed).unwrap_err(), Error::OpenedBefore);
                    prop_assert_eq!(sealing(start - 1).open(&sealed).unwrap_err(), Error::SealedNow);
                    prop_assert_eq!(sealing(start + 1).open(&sealed).unwrap_err(), Error::HandedOverEarlier);
                    pair.thaw(end, frozen);
                    prop_assert!(!pair.end(end).is_restored());
                }
            }
            pair.deliver();
        }
        for end in [0, 1] {
            pair.send(end);
        }
        pair.deliver();
        prop_assert_eq!(&pair.received[0], &pair.sent[1]);
        prop_assert_eq!(&pair.received[1], &pair.sent[0]);
    }

    /// A server that is killed goes on with what its store has, which may be a form from long before, and may also be handed
    /// over in between: whatever it has sent, and however much, no nonce comes again.
    #[test]
    fn no_nonce_comes_again_whatever_is_sealed_stored_handed_over_and_opened(
        suite in 0_usize..10,
        steps in prop::collection::vec((0_u8..11, 0_u64..70_000), 1..60),
    ) {
        written::watch();
        let suite = CipherSuite::ALL[suite];
        let mut pair = Pair::new(suite);
        let (mut start, mut stored) = (1, None);
        for (step, records) in steps {
            let opened = match step {
                0 => {
                    pair.send(0);
                    Ok(None)
                }
                1 | 2 => pair.try_send(1).map(|()| None),
                3 => {
                    let now = pair.now;
                    // With DTLS 1.3, and as long as the peer would find the numbers.
                    let _ = pair.end(1).update_keys(now, records % 2 == 0);
                    Ok(None)
                }
                4 | 5 => {
                    // So far that the peer most often reads on.
                    let records = if suite.version() == ProtocolVersion::Dtls13 { records % 5_000 } else { records };
                    pair.freeze_unless_closed(1).map(|frozen| Some(advance(&frozen, records)))
                }
                6 | 7 => {
                    let Ok(mut frozen) = pair.freeze_unless_closed(1) else { return Ok(()) };
                    let form = sealing(start).seal(&mut frozen).unwrap();
                    match records % 3 {
                        0 => {
                            frozen.stored(&form).unwrap();
                            stored = Some(form.octets().to_vec());
                        }
                        // It has it, and the session does not know.
                        1 => stored = Some(form.octets().to_vec()),
                        _ => {}
                    }
                    Ok(Some(frozen))
                }
                8 => {
                    let Ok(frozen) = pair.freeze_unless_closed(1) else { return Ok(()) };
                    let (form, _) = sealing(start).hand_over(frozen, &[]).map_err(|(_, error)| error).unwrap();
                    if records % 4 > 0 || stored.is_none() {
                        stored = Some(form);
                    }
                    start += 1 + u32::from(records % 16 == 15);
                    sealing(start).open(stored.as_ref().unwrap()).map(Some)
                }
                // Killed; and perhaps once more, before anything was written.
                _ => match &stored {
                    Some(form) => {
                        start += 1 + u32::try_from(records % 2).unwrap();
                        sealing(start).open(form).map(Some)
                    }
                    None => Ok(None),
                },
            };
            match opened {
                Ok(None) => {}
                Ok(Some(frozen)) => pair.thaw(1, frozen),
                // There is nothing to go on with.
                Err(error) => {
                    let expected = [Error::WriteKeyExhausted, Error::HandedOverEarlier, Error::Closed];
                    prop_assert!(expected.contains(&error), "{}", error);
                    return Ok(());
                }
            }
            pair.deliver();
            if pair.ends.iter().flatten().any(Connection::is_closed) {
                return Ok(());
            }
        }
    }
}

#[test]
fn a_session_that_is_handed_over_over_and_over_writes_as_many_records_as_its_keys_allow() {
    for suite in [CipherSuite::EcdhePskAes128Gcm, CipherSuite::Aes128Gcm, CipherSuite::Aes128Ccm] {
        written::watch();
        let mut pair = Pair::new(suite);
        let records_max = suite.aead().records_max();
        let mut start = 1;
        // Far more starts than a number of 16 bits would allow jumps, and nothing of the server is heard in between.
        for _ in 0..100 {
            let (sealed, _) = sealing(start).hand_over(pair.freeze(1), &[]).map_err(|(_, error)| error).unwrap();
            start += 1;
            pair.thaw(1, sealing(start).open(&sealed).unwrap());
        }
        pair.send(1);
        pair.deliver();
        assert_eq!(pair.received[0], pair.sent[1]);
        // All that the forms of a session which goes on would allow, and more.
        assert!(records_max > SEALED_RECORDS_MAX.max(SEALED_RECORDS_MAX_DTLS13) * 100);
        let frozen = pair.freeze(1);
        let (_, sequence, _) = written_with(&frozen);
        let frozen = advance(&frozen, records_max - sequence - 1);
        pair.thaw(1, frozen);
        assert_eq!(pair.try_send(1), Ok(()));
        assert_eq!(pair.try_send(1), Err(Error::WriteKeyExhausted));
    }
}

#[test]
fn what_cannot_be_handed_over_stays() {
    let mut pair = Pair::new(CipherSuite::Aes128Gcm);
    let too_much = vec![0; SEALED_ATTACHED_OCTETS_MAX + 1];
    let (frozen, error) = sealing(1).hand_over(pair.freeze(1), &too_much).unwrap_err();
    assert_eq!(error, Error::FrozenForm);
    assert_eq!(frozen.version(), ProtocolVersion::Dtls13);
    let (sealed, held) = sealing(1).hand_over(frozen, &too_much[1..]).map_err(|(_, error)| error).unwrap();
    assert!(sealing(2).open(&sealed).is_ok());
    assert_eq!(held.take_back().version(), ProtocolVersion::Dtls13);
    // Nor does one kind of form become the other.
    for at in 0..64 {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert_eq!(sealing(2).open(&changed).unwrap_err(), Error::FrozenForm);
    }
}
