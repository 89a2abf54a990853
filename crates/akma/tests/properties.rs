//! Properties that hold for every input: nothing from outside panics, what is written is read back, and the two sides
//! of each algorithm agree.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::HashSet;

use akma::eap_aka_prime::{Attribute, EapPacket, Message, Subtype, verify_mac};
use akma::{
    AKid, AKidFormat, ATid, ATidEncoding, AfId, Amf, Fqdn, Gpsi, HomeNetwork, KAut, Milenage, PskIdentity, Res,
    RoutingIndicator, Separator, ServingNetworkName, Sqn, SqnLimits, SqnWindow, Suci, SuciHomeKey, SuciHomeKeys, Supi,
    UaProtocolId, UeId, Usim, UsimCredentials, UsimFailure,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn config() -> ProptestConfig {
    ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() }
}

fn octets<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    vec(any::<u8>(), N).prop_map(|octets| octets.try_into().unwrap())
}

fn credentials() -> impl Strategy<Value = UsimCredentials> {
    prop_oneof![
        (octets(), octets()).prop_map(|(k, opc)| UsimCredentials::milenage_opc(&k, &opc)),
        (octets::<16>(), octets()).prop_map(|(k, topc)| UsimCredentials::tuak_topc(&k, &topc).unwrap()),
        (octets::<32>(), octets()).prop_map(|(k, top)| UsimCredentials::tuak_top(&k, &top).unwrap()),
    ]
}

fn sqn(seq: std::ops::Range<u64>) -> impl Strategy<Value = Sqn> {
    (seq, 0..32u64).prop_map(|(seq, ind)| Sqn::new((seq << 5) | ind).unwrap())
}

fn attribute() -> impl Strategy<Value = Attribute> {
    prop_oneof![
        octets().prop_map(Attribute::Rand),
        octets().prop_map(Attribute::Autn),
        vec(any::<u8>(), 4..=16).prop_map(|res| Attribute::Res(Res::from_slice(&res).unwrap())),
        octets().prop_map(Attribute::Auts),
        Just(Attribute::Mac),
        any::<u16>().prop_map(Attribute::Kdf),
        ".{0,80}".prop_map(Attribute::KdfInput),
        prop_oneof![Just(0usize), Just(32)].prop_map(|octets| Attribute::Checkcode(vec![7; octets])),
        any::<u16>().prop_map(Attribute::ClientErrorCode),
        any::<u16>().prop_map(Attribute::Notification),
        (135..=255u8, 0..4usize)
            .prop_map(|(attribute_type, words)| Attribute::Skippable { attribute_type, value: vec![3; 2 + 4 * words] }),
    ]
}

