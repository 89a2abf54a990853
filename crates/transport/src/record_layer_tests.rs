use proptest::prelude::*;

use super::*;

const SUITES: [Suite; 3] = [Suite::Aes128GcmSha256, Suite::ChaCha20Poly1305Sha256, Suite::Aes128CcmSha256];

fn secret(octet: u8) -> TrafficSecret {
    TrafficSecret::from_bytes([octet; SECRET_OCTETS])
}

fn pair(suite: Suite) -> (Outbound, Inbound) {
    (Outbound::new(suite, secret(7)).unwrap(), Inbound::new(suite, secret(7)).unwrap())
}

/// A record with any content, as a peer could make it.
fn record(sender: &mut Outbound, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    sender.seal(kind, content, &mut wire).unwrap();
    wire
}

/// Everything that can be read, and how it ends.
fn drain(receiver: &mut Inbound) -> (Vec<u8>, Result<Taken, RecordError>) {
    let mut read = Vec::new();
    loop {
        match receiver.look() {
            Ok(Taken::Content) => {
                read.extend_from_slice(receiver.content());
                receiver.consume(receiver.content().len());
            }
            other => return (read, other),
        }
    }
}

fn refusal(suite: Suite, wire: &[u8]) -> RecordError {
    let (_, mut receiver) = pair(suite);
    receiver.receive(wire);
    let error = drain(&mut receiver).1.expect_err("it was taken");
    assert!(matches!(receiver.look(), Err(RecordError::Ended)), "nothing comes after it");
    error
}

/// RFC 8448 clause 3: the simple 1-RTT handshake's application secrets, keys, IVs and first application records.
#[test]
fn keys_and_records_are_those_of_rfc_8448() {
    let client = "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5";
    let server = "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643";
    let direction = |secret| Direction::new(Suite::Aes128GcmSha256, TrafficSecret::from_hex(secret).unwrap()).unwrap();
    let (client, server) = (direction(client), direction(server));
    assert_eq!(hex::encode(client.key()), "17422dda596ed5d9acd890e3c63f5051");
    assert_eq!(hex::encode(*client.iv), "5b78923dee08579033e523d9");
    assert_eq!(hex::encode(server.key()), "9f02283b6c9c07efc26bb9f2ac92e356");
    assert_eq!(hex::encode(*server.iv), "cf782b88dd83549aadf1e984");
    let mut sender = Outbound { direction: client, records_per_key_max: RECORDS_PER_KEY_MAX };
    let octets: Vec<u8> = (0..50).collect();
    let mut wire = Vec::new();
    sender.data(&octets, &mut wire).unwrap();
    assert_eq!(
        hex::encode(&wire),
        "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a62\
         92a2977014bd1e3deae63aeebb21694915e4"
    );
    wire.clear();
    sender.close(&mut wire).unwrap();
    assert_eq!(hex::encode(&wire), "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3");
}

#[test]
fn an_idle_direction_holds_no_buffer() {
    for suite in SUITES {
        let (mut sender, mut receiver) = pair(suite);
        let mut wire = Vec::new();
        sender.data(&[1; RECORD_OCTETS_MAX], &mut wire).unwrap();
        receiver.receive(&wire);
        assert_eq!(drain(&mut receiver), (vec![1; RECORD_OCTETS_MAX], Ok(Taken::Nothing)));
        assert_eq!(receiver.held(), 0);
    }
}

#[test]
fn a_record_that_was_changed_anywhere_is_refused() {
    for suite in SUITES {
        let (mut sender, _) = pair(suite);
        let wire = record(&mut sender, APPLICATION_DATA, b"valve");
        for at in HEADER_OCTETS..wire.len() {
            let mut changed = wire.clone();
            changed[at] ^= 1;
            assert!(matches!(refusal(suite, &changed), RecordError::BadMac), "octet {at}");
        }
        let mut version = wire.clone();
        version[1] ^= 1;
        assert!(matches!(refusal(suite, &version), RecordError::BadMac));
    }
}

#[test]
fn a_record_twice_or_out_of_turn_is_refused() {
    for suite in SUITES {
        let (mut sender, _) = pair(suite);
        let first = record(&mut sender, APPLICATION_DATA, b"1");
        let second = record(&mut sender, APPLICATION_DATA, b"2");
        assert!(matches!(refusal(suite, &second), RecordError::BadMac));
        let (_, mut receiver) = pair(suite);
        receiver.receive(&[first.as_slice(), &first].concat());
        let (read, end) = drain(&mut receiver);
        assert_eq!(read, b"1");
        assert!(matches!(end, Err(RecordError::BadMac)));
    }
}

