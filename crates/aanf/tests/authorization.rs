//! The anchor function where access tokens are needed.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use aanf::refusal;
use common::*;
use sbi::naanf::NaanfClient;
use sbi::testing::tokens::{TestIssuer, TestTokens};

const NRF: &str = "80000000-0000-4000-8000-000000000000";

/// An anchor function that takes tokens only, and its NRF.
async fn with_tokens() -> (Fixture, TestIssuer) {
    let mut issuer = None;
    let fixture = Fixture::start_with(|authority, config| {
        let nrf = TestIssuer::new(authority, NRF);
        config.authorization = nrf.section();
        issuer = Some(nrf);
    })
    .await;
    (fixture, issuer.unwrap())
}

impl Fixture {
    fn with_token(&self, instance: &str, tokens: Arc<TestTokens>) -> NaanfClient {
        NaanfClient::new(self.authority.client(instance).with_tokens(tokens), self.root())
    }
}

#[tokio::test]
async fn where_tokens_are_needed_a_certificate_with_an_entry_is_not_enough() {
    let (fixture, issuer) = with_tokens().await;
    let info = key_info(SUPI, A_KID, K_AKMA);
    let problem = refused(fixture.client(AUSF).register_anchorkey(&info).await);
    assert_eq!((problem.status, problem.cause.as_deref()), (Some(401), Some("TOKEN_MISSING")));
    let ausf = fixture.with_token(AUSF, TestTokens::new(&issuer, AUSF));
    ausf.register_anchorkey(&info).await.unwrap();
    let another_s = fixture.with_token(INSIDE_AF, TestTokens::new(&issuer, AUSF));
    let problem = refused(another_s.retrieve_applicationkey(&request(INSIDE, A_KID)).await);
    assert_eq!((problem.status, problem.cause.as_deref()), (Some(401), Some("TOKEN_SUBJECT")));
    let for_registrars = TestTokens::changed(&issuer, INSIDE_AF, |_, claims| {
        claims.scope = "naanf-akma naanf-akma:anchorkey".to_owned();
    });
    let narrow = fixture.with_token(INSIDE_AF, for_registrars);
    let problem = refused(narrow.retrieve_applicationkey(&request(INSIDE, A_KID)).await);
    assert_eq!((problem.status, problem.cause.as_deref()), (Some(403), Some("TOKEN_SCOPE")));
    // A token does not stand in for an entry.
    let stranger = fixture.with_token(STRANGER, TestTokens::new(&issuer, STRANGER));
    let problem = refused(stranger.retrieve_applicationkey(&request(INSIDE, A_KID)).await);
    assert!(problem.has_cause(refusal::REQUESTER_NOT_ALLOWED));
}

#[tokio::test]
async fn the_supi_needs_the_scope_of_the_token_and_the_entry() {
    let (fixture, issuer) = with_tokens().await;
    let ausf = fixture.with_token(AUSF, TestTokens::new(&issuer, AUSF));
    ausf.register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await.unwrap();
    let supi_of = async |instance: &str, fqdn: &str, with_scope: bool| {
        let client = fixture.with_token(instance, TestTokens::new(&issuer, instance));
        let client = if with_scope { client } else { client.without_supi() };
        client.retrieve_applicationkey(&request(fqdn, A_KID)).await.unwrap().unwrap().supi
    };
    assert!(supi_of(INSIDE_AF, INSIDE, true).await.is_some());
    assert!(supi_of(INSIDE_AF, INSIDE, false).await.is_none(), "the scope is missing");
    assert!(supi_of(OUTSIDE_AF, OUTSIDE, true).await.is_none(), "the entry does not allow it");
}
