//! The three services of an NRF (TS 29.510), as far as the lab's NRF has them.

use uuid::Uuid;

use super::api::{Api, FORM, HAL_JSON, JSON, JSON_PATCH, delete, get, options, patch, post, put};
use super::common::{date_time, link, nf_instance_id, routing_indicator, uri};
use super::schema::{
    Schema, boolean, closed_enumeration, integer, list, list_of_some, map, object, one_of, open_enumeration, optional,
    pattern, required, text, unsigned,
};
use crate::nrf::{
    AanfInfo, AccessTokenErr, AccessTokenRsp, DISCOVERY_PATH, IpEndPoint, MANAGEMENT_PATH, NFProfile, NFService,
    NFServiceVersion, NFStatus, NFType, NotificationData, NotificationEventType, PatchItem, PatchOperation,
    SearchResult, ServiceNameListCondType, SubscriptionData, TOKEN_PATH, TokenErrorCode, TypeCond, UriList,
    UriListLinks,
};
use crate::token::PlmnId;

const INSTANCES: &str = "/nf-instances";
const INSTANCE: &str = "/nf-instances/{nfInstanceID}";
const SUBSCRIPTIONS: &str = "/subscriptions";
const SUBSCRIPTION: &str = "/subscriptions/{subscriptionID}";

/// Nnrf_NFManagement.
#[must_use]
pub fn nnrf_nf_management() -> Api {
    let notification = object(
        "NotificationData",
        vec![
            required("event", event()),
            required("nfInstanceUri", uri("https://nrf.example/nnrf-nfm/v1/nf-instances/1")),
            optional("nfProfile", nf_profile()),
        ],
    );
    let told = post("", "Tell what became of a registration").takes(notification.of::<NotificationData>());
    Api::new("Nnrf_NFManagement", "TS29510_Nnrf_NFManagement", MANAGEMENT_PATH)
        .by_certificate_alone()
        .with(
            get(INSTANCES, "Say which functions are registered")
                .query("nf-type", nf_type())
                .query("limit", integer(10))
                .query("page-number", integer(1))
                .query("page-size", integer(10))
                .answers_as(200, HAL_JSON, uri_list()),
        )
        .with(options(INSTANCES, "Say what can be negotiated").answers_nothing())
        .with(
            get(INSTANCE, "Give a profile")
                .at("nfInstanceID", nf_instance_id().of::<Uuid>())
                .answers(200, nf_profile())
                .with_header("ETag"),
        )
        .with(
            put(INSTANCE, "Register a function, or replace its profile")
                .at("nfInstanceID", nf_instance_id().of::<Uuid>())
                .takes(nf_profile())
                .answers(200, nf_profile())
                .with_header("ETag")
                .answers(201, nf_profile())
                .with_location()
                .with_header("ETag"),
        )
        .with(
            patch(INSTANCE, "Change parts of a profile, or give a sign of life")
                .at("nfInstanceID", nf_instance_id().of::<Uuid>())
                .header("If-Match", text("\"1\""))
                .takes_as(JSON_PATCH, list_of_some(patch_item()))
                .answers(200, nf_profile())
                .with_header("ETag")
                .answers_nothing()
                .refuses(412),
        )
        .with(
            delete(INSTANCE, "Deregister a function")
                .at("nfInstanceID", nf_instance_id().of::<Uuid>())
                .answers_nothing(),
        )
        .with(
            post(SUBSCRIPTIONS, "Subscribe to what becomes of registrations")
                .takes(subscription_data())
                .answers(201, subscription_data())
                .with_location()
                .calls_back("onNFStatusEvent", "{$request.body#/nfStatusNotificationUri}", told.answers_nothing()),
        )
        .with(
            patch(SUBSCRIPTION, "Prolong a subscription")
                .at("subscriptionID", text("1"))
                .takes_as(JSON_PATCH, list(patch_item()))
                .answers(200, subscription_data()),
        )
        .with(delete(SUBSCRIPTION, "End a subscription").at("subscriptionID", text("1")).answers_nothing())
}

