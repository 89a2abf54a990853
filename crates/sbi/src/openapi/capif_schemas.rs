//! The schemas of TS 29.222, in the order in which an API provider and an API invoker meet them.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::common::{date_time, duration_seconds, supported_features, uri};
use super::schema::{
    Member, Schema, WellFormed, any, boolean, list, list_of_some, object, one_of, open_enumeration, optional, required,
    text, unsigned,
};
use crate::capif::events::{
    AccessControlPolicyListExt, CapifEventDetail, CapifEventFilter, EventNotification, EventSubscription,
    EventSubscriptionPatch,
};
use crate::capif::exposing_function::{
    AddressRange, AefLocation, IpAddrRange, PublishedApiPath, ServiceKpis, WebsockNotifConfig,
};
use crate::capif::invoker_management::{
    ApiInvokerEnrolmentDetails, ApiInvokerEnrolmentDetailsPatch, ApiList, OnboardingInformation,
};
use crate::capif::logging::{InvocationLog, InvocationLogs, Log};
use crate::capif::policy::{AccessControlPolicyList, ApiInvokerPolicy, TimeRangeList};
use crate::capif::provider::{
    ApiProviderEnrolmentDetails, ApiProviderEnrolmentDetailsPatch, ApiProviderFuncRole, ApiProviderFunctionDetails,
    RegistrationInformation,
};
use crate::capif::publish::{
    AefProfile, ApiStatus, CustomOperation, DiscoveredApis, InterfaceDescription, Resource, SecurityMethod,
    ServiceApiDescription, ServiceApiDescriptionPatch, ShareableInformation, Version,
};
use crate::capif::security::{
    AccessTokenErr, AccessTokenRsp, AefSecurityRsp, CheckAuthenticationReq, RevokeAuthorizationReq,
    SecurityInformation, SecurityNotification, ServiceSecurity,
};

impl WellFormed for InterfaceDescription {
    fn is_well_formed(&self) -> bool {
        Self::is_well_formed(self)
    }
}

impl WellFormed for IpAddrRange {
    fn is_well_formed(&self) -> bool {
        Self::is_well_formed(self)
    }
}

impl WellFormed for AefProfile {
    fn is_well_formed(&self) -> bool {
        Self::is_well_formed(self)
    }
}

impl WellFormed for SecurityInformation {
    fn is_well_formed(&self) -> bool {
        Self::is_well_formed(self)
    }
}

// --- providers ---------------------------------------------------------------------------------------------

pub(super) fn api_provider_enrolment_details() -> Schema {
    object(
        "APIProviderEnrolmentDetails",
        vec![
            optional("apiProvDomId", id()),
            required("regSec", text("7f3c1f0e9d0a4a399d8c2f5d5f6f0a11")),
            optional("apiProvFuncs", list_of_some(provider_function())),
            optional("apiProvDomInfo", text("the operator's NEF")),
            optional("suppFeat", supported_features()),
            optional("failReason", text("no such role")),
            optional("apiProvName", text("operator")),
        ],
    )
    .of::<ApiProviderEnrolmentDetails>()
}

pub(super) fn api_provider_enrolment_details_patch() -> Schema {
    object(
        "APIProviderEnrolmentDetailsPatch",
        vec![
            optional("apiProvFuncs", list_of_some(provider_function())),
            optional("apiProvDomInfo", text("the operator's NEF")),
        ],
    )
    .of::<ApiProviderEnrolmentDetailsPatch>()
}

fn provider_function() -> Schema {
    let information = object(
        "RegistrationInformation",
        vec![required("apiProvPubKey", public_key()), optional("apiProvCert", certificate())],
    );
    object(
        "APIProviderFunctionDetails",
        vec![
            optional("apiProvFuncId", id()),
            required("regInfo", information.of::<RegistrationInformation>()),
            required("apiProvFuncRole", open_enumeration(&["AEF", "APF", "AMF"]).of::<ApiProviderFuncRole>()),
            optional("apiProvFuncInfo", text("exposes 3gpp-akma")),
        ],
    )
    .of::<ApiProviderFunctionDetails>()
}

