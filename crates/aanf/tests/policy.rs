//! The policy file, and how the decisions made by it are counted; from outside, over real HTTP/2.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aanf::{AanfError, AfConfig, PROVISIONING_PATH, refusal};
use common::*;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sbi::naanf::NaanfClient;
use sbi::testing::tokens::{TestIssuer, TestTokens};
use sbi::{SbiError, TokenSource, TokenTarget};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// In one step: nobody reads half of it.
fn write(directory: &Path, text: &str) -> PathBuf {
    let (path, fresh) = (directory.join("policy.toml"), directory.join("policy.new"));
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, &path).unwrap();
    path
}

fn entries(afs: &[AfConfig]) -> String {
    toml::to_string(&json!({ "af": afs.iter().map(without_nulls).collect::<Vec<_>>() })).unwrap()
}

fn without_nulls(af: &AfConfig) -> Value {
    let mut value = serde_json::to_value(af).unwrap();
    value.as_object_mut().unwrap().retain(|_, member| !member.is_null());
    value
}

#[tokio::test]
async fn an_af_gets_its_rights_from_a_policy_file_and_others_when_the_file_changes() {
    let policies = tempfile::tempdir().unwrap();
    let ausf = AfConfig { may_register: true, ..af(AUSF, &[]) };
    let path = write(policies.path(), &entries(&[ausf.clone(), af(INSIDE_AF, &[INSIDE])]));
    let fixture = Fixture::start_with(|_, config| {
        config.policy = Some(path);
        config.afs.clear();
    })
    .await;
    fixture.register(SUPI, A_KID).await;
    assert!(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap().is_some());
    let stranger = refused(fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await);
    assert!(stranger.has_cause(refusal::REQUESTER_NOT_ALLOWED));

    write(policies.path(), &entries(&[ausf, af(OUTSIDE_AF, &[OUTSIDE])]));
    until(async || fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.is_ok()).await;
    let gone = refused(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await);
    assert!(gone.has_cause(refusal::REQUESTER_NOT_ALLOWED));
    fixture.stop().await;
}

/// The same token for every request, so that only the first has its signature checked.
struct OneToken(Arc<str>);

impl TokenSource for OneToken {
    fn token(&self, _: &TokenTarget, _: &str) -> BoxFuture<'_, Result<Arc<str>, SbiError>> {
        std::future::ready(Ok(Arc::clone(&self.0))).boxed()
    }

    fn rejected(&self, _: &TokenTarget, _: &str, _: &str) {}
}

#[tokio::test]
async fn a_token_that_was_verified_before_does_not_outlive_the_rights_of_its_peer_in_a_changed_policy_file() {
    const NRF: &str = "80000000-0000-4000-8000-000000000000";
    const SCOPE: &str = "naanf-akma naanf-akma:applicationkeyget naanf-akma:applicationkeyget:supi-access";
    let policies = tempfile::tempdir().unwrap();
    let ausf = AfConfig { may_register: true, ..af(AUSF, &[]) };
    let with_supi = AfConfig { supi_access: true, ..af(INSIDE_AF, &[INSIDE]) };
    let path = write(policies.path(), &entries(&[ausf.clone(), with_supi.clone()]));
    let mut issuer = None;
    let fixture = Fixture::start_with(|authority, config| {
        let nrf = TestIssuer::new(authority, NRF);
        config.authorization = nrf.section();
        issuer = Some(nrf);
        config.policy = Some(path);
        config.afs.clear();
    })
    .await;
    let issuer = issuer.unwrap();
    let registrar = fixture.authority.client(AUSF).with_tokens(TestTokens::new(&issuer, AUSF));
    let registrar = NaanfClient::new(registrar, fixture.root());
    registrar.register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await.unwrap();
    let token = OneToken(issuer.token(INSIDE_AF, "AANF", SCOPE).into());
    let client = NaanfClient::new(fixture.authority.client(INSIDE_AF).with_tokens(Arc::new(token)), fixture.root());
    let ask = async || client.retrieve_applicationkey(&request(INSIDE, A_KID)).await;
    for _ in 0..2 {
        assert!(ask().await.unwrap().unwrap().supi.is_some(), "the token is good, and known the second time");
    }

    // Less than before: the token still has the scope, the entry does not allow it any more.
    write(policies.path(), &entries(&[ausf.clone(), af(INSIDE_AF, &[INSIDE])]));
    until(async || ask().await.unwrap().unwrap().supi.is_none()).await;
    // Nothing at all.
    write(policies.path(), &entries(std::slice::from_ref(&ausf)));
    until(async || ask().await.is_err()).await;
    for _ in 0..2 {
        let problem = refused(ask().await);
        assert_eq!(problem.status, Some(403));
        assert!(problem.has_cause(refusal::REQUESTER_NOT_ALLOWED), "{problem:?}");
    }
    // It was not the token that was refused.
    write(policies.path(), &entries(&[ausf, with_supi]));
    until(async || ask().await.is_ok()).await;
    assert!(ask().await.unwrap().unwrap().supi.is_some());
    fixture.stop().await;
}