/// Messages as RFC 4187 allows them: most attributes once.
fn message() -> impl Strategy<Value = Message> {
    let subtype = prop_oneof![
        Just(Subtype::Challenge),
        Just(Subtype::AuthenticationReject),
        Just(Subtype::SynchronizationFailure),
        Just(Subtype::Identity),
        Just(Subtype::Notification),
        Just(Subtype::Reauthentication),
        Just(Subtype::ClientError),
    ];
    (subtype, vec(attribute(), 0..8)).prop_map(|(subtype, attributes)| {
        let mut seen = HashSet::new();
        let many = |attribute: &Attribute| matches!(attribute, Attribute::Kdf(_) | Attribute::Skippable { .. });
        let attributes = attributes
            .into_iter()
            .filter(|attribute| many(attribute) || seen.insert(std::mem::discriminant(attribute)))
            .collect();
        Message { subtype, attributes }
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_text_makes_a_parser_panic_and_what_is_accepted_reads_back(text in "\\PC{0,60}|(imsi|nai|gci|gli|msisdn|extid|suci-[01])-[0-9a-z@.-]{0,60}") {
        if let Ok(supi) = text.parse::<Supi>() {
            prop_assert_eq!(supi.as_str(), &text);
            prop_assert!(text.ends_with(supi.kdf_value()));
            prop_assert!(!supi.kdf_value().is_empty());
        }
        if let Ok(gpsi) = text.parse::<Gpsi>() {
            prop_assert_eq!(gpsi.as_str(), &text);
        }
        if let Ok(ue_id) = text.parse::<UeId>() {
            prop_assert_eq!(ue_id.as_str(), &text);
        }
        if let Ok(a_kid) = text.parse::<AKid>() {
            prop_assert_eq!(a_kid.as_str(), &text);
            let _ = a_kid.parts();
        }
        if let Ok(fqdn) = text.parse::<Fqdn>() {
            prop_assert_eq!(fqdn.as_str().parse::<Fqdn>().unwrap(), fqdn);
        }
        if let Ok(suci) = text.parse::<Suci>() {
            prop_assert_eq!(suci.to_string().parse::<Suci>().unwrap(), suci.clone());
            let _ = SuciHomeKeys::default().deconceal(&suci);
        }
        let _ = (text.parse::<AfId>(), text.parse::<UaProtocolId>(), text.parse::<RoutingIndicator>());
        let _ = (text.parse::<ServingNetworkName>(), text.parse::<Sqn>(), text.parse::<Amf>());
        let _ = (ATid::from_hex(&text), Res::from_hex(&text), HomeNetwork::new(&text, &text));
        let _ = PskIdentity::parse(text.as_bytes());
    }

    #[test]
    fn no_octets_make_a_parser_panic(octets in vec(any::<u8>(), 0..200), code in 1..5u8, attribute_type in 0..30u8) {
        let _ = PskIdentity::parse(&octets);
        let _ = EapPacket::decode(&octets);
        let _ = verify_mac(&octets, &KAut::from_bytes([0; 32]));
        // Far enough in to reach the attributes.
        let mut packet = vec![code, 1, 0, 0, 50, 1, 0, 0, attribute_type];
        packet.extend(octets);
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        if let Ok(read) = EapPacket::decode(&packet) {
            prop_assert_eq!(EapPacket::decode(&read.encode().unwrap()).unwrap(), read);
        }
        let _ = verify_mac(&packet, &KAut::from_bytes([0; 32]));
    }

    #[test]
    fn an_a_kid_gives_its_parts_back(
        rid in "[0-9]{1,4}", a_tid in octets(), mcc in "[0-9]{3}", mnc in "[0-9]{2,3}",
        a_tid_encoding in prop_oneof![Just(ATidEncoding::Hex), Just(ATidEncoding::Base64Url)],
        realm_prefix in "[a-z][a-z0-9]{0,20}",
    ) {
        let (rid, a_tid) = (rid.parse().unwrap(), ATid::from_bytes(a_tid));
        let network = HomeNetwork::new(&mcc, &mnc).unwrap();
        for format in [AKidFormat { a_tid_encoding, realm_prefix }, AKidFormat::default()] {
            format.check().unwrap();
            let a_kid: AKid = format.format(&rid, &a_tid, &network).as_str().parse().unwrap();
            let parts = format.parts(&a_kid).unwrap();
            prop_assert_eq!(&parts.routing_indicator, &rid);
            prop_assert_eq!(&parts.a_tid, &a_tid);
            prop_assert!(parts.home_network.has_same_realm(&network));
        }
    }

    #[test]
    fn a_psk_identity_gives_its_a_kid_back(text in "[!-~]{1,253}") {
        prop_assume!(!text.starts_with([';', '.']));
        let a_kid: AKid = text.parse().unwrap();
        for separator in [Separator::Semicolon, Separator::Dot, Separator::None] {
            let identity = PskIdentity::encode(&a_kid, separator);
            prop_assert!(identity.len() <= PskIdentity::OCTETS_MAX);
            prop_assert_eq!(PskIdentity::parse(&identity).unwrap(), a_kid.clone());
        }
    }

    #[test]
    fn an_eap_packet_is_read_as_it_was_written(
        identifier in any::<u8>(), message in message(), k_aut in octets(), request in any::<bool>(),
    ) {
        let packet = if request {
            EapPacket::Request { identifier, message: message.clone() }
        } else {
            EapPacket::Response { identifier, message: message.clone() }
        };
        prop_assert_eq!(&EapPacket::decode(&packet.encode().unwrap()).unwrap(), &packet);
        prop_assert_eq!(packet.identifier(), identifier);
        let k_aut = KAut::from_bytes(k_aut);
        if message.attributes.contains(&Attribute::Mac) {
            let written = packet.encode_authenticated(&k_aut).unwrap();
            prop_assert_eq!(verify_mac(&written, &k_aut), Ok(()));
            prop_assert_eq!(EapPacket::decode(&written).unwrap(), packet);
        } else {
            prop_assert!(packet.encode_authenticated(&k_aut).is_err());
            prop_assert!(verify_mac(&packet.encode().unwrap(), &k_aut).is_err());
        }
    }

    #[test]
    fn the_usim_and_the_home_network_agree(
        credentials in credentials(), rand in octets(), home in sqn(1..1000), usim_at in sqn(0..1000), amf in 0x8000u16..,
    ) {
        let vector = credentials.vector(&rand, home, Amf::from_bytes(amf.to_be_bytes()));
        let mut usim = Usim::new(credentials.clone(), usim_at);
        match usim.authenticate(&vector.rand, &vector.autn) {
            Ok(response) => {
                prop_assert!(home.seq() > usim_at.seq());
                prop_assert_eq!(response.res, vector.xres);
                prop_assert_eq!((response.ck, response.ik), (vector.ck, vector.ik));
            }
            Err(UsimFailure::Synchronisation { auts }) => {
                prop_assert!(home.seq() <= usim_at.seq());
                let sqn_ms = credentials.verify_auts(&rand, &auts).unwrap();
                prop_assert_eq!(sqn_ms, usim_at);
                let next = credentials.vector(&rand, sqn_ms.next().unwrap(), Amf::FIVE_G);
                prop_assert!(usim.authenticate(&next.rand, &next.autn).is_ok());
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn a_window_accepts_each_number_once_and_never_goes_back(numbers in vec(sqn(0..60), 0..80), age in proptest::option::of(1..30u64)) {
        let mut window = SqnWindow::at(Sqn::ZERO, SqnLimits { delta: 50, age });
        let mut accepted = HashSet::new();
        for number in numbers {
            let before = window.clone();
            if window.accept(number).is_ok() {
                prop_assert!(accepted.insert(number));
                prop_assert!(number.seq() <= before.highest().seq() + 50);
                prop_assert!(age.is_none_or(|age| number.seq() + age > before.highest().seq()));
                prop_assert_eq!(window.highest().seq(), before.highest().seq().max(number.seq()));
            } else {
                prop_assert_eq!(&window, &before);
            }
        }
    }

    #[test]
    fn each_number_the_home_network_issues_is_accepted_in_turn(start in sqn(0..1 << 20), count in 1..100usize) {
        let mut window = SqnWindow::at(start, SqnLimits::default());
        let mut number = start;
        for _ in 0..count {
            number = number.next().unwrap();
            prop_assert_eq!(window.accept(number), Ok(()));
            prop_assert_eq!(window.highest(), number);
        }
    }

    #[test]
    fn our_milenage_agrees_with_an_independent_one(k in octets(), op in octets(), rand in octets(), sqn in sqn(0..1 << 43), amf in octets()) {
        let ours = Milenage::from_op(&k, &op);
        let mut theirs = milenage::Milenage::new_with_op(k, op);
        prop_assert_eq!(&*ours.opc(), theirs.opc());
        let amf_value = Amf::from_bytes(amf);
        prop_assert_eq!(ours.f1(&rand, sqn, amf_value), theirs.f1(&rand, &sqn.to_bytes(), &amf));
        prop_assert_eq!(ours.f1_star(&rand, sqn, amf_value), theirs.f1star(&rand, &sqn.to_bytes(), &amf));
        let output = ours.f2345(&rand);
        let (res, ck, ik, ak) = theirs.f2345(&rand);
        prop_assert_eq!((*output.res, *output.ck.expose(), *output.ik.expose(), *output.ak.expose()), (res, ck, ik, ak));
        prop_assert_eq!(*ours.f5_star(&rand).expose(), theirs.f5star(&rand));
    }
}

proptest! {
    // Each case costs several operations on curves.
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_concealed_is_deconcealed(
        msin in "[0-9]{1,10}", mcc in "[0-9]{3}", mnc in "[0-9]{2}", username in "[a-zA-Z0-9._-]{1,60}",
        rid in "[0-9]{1,4}", key_id in 1..=255u8, secret in octets(), ephemeral in octets(),
    ) {
        let network = HomeNetwork::new(&mcc, &mnc).unwrap();
        let rid: RoutingIndicator = rid.parse().unwrap();
        let keys = [SuciHomeKey::profile_a(key_id, secret).ok(), SuciHomeKey::profile_b(key_id, secret).ok()];
        let supis = [format!("imsi-{mcc}{mnc}{msin}"), format!("nai-{username}@realm.example")];
        for supi in supis.iter().map(|text| text.parse::<Supi>().unwrap()) {
            let null = Suci::conceal(&supi, &network, &rid, None).unwrap();
            prop_assert_eq!(null.to_string().parse::<Suci>().unwrap().null_scheme_supi().unwrap(), supi.clone());
            for key in keys.iter().flatten() {
                let public = key.public_key();
                let suci = Suci::conceal_with_ephemeral(&supi, &network, &rid, &public, &ephemeral).unwrap();
                let received: Suci = suci.to_string().parse().unwrap();
                prop_assert_eq!(&received, &suci);
                prop_assert_eq!(received.routing_indicator(), &rid);
                prop_assert_eq!(key.deconceal(&received).unwrap(), supi.clone());
            }
        }
    }
}
