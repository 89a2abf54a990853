//! CAPIF events, each as it arrives at a subscriber that listens: with its detail, and only where it is asked for.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is a failed test")]

mod support;

use http::{Method, StatusCode};
use sbi::capif::connection::Content;
use sbi::capif::invoker::Invoker;
use sbi::capif::publish::SecurityMethod;
use serde_json::{Value, json};
use support::{
    API, OTHER_API, RETRIEVE, World, body, call, function_id, provider_files, registration, request, subscribe,
};

const OAUTH: SecurityMethod = SecurityMethod::Oauth;
const EVERY_EVENT: [&str; 11] = [
    "SERVICE_API_AVAILABLE",
    "SERVICE_API_UNAVAILABLE",
    "SERVICE_API_UPDATE",
    "API_INVOKER_ONBOARDED",
    "API_INVOKER_OFFBOARDED",
    "API_INVOKER_UPDATED",
    "API_INVOKER_AUTHORIZATION_REVOKED",
    "ACCESS_CONTROL_POLICY_UPDATE",
    "ACCESS_CONTROL_POLICY_UNAVAILABLE",
    "SERVICE_API_INVOCATION_SUCCESS",
    "SERVICE_API_INVOCATION_FAILURE",
];

/// A provider whose functions subscribe, and what it does.
struct Provider<'a> {
    world: &'a World,
    name: &'static str,
    destination: &'a str,
}

impl Provider<'_> {
    fn id(&self, role: &str) -> String {
        function_id(self.world, self.name, role)
    }

    /// Has function `role` told of `events` that pass `filters` at `at`.
    async fn hears(&self, role: &str, events: &[&str], filters: Option<Value>, at: &str) {
        let mut subscription =
            json!({"events": events, "notificationDestination": format!("{}/{at}", self.destination)});
        if let Some(filters) = filters {
            subscription["eventFilters"] = filters;
        }
        let files = provider_files(self.world, self.name, role);
        let answer = subscribe(self.world, &files, &self.id(role), subscription).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.problem());
    }

    async fn as_apf(&self, method: Method, path: &str, content: Value) -> Value {
        let path = format!("/published-apis/v1/{}/service-apis{path}", self.id("apf"));
        let answer = request(self.world, &provider_files(self.world, self.name, "apf"), method, &path, content).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.problem());
        body(&answer)
    }

    async fn publish(&self, api_name: &str) -> String {
        let description = json!({"apiName": api_name, "aefProfiles": [{"aefId": self.id("aef"),
            "versions": [{"apiVersion": "v1"}], "domainName": "nef.example"}]});
        self.as_apf(Method::POST, "", description).await["apiId"].as_str().unwrap().to_owned()
    }

    async fn change(&self, api_id: &str) {
        self.as_apf(Method::PATCH, &format!("/{api_id}"), json!({"description": "changed"})).await;
    }

    async fn unpublish(&self, api_id: &str) {
        self.as_apf(Method::DELETE, &format!("/{api_id}"), Value::Null).await;
    }

    async fn revoke(&self, invoker: &Invoker, api_id: &str) {
        let revoke = json!({"apiInvokerId": invoker.id(), "apiIds": [api_id], "cause": "OVERLIMIT_USAGE"});
        let path = format!("/capif-security/v1/trustedInvokers/{}/delete", invoker.id());
        let files = provider_files(self.world, self.name, "aef");
        let answer = request(self.world, &files, Method::POST, &path, revoke).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.problem());
    }
}

fn api_of(world: &World, name: &str) -> String {
    registration(world, name)["apis"][0][1].as_str().unwrap().to_owned()
}

async fn renamed(world: &World, invoker: &Invoker) {
    let path = format!("/api-invoker-management/v1/onboardedInvokers/{}", invoker.id());
    let patch = json!({"apiInvokerInformation": "changed"});
    assert_eq!(request(world, invoker.files(), Method::PATCH, &path, patch).await.status, StatusCode::OK);
}