// --- service APIs ------------------------------------------------------------------------------------------

pub(super) fn service_api_description() -> Schema {
    let mut members = vec![
        required("apiName", text("3gpp-akma")),
        optional("apiId", id()),
        optional("supportedFeatures", supported_features()),
        optional("apiProvName", text("operator")),
    ];
    members.extend(changeable_of_service_api());
    object("ServiceAPIDescription", members).of::<ServiceApiDescription>()
}

pub(super) fn service_api_description_patch() -> Schema {
    object("ServiceAPIDescriptionPatch", changeable_of_service_api()).of::<ServiceApiDescriptionPatch>()
}

fn changeable_of_service_api() -> Vec<Member> {
    let shareable = object(
        "ShareableInformation",
        vec![required("isShareable", boolean()), optional("capifProvDoms", list_of_some(text("example.com")))],
    );
    let published = object("PublishedApiPath", vec![optional("ccfIds", list_of_some(text("capif-core")))]);
    vec![
        optional("apiStatus", object("ApiStatus", vec![required("aefIds", list(id()))]).of::<ApiStatus>()),
        optional("aefProfiles", list_of_some(aef_profile())),
        optional("description", text("K_AF for application functions")),
        optional("shareableInfo", shareable.of::<ShareableInformation>()),
        optional("serviceAPICategory", text("security")),
        optional("apiSuppFeats", supported_features()),
        optional("pubApiPath", published.of::<PublishedApiPath>()),
        optional("ccfId", text("capif-core")),
    ]
}

fn aef_profile() -> Schema {
    object(
        "AefProfile",
        vec![
            required("aefId", id()),
            required("versions", list_of_some(version())),
            optional("protocol", protocol()),
            optional("dataFormat", open_enumeration(&["JSON", "XML", "PROTOBUF3"])),
            optional("securityMethods", list_of_some(security_method())),
            optional("domainName", text("nef.example.com")),
            optional("interfaceDescriptions", list_of_some(interface_description())),
            optional("aefLocation", aef_location()),
            optional("serviceKpis", service_kpis()),
            optional("ueIpRange", ue_ip_range()),
        ],
    )
    .exactly_one(&["domainName", "interfaceDescriptions"])
    .of_checked::<AefProfile>()
}

pub(super) fn aef_location() -> Schema {
    object(
        "AefLocation",
        vec![optional("civicAddr", any()), optional("geoArea", any()), optional("dcId", text("data-centre-1"))],
    )
    .of::<AefLocation>()
}

fn service_kpis() -> Schema {
    object(
        "ServiceKpis",
        vec![
            optional("maxReqRate", unsigned(100)),
            optional("maxRestime", duration_seconds()),
            optional("availability", unsigned(99)),
            optional("avalComp", text("1 GFLOPS")),
            optional("avalGraComp", text("1 GFLOPS")),
            optional("avalMem", text("1 GB")),
            optional("avalStor", text("1 GB")),
            optional("conBand", unsigned(1000)),
        ],
    )
    .of::<ServiceKpis>()
}

fn ue_ip_range() -> Schema {
    let range = |name, example| object(name, vec![required("start", text(example)), required("end", text(example))]);
    object(
        "IpAddrRange",
        vec![
            optional(
                "ueIpv4AddrRanges",
                list_of_some(range("Ipv4AddressRange", "192.0.2.1").of::<AddressRange<Ipv4Addr>>()),
            ),
            optional(
                "ueIpv6AddrRanges",
                list_of_some(range("Ipv6AddressRange", "2001:db8::1").of::<AddressRange<Ipv6Addr>>()),
            ),
        ],
    )
    .at_least_one(&["ueIpv4AddrRanges", "ueIpv6AddrRanges"])
    .of_checked::<IpAddrRange>()
}

fn websock_notif_config() -> Schema {
    object(
        "WebsockNotifConfig",
        vec![optional("websocketUri", uri("wss://as.example.com/capif")), optional("requestWebsocketUri", boolean())],
    )
    .of::<WebsockNotifConfig>()
}

