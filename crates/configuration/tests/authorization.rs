//! The Configuration Function where access tokens are needed.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Fixture, PROVISIONER, SERVER, SUPI, service, ue};
use sbi::SbiError;
use sbi::association::AssociationClient;
use sbi::ss_gm::SsGmClient;
use sbi::ss_upr::SsUprClient;
use sbi::testing::TestAuthority;
use sbi::testing::tokens::{TestIssuer, TestTokens};

const NRF: &str = "d0000000-0000-4000-8000-000000000000";

fn cause<T: std::fmt::Debug>(answer: Result<T, SbiError>) -> (Option<u16>, String) {
    let error = answer.unwrap_err();
    let problem = error.problem().unwrap();
    (problem.status, problem.cause.as_deref().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn each_service_needs_a_token_of_its_own_scope() {
    let authority = TestAuthority::new();
    let issuer = TestIssuer::new(&authority, NRF);
    let section = issuer.section();
    let fixture = Fixture::start_of(authority, |config| config.authorization = section).await;
    let missing = (Some(401), "TOKEN_MISSING".to_owned());
    assert_eq!(cause(fixture.reader(SERVER).ue_service_ids(&ue(SUPI)).await), missing);
    assert_eq!(cause(fixture.groups(SERVER).group(&"fleet@example.com".parse().unwrap()).await), missing);
    let provisioner = fixture.provisioner(PROVISIONER);
    assert_eq!(cause(provisioner.associate(&ue(SUPI), &service("meter@example.com")).await), missing);

    let with = |instance: &str, tokens| fixture.authority.client(instance).with_tokens(tokens);
    let provisioner = with(PROVISIONER, TestTokens::new(&issuer, PROVISIONER));
    let provisioner = AssociationClient::new(provisioner, fixture.root());
    assert!(provisioner.associate(&ue(SUPI), &service("meter@example.com")).await.unwrap());
    let server = with(SERVER, TestTokens::new(&issuer, SERVER));
    let found = SsUprClient::new(server.clone(), fixture.root()).ue_service_ids(&ue(SUPI)).await.unwrap();
    assert!(found.contains(&service("meter@example.com")));
    let groups = SsGmClient::new(server, fixture.root());
    assert!(groups.group(&"fleet@example.com".parse().unwrap()).await.unwrap().is_none());

    let of_groups = TestTokens::changed(&issuer, SERVER, |_, claims| claims.scope = "ss-gm".to_owned());
    let reader = SsUprClient::new(with(SERVER, of_groups), fixture.root());
    assert_eq!(cause(reader.ue_service_ids(&ue(SUPI)).await), (Some(403), "TOKEN_SCOPE".to_owned()));
}
