//! Both APIs from outside: a provisioner, an MSGin5G Server, strangers; over real HTTP/2, certificates and files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Fixture, GPSI, PROVISIONER, SERVER, STRANGER, SUPI, refused, service, services, ue};
use configuration::{Config, refusal};
use message::UeServiceId;
use sbi::association::PageQuery;
use sbi::ss_upr::{ProfileDoc, SsUprClient};
use sbi::testing::TestAuthority;
use sbi::{SbiError, cause};
use serde_json::{Value, json};
use tokio::process::Command;

#[tokio::test]
async fn a_server_learns_every_ue_service_id_of_a_supi_or_gpsi_and_no_other() {
    let fixture = Fixture::start().await;
    assert!(fixture.associate(SUPI, "meter-7@lab.example").await, "new");
    assert!(!fixture.associate(SUPI, "meter-7@lab.example").await, "there already");
    fixture.associate(SUPI, "gateway@lab.example").await;
    fixture.associate(GPSI, "meter-7@lab.example").await;
    // A UE whose identity is the beginning of the other's.
    fixture.associate("imsi-00101000000000", "neighbour@lab.example").await;
    fixture.associate("nai-device@factory.example", "press-1").await;

    assert_eq!(fixture.may_register(SUPI).await, services(["meter-7@lab.example", "gateway@lab.example"]));
    assert_eq!(fixture.may_register(GPSI).await, services(["meter-7@lab.example"]));
    assert_eq!(fixture.may_register("nai-device@factory.example").await, services(["press-1"]));
    assert_eq!(fixture.may_register("imsi-00101000000000").await, services(["neighbour@lab.example"]));
    assert_eq!(fixture.may_register("imsi-001010000000002").await, services([]));
}

#[tokio::test]
async fn a_removed_association_is_gone_and_removing_it_again_is_no_error() {
    let fixture = Fixture::start().await;
    let client = fixture.provisioner(PROVISIONER);
    fixture.associate(SUPI, "a").await;
    fixture.associate(SUPI, "b").await;
    fixture.associate(SUPI, "c").await;
    client.dissociate(&ue(SUPI), &service("a")).await.unwrap();
    client.dissociate(&ue(SUPI), &service("a")).await.unwrap();
    assert_eq!(fixture.may_register(SUPI).await, services(["b", "c"]));
    client.dissociate_all(&ue(SUPI)).await.unwrap();
    client.dissociate_all(&ue(SUPI)).await.unwrap();
    assert_eq!(fixture.may_register(SUPI).await, services([]));
}

#[tokio::test]
async fn associations_survive_a_restart() {
    let mut fixture = Fixture::start_with(|config| config.tables.associations_max = 2).await;
    fixture.associate(SUPI, "a").await;
    fixture.associate(SUPI, "b").await;
    fixture.provisioner(PROVISIONER).dissociate(&ue(SUPI), &service("b")).await.unwrap();
    fixture.restart().await;
    assert_eq!(fixture.may_register(SUPI).await, services(["a"]));
    // The count, too, is what is on disk.
    fixture.associate(SUPI, "c").await;
    let full = fixture.provisioner(PROVISIONER).associate(&ue(SUPI), &service("d")).await;
    assert!(refused(full).has_cause(cause::INSUFFICIENT_RESOURCES));
}

#[tokio::test]
async fn identities_of_every_shape_pass_through_paths_and_queries() {
    let fixture = Fixture::start().await;
    let shapes = [
        ("nai-a&b=c%25+d@factory.example", "sip:meter/7?x=1#y@lab.example"),
        ("extid-gerät/7@factory.example", "..%2F..%2Fassociations"),
        ("gci-user@realm.example", ".."),
        ("gli-user@realm.example", "\"quoted\"\\{}"),
    ];
    for (ue_id, ue_service_id) in shapes {
        fixture.associate(ue_id, ue_service_id).await;
        assert_eq!(fixture.may_register(ue_id).await, services([ue_service_id]), "{ue_id}");
        let client = fixture.provisioner(PROVISIONER);
        assert_eq!(client.of_ue(&ue(ue_id)).await.unwrap(), services([ue_service_id]));
        client.dissociate(&ue(ue_id), &service(ue_service_id)).await.unwrap();
        assert_eq!(fixture.may_register(ue_id).await, services([]), "{ue_id}");
    }
}

