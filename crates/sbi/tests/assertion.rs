//! Client credentials assertions while certificates are revoked and replaced.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sbi::CertificateFiles;
use sbi::assertion::{AssertionKeys, AssertionSigner};
use sbi::testing::TestAuthority;
use sbi::testing::tokens::now;
use serde_json::Value;

const PRODUCER: &str = "11111111-1111-4111-8111-111111111111";
const CONSUMER: &str = "22222222-2222-4222-8222-222222222222";
const OTHER: &str = "33333333-3333-4333-8333-333333333333";

fn signer(files: &CertificateFiles) -> AssertionSigner {
    AssertionSigner::new(CONSUMER.parse().unwrap(), files).unwrap()
}

/// What `keys` say to an assertion of `signer`: who it is, or the reason of the refusal.
fn verdict(keys: &AssertionKeys, signer: &AssertionSigner) -> Result<String, &'static str> {
    let assertion = signer.assertion("AANF").unwrap();
    let claims = keys.verify(assertion.to_str().unwrap(), "AANF", now(), 5);
    claims.map(|claims| claims.sub).map_err(|refusal| refusal.reason())
}

/// Waits until `holds`; a changed file is noticed at the next look.
async fn until(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

/// In one step: nobody reads half of it.
fn replace(path: &Path, content: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, content).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

#[tokio::test]
async fn a_signer_whose_certificate_is_revoked_is_refused_without_a_restart() {
    let authority = TestAuthority::new();
    let (revoked, other) = (signer(&authority.issue(CONSUMER, &[])), authority.issue(OTHER, &[]));
    let other = AssertionSigner::new(OTHER.parse().unwrap(), &other).unwrap();
    let producer = CertificateFiles { crl: Some(authority.crl(&[], 2099)), ..authority.issue(PRODUCER, &[]) };
    let keys = AssertionKeys::open(&producer).unwrap();
    assert_eq!(verdict(&keys, &revoked).unwrap(), CONSUMER);
    let _ = authority.crl(&[CONSUMER], 2099);
    until(|| verdict(&keys, &revoked) == Err("assertion_certificate_revoked")).await;
    assert_eq!(verdict(&keys, &other).unwrap(), OTHER, "the CRL is about one of them");
}

#[tokio::test]
async fn a_crl_that_is_missing_for_the_signer_s_authority_or_has_run_out_lets_nobody_in() {
    let authority = TestAuthority::new();
    let consumer = signer(&authority.issue(CONSUMER, &[]));
    let producer = CertificateFiles { crl: Some(authority.crl(&[], 2021)), ..authority.issue(PRODUCER, &[]) };
    let keys = AssertionKeys::open(&producer).unwrap();
    assert_eq!(verdict(&keys, &consumer), Err("assertion_certificate"));
    let of_another = CertificateFiles { crl: Some(TestAuthority::new().crl(&[], 2099)), ..producer.clone() };
    assert!(AssertionKeys::open(&of_another).is_err(), "the file went with its authority");
    let another = TestAuthority::new();
    let of_another = CertificateFiles { crl: Some(another.crl(&[], 2099)), ..producer };
    assert_eq!(verdict(&AssertionKeys::open(&of_another).unwrap(), &consumer), Err("assertion_certificate"));
}

#[tokio::test]
async fn a_renewed_authority_is_taken_without_a_restart_and_the_old_one_ends() {
    let (old, new) = (TestAuthority::new(), TestAuthority::new());
    let producer = old.issue(PRODUCER, &[]);
    let (before, after) = (signer(&old.issue(CONSUMER, &[])), signer(&new.issue(CONSUMER, &[])));
    let keys = AssertionKeys::open(&producer).unwrap();
    assert_eq!(verdict(&keys, &after), Err("assertion_certificate"));
    let of_new = std::fs::read_to_string(new.ca()).unwrap();
    replace(&producer.ca, &format!("{}{of_new}", std::fs::read_to_string(old.ca()).unwrap()));
    until(|| verdict(&keys, &after).is_ok()).await;
    assert!(verdict(&keys, &before).is_ok(), "both stand while one takes the place of the other");
    replace(&producer.ca, &of_new);
    until(|| verdict(&keys, &before) == Err("assertion_certificate")).await;
    replace(&producer.ca, "no certificate");
    let unusable = std::time::Instant::now();
    until(|| unusable.elapsed() > 2 * sbi::assertion::LOOK_INTERVAL && verdict(&keys, &after).is_ok()).await;
}

#[tokio::test]
async fn a_signer_takes_its_renewed_certificate_and_key_without_a_restart() {
    let authority = TestAuthority::new();
    let producer = CertificateFiles { crl: Some(authority.crl(&[], 2099)), ..authority.issue(PRODUCER, &[]) };
    let keys = AssertionKeys::open(&producer).unwrap();
    let files = authority.issue(CONSUMER, &[]);
    let signer = signer(&files);
    let shown = || {
        let assertion = signer.assertion("AANF").unwrap();
        let header = URL_SAFE_NO_PAD.decode(assertion.to_str().unwrap().split('.').next().unwrap()).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        STANDARD.decode(header.pointer("/x5c/0").unwrap().as_str().unwrap()).unwrap()
    };
    let first = shown();
    // The old one is revoked: what is signed from now on must be signed with the new one.
    let _ = authority.crl(&[CONSUMER], 2099);
    let _ = authority.issue(CONSUMER, &[]);
    until(|| shown() != first).await;
    until(|| verdict(&keys, &signer).is_ok()).await;
    // A certificate that does not belong to the key is not taken.
    let (certificate, renewed) = (authority.issue(OTHER, &[]).certificate, shown());
    replace(&files.certificate, &std::fs::read_to_string(certificate).unwrap());
    let replaced = std::time::Instant::now();
    until(|| replaced.elapsed() > 2 * sbi::assertion::LOOK_INTERVAL && shown() == renewed).await;
    assert!(verdict(&keys, &signer).is_ok());
}

#[test]
fn a_key_that_is_not_the_certificate_s_signs_nothing() {
    let authority = TestAuthority::new();
    let (own, other) = (authority.issue(CONSUMER, &[]), authority.issue(OTHER, &[]));
    let mixed = CertificateFiles { key: other.key, ..own };
    assert!(AssertionSigner::new(CONSUMER.parse().unwrap(), &mixed).is_err());
}