#[test]
fn each_breach_of_the_record_protocol_has_its_alert() {
    let suite = Suite::Aes128GcmSha256;
    let sealed = |kind: u8, content: &[u8]| record(&mut pair(suite).0, kind, content);
    let long = vec![5; RECORD_OCTETS_MAX + 1];
    let cases: [(&str, Vec<u8>, u8); 16] = [
        ("plaintext alert", vec![21, 3, 3, 0, 2, 2, 40], 10),
        ("plaintext handshake", vec![22, 3, 3, 0, 1, 1], 10),
        ("change_cipher_spec", vec![20, 3, 3, 0, 1, 1], 10),
        ("longer than the protocol allows, header alone", vec![23, 3, 3, 0x41, 0x01], 22),
        ("too short for a tag", vec![23, 3, 3, 0, 16], 20),
        ("more content than a record may have", sealed(APPLICATION_DATA, &long), 22),
        ("padding alone", sealed(0, &[]), 10),
        ("an unknown content type", sealed(24, b"x"), 10),
        ("change_cipher_spec, encrypted", sealed(20, &[1]), 10),
        ("NewSessionTicket", sealed(HANDSHAKE, &[4, 0, 0, 0]), 10),
        ("an empty handshake record", sealed(HANDSHAKE, &[]), 10),
        ("half a KeyUpdate", sealed(HANDSHAKE, &[24, 0, 0]), 50),
        ("a KeyUpdate that is too long", sealed(HANDSHAKE, &[24, 0, 0, 2, 0, 0]), 50),
        ("a KeyUpdate with something after it", sealed(HANDSHAKE, &[24, 0, 0, 1, 0, 24]), 50),
        ("a KeyUpdate that asks neither", sealed(HANDSHAKE, &[24, 0, 0, 1, 2]), 47),
        ("half an alert", sealed(ALERT, &[2]), 50),
    ];
    for (case, wire, alert) in cases {
        assert_eq!(refusal(suite, &wire).alert(), Some(alert), "{case}");
    }
    assert!(matches!(refusal(suite, &sealed(ALERT, &[1, 80])), RecordError::PeerAlert(80)));
}

#[test]
fn close_notify_ends_what_is_read_and_user_canceled_does_not() {
    let (mut sender, mut receiver) = pair(Suite::ChaCha20Poly1305Sha256);
    let mut wire = record(&mut sender, ALERT, &[1, USER_CANCELED]);
    sender.data(b"last words", &mut wire).unwrap();
    sender.close(&mut wire).unwrap();
    wire.extend_from_slice(b"what is not even a record");
    receiver.receive(&wire);
    assert_eq!(drain(&mut receiver), (b"last words".to_vec(), Ok(Taken::Closed)));
    assert_eq!(receiver.held(), 0);
}

#[test]
fn empty_records_and_key_updates_in_a_row_are_bounded() {
    for (kind, content) in [(APPLICATION_DATA, &[][..]), (ALERT, &[1, USER_CANCELED])] {
        let (mut sender, mut receiver) = pair(Suite::Aes128GcmSha256);
        for _ in 0..EMPTY_RECORDS_MAX {
            receiver.receive(&record(&mut sender, kind, content));
            assert_eq!(receiver.look().unwrap(), Taken::Nothing);
        }
        receiver.receive(&record(&mut sender, kind, content));
        assert!(matches!(receiver.look(), Err(RecordError::Unexpected)));
    }
    let (mut sender, mut receiver) = pair(Suite::Aes128GcmSha256);
    let mut wire = Vec::new();
    for _ in 0..EMPTY_RECORDS_MAX {
        sender.key_update(&mut wire).unwrap();
    }
    sender.data(b"and", &mut wire).unwrap();
    for _ in 0..=EMPTY_RECORDS_MAX {
        sender.key_update(&mut wire).unwrap();
    }
    receiver.receive(&wire);
    let (read, end) = drain(&mut receiver);
    assert_eq!(read, b"and");
    assert!(matches!(end, Err(RecordError::Unexpected)));
}