#[tokio::test]
async fn a_list_comes_in_pages_and_can_be_asked_by_ue_service_id() {
    let fixture = Fixture::start().await;
    let mut expected = BTreeSet::new();
    for index in 0..25 {
        let ue_id = format!("imsi-0010100000000{index:02}");
        fixture.associate(&ue_id, "shared@lab.example").await;
        fixture.associate(&ue_id, &format!("own-{index}")).await;
        expected.insert((ue_id.clone(), "shared@lab.example".to_owned()));
        expected.insert((ue_id, format!("own-{index}")));
    }
    let client = fixture.provisioner(PROVISIONER);
    let all = async |ue_service_id: Option<UeServiceId>| {
        let mut query = PageQuery { ue_service_id, after: None, limit: Some(10) };
        let mut listed = BTreeSet::new();
        loop {
            let page = client.page(&query).await.unwrap();
            assert!(page.associations.len() <= 10);
            for association in page.associations {
                let pair = (association.ue_id.as_str().to_owned(), association.ue_service_id.to_string());
                assert!(listed.insert(pair), "listed twice");
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return listed,
            }
        }
    };
    assert_eq!(all(None).await, expected);
    assert_eq!(all(Some(service("shared@lab.example"))).await.len(), 25);
    assert_eq!(all(Some(service("own-7"))).await.len(), 1);
    assert_eq!(all(Some(service("own"))).await.len(), 0, "a prefix is another identity");
}

#[tokio::test]
async fn only_provisioners_provision_and_only_readers_read() {
    let fixture = Fixture::start().await;
    fixture.associate(SUPI, "a").await;
    for instance in [SERVER, STRANGER] {
        let client = fixture.provisioner(instance);
        let answers = [
            refused(client.associate(&ue(SUPI), &service("mine")).await),
            refused(client.dissociate(&ue(SUPI), &service("a")).await),
            refused(client.dissociate_all(&ue(SUPI)).await),
            refused(client.of_ue(&ue(SUPI)).await),
            refused(client.page(&PageQuery::default()).await),
        ];
        for problem in answers {
            assert_eq!(problem.status, Some(403));
            assert!(problem.has_cause(refusal::REQUESTER_NOT_ALLOWED));
        }
    }
    for instance in [PROVISIONER, STRANGER] {
        let problem = refused(fixture.reader(instance).ue_service_ids(&ue(SUPI)).await);
        assert!(problem.has_cause(refusal::REQUESTER_NOT_ALLOWED));
    }
    let another_authority = TestAuthority::new();
    let impostor = SsUprClient::new(another_authority.client(SERVER), fixture.root());
    assert!(matches!(impostor.ue_service_ids(&ue(SUPI)).await, Err(SbiError::Unreachable(_))));
    assert_eq!(fixture.may_register(SUPI).await, services(["a"]), "nothing was changed");
}

#[tokio::test]
async fn a_provisioner_gets_its_right_from_a_policy_file_and_another_when_the_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.toml");
    // In one step: nobody reads half of it.
    let write = |provisioner: &str| {
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, format!("[[provisioner]]\nnf_instance_id = '{provisioner}'\n")).unwrap();
        std::fs::rename(fresh, &path).unwrap();
    };
    write(PROVISIONER);
    let fixture = Fixture::start_with(|config| {
        config.policy = Some(path.clone());
        config.provisioners.clear();
        config.readers.clear();
    })
    .await;
    assert!(fixture.associate(SUPI, "a@lab.example").await);
    write(STRANGER);
    let taken = async {
        while fixture.provisioner(STRANGER).associate(&ue(SUPI), &service("b@lab.example")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), taken).await.unwrap();
    let gone = refused(fixture.provisioner(PROVISIONER).associate(&ue(SUPI), &service("c@lab.example")).await);
    assert!(gone.has_cause(refusal::REQUESTER_NOT_ALLOWED));
}

#[tokio::test]
async fn a_policy_file_takes_the_place_of_the_entries_and_must_make_sense() {
    let fixture = Fixture::start().await;
    let path = fixture.directory.path().join("policy.toml");
    let told = |config: Config| config.with_policy().unwrap_err().to_string();
    let both = Config { policy: Some(path.clone()), ..fixture.config.clone() };
    assert!(told(both.clone()).contains("policy: the file holds every"));
    let alone = Config { provisioners: Vec::new(), readers: Vec::new(), ..both };
    assert!(told(alone.clone()).contains("policy.toml: No such file"));
    std::fs::write(&path, "[[reader]]\n").unwrap();
    assert!(told(alone.clone()).contains("policy.toml: reader[0] needs"));
    std::fs::write(&path, "[[reader]]\ndns_name = 'server.example'\n").unwrap();
    assert_eq!(alone.with_policy().unwrap().readers[0].dns_name.as_deref(), Some("server.example"));
}

