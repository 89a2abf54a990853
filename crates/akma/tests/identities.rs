//! What the identities and formats accept and refuse, and what they let out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use akma::{
    AKid, AKidFormat, ATid, ATidEncoding, AfId, Amf, DigestUaProtocol, Error, Fqdn, Gpsi, HomeNetwork, KAf, NullScheme,
    PskIdentity, Res, RoutingIndicator, ServingNetworkName, Sqn, Suci, SuciHomeKey, SuciHomeKeys, SuciPublicKey,
    SuciScheme, Supi, UaProtocolId, UeId, Usim, UsimCredentials,
};

fn refuses<T: std::str::FromStr>(texts: &[&str]) {
    for text in texts {
        assert!(text.parse::<T>().is_err(), "accepted {text:?}");
    }
}

fn round_trips<T: std::str::FromStr<Err = Error> + serde::Serialize + serde::de::DeserializeOwned>(texts: &[&str]) {
    for text in texts {
        let value: T = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(json, format!("{text:?}"));
        assert!(serde_json::from_str::<T>(&json).is_ok());
    }
}

#[test]
fn identities_are_those_of_ts_29_571() {
    round_trips::<Supi>(&["imsi-00101", "imsi-001010000000001", "nai-user@example.com", "nai-a-b@x-y.example"]);
    refuses::<Supi>(&[
        "",
        "imsi-",
        "imsi-0010",
        "imsi-0010100000000011",
        "imsi-00101a",
        "IMSI-001010000000001",
        "001010000000001",
        "nai-",
        "nai-user",
        "nai-@example.com",
        "nai-user@",
        "nai-a@b@c",
        "nai-us er@example.com",
        "nai-u\n@example.com",
        "msisdn-12345",
        "suci-0-001-01-0-0-0-1",
        "imsi-٠٠١٠١",
    ]);
    refuses::<Supi>(&[&format!("nai-{}@example.com", "u".repeat(250))]);
    round_trips::<Gpsi>(&["msisdn-12345", "msisdn-491701234567", "extid-meter-7@example.com"]);
    refuses::<Gpsi>(&[
        "",
        "msisdn-1234",
        "msisdn-+49170",
        "extid-a",
        "extid-@b",
        "extid-a@",
        "extid-a@b@c",
        "imsi-00101",
    ]);
    round_trips::<UeId>(&["imsi-001010000000001", "extid-a@b", "msisdn-12345", "nai-a@b.example"]);
    refuses::<UeId>(&["", "a", "imsi-1", "suci-0-001-01-0-0-0-1"]);
}