/// Waits until this holds.
async fn until(holds: impl AsyncFn() -> bool) {
    let holds = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), holds).await.expect("it comes to hold");
}

#[tokio::test]
async fn a_policy_file_that_cannot_be_meant_is_told_before_anything_is_served() {
    let fixture = Fixture::start().await;
    let directory = tempfile::tempdir().unwrap();
    let told = |text: &str| {
        let policy = Some(write(directory.path(), text));
        let config = aanf::Config { policy, afs: Vec::new(), ..fixture.config.clone() };
        config.with_policy().unwrap_err().to_string()
    };
    assert!(told("[[af]]\ndns_name = 'a'\n").contains("policy.toml: af[0] may do nothing"));
    assert!(
        told("[[af]]\ndns_name = 'a'\nfqdn = []\n").contains("policy.toml (line 3, column 1): unknown field `fqdn`")
    );
    assert!(told("listen = '127.0.0.1:1'\n").contains("unknown field `listen`"), "only rules stand there");

    let both = aanf::Config { policy: Some(directory.path().join("policy.toml")), ..fixture.config.clone() };
    let error = aanf::start(both, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(&error, AanfError::Configuration(reason) if reason.starts_with("policy: ")), "{error}");
}

#[tokio::test]
async fn every_decision_of_the_rules_is_counted() {
    let fixture = Fixture::start_with(|_, config| {
        config.afs.push(AfConfig { may_provision: true, ..af(UDM, &[]) });
    })
    .await;
    fixture.register(SUPI, A_KID).await;
    fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await.unwrap();
    refused(fixture.retrieve(INSIDE_AF, OUTSIDE, A_KID).await);
    refused(fixture.retrieve(STRANGER, INSIDE, A_KID).await);
    refused(fixture.client(INSIDE_AF).register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await);
    let disabled = format!("{}{PROVISIONING_PATH}/disabled-ues/{SUPI}", fixture.root());
    fixture.authority.client(UDM).put::<_, Value>(&disabled, &()).await.unwrap();
    refused(fixture.authority.client(INSIDE_AF).put::<_, Value>(&disabled, &()).await);
    refused(fixture.client(AUSF).register_anchorkey(&key_info(SUPI, A_KID, K_AKMA)).await);

    let metrics = metrics(&fixture).await;
    for (outcome, reason) in [
        ("allowed", "added"),
        ("allowed", "found"),
        ("refused", "af_id_not_allowed"),
        ("refused", "no_policy_entry"),
        ("refused", "may_not_register"),
        ("allowed", "disabled"),
        ("refused", "may_not_provision"),
        ("refused", "disabled"),
    ] {
        let line = format!("sbi_authorizations_total{{outcome=\"{outcome}\",reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    fixture.stop().await;
}