fn version() -> Schema {
    let custom_operation = || {
        object(
            "CustomOperation",
            vec![
                required("commType", communication_type()),
                required("custOpName", text("retrieve")),
                optional("operations", list_of_some(operation())),
                optional("description", text("gives K_AF")),
            ],
        )
        .of::<CustomOperation>()
    };
    let resource = object(
        "Resource",
        vec![
            required("resourceName", text("registrations")),
            required("commType", communication_type()),
            required("uri", text("/registrations")),
            optional("custOpName", text("retrieve")),
            optional("custOperations", list_of_some(custom_operation())),
            optional("operations", list_of_some(operation())),
            optional("description", text("registrations")),
        ],
    );
    object(
        "Version",
        vec![
            required("apiVersion", text("v1")),
            optional("expiry", date_time()),
            optional("resources", list_of_some(resource.of::<Resource>())),
            optional("custOperations", list_of_some(custom_operation())),
        ],
    )
    .of::<Version>()
}

pub(super) fn interface_description() -> Schema {
    object(
        "InterfaceDescription",
        vec![
            optional("ipv4Addr", text("192.0.2.1").of::<Ipv4Addr>()),
            optional("ipv6Addr", text("2001:db8::1").of::<Ipv6Addr>()),
            optional("fqdn", text("nef.example.com")),
            optional("port", unsigned(8443)),
            optional("apiPrefix", text("/prefix")),
            optional("securityMethods", list_of_some(security_method())),
        ],
    )
    .exactly_one(&["ipv4Addr", "ipv6Addr", "fqdn"])
    .of_checked::<InterfaceDescription>()
}

pub(super) fn discovered_apis() -> Schema {
    let found = optional("serviceAPIDescriptions", list_of_some(service_api_description()));
    object("DiscoveredAPIs", vec![found]).of::<DiscoveredApis>()
}

// --- invokers ----------------------------------------------------------------------------------------------

pub(super) fn api_invoker_enrolment_details() -> Schema {
    object(
        "APIInvokerEnrolmentDetails",
        vec![
            optional("apiInvokerId", id()),
            required("onboardingInformation", onboarding_information()),
            required("notificationDestination", destination()),
            optional("requestTestNotification", boolean()),
            optional("websockNotifConfig", websock_notif_config()),
            optional("apiList", api_list()),
            optional("apiInvokerInformation", text("weather")),
            optional("expTime", date_time()),
            optional("supportedFeatures", supported_features()),
        ],
    )
    .of::<ApiInvokerEnrolmentDetails>()
}

pub(super) fn api_invoker_enrolment_details_patch() -> Schema {
    object(
        "APIInvokerEnrolmentDetailsPatch",
        vec![
            optional("onboardingInformation", onboarding_information()),
            optional("notificationDestination", destination()),
            optional("apiList", api_list()),
            optional("apiInvokerInformation", text("weather")),
        ],
    )
    .of::<ApiInvokerEnrolmentDetailsPatch>()
}

fn onboarding_information() -> Schema {
    object(
        "OnboardingInformation",
        vec![
            required("apiInvokerPublicKey", public_key()),
            optional("apiInvokerCertificate", certificate()),
            optional("onboardingSecret", text("7f3c1f0e9d0a4a399d8c2f5d5f6f0a11")),
        ],
    )
    .of::<OnboardingInformation>()
}

fn api_list() -> Schema {
    object("APIList", vec![optional("serviceAPIDescriptions", list_of_some(service_api_description()))]).of::<ApiList>()
}

// --- security ----------------------------------------------------------------------------------------------

pub(super) fn service_security() -> Schema {
    object(
        "ServiceSecurity",
        vec![
            required("securityInfo", list_of_some(security_information())),
            required("notificationDestination", destination()),
            optional("requestTestNotification", boolean()),
            optional("websockNotifConfig", websock_notif_config()),
            optional("supportedFeatures", supported_features()),
        ],
    )
    .of::<ServiceSecurity>()
}