#[tokio::test]
async fn every_change_and_every_refusal_is_counted() {
    let fixture = Fixture::start_with(|config| config.admin = Some(([127, 0, 0, 1], 0).into())).await;
    assert!(fixture.associate(SUPI, "a@lab.example").await);
    fixture.may_register(SUPI).await;
    refused(fixture.provisioner(STRANGER).associate(&ue(SUPI), &service("b@lab.example")).await);
    let admin = fixture.running.admin_addr().unwrap();
    let metrics = Command::new("curl").arg("-sS").arg(format!("http://{admin}/metrics")).output().await.unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    for (outcome, reason) in [("allowed", "added"), ("allowed", "found"), ("refused", "not_allowed")] {
        let line = format!("sbi_authorizations_total{{outcome=\"{outcome}\",reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn one_ue_id_cannot_have_too_many_associations() {
    let fixture = Fixture::start_with(|config| config.tables.associations_per_ue_max = 2).await;
    fixture.associate(SUPI, "a").await;
    fixture.associate(SUPI, "b").await;
    let problem = refused(fixture.provisioner(PROVISIONER).associate(&ue(SUPI), &service("c")).await);
    assert_eq!(problem.status, Some(403));
    assert!(problem.has_cause(refusal::TOO_MANY_ASSOCIATIONS));
    assert!(!fixture.associate(SUPI, "a").await, "those there stay");
    fixture.associate(GPSI, "c").await;
}

#[tokio::test]
async fn profiles_follow_29_549_and_wrong_queries_are_told() {
    let fixture = Fixture::start().await;
    fixture.associate(SUPI, "meter-7@lab.example").await;
    let http = fixture.authority.client(SERVER);
    let get = async |query: &str| {
        http.get::<Vec<ProfileDoc>>(&format!("{}/ss-upr/v1/val-services{query}", fixture.root())).await
    };
    let target = "val-tgt-ue=%7B%22valUeId%22%3A%22imsi-001010000000001%22%7D";
    let profiles = get(&format!("?val-service-id=msgin5g&{target}")).await.unwrap().into_body().unwrap();
    assert_eq!(
        serde_json::to_value(&profiles).unwrap(),
        json!([{"profileInformation": "{\"ueServiceIds\":[\"meter-7@lab.example\"]}", "valTgtUe": {"valUeId": SUPI}}])
    );
    assert_eq!(get(&format!("?{target}")).await.unwrap().into_body().unwrap().len(), 1, "the service is optional");
    for nobody in [
        "?val-service-id=other&val-tgt-ue=%7B%22valUeId%22%3A%22imsi-001010000000001%22%7D",
        "?val-tgt-ue=%7B%22valUserId%22%3A%22meter-7@lab.example%22%7D",
        "?val-tgt-ue=%7B%22valUeId%22%3A%22imsi-001010000000009%22%7D",
    ] {
        assert_eq!(get(nobody).await.unwrap().into_body().unwrap(), Vec::new(), "{nobody}");
    }
    let missing = refused(get("").await);
    assert!(missing.has_cause(cause::MANDATORY_QUERY_PARAM_MISSING));
    assert_eq!(missing.invalid_params[0].param, "query val-tgt-ue");
    for wrong in ["?val-tgt-ue=imsi-001010000000001", "?val-tgt-ue=%7B%22valUeId%22%3A%22001010000000001%22%7D"] {
        assert!(refused(get(wrong).await).has_cause(cause::MANDATORY_QUERY_PARAM_INCORRECT), "{wrong}");
    }
}

#[tokio::test]
async fn wrong_identities_in_paths_are_told() {
    let fixture = Fixture::start().await;
    let http = fixture.authority.client(PROVISIONER);
    let long = "x".repeat(256);
    for path in ["001010000000001/a", "imsi-1/a", "imsi-001010000000001/a%20b", &format!("imsi-001010000000001/{long}")]
    {
        let uri = format!("{}/msgin5g-configuration/v1/associations/{path}", fixture.root());
        let problem = refused(http.put::<_, Value>(&uri, &json!({})).await);
        assert_eq!(problem.status, Some(400), "{path}");
        assert!(problem.has_cause(cause::MANDATORY_IE_INCORRECT), "{path}");
    }
}

#[tokio::test]
async fn curl_can_provision() {
    let fixture = Fixture::start().await;
    let files = fixture.authority.issue(PROVISIONER, &[]);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--http2", "--write-out", "%{http_code}", "-X", "PUT"])
        .arg("--cacert")
        .arg(fixture.authority.ca())
        .arg("--cert")
        .arg(&files.certificate)
        .arg("--key")
        .arg(&files.key)
        .arg(format!("{}/msgin5g-configuration/v1/associations/{SUPI}/meter-7%40lab.example", fixture.root()))
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "201", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fixture.may_register(SUPI).await, services(["meter-7@lab.example"]));
}

#[test]
fn the_documented_configuration_is_one() {
    let text = include_str!("../../../docs/reference/configuration-function.md");
    let example = text.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    toml::from_str::<Config>(example).unwrap().check().unwrap();
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_is_taken() {
    let full = Fixture::start_with(|config| config.store.free_bytes_min = u64::MAX).await;
    let problem = refused(full.provisioner(PROVISIONER).associate(&ue(SUPI), &service("a")).await);
    assert!(problem.has_cause(cause::INSUFFICIENT_RESOURCES));
    assert_eq!(full.may_register(SUPI).await, services([]));
}
