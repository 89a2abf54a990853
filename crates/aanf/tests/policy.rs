//! The policy file, and what the audit says of the decisions made by it; from outside, over real HTTP/2.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aanf::{AanfError, AfConfig, PROVISIONING_PATH, refusal};
use common::*;
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
    let taken = async {
        while fixture.retrieve(OUTSIDE_AF, OUTSIDE, A_KID).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), taken).await.unwrap();
    let gone = refused(fixture.retrieve(INSIDE_AF, INSIDE, A_KID).await);
    assert!(gone.has_cause(refusal::REQUESTER_NOT_ALLOWED));
    fixture.stop().await;
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
async fn every_decision_of_the_rules_is_in_the_audit() {
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