fn security_information() -> Schema {
    object(
        "SecurityInformation",
        vec![
            optional("interfaceDetails", interface_description()),
            optional("aefId", id()),
            optional("apiId", id()),
            required("prefSecurityMethods", list_of_some(security_method())),
            optional("selSecurityMethod", security_method()),
            optional("authenticationInfo", text("1f")),
            optional("authorizationInfo", text("{\"apiNames\":[\"3gpp-akma\"],\"names\":[]}")),
            optional(
                "grantType",
                list_of_some(open_enumeration(&[
                    "CLIENT_CREDENTIALS",
                    "AUTHORIZATION_CODE",
                    "AUTHORIZATION_CODE_WITH_PKCE",
                ])),
            ),
        ],
    )
    .exactly_one(&["interfaceDetails", "aefId"])
    .of_checked::<SecurityInformation>()
}

pub(super) fn security_notification() -> Schema {
    object(
        "SecurityNotification",
        vec![
            required("apiInvokerId", id()),
            optional("aefId", id()),
            required("apiIds", list_of_some(id())),
            required("cause", open_enumeration(&["OVERLIMIT_USAGE", "UNEXPECTED_REASON"])),
        ],
    )
    .of::<SecurityNotification>()
}

pub(super) fn access_token_request() -> Schema {
    object(
        "AccessTokenReq",
        vec![
            required("grant_type", text("client_credentials")),
            required("client_id", id()),
            optional("client_secret", text("7f3c1f0e9d0a4a399d8c2f5d5f6f0a11")),
            optional("scope", text("3gpp#6f7c:3gpp-akma")),
        ],
    )
}

pub(super) fn access_token_response() -> Schema {
    object(
        "AccessTokenRsp",
        vec![
            required("access_token", text("header.claims.signature")),
            required("token_type", text("Bearer")),
            required("expires_in", unsigned(300)),
            optional("scope", text("3gpp#6f7c:3gpp-akma")),
        ],
    )
    .of::<AccessTokenRsp>()
}

pub(super) fn access_token_error() -> Schema {
    object(
        "AccessTokenErr",
        vec![required("error", text("invalid_scope")), optional("error_description", text("not allowed"))],
    )
    .of::<AccessTokenErr>()
}

pub(super) fn check_authentication_request() -> Schema {
    object(
        "CheckAuthenticationReq",
        vec![required("apiInvokerId", id()), required("supportedFeatures", supported_features())],
    )
    .of::<CheckAuthenticationReq>()
}

pub(super) fn revoke_authorization_request() -> Schema {
    object(
        "RevokeAuthorizationReq",
        vec![required("revokeInfo", security_notification()), required("supportedFeatures", supported_features())],
    )
    .of::<RevokeAuthorizationReq>()
}

pub(super) fn aef_security_response(name: &'static str) -> Schema {
    object(name, vec![required("supportedFeatures", supported_features())]).of::<AefSecurityRsp>()
}

// --- policies, logs, events --------------------------------------------------------------------------------

fn api_invoker_policy() -> Schema {
    let range = object("TimeRangeList", vec![optional("startTime", date_time()), optional("stopTime", date_time())]);
    let policy = object(
        "ApiInvokerPolicy",
        vec![
            required("apiInvokerId", id()),
            optional("allowedTotalInvocations", unsigned(1000)),
            optional("allowedInvocationsPerSecond", unsigned(10)),
            optional("allowedInvocationTimeRangeList", list(range.of::<TimeRangeList>())),
        ],
    );
    policy.of::<ApiInvokerPolicy>()
}

pub(super) fn policy_list() -> Schema {
    object("AccessControlPolicyList", vec![optional("apiInvokerPolicies", list(api_invoker_policy()))])
        .of::<AccessControlPolicyList>()
}

pub(super) fn invocation_log() -> Schema {
    let log = object(
        "Log",
        vec![
            required("apiId", id()),
            required("apiName", text("3gpp-akma")),
            required("apiVersion", text("v1")),
            required("resourceName", text("retrieve")),
            optional("uri", uri("https://nef.example.com/3gpp-akma/v1/retrieve")),
            required("protocol", protocol()),
            optional("operation", operation()),
            required("result", text("200")),
            optional("invocationTime", date_time()),
            optional("invocationLatency", unsigned(3)),
            optional("inputParameters", any()),
            optional("outputParameters", any()),
            optional("srcInterface", interface_description()),
            optional("destInterface", interface_description()),
            optional("fwdInterface", text("proxy")),
        ],
    );
    object(
        "InvocationLog",
        vec![
            required("aefId", id()),
            required("apiInvokerId", id()),
            required("logs", list_of_some(log.of::<Log>())),
            optional("supportedFeatures", supported_features()),
        ],
    )
    .of::<InvocationLog>()
}