/// Nnrf_NFDiscovery.
#[must_use]
pub fn nnrf_nf_discovery() -> Api {
    let result = object(
        "SearchResult",
        vec![
            required("validityPeriod", unsigned(30)),
            required("nfInstances", list(discovered_profile())),
            optional("numNfInstComplete", unsigned(2)),
            optional("ignoredQueryParams", list_of_some(text("preferred-locality"))),
        ],
    );
    Api::new("Nnrf_NFDiscovery", "TS29510_Nnrf_NFDiscovery", DISCOVERY_PATH).by_certificate_alone().with(
        get(INSTANCES, "Find functions")
            .needed_query("target-nf-type", nf_type())
            .needed_query("requester-nf-type", nf_type())
            .query("service-names", list_of_some(text("naanf-akma")))
            .query("target-nf-instance-id", nf_instance_id().of::<Uuid>())
            .query("requester-nf-instance-id", nf_instance_id().of::<Uuid>())
            .query("routing-indicator", routing_indicator())
            .query("limit", integer(10))
            .answers(200, result.of::<SearchResult>())
            .with_header("Cache-Control"),
    )
}

/// Nnrf_AccessToken.
#[must_use]
pub fn nnrf_access_token() -> Api {
    let scope = || pattern("^([a-zA-Z0-9_:-]+)( [a-zA-Z0-9_:-]+)*$", "naanf-akma");
    let plmn = || object("PlmnId", vec![required("mcc", text("001")), required("mnc", text("01"))]).of::<PlmnId>();
    let request = object(
        "AccessTokenReq",
        vec![
            required("grant_type", closed_enumeration(&["client_credentials"])),
            required("nfInstanceId", nf_instance_id()),
            optional("nfType", nf_type()),
            optional("targetNfType", nf_type()),
            required("scope", scope()),
            optional("targetNfInstanceId", nf_instance_id()),
            optional("requesterFqdn", text("server.example")),
            optional("targetNfSetId", text("set1.aanfset.5gc.mnc001.mcc001")),
            optional("requesterPlmn", plmn()),
            optional("targetPlmn", plmn()),
        ],
    );
    let answer = object(
        "AccessTokenRsp",
        vec![
            required("access_token", text("header.claims.signature")),
            required("token_type", closed_enumeration(&["Bearer"])),
            optional("expires_in", unsigned(600)),
            optional("scope", scope()),
        ],
    );
    let errors = closed_enumeration(&[
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ]);
    let error = object(
        "AccessTokenErr",
        vec![
            required("error", errors.of::<TokenErrorCode>()),
            optional("error_description", text("no producer offers it")),
            optional("error_uri", uri("https://example.com/errors/1")),
        ],
    );
    Api::new("Nnrf_AccessToken", "TS29510_Nnrf_AccessToken", "").by_certificate_alone().with(
        post(TOKEN_PATH, "Give an access token")
            .takes_as(FORM, request)
            .answers(200, answer.of::<AccessTokenRsp>())
            .with_header("Cache-Control")
            .with_header("Pragma")
            .answers_as(400, JSON, error.of::<AccessTokenErr>()),
    )
}

fn nf_profile() -> Schema {
    let mut members = vec![optional("heartBeatTimer", unsigned(10))];
    members.extend(profile_members());
    object("NFProfile", members)
        .at_least_one(&["fqdn", "ipv4Addresses", "ipv6Addresses"])
        .keeping_others()
        .of::<NFProfile>()
}

/// A profile as a discovery gives it.
fn discovered_profile() -> Schema {
    object("DiscoveredNFProfile", profile_members()).keeping_others().of::<NFProfile>()
}

fn profile_members() -> Vec<super::schema::Member> {
    let aanf_info = object("AanfInfo", vec![optional("routingIndicators", list_of_some(routing_indicator()))])
        .keeping_others()
        .of::<AanfInfo>();
    vec![
        required("nfInstanceId", nf_instance_id().of::<Uuid>()),
        required("nfType", nf_type()),
        required("nfStatus", status()),
        optional("fqdn", text("aanf.lab.example")),
        optional("ipv4Addresses", list_of_some(text("192.0.2.1").of::<std::net::Ipv4Addr>())),
        optional("ipv6Addresses", list_of_some(text("2001:db8::1").of::<std::net::Ipv6Addr>())),
        optional("allowedNfTypes", list_of_some(nf_type())),
        optional("nfServices", list_of_some(nf_service())),
        optional("nfServiceList", map(nf_service())),
        optional("aanfInfoList", map(aanf_info)),
    ]
}

