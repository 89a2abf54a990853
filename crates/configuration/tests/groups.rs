//! Groups from outside: a provisioner, an MSGin5G Server, strangers; over real HTTP/2, certificates and files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{Fixture, PROVISIONER, SERVER, STRANGER, refused, service};
use configuration::refusal;
use message::{Address, ServiceAddress, UeServiceId};
use sbi::cause;
use sbi::ss_gm::{GroupConfiguration, GroupQuery, InvalidGroup, VALGroupDocument, VALGroupDocumentPatch, member};
use sbi::ss_upr::ValTargetUe;
use serde_json::{Value, json};
use tokio::process::Command;

fn id(text: &str) -> ServiceAddress {
    text.parse().unwrap()
}

fn group(name: &str, members: &[&str]) -> VALGroupDocument {
    let members: Vec<UeServiceId> = members.iter().map(|member| service(member)).collect();
    VALGroupDocument::new(id(name)).with_members(&members)
}

fn names(documents: &[VALGroupDocument]) -> Vec<&str> {
    documents.iter().map(|document| document.val_group_id.as_str()).collect()
}

fn pages(after: &str, limit: usize) -> GroupQuery {
    GroupQuery { after: Some(after.to_owned()), limit: Some(limit), ..GroupQuery::default() }
}

async fn create(fixture: &Fixture, document: &VALGroupDocument) {
    fixture.groups(PROVISIONER).create(document).await.unwrap();
}

#[tokio::test]
async fn a_server_learns_members_senders_and_validating_as_of_a_group() {
    let fixture = Fixture::start().await;
    let mut document = group("fleet@lab.example", &["meter-7@lab.example", "valve-2@lab.example"]);
    let configuration = GroupConfiguration {
        senders: vec!["AS:billing@lab.example".parse().unwrap()],
        validating_as: Some("audit@lab.example".parse().unwrap()),
    };
    document.val_grp_conf = configuration.to_text();
    let made = fixture.groups(PROVISIONER).create(&document).await.unwrap();
    assert_eq!(made.res_uri.as_deref(), Some("/ss-gm/v1/group-documents/fleet%40lab.example"));

    let found = fixture.groups(SERVER).group(&id("fleet@lab.example")).await.unwrap().unwrap();
    assert_eq!(found.ue_service_ids().unwrap(), [service("meter-7@lab.example"), service("valve-2@lab.example")]);
    assert_eq!(found.configuration().unwrap(), configuration);
    assert!(
        found.configuration().unwrap().allows(&Address::application_server(&"billing@lab.example".parse().unwrap()))
    );
    for unknown in ["fleet", "fleet@lab.example.org", "FLEET@lab.example"] {
        assert_eq!(fixture.groups(SERVER).group(&id(unknown)).await.unwrap(), None, "{unknown}");
    }
    // A group on which another service alone is enabled is none of the message service's.
    let other = VALGroupDocument { val_service_ids: vec!["other".into()], ..group("others", &["a"]) };
    create(&fixture, &other).await;
    assert_eq!(fixture.groups(SERVER).group(&id("others")).await.unwrap(), None);
}

#[tokio::test]
async fn groups_survive_a_restart_with_every_change_that_was_answered() {
    let mut fixture = Fixture::start_with(|config| config.tables.groups_max = 3).await;
    let client = fixture.groups(PROVISIONER);
    for name in ["a", "b", "c"] {
        create(&fixture, &group(name, &["x"])).await;
    }
    client.replace(&group("a", &["x", "y"])).await.unwrap();
    client.modify(&id("b"), &VALGroupDocumentPatch { members: Some(None), ..Default::default() }).await.unwrap();
    assert!(client.remove(&id("c")).await.unwrap());
    assert!(!client.remove(&id("c")).await.unwrap());
    fixture.restart().await;
    let members = async |name: &str| {
        let found = fixture.groups(SERVER).group(&id(name)).await.unwrap();
        found.map(|document| document.ue_service_ids().unwrap().len())
    };
    assert_eq!((members("a").await, members("b").await, members("c").await), (Some(2), Some(0), None));
    // The count, too, is what is on disk.
    create(&fixture, &group("d", &[])).await;
    let full = refused(fixture.groups(PROVISIONER).create(&group("e", &[])).await);
    assert!(full.status == Some(500) && full.has_cause(cause::INSUFFICIENT_RESOURCES));
}