pub(super) fn invocation_logs_found() -> Schema {
    let several = object(
        "InvocationLogs",
        vec![
            required("multipleInvocationLogs", list_of_some(invocation_log())),
            optional("supportedFeatures", supported_features()),
        ],
    );
    one_of(vec![invocation_log(), several.of::<InvocationLogs>()]).named("InvocationLogsRetrieveRes")
}

pub(super) fn event_subscription() -> Schema {
    object(
        "EventSubscription",
        vec![
            required("events", list_of_some(event())),
            optional("eventFilters", list_of_some(event_filter())),
            optional("eventReq", any()),
            required("notificationDestination", destination()),
            optional("requestTestNotification", boolean()),
            optional("websockNotifConfig", websock_notif_config()),
            optional("supportedFeatures", supported_features()),
        ],
    )
    .of::<EventSubscription>()
}

pub(super) fn event_subscription_patch() -> Schema {
    object(
        "EventSubscriptionPatch",
        vec![
            optional("events", list_of_some(event())),
            optional("eventFilters", list_of_some(event_filter())),
            optional("eventReq", any()),
            optional("notificationDestination", destination()),
        ],
    )
    .of::<EventSubscriptionPatch>()
}

fn event_filter() -> Schema {
    object(
        "CAPIFEventFilter",
        vec![
            optional("apiIds", list_of_some(id())),
            optional("apiInvokerIds", list_of_some(id())),
            optional("aefIds", list_of_some(id())),
        ],
    )
    .of::<CapifEventFilter>()
}

pub(super) fn event_notification() -> Schema {
    let policies = object(
        "AccessControlPolicyListExt",
        vec![required("apiId", id()), optional("apiInvokerPolicies", list_of_some(api_invoker_policy()))],
    );
    let detail = object(
        "CAPIFEventDetail",
        vec![
            optional("serviceAPIDescriptions", list_of_some(service_api_description())),
            optional("apiIds", list_of_some(id())),
            optional("apiInvokerIds", list_of_some(id())),
            optional("accCtrlPolList", policies.of::<AccessControlPolicyListExt>()),
            optional("invocationLogs", list_of_some(invocation_log())),
        ],
    );
    object(
        "EventNotification",
        vec![
            required("subscriptionId", id()),
            required("events", event()),
            optional("eventDetail", detail.of::<CapifEventDetail>()),
        ],
    )
    .of::<EventNotification>()
}

/// The events that there are here; others may be subscribed to, and do not happen.
fn event() -> Schema {
    open_enumeration(&[
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
    ])
}

// --- what several have -------------------------------------------------------------------------------------

fn id() -> Schema {
    text("6f7c0a52-9d0f-4c0a-8c5e-0d8f5a1b2c3d")
}

fn destination() -> Schema {
    uri("https://as.example.com/capif")
}

fn public_key() -> Schema {
    text("-----BEGIN PUBLIC KEY-----\n...\n-----END PUBLIC KEY-----\n")
}

fn certificate() -> Schema {
    text("-----BEGIN CERTIFICATE-----\n...\n-----END CERTIFICATE-----\n")
}

fn protocol() -> Schema {
    open_enumeration(&["HTTP_1_1", "HTTP_2", "MQTT", "WEBSOCKET"])
}

fn communication_type() -> Schema {
    open_enumeration(&["REQUEST_RESPONSE", "SUBSCRIBE_NOTIFY"])
}

fn operation() -> Schema {
    open_enumeration(&["GET", "POST", "PUT", "PATCH", "DELETE"])
}

fn security_method() -> Schema {
    open_enumeration(&["PSK", "PKI", "OAUTH"]).of::<SecurityMethod>()
}