fn nf_service() -> Schema {
    let version = object(
        "NFServiceVersion",
        vec![required("apiVersionInUri", text("v1")), required("apiFullVersion", text("1.0.0"))],
    );
    let end_point = object(
        "IpEndPoint",
        vec![
            optional("ipv4Address", text("192.0.2.1").of::<std::net::Ipv4Addr>()),
            optional("ipv6Address", text("2001:db8::1").of::<std::net::Ipv6Addr>()),
            optional("port", unsigned(8443)),
        ],
    );
    object(
        "NFService",
        vec![
            required("serviceInstanceId", text("naanf-akma")),
            required("serviceName", text("naanf-akma")),
            required("versions", list_of_some(version.keeping_others().of::<NFServiceVersion>())),
            required("scheme", open_enumeration(&["http", "https"])),
            required("nfServiceStatus", status()),
            optional("fqdn", text("aanf.lab.example")),
            optional("ipEndPoints", list_of_some(end_point.keeping_others().of::<IpEndPoint>())),
            optional("apiPrefix", text("prefix")),
            optional("allowedNfTypes", list_of_some(nf_type())),
            optional("oauth2Required", boolean()),
        ],
    )
    .keeping_others()
    .of::<NFService>()
}

fn subscription_data() -> Schema {
    object(
        "SubscriptionData",
        vec![
            required("nfStatusNotificationUri", uri("https://server.example/nrf-notifications")),
            optional("reqNfInstanceId", nf_instance_id().of::<Uuid>()),
            optional("subscrCond", subscription_condition()),
            optional("subscriptionId", text("1")),
            optional("validityTime", date_time()),
            optional("reqNotifEvents", list_of_some(event())),
            optional("reqNfType", nf_type()),
        ],
    )
    .keeping_others()
    .of::<SubscriptionData>()
}

fn subscription_condition() -> Schema {
    let one = |name, member, schema| object(name, vec![required(member, schema)]);
    one_of(vec![
        one("NfInstanceIdCond", "nfInstanceId", nf_instance_id().of::<Uuid>()),
        one("NfInstanceIdListCond", "nfInstanceIdList", list_of_some(nf_instance_id().of::<Uuid>())),
        one("NfTypeCond", "nfType", nf_type()).of::<TypeCond>(),
        one("ServiceNameCond", "serviceName", text("naanf-akma")),
        object(
            "ServiceNameListCond",
            vec![
                required(
                    "conditionType",
                    closed_enumeration(&["SERVICE_NAME_LIST_COND"]).of::<ServiceNameListCondType>(),
                ),
                required("serviceNameList", list_of_some(text("naanf-akma"))),
            ],
        ),
    ])
    .named("SubscrCond")
}

fn uri_list() -> Schema {
    let links = object("UriListLinks", vec![required("self", link()), optional("item", list_of_some(link()))]);
    object("UriList", vec![required("_links", links.of::<UriListLinks>()), optional("totalItemCount", unsigned(1))])
        .of::<UriList>()
}

fn patch_item() -> Schema {
    let operations = closed_enumeration(&["add", "copy", "move", "remove", "replace", "test"]).of::<PatchOperation>();
    object(
        "PatchItem",
        vec![
            required("op", operations),
            required("path", text("/nfStatus")),
            optional("from", text("/fqdn")),
            optional("value", super::schema::any()),
        ],
    )
    .of::<PatchItem>()
}

/// An open enumeration of some 70 names, of which none means anything to the NRF itself.
fn nf_type() -> Schema {
    pattern("^[A-Za-z0-9_-]{1,32}$", "AANF").of::<NFType>()
}

fn status() -> Schema {
    open_enumeration(&["REGISTERED", "SUSPENDED", "UNDISCOVERABLE", "CANARY_RELEASE"]).of::<NFStatus>()
}

fn event() -> Schema {
    open_enumeration(&["NF_REGISTERED", "NF_DEREGISTERED", "NF_PROFILE_CHANGED"]).of::<NotificationEventType>()
}
