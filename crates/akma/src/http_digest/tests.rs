#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// RFC 7616 clause 3.9.1.
const OF_THE_RFC: &str = "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", \
    algorithm=SHA-256, nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
    cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, \
    response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\", \
    opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\"";

const GET: Covered<'static> = Covered { method: "GET", uri: "/dir/index.html", body: b"" };

fn password(text: &str) -> DigestPassword {
    DigestPassword(Zeroizing::new(text.to_owned()))
}

#[test]
fn the_example_of_rfc_7616_verifies_and_nothing_near_it_does() {
    let credentials = Credentials::parse(OF_THE_RFC).unwrap();
    let right = password("Circle of Life");
    assert!(credentials.verify(&right, &GET));
    assert!(!credentials.verify(&password("Circle of life"), &GET));
    assert!(!credentials.verify(&right, &Covered { method: "POST", ..GET }));
    assert!(!credentials.verify(&right, &Covered { uri: "/dir/index.htm", ..GET }));
    assert!(!Credentials { count: 2, ..credentials.clone() }.verify(&right, &GET));
    assert!(!Credentials { nonce: "other".into(), ..credentials.clone() }.verify(&right, &GET));
    assert!(!Credentials { realm: "other".into(), ..credentials.clone() }.verify(&right, &GET));
    assert!(!Credentials { username: "Simba".into(), ..credentials }.verify(&right, &GET));
}

#[test]
fn integrity_protection_covers_the_body() {
    let k_af = KAf::from_bytes([7; 32]);
    let covered = Covered { method: "POST", uri: "/msgin5g", body: b"{}" };
    let made = |qop| {
        Credentials::prove("0.ab@realm", &DigestPassword::from(&k_af), ("realm", "nonce", 1), qop, "cnonce", &covered)
    };
    let altered = Covered { body: b"{ }", ..covered };
    assert!(made(Qop::AuthInt).verify(&DigestPassword::from(&k_af), &covered));
    assert!(!made(Qop::AuthInt).verify(&DigestPassword::from(&k_af), &altered));
    assert!(made(Qop::Auth).verify(&DigestPassword::from(&k_af), &altered), "auth does not");
}

#[test]
fn the_password_is_k_af_in_base64() {
    let password = DigestPassword::from(&KAf::from_bytes([0xfb; 32]));
    assert_eq!(password.expose(), "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=");
    assert_eq!(format!("{password:?}"), "DigestPassword(..)");
}

#[test]
fn the_realm_names_the_application_function() {
    let fqdn: Fqdn = "msgin5g.example.com".parse().unwrap();
    let challenge =
        Challenge { realm: digest_realm(&fqdn), nonce: "n".into(), qop: vec![Qop::AuthInt, Qop::Auth], stale: true };
    assert_eq!(
        challenge.to_string(),
        "Digest realm=\"3GPP-bootstrapping-akma@msgin5g.example.com\", qop=\"auth-int, auth\", algorithm=SHA-256, \
         nonce=\"n\", stale=true"
    );
    assert_eq!(Challenge::parse(&challenge.to_string()).unwrap(), challenge);
    assert!(challenge.is_of(&fqdn));
    assert!(!challenge.is_of(&"other.example.com".parse().unwrap()));
    assert!(!Challenge { realm: "msgin5g.example.com".into(), ..challenge }.is_of(&fqdn));
}

#[test]
fn what_is_not_offered_is_told_from_what_is_malformed() {
    let with = |from: &str, to: &str| Credentials::parse(&OF_THE_RFC.replace(from, to)).unwrap_err();
    assert_eq!(with("algorithm=SHA-256", "algorithm=MD5"), DigestError::OtherAlgorithm);
    assert_eq!(with("algorithm=SHA-256, ", ""), DigestError::OtherAlgorithm, "none stands for MD5");
    assert_eq!(with("algorithm=SHA-256", "algorithm=SHA-256-sess"), DigestError::OtherAlgorithm);
    assert_eq!(with("qop=auth, ", ""), DigestError::OtherProtection);
    assert_eq!(with("qop=auth", "qop=auth-conf"), DigestError::OtherProtection);
    assert_eq!(with("Digest ", "Basic "), DigestError::OtherScheme);
    assert_eq!(with("cnonce=", "conce="), DigestError::Missing("cnonce"));
    for (from, to) in [
        ("nc=00000001", "nc=1"),
        ("nc=00000001", "nc=00000000"),
        ("nc=00000001", "nc=+0000001"),
        ("753927fa", "753927FA"),
        ("753927fa", "753927f"),
        ("opaque=", "qop=auth, opaque="),
        ("nc=00000001,", "nc=00000001"),
        ("dS\"", "dS"),
        ("Mufasa", "Muf\u{e4}sa"),
        ("Mufasa", "Muf\nasa"),
        ("nc=", "userhash=true, nc="),
    ] {
        assert!(matches!(with(from, to), DigestError::Malformed(_)), "{to}");
    }
    let long = OF_THE_RFC.replace("Mufasa", &"M".repeat(DIGEST_HEADER_OCTETS_MAX));
    assert!(matches!(Credentials::parse(&long), Err(DigestError::Malformed(_))));
}

proptest! {
    #[test]
    fn what_is_written_reads_back(username in "[ -~]{1,40}", nonce in "[ -~]{1,40}", uri in "/[ -~]{0,40}", count in 1_u32.., body in any::<Vec<u8>>()) {
        let covered = Covered { method: "POST", uri: &uri, body: &body };
        let key = password("secret");
        let made = Credentials::prove(&username, &key, ("realm", &nonce, count), Qop::AuthInt, "cnonce", &covered);
        let read = Credentials::parse(&made.to_string()).unwrap();
        prop_assert_eq!(&read, &made);
        prop_assert!(read.verify(&key, &covered));
    }

    #[test]
    fn no_text_breaks_the_parsers(text in "(Digest )?[ -~]{0,200}") {
        let _ = Credentials::parse(&text);
        let _ = Challenge::parse(&text);
    }

    #[test]
    fn no_change_of_one_octet_still_verifies(at in 0_usize..OF_THE_RFC.len(), to in b' '..=b'~') {
        let mut octets = OF_THE_RFC.as_bytes().to_vec();
        let before = std::mem::replace(octets.get_mut(at).unwrap(), to);
        let text = String::from_utf8(octets).unwrap();
        if let Ok(credentials) = Credentials::parse(&text) {
            let same = credentials == Credentials::parse(OF_THE_RFC).unwrap();
            // The URI that enters the digest is the request's, and the count's digits are what counts.
            let elsewhere = credentials.uri != GET.uri;
            prop_assert!(before == to || same || elsewhere || !credentials.verify(&password("Circle of Life"), &GET));
        }
    }
}