/// One call that succeeds, and one that is refused.
async fn calls(invoker: &Invoker) {
    assert_eq!(call(invoker, OAUTH).await.status, StatusCode::OK);
    let agreement = invoker.negotiate(API, vec![OAUTH]).await.unwrap();
    let mut connection = invoker.connect_to(&agreement).await.unwrap();
    let answer = connection.request(Method::POST, RETRIEVE, None, Content::Json(b"{}".to_vec())).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_arrives_with_what_it_is_about() {
    let world = World::new().await;
    let destination = world.notification_server().await;
    let _aef = world.aef("nef", &[API], 30).await;
    let nef = Provider { world: &world, name: "nef", destination: &destination };
    nef.hears("amf", &EVERY_EVENT, None, "amf").await;
    let arrives = async |event: &str| {
        let told = world.notified.wait("amf", |told| told["events"] == event).await;
        assert!(told["subscriptionId"].is_string(), "{told}");
        told["eventDetail"].clone()
    };

    let api = nef.publish("x").await;
    assert_eq!(arrives("SERVICE_API_AVAILABLE").await["serviceAPIDescriptions"][0]["apiId"], api);
    nef.change(&api).await;
    let changed = arrives("SERVICE_API_UPDATE").await;
    assert_eq!(changed["serviceAPIDescriptions"][0]["description"], "changed");
    nef.unpublish(&api).await;
    assert_eq!(arrives("SERVICE_API_UNAVAILABLE").await["apiIds"], json!([api]));
    assert_eq!(arrives("ACCESS_CONTROL_POLICY_UNAVAILABLE").await, json!({"apiIds": [api]}));

    let alice = world.onboard("alice").await;
    assert_eq!(arrives("API_INVOKER_ONBOARDED").await, json!({"apiInvokerIds": [alice.id()]}));
    renamed(&world, &alice).await;
    assert_eq!(arrives("API_INVOKER_UPDATED").await, json!({"apiInvokerIds": [alice.id()]}));

    let api = api_of(&world, "nef");
    calls(&alice).await;
    let policy = arrives("ACCESS_CONTROL_POLICY_UPDATE").await;
    let list = json!({"apiId": api, "apiInvokerPolicies": [{"apiInvokerId": alice.id()}]});
    assert_eq!(policy, json!({"apiIds": [api], "apiInvokerIds": [alice.id()], "accCtrlPolList": list}));
    for (event, result) in [("SERVICE_API_INVOCATION_SUCCESS", "200"), ("SERVICE_API_INVOCATION_FAILURE", "401")] {
        let log = arrives(event).await["invocationLogs"][0].clone();
        assert_eq!((&log["aefId"], &log["apiInvokerId"]), (&json!(nef.id("aef")), &json!(alice.id())));
        assert_eq!(log["logs"].as_array().unwrap().iter().find(|call| call["result"] != result), None, "{log}");
    }

    nef.revoke(&alice, &api).await;
    let revoked = arrives("API_INVOKER_AUTHORIZATION_REVOKED").await;
    assert_eq!(revoked, json!({"apiIds": [api], "apiInvokerIds": [alice.id()]}));
    // Nobody is left in the policy.
    let emptied = |told: &Value| told["eventDetail"]["accCtrlPolList"] == json!({"apiId": api});
    let told = world.notified.wait("amf", emptied).await;
    assert_eq!(
        (&told["events"], &told["eventDetail"]["apiInvokerIds"]),
        (&json!("ACCESS_CONTROL_POLICY_UPDATE"), &json!([alice.id()]))
    );
    alice.offboard().await.unwrap();
    assert_eq!(arrives("API_INVOKER_OFFBOARDED").await, json!({"apiInvokerIds": [alice.id()]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoker_hears_of_its_own_policy_and_a_provider_of_those_of_its_domain() {
    let world = World::new().await;
    let destination = world.notification_server().await;
    let (_nef, _other) = (world.aef("nef", &[API], 30).await, world.aef("other", &[OTHER_API], 30).await);
    let other = Provider { world: &world, name: "other", destination: &destination };
    let events = ["ACCESS_CONTROL_POLICY_UPDATE", "ACCESS_CONTROL_POLICY_UNAVAILABLE"];
    other.hears("aef", &events, None, "other").await;
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    for (invoker, name) in [(&alice, "alice"), (&bob, "bob")] {
        let subscription = json!({"events": events, "notificationDestination": format!("{destination}/{name}")});
        let answer = subscribe(&world, invoker.files(), invoker.id(), subscription).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.problem());
    }
    let about = |told: &Value, invoker: &Invoker| told["eventDetail"]["apiInvokerIds"] == json!([invoker.id()]);
    // At the first provider, then at the second: what the second hears of first is its own.
    alice.negotiate(API, vec![OAUTH]).await.unwrap();
    world.notified.wait("alice", |told| about(told, &alice)).await;
    bob.negotiate(OTHER_API, vec![OAUTH]).await.unwrap();
    let told = world.notified.wait("bob", |told| about(told, &bob)).await;
    assert_eq!(told["eventDetail"]["accCtrlPolList"]["apiInvokerPolicies"], json!([{"apiInvokerId": bob.id()}]));
    world.notified.wait("other", |told| about(told, &bob)).await;
    let apis = |at: &str| -> Vec<Value> {
        world.notified.all(at).iter().map(|told| told["eventDetail"]["apiIds"][0].clone()).collect()
    };
    assert_eq!(apis("other"), [json!(api_of(&world, "other"))]);
    assert!(world.notified.all("alice").iter().all(|told| about(told, &alice)));
    assert!(world.notified.all("bob").iter().all(|told| about(told, &bob)));
    // Whoever may use an API that goes hears that its policy goes.
    let api = api_of(&world, "other");
    other.unpublish(&api).await;
    for at in ["alice", "bob", "other"] {
        let gone = |told: &Value| told["events"] == "ACCESS_CONTROL_POLICY_UNAVAILABLE";
        assert_eq!(world.notified.wait(at, gone).await["eventDetail"]["apiIds"], json!([api]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_outside_the_filters_does_not_arrive() {
    let world = World::new().await;
    let destination = world.notification_server().await;
    let (_nef, _other) = (world.aef("nef", &[API], 30).await, world.aef("other", &[OTHER_API], 30).await);
    let nef = Provider { world: &world, name: "nef", destination: &destination };
    let other = Provider { world: &world, name: "other", destination: &destination };
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    let (wanted, unwanted) = (nef.publish("wanted").await, nef.publish("unwanted").await);
    let foreign = other.publish("foreign").await;

    nef.hears("amf", &["SERVICE_API_UPDATE"], Some(json!([{"apiIds": [wanted]}])), "by-api").await;
    nef.hears("amf", &["SERVICE_API_UPDATE"], Some(json!([{"aefIds": [nef.id("aef")]}])), "by-aef").await;
    nef.hears("amf", &["API_INVOKER_UPDATED"], Some(json!([{"apiInvokerIds": [bob.id()]}])), "by-invoker").await;
    // Any of several filters is enough, and all that one names must be so.
    let either = json!([{"apiIds": [unwanted], "aefIds": [other.id("aef")]}, {"apiIds": [wanted]}]);
    nef.hears("amf", &["SERVICE_API_UPDATE"], Some(either), "by-either").await;
    // What an event is not about, no filter finds in it.
    nef.hears("amf", &["SERVICE_API_UPDATE"], Some(json!([{"apiInvokerIds": [bob.id()]}])), "by-nothing").await;
    nef.hears("amf", &["SERVICE_API_UPDATE", "API_INVOKER_UPDATED"], None, "all").await;

    // The unwanted first, and each of them until it was heard of where nothing is filtered.
    let told_of = |id: String| move |told: &Value| told["eventDetail"].to_string().contains(&id);
    for api in [&unwanted, &foreign, &wanted] {
        if *api == foreign {
            other.change(api).await
        } else {
            nef.change(api).await
        }
        world.notified.wait("all", told_of(api.clone())).await;
    }
    for invoker in [&alice, &bob] {
        renamed(&world, invoker).await;
        world.notified.wait("all", told_of(invoker.id().to_owned())).await;
    }
    for (at, last) in [("by-api", &wanted), ("by-aef", &wanted), ("by-either", &wanted)] {
        world.notified.wait(at, told_of(last.clone())).await;
    }
    world.notified.wait("by-invoker", told_of(bob.id().to_owned())).await;
    let apis = |at: &str| -> Vec<String> {
        let told = world.notified.all(at).into_iter();
        let mut ids: Vec<_> = told.map(|told| told["eventDetail"]["apiIds"][0].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    assert_eq!(apis("by-api"), std::slice::from_ref(&wanted));
    assert_eq!(apis("by-aef"), sorted(vec![unwanted, wanted.clone()]));
    assert_eq!(apis("by-either"), [wanted]);
    assert_eq!(world.notified.all("by-invoker").len(), 1);
    assert!(world.notified.all("by-nothing").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_policies_and_ends_of_authorizations_pass_filters_by_api_invoker_and_aef() {
    let world = World::new().await;
    let destination = world.notification_server().await;
    let _nef = world.aef("nef", &[API], 30).await;
    let nef = Provider { world: &world, name: "nef", destination: &destination };
    let (alice, bob) = (world.onboard("alice").await, world.onboard("bob").await);
    let (api, events) = (api_of(&world, "nef"), ["ACCESS_CONTROL_POLICY_UPDATE", "API_INVOKER_AUTHORIZATION_REVOKED"]);
    let all_three = json!([{"apiIds": [api], "apiInvokerIds": [bob.id()], "aefIds": [nef.id("aef")]}]);
    nef.hears("apf", &events, Some(all_three), "of-bob").await;
    nef.hears("apf", &events, Some(json!([{"aefIds": ["another"]}])), "of-another").await;
    nef.hears("apf", &events, None, "all").await;
    for invoker in [&alice, &bob] {
        invoker.negotiate(API, vec![OAUTH]).await.unwrap();
        nef.revoke(invoker, &api).await;
        for event in events {
            let id = invoker.id().to_owned();
            let is = |told: &Value| told["events"] == event && told["eventDetail"].to_string().contains(&id);
            world.notified.wait("all", is).await;
        }
    }
    for event in events {
        world.notified.wait("of-bob", |told| told["events"] == event).await;
    }
    let of_bob = |told: &Value| told["eventDetail"]["apiInvokerIds"] == json!([bob.id()]);
    assert!(world.notified.all("of-bob").iter().all(of_bob));
    assert!(world.notified.all("of-another").is_empty());
}