#[tokio::test]
async fn a_group_is_made_once_and_changed_only_where_it_is() {
    let fixture = Fixture::start().await;
    let client = fixture.groups(PROVISIONER);
    create(&fixture, &group("a", &["x"])).await;
    let exists = refused(client.create(&group("a", &["y"])).await);
    assert!(exists.status == Some(403) && exists.has_cause(refusal::GROUP_EXISTS));
    let unknown = refused(client.replace(&group("b", &["x"])).await);
    assert!(unknown.status == Some(404) && unknown.has_cause(refusal::GROUP_NOT_FOUND));
    let patch = VALGroupDocumentPatch::default();
    assert!(refused(client.modify(&id("b"), &patch).await).has_cause(refusal::GROUP_NOT_FOUND));
    assert_eq!(client.document(&id("b")).await.unwrap(), None);
    assert_eq!(client.document(&id("a")).await.unwrap().unwrap().ue_service_ids().unwrap(), [service("x")]);

    // A document cannot move to another name.
    let http = fixture.authority.client(PROVISIONER);
    let uri = format!("{}/ss-gm/v1/group-documents/a", fixture.root());
    let moved = refused(http.put::<_, Value>(&uri, &json!({"valGroupId": "z"})).await);
    assert_eq!(moved.invalid_params[0].param, "/valGroupId");
    let moved = refused(http.patch::<_, Value>(&uri, &json!({"valGroupId": "z"})).await);
    assert_eq!(moved.invalid_params[0].param, "/valGroupId");
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_nothing_else() {
    let fixture = Fixture::start().await;
    let client = fixture.groups(PROVISIONER);
    let document = VALGroupDocument { grp_desc: Some("before".into()), ..group("a", &["x", "y"]) };
    create(&fixture, &document).await;
    let http = fixture.authority.client(PROVISIONER);
    let uri = format!("{}/ss-gm/v1/group-documents/a", fixture.root());
    let patched: VALGroupDocument = http
        .patch(&uri, &json!({"members": [{"valUserId": "z"}], "suppFeat": "f"}))
        .await
        .unwrap()
        .into_body()
        .unwrap();
    assert_eq!((patched.grp_desc.as_deref(), patched.members.len()), (Some("before"), 1));
    assert_eq!(patched.supp_feat.as_deref(), Some("0"), "no optional feature is supported");
    client.modify(&id("a"), &VALGroupDocumentPatch { grp_desc: Some(None), ..Default::default() }).await.unwrap();
    assert_eq!(client.document(&id("a")).await.unwrap().unwrap().grp_desc, None);
    for (wrong, at) in [
        (json!({"members": []}), "/members"),
        (json!({"members": [{"valUserId": "a b"}]}), "/members"),
        (json!({"valGrpConf": "all"}), "/valGrpConf"),
        (json!({"valGroupId": null}), "/valGroupId"),
    ] {
        assert_eq!(refused(http.patch::<_, Value>(&uri, &wrong).await).invalid_params[0].param, at, "{wrong}");
    }
    assert!(refused(http.patch::<_, Value>(&uri, &json!([1])).await).has_cause(cause::INVALID_MSG_FORMAT));
    let files = fixture.authority.issue(PROVISIONER, &[]);
    let status = curl(&files, fixture.authority.ca().to_str().unwrap(), &uri, "PATCH", "application/json", "{}").await;
    assert_eq!(status, "415", "a merge patch is of its own media type");
    assert_eq!(client.document(&id("a")).await.unwrap().unwrap().ue_service_ids().unwrap(), [service("z")]);
}

#[tokio::test]
async fn what_nobody_could_be_sent_a_message_by_is_refused_and_named() {
    let fixture = Fixture::start().await;
    let http = fixture.authority.client(PROVISIONER);
    let uri = format!("{}/ss-gm/v1/group-documents", fixture.root());
    for (document, at) in [
        (json!({"valGroupId": "a b"}), "/valGroupId"),
        (json!({"valGroupId": "x".repeat(256)}), "/valGroupId"),
        (json!({"valGroupId": "g", "members": []}), "/members"),
        (json!({"valGroupId": "g", "members": [{"valUeId": "imsi-001010000000001"}]}), "/members"),
        (json!({"valGroupId": "g", "members": [{"valUserId": "a"}, {"valUserId": "a"}]}), "/members"),
        (json!({"valGroupId": "g", "members": [{"valUserId": "m\u{e9}ter"}]}), "/members"),
        (json!({"valGroupId": "g", "valGrpConf": "{\"senders\":[\"x\"]}"}), "/valGrpConf"),
        (json!({"valGroupId": "g", "valGrpConf": "{\"mute\":true}"}), "/valGrpConf"),
    ] {
        let problem = refused(http.post::<_, Value>(&uri, &document).await);
        assert_eq!(problem.status, Some(400), "{document}");
        assert!(problem.invalid_params[0].param.starts_with(at), "{document}: {problem:?}");
    }
    assert!(refused(http.post::<_, Value>(&uri, &json!({})).await).has_cause(cause::MANDATORY_IE_MISSING));
    assert!(fixture.groups(PROVISIONER).documents(&GroupQuery::default()).await.unwrap().is_empty());
    // What another service makes of its own groups is not looked at; the message service gets nothing of it.
    let other = VALGroupDocument {
        val_service_ids: vec!["other".into()],
        members: vec![ValTargetUe::ValUeId("a UE".into())],
        val_grp_conf: Some("its own".into()),
        ..group("g", &[])
    };
    create(&fixture, &other).await;
    let found = fixture.groups(PROVISIONER).document(&id("g")).await.unwrap().unwrap();
    assert_eq!(found.ue_service_ids(), Err(InvalidGroup::Member));
}

#[tokio::test]
async fn servers_read_groups_only_provisioners_change_them_and_strangers_do_neither() {
    let fixture = Fixture::start().await;
    create(&fixture, &group("a", &["x"])).await;
    for instance in [SERVER, STRANGER] {
        let client = fixture.groups(instance);
        let patch = VALGroupDocumentPatch { members: Some(None), ..Default::default() };
        for problem in [
            refused(client.create(&group("b", &["x"])).await),
            refused(client.replace(&group("a", &["y"])).await),
            refused(client.modify(&id("a"), &patch).await),
            refused(client.remove(&id("a")).await),
        ] {
            assert!(problem.status == Some(403) && problem.has_cause(refusal::REQUESTER_NOT_ALLOWED));
        }
    }
    let stranger = fixture.groups(STRANGER);
    for problem in [
        refused(stranger.group(&id("a")).await),
        refused(stranger.document(&id("a")).await),
        refused(stranger.documents(&GroupQuery::default()).await),
    ] {
        assert!(problem.has_cause(refusal::REQUESTER_NOT_ALLOWED));
    }
    for instance in [SERVER, PROVISIONER] {
        let found = fixture.groups(instance).group(&id("a")).await.unwrap().unwrap();
        assert_eq!(found.ue_service_ids().unwrap(), [service("x")], "nothing was changed");
    }
}

#[tokio::test]
async fn sizes_have_limits_and_what_was_there_stays() {
    let fixture = Fixture::start_with(|config| {
        config.tables.group_members_max = 3;
        config.tables.group_octets_max = 400;
    })
    .await;
    let client = fixture.groups(PROVISIONER);
    create(&fixture, &group("a", &["1", "2", "3"])).await;
    let many = refused(client.replace(&group("a", &["1", "2", "3", "4"])).await);
    assert!(many.status == Some(403) && many.has_cause(refusal::TOO_MANY_MEMBERS));
    let members: Vec<ValTargetUe> = ["1", "2", "3", "4"].iter().map(|id| member(&service(id))).collect();
    let patch = VALGroupDocumentPatch { members: Some(Some(members)), ..Default::default() };
    assert!(refused(client.modify(&id("a"), &patch).await).has_cause(refusal::TOO_MANY_MEMBERS));
    let long = VALGroupDocument { grp_desc: Some("x".repeat(400)), ..group("b", &[]) };
    assert_eq!(refused(client.create(&long).await).status, Some(413));
    let longer = VALGroupDocument { grp_desc: Some("x".repeat(300_000)), ..group("b", &[]) };
    assert_eq!(refused(client.create(&longer).await).status, Some(413), "and the body has a limit of its own");
    assert_eq!(client.document(&id("a")).await.unwrap().unwrap().members.len(), 3);
    assert_eq!(client.document(&id("b")).await.unwrap(), None);
}

#[tokio::test]
async fn a_group_of_thousands_is_made_and_read_in_one_piece() {
    let fixture = Fixture::start().await;
    let names: Vec<String> = (0..4_000).map(|index| format!("member-{index}@lab.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    create(&fixture, &group("large", &names)).await;
    let found = fixture.groups(SERVER).group(&id("large")).await.unwrap().unwrap();
    assert_eq!(found.ue_service_ids().unwrap().len(), 4_000);
}

#[tokio::test]
async fn a_list_is_whole_or_asked_for_in_pages() {
    let fixture = Fixture::start_with(|config| {
        config.tables.page_max = 10;
        config.tables.page_octets_max = 1_000;
    })
    .await;
    let client = fixture.groups(PROVISIONER);
    for index in 0..10 {
        let services = if index % 2 == 0 { vec!["msgin5g".to_owned()] } else { vec!["other".to_owned()] };
        create(&fixture, &VALGroupDocument { val_service_ids: services, ..group(&format!("g{index}"), &[]) }).await;
    }
    assert_eq!(client.documents(&GroupQuery::default()).await.unwrap().len(), 10);
    let of_service = GroupQuery { val_service_id: Some("msgin5g".into()), ..GroupQuery::default() };
    assert_eq!(names(&client.documents(&of_service).await.unwrap()), ["g0", "g2", "g4", "g6", "g8"]);

    create(&fixture, &VALGroupDocument { val_service_ids: vec![], ..group("h", &[]) }).await;
    let problem = refused(client.documents(&GroupQuery::default()).await);
    assert!(
        problem.status == Some(403) && problem.has_cause(refusal::TOO_MANY_DOCUMENTS),
        "no part passes for the whole"
    );
    assert_eq!(client.documents(&of_service).await.unwrap().len(), 6, "one for any service is for this one");
    assert_eq!(names(&client.documents(&pages("", 3)).await.unwrap()), ["g0", "g1", "g2"]);
    assert_eq!(names(&client.documents(&pages("g7", 100)).await.unwrap()), ["g8", "g9", "h"]);
    assert!(client.documents(&pages("h", 3)).await.unwrap().is_empty());

    // Large documents make small pages, but none is left out.
    for index in 0..3 {
        let large = VALGroupDocument { grp_desc: Some("x".repeat(700)), ..group(&format!("i{index}"), &[]) };
        create(&fixture, &large).await;
    }
    let (mut after, mut seen) = ("h".to_owned(), Vec::new());
    loop {
        let page = client.documents(&pages(&after, 100)).await.unwrap();
        let Some(last) = page.last() else { break };
        assert_eq!(page.len(), 1);
        after = last.val_group_id.as_str().to_owned();
        seen.push(after.clone());
    }
    assert_eq!(seen, ["i0", "i1", "i2"]);
}

#[tokio::test]
async fn parts_of_a_document_can_be_asked_for() {
    let fixture = Fixture::start().await;
    let mut document = VALGroupDocument { grp_desc: Some("d".into()), ..group("a", &["x"]) };
    document.val_grp_conf = Some("{}".into());
    create(&fixture, &document).await;
    let http = fixture.authority.client(SERVER);
    let get = async |query: &str| -> Value {
        let uri = format!("{}/ss-gm/v1/group-documents/a{query}", fixture.root());
        http.get(&uri).await.unwrap().into_body().unwrap()
    };
    let (members, configuration) = (json!([{"valUserId": "x"}]), "{}");
    assert_eq!(get("?group-members=true").await, json!({"valGroupId": "a", "members": members}));
    assert_eq!(get("?group-configuration=true").await, json!({"valGroupId": "a", "valGrpConf": configuration}));
    let whole = json!({"valGroupId": "a", "grpDesc": "d", "members": members, "valGrpConf": configuration,
        "valServiceIds": ["msgin5g"], "resUri": "/ss-gm/v1/group-documents/a"});
    assert_eq!(get("").await, whole);
    assert_eq!(get("?group-members=false").await, whole);
    let uri = format!("{}/ss-gm/v1/group-documents/a?group-members=perhaps", fixture.root());
    assert!(refused(http.get::<Value>(&uri).await).has_cause(cause::INVALID_QUERY_PARAM));
}

#[tokio::test]
async fn names_of_every_shape_pass_through_paths_and_queries() {
    let fixture = Fixture::start().await;
    let client = fixture.groups(PROVISIONER);
    for name in ["sip:fleet/7?x=1#y@lab.example", "..%2F..%2Fassociations", "..", "\"quoted\"\\{}", "a&b=c+d"] {
        create(&fixture, &group(name, &["x"])).await;
        assert_eq!(client.group(&id(name)).await.unwrap().unwrap().val_group_id, id(name));
        client.replace(&group(name, &["x", "y"])).await.unwrap();
        assert_eq!(client.document(&id(name)).await.unwrap().unwrap().members.len(), 2, "{name}");
        assert!(client.remove(&id(name)).await.unwrap(), "{name}");
        assert_eq!(client.group(&id(name)).await.unwrap(), None, "{name}");
    }
}

#[tokio::test]
async fn curl_makes_a_group_and_is_told_where_it_is() {
    let fixture = Fixture::start().await;
    let files = fixture.authority.issue(PROVISIONER, &[]);
    let uri = format!("{}/ss-gm/v1/group-documents", fixture.root());
    let body = r#"{"valGroupId":"fleet@lab.example","members":[{"valUserId":"meter-7@lab.example"}]}"#;
    let ca = fixture.authority.ca();
    let answer = curl(&files, ca.to_str().unwrap(), &uri, "POST", "application/json", body).await;
    assert_eq!(answer, "201");
    let found = fixture.groups(SERVER).group(&id("fleet@lab.example")).await.unwrap().unwrap();
    assert_eq!(found.members.len(), 1);
}

#[tokio::test]
async fn a_full_disk_is_told_and_no_group_is_made() {
    let full = Fixture::start_with(|config| config.store.free_bytes_min = u64::MAX).await;
    let problem = refused(full.groups(PROVISIONER).create(&group("a", &["x"])).await);
    assert!(problem.has_cause(cause::INSUFFICIENT_RESOURCES));
    assert_eq!(full.groups(SERVER).group(&id("a")).await.unwrap(), None);
}

async fn curl(
    files: &sbi::CertificateFiles,
    ca: &str,
    uri: &str,
    method: &str,
    media_type: &str,
    body: &str,
) -> String {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--http2", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code}", "-X", method, "--data-binary", body, "--cacert", ca, "--cert"])
        .arg(&files.certificate)
        .arg("--key")
        .arg(&files.key)
        .args(["-H", &format!("Content-Type: {media_type}"), uri])
        .output()
        .await
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