#[test]
fn network_names_are_those_of_ts_23_003_and_ts_24_501() {
    let network = HomeNetwork::new("001", "01").unwrap();
    assert_eq!(network.realm(), "5gc.mnc001.mcc001.3gppnetwork.org");
    assert_eq!(network.serving_network_name().as_str(), "5G:mnc001.mcc001.3gppnetwork.org");
    assert_eq!(HomeNetwork::new("310", "410").unwrap().realm(), "5gc.mnc410.mcc310.3gppnetwork.org");
    for (mcc, mnc) in [("01", "01"), ("0011", "01"), ("001", "1"), ("001", "0001"), ("00a", "01"), ("", "")] {
        assert_eq!(HomeNetwork::new(mcc, mnc), Err(Error::InvalidHomeNetwork));
    }
    let read: HomeNetwork = serde_json::from_str(r#"{"mcc":"001","mnc":"01"}"#).unwrap();
    assert_eq!(read, network);
    assert!(serde_json::from_str::<HomeNetwork>(r#"{"mcc":"001","mnc":"1"}"#).is_err());
    round_trips::<RoutingIndicator>(&["0", "17", "0000", "9999"]);
    refuses::<RoutingIndicator>(&["", "12345", "a", "-1", "+1", " 1"]);
    round_trips::<ServingNetworkName>(&[
        "5G:mnc001.mcc001.3gppnetwork.org",
        "5G:mnc001.mcc001.3gppnetwork.org:0123456789A",
        "5G:NSWO",
    ]);
    refuses::<ServingNetworkName>(&[
        "",
        "5G",
        "5G:",
        "mnc001.mcc001.3gppnetwork.org",
        "5G:mnc01.mcc001.3gppnetwork.org",
        "4G:mnc001.mcc001.3gppnetwork.org",
        "5G:mnc001.mcc001.3gppnetwork.org:",
        "5G:mnc001.mcc001.3gppnetwork.org:0123456789a",
        "5G:mnc001.mcc001.example.org",
        "5G:x.mnc001.mcc001.3gppnetwork.org",
    ]);
}

#[test]
fn a_domain_name_is_normalised_so_that_both_sides_derive_the_same_key() {
    for text in ["MSGin5G.Example.com", "msgin5g.example.com.", "msgin5g.example.com"] {
        assert_eq!(text.parse::<Fqdn>().unwrap().as_str(), "msgin5g.example.com");
    }
    refuses::<Fqdn>(&[
        "",
        ".",
        "a..b",
        ".a",
        "-a.b",
        "a-.b",
        "a_b.c",
        "a b",
        "ü.example",
        "127.0.0.1",
        "::1",
        "a.b..",
        "1",
    ]);
    refuses::<Fqdn>(&[&"a".repeat(64), &vec!["a"; 127].join(".").repeat(2)]);
    assert!("a".repeat(63).parse::<Fqdn>().is_ok());
    assert!(vec!["a"; 127].join(".").parse::<Fqdn>().is_ok());
    round_trips::<Fqdn>(&["localhost", "a-b.c3.example", "3gppnetwork.org"]);
}

#[test]
fn protocol_identifiers_are_those_of_ts_33_220_annex_h() {
    assert_eq!(UaProtocolId::TLS_1_3.to_string(), "0100000007");
    assert_eq!(UaProtocolId::HTTP_DIGEST.to_string(), "0100000002");
    assert_eq!(UaProtocolId::tls_1_2(0xd001).to_string(), "010001d001");
    assert_eq!(DigestUaProtocol::default().identifier(0x1301), UaProtocolId::HTTP_DIGEST);
    assert_eq!(DigestUaProtocol::CipherSuite.identifier(0xc02b).to_string(), "010001c02b");
    assert_eq!(UaProtocolId::tls_1_2(0x00a8).tls_1_2_cipher_suite(), Some(0x00a8));
    assert_eq!(UaProtocolId::TLS_1_3.tls_1_2_cipher_suite(), None);
    assert_eq!("010001D001".parse::<UaProtocolId>().unwrap(), UaProtocolId::tls_1_2(0xd001));
    refuses::<UaProtocolId>(&["", "01000000", "01000000070", "010000000g", "010000000700"]);
    round_trips::<AfId>(&["msgin5g.example.com:0100000007"]);
    refuses::<AfId>(&["", "msgin5g.example.com", "msgin5g.example.com:", ":0100000007", "a:b:0100000007"]);
}

#[test]
fn an_a_kid_is_opaque_and_its_parts_are_read_in_one_format() {
    round_trips::<AKid>(&["a", "x@y", "!#$%&'*+-/=?^_`{|}~", &"k".repeat(253)]);
    refuses::<AKid>(&["", " ", "a b", "a\n", "ä", ";a", ".a", &"k".repeat(254)]);
    let hex = "ab".repeat(32);
    let realm = "5gc.mnc001.mcc001.3gppnetwork.org";
    assert!(format!("0.{hex}@{realm}").parse::<AKid>().unwrap().parts().is_ok());
    for text in [
        format!("0.{hex}"),
        format!("{hex}@{realm}"),
        format!("00000.{hex}@{realm}"),
        format!("0.{}@{realm}", hex.to_uppercase()),
        format!("0.{}@{realm}", &hex[2..]),
        format!("0.{hex}@akma.{realm}"),
        format!("0.{hex}@{realm}@{realm}"),
        format!("0.{hex}@5gc.mnc01.mcc001.3gppnetwork.org"),
    ] {
        assert!(matches!(text.parse::<AKid>().unwrap().parts(), Err(Error::AKidParts(_))), "{text}");
    }
}

#[test]
fn another_a_kid_format_is_a_matter_of_configuration() {
    let format: AKidFormat =
        serde_json::from_str(r#"{"a_tid_encoding":"base64-url","realm_prefix":"akma.5gc"}"#).unwrap();
    format.check().unwrap();
    let network = HomeNetwork::new("262", "99").unwrap();
    let a_tid = ATid::from_bytes([0xfb; 32]);
    let a_kid = format.format(&"12".parse().unwrap(), &a_tid, &network);
    assert_eq!(a_kid.as_str(), "12.-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s@akma.5gc.mnc099.mcc262.3gppnetwork.org");
    assert_eq!(format.parts(&a_kid).unwrap().a_tid, a_tid);
    assert!(a_kid.parts().is_err());
    assert_eq!(serde_json::from_str::<AKidFormat>("{}").unwrap(), AKidFormat::default());
    assert!(serde_json::from_str::<AKidFormat>(r#"{"delimiter":"-"}"#).is_err());
    for realm_prefix in ["", ".", "5gc.", "a b", "@", &"a".repeat(64)] {
        let format = AKidFormat { a_tid_encoding: ATidEncoding::Hex, realm_prefix: realm_prefix.to_owned() };
        assert!(format.check().is_err(), "{realm_prefix}");
    }
}

#[test]
fn a_psk_identity_of_another_scheme_is_refused() {
    for identity in [
        &b""[..],
        b"3GPP-AKMA",
        b"3GPP-AKMA;",
        b"3GPP-AKMA;;a",
        b"3gpp-akma;a",
        b"3GPP-bootstrapping;a",
        b"a",
        b"3GPP-AKMA;\xff",
        b"3GPP-AKMA a",
        b"3GPP-AKMA;a\0",
    ] {
        assert_eq!(PskIdentity::parse(identity), Err(Error::InvalidPskIdentity));
    }
    assert!(PskIdentity::parse(&[b'3'; PskIdentity::OCTETS_MAX + 1]).is_err());
}

#[test]
fn sequence_numbers_and_amf_are_hexadecimal_as_in_ts_29_505() {
    round_trips::<Sqn>(&["000000000000", "ff9bb4d0b607", "ffffffffffff"]);
    refuses::<Sqn>(&["", "0", "0000000000000", "00000000000g", "1ffffffffffff"]);
    round_trips::<Amf>(&["8000", "b9b9"]);
    refuses::<Amf>(&["", "80", "80000", "800g"]);
    assert!(Amf::FIVE_G.separation_bit() && !Amf::ZERO.separation_bit());
}

#[test]
fn a_suci_that_is_not_of_ts_29_571_is_refused() {
    round_trips::<Suci>(&[
        "suci-0-001-01-0-0-0-0000000001",
        "suci-0-310-410-1234-0-0-123456789",
        "suci-1-a-b.example-0-0-0-u-s-er",
    ]);
    refuses::<Suci>(&[
        "",
        "suci-",
        "suci-0",
        "suci-2-x-0-0-0-a",
        "suci-0-001-01-0-0-0-",
        "suci-0-001-01-0-0-0-a",
        "suci-0-001-01-0-0-1-1",
        "suci-0-001-01-0-0-00-1",
        "suci-0-001-01-0-1-0-00",
        "suci-0-001-01-0-1-256-00",
        "suci-0-001-01-0-1-1-00",
        "suci-0-001-01-0-1-1-zz",
        "suci-0-001-01--0-0-1",
        "suci-0-001-01-00000-0-0-1",
        "suci-0-001-1-0-0-0-1",
        "suci-0-001-01-0-0-0-00000000001",
        "suci-0-001-01-0-",
        "suci-1--0-0-0-a",
        "suci-1-realm.example.-0-0-0-a",
        "suci-1-uci-01.-0-0-0-0",
        "suci-1-realm.example-0-0-0-",
        "suci-1-realm.example-0-0-0-a@b",
        "suci-1-realm.example",
        "imsi-001010000000001",
    ]);
    refuses::<Suci>(&[&format!("suci-0-001-01-0-1-1-{}", "00".repeat(1000))]);
    for scheme in ["3", "c", "F"] {
        let text = format!("suci-0-001-01-0-{scheme}-1-00");
        assert_eq!(text.parse::<Suci>().unwrap_err(), Error::UnsupportedSuciScheme);
    }
}

#[test]
fn a_suci_for_another_key_or_altered_is_refused() {
    let supi: Supi = "imsi-001010000000001".parse().unwrap();
    let network = HomeNetwork::new("001", "01").unwrap();
    let rid = RoutingIndicator::default();
    let keys = [
        (SuciHomeKey::profile_a(1, [1; 32]).unwrap(), SuciHomeKey::profile_a(1, [2; 32]).unwrap()),
        (SuciHomeKey::profile_b(1, [1; 32]).unwrap(), SuciHomeKey::profile_b(1, [2; 32]).unwrap()),
    ];
    for (key, other) in &keys {
        let suci = Suci::conceal(&supi, &network, &rid, Some(&key.public_key())).unwrap();
        assert_eq!(key.deconceal(&suci).unwrap(), supi);
        assert_eq!(other.deconceal(&suci), Err(Error::SuciMac));
        assert_eq!(suci.null_scheme_supi(), Err(Error::UnknownSuciKey));
        let text = suci.to_string();
        let start = text.rfind('-').unwrap() + 1;
        for digit in (start..text.len()).step_by(7) {
            let mut altered = text.clone().into_bytes();
            altered[digit] = if altered[digit] == b'0' { b'1' } else { b'0' };
            let altered: Suci = String::from_utf8(altered).unwrap().parse().unwrap();
            // The sign bit of an X25519 key is not used; elsewhere every change is noticed.
            if altered != suci && digit != start + 62 {
                assert!(key.deconceal(&altered).is_err(), "digit {digit}");
            }
        }
        // Two SUCIs of one SUPI share nothing.
        let again = Suci::conceal(&supi, &network, &rid, Some(&key.public_key())).unwrap();
        assert_ne!(again.to_string(), text);
    }
    let [(key_a, _), (key_b, _)] = keys;
    let suci_a = Suci::conceal(&supi, &network, &rid, Some(&key_a.public_key())).unwrap();
    assert_eq!(key_b.deconceal(&suci_a), Err(Error::UnknownSuciKey));
    let elsewhere = SuciHomeKey::profile_a(2, [1; 32]).unwrap();
    assert_eq!(elsewhere.deconceal(&suci_a), Err(Error::UnknownSuciKey));

    let home = SuciHomeKeys::new(vec![key_b, key_a], NullScheme::Refused);
    assert_eq!(home.deconceal(&suci_a).unwrap(), supi);
    assert_eq!(
        home.public_keys().map(|key| key.scheme()).collect::<Vec<_>>(),
        [SuciScheme::ProfileB, SuciScheme::ProfileA]
    );
    let null = Suci::conceal(&supi, &network, &rid, None).unwrap();
    assert_eq!(home.deconceal(&null), Err(Error::UnsupportedSuciScheme));
    let lenient = SuciHomeKeys::new(Vec::new(), NullScheme::Accepted);
    assert_eq!(lenient.deconceal(&null).unwrap(), supi);
    assert_eq!(lenient.deconceal(&suci_a), Err(Error::UnknownSuciKey));
}

#[test]
fn a_suci_whose_ephemeral_key_is_no_key_is_refused() {
    let key_a = SuciHomeKey::profile_a(1, [1; 32]).unwrap();
    let zeros: Suci = format!("suci-0-001-01-0-1-1-{}", "00".repeat(32 + 5 + 8)).parse().unwrap();
    assert_eq!(key_a.deconceal(&zeros), Err(Error::InvalidCurveKey));
    let key_b = SuciHomeKey::profile_b(1, [1; 32]).unwrap();
    let off_curve: Suci = format!("suci-0-001-01-0-2-1-02{}", "ff".repeat(32 + 5 + 8)).parse().unwrap();
    assert_eq!(key_b.deconceal(&off_curve), Err(Error::InvalidCurveKey));
    assert_eq!(SuciPublicKey::profile_b(1, [0xff; 33]), Err(Error::InvalidCurveKey));
    assert_eq!(SuciHomeKey::profile_b(1, [0; 32]).err(), Some(Error::InvalidCurveKey));
    assert_eq!(SuciHomeKey::profile_a(0, [1; 32]).err(), Some(Error::UnknownSuciKey));
    // A home network whose X25519 key is of small order would let everyone read along.
    let supi: Supi = "imsi-001010000000001".parse().unwrap();
    let network = HomeNetwork::new("001", "01").unwrap();
    let weak = SuciPublicKey::profile_a(1, [0; 32]).unwrap();
    let concealed = Suci::conceal(&supi, &network, &RoutingIndicator::default(), Some(&weak));
    assert_eq!(concealed.unwrap_err(), Error::InvalidCurveKey);
}

#[test]
fn a_supi_of_another_network_is_not_concealed() {
    let network = HomeNetwork::new("001", "01").unwrap();
    let rid = RoutingIndicator::default();
    for text in ["imsi-262010000000001", "imsi-00101", "gci-a@b.example", "gli-a@b.example"] {
        let supi: Supi = text.parse().unwrap();
        assert!(matches!(Suci::conceal(&supi, &network, &rid, None), Err(Error::SupiNotConcealable(_))), "{text}");
    }
    // Read from the left, the realm would end before the first hyphen.
    let ambiguous: Supi = "nai-user@a-1-0-0-b.example".parse().unwrap();
    assert!(matches!(Suci::conceal(&ambiguous, &network, &rid, None), Err(Error::SupiNotConcealable(_))));
}

#[test]
fn nothing_secret_shows_in_debug_output_or_errors() {
    let hex = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4";
    let supi: Supi = "imsi-001019876543210".parse().unwrap();
    let network = HomeNetwork::new("001", "01").unwrap();
    let suci = Suci::conceal(&supi, &network, &RoutingIndicator::default(), None).unwrap();
    let credentials = UsimCredentials::milenage_opc(&[0x5e; 16], &[0x5e; 16]);
    let vector = credentials.vector(&[0; 16], Sqn::ZERO, Amf::FIVE_G);
    let shown = [
        format!("{:?}", KAf::from_hex(hex).unwrap()),
        format!("{:?}", Res::from_hex("5ec4e75e").unwrap()),
        format!("{supi:?} {:?}", UeId::from(supi.clone())),
        format!("{:?}", "msisdn-9876543210".parse::<Gpsi>().unwrap()),
        format!("{suci:?}"),
        format!("{credentials:?} {:?}", Usim::new(credentials.clone(), Sqn::ZERO)),
        format!("{vector:?}"),
        format!("{:?}", SuciHomeKey::profile_a(1, [0x5e; 32]).unwrap()),
        format!("{:?}", SuciHomeKey::profile_b(1, [0x5e; 32]).unwrap()),
        "imsi-9876543210x".parse::<Supi>().unwrap_err().to_string(),
        KAf::from_hex("5ec4e7").unwrap_err().to_string(),
    ];
    for text in shown {
        for secret in ["5ec4", "5e5e", "94, 94", "9876543210"] {
            assert!(!text.to_lowercase().contains(secret), "{text}");
        }
    }
}

#[test]
fn keys_read_hexadecimal_of_their_length_only() {
    let hex = "0A".repeat(32);
    assert_eq!(*KAf::from_hex(&hex).unwrap().to_hex(), hex.to_lowercase());
    for text in ["", "0", &hex[2..], &format!("{hex}00"), &hex.replace('A', "g")] {
        assert_eq!(KAf::from_hex(text), Err(Error::InvalidHex { octets: 32 }));
    }
    for octets in [0, 3, 17] {
        assert_eq!(Res::from_slice(&vec![0; octets]), Err(Error::InvalidRes));
    }
}

#[test]
fn the_routing_indicator_of_an_a_kid_is_read_whatever_follows_it() {
    for (a_kid, expected) in [
        ("0.a4@5gc.mnc001.mcc001.3gppnetwork.org", Some("0")),
        ("0017.x@elsewhere.example", Some("0017")),
        ("9999.", Some("9999")),
        ("12345.x@y", None),
        ("a.x@y", None),
        ("1x.x@y", None),
        ("12@5gc.mnc001", None),
        ("opaque", None),
    ] {
        let a_kid: AKid = a_kid.parse().unwrap();
        assert_eq!(a_kid.routing_indicator(), expected.map(|digits| digits.parse().unwrap()), "{a_kid}");
    }
}