#[test]
fn the_key_changes_before_it_is_used_too_often() {
    let suite = Suite::Aes128GcmSha256;
    let (sender, mut receiver) = pair(suite);
    let mut sender = sender.with_records_per_key(3);
    let mut wire = Vec::new();
    for octet in 0..10 {
        sender.data(&[octet], &mut wire).unwrap();
    }
    receiver.receive(&wire);
    assert_eq!(drain(&mut receiver), ((0..10).collect(), Ok(Taken::Nothing)));
    assert_eq!(receiver.direction.sequence, sender.direction.sequence);
    assert!(receiver.direction.sequence < 3);
}

#[test]
fn no_configuration_uses_a_key_for_longer_than_its_suite_allows() {
    for (suite, records) in SUITES.into_iter().zip([1 << 24, 1 << 24, 1 << 23]) {
        let (mut sender, _) = pair(suite);
        assert_eq!(sender.records_per_key_max, records);
        sender = sender.with_records_per_key(u64::MAX);
        assert_eq!(sender.records_per_key_max, records);
        assert_eq!(sender.with_records_per_key(0).records_per_key_max, 1);
    }
}

#[test]
fn sequence_numbers_are_never_used_again() {
    let (mut sender, _) = pair(Suite::Aes128GcmSha256);
    sender.direction.sequence = u64::MAX;
    let mut wire = Vec::new();
    assert!(matches!(sender.close(&mut wire), Err(RecordError::Exhausted)));
    assert!(wire.is_empty(), "what is not encrypted does not leave");
}

impl PartialEq for RecordError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Data(usize),
    Update { asks: bool },
    Padded(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..2000).prop_map(Step::Data),
        1 => (0usize..40_000).prop_map(Step::Data),
        1 => any::<bool>().prop_map(|asks| Step::Update { asks }),
        1 => (1usize..50, 0usize..300).prop_map(|(octets, padding)| Step::Padded(octets, padding)),
    ];
    prop::collection::vec(step, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the octets are cut on their way, and whenever keys change.
    #[test]
    fn what_is_sent_is_what_is_read(
        which in 0usize..3,
        steps in steps(),
        cuts in prop::collection::vec(1usize..5000, 1..20),
    ) {
        let (mut sender, mut receiver) = pair(SUITES[which]);
        let (mut wire, mut sent, mut asked) = (Vec::new(), Vec::new(), 0);
        for step in &steps {
            match step {
                Step::Data(octets) => {
                    let data: Vec<u8> = (0..*octets).map(|at| (at % 251) as u8).collect();
                    let mut left = data.as_slice();
                    while !left.is_empty() {
                        let taken = sender.data(left, &mut wire).unwrap();
                        left = &left[taken..];
                    }
                    sent.extend(data);
                }
                Step::Update { asks } => {
                    asked += usize::from(*asks);
                    sender.seal(HANDSHAKE, &[KEY_UPDATE, 0, 0, 1, u8::from(*asks)], &mut wire).unwrap();
                    sender.direction.update().unwrap();
                }
                Step::Padded(octets, padding) => {
                    let mut inner = vec![9; *octets];
                    inner.push(APPLICATION_DATA);
                    inner.extend(vec![0; padding.saturating_sub(1)]);
                    // The type octet of `seal` is the last octet of the padding, or the type itself.
                    let kind = if *padding == 0 { inner.pop().unwrap() } else { 0 };
                    sender.seal(kind, &inner, &mut wire).unwrap();
                    sent.extend(vec![9; *octets]);
                }
            }
        }
        let (mut read, mut requests, mut at) = (Vec::new(), 0, 0);
        for cut in cuts.iter().cycle() {
            if at == wire.len() {
                break;
            }
            let end = (at + cut).min(wire.len());
            receiver.receive(&wire[at..end]);
            at = end;
            loop {
                let (octets, end) = drain(&mut receiver);
                read.extend(octets);
                match end {
                    Ok(Taken::UpdateRequested) => requests += 1,
                    Ok(Taken::Nothing) => break,
                    other => prop_assert!(false, "{other:?}"),
                }
            }
        }
        prop_assert!(read == sent);
        prop_assert_eq!(requests, asked);
        prop_assert_eq!(receiver.held(), 0);
    }

    #[test]
    fn no_octets_break_the_reader(octets in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_, mut receiver) = pair(Suite::Aes128GcmSha256);
        receiver.receive(&octets);
        let (read, _) = drain(&mut receiver);
        prop_assert!(read.is_empty());
    }
}
