//! The APIs of the CAPIF core function and of an API exposing function (TS 29.222). Their schemas: [`super::capif_schemas`].

use super::api::{Api, FORM, JSON, MERGE_PATCH, Operation, delete, get, patch, post, put};
use super::capif_schemas::{
    access_token_error, access_token_request, access_token_response, aef_location, aef_security_response,
    api_invoker_enrolment_details, api_invoker_enrolment_details_patch, api_provider_enrolment_details,
    api_provider_enrolment_details_patch, check_authentication_request, discovered_apis, event_notification,
    event_subscription, event_subscription_patch, interface_description, invocation_log, invocation_logs_found,
    policy_list, revoke_authorization_request, security_notification, service_api_description,
    service_api_description_patch, service_security,
};
use super::common::{date_time, supported_features};
use super::schema::{boolean, list, open_enumeration, text};

const AN_ID: &str = "6f7c0a52-9d0f-4c0a-8c5e-0d8f5a1b2c3d";
const NOTIFICATION_DESTINATION: &str = "{request.body#/notificationDestination}";

/// The APIs of the core function.
#[must_use]
pub fn capif_core_function() -> Vec<Api> {
    vec![
        provider_management(),
        publish(),
        discover(),
        invoker_management(),
        security(),
        access_control_policy(),
        logging(),
        auditing(),
        events(),
    ]
}

/// CAPIF_API_Provider_Management_API.
fn provider_management() -> Api {
    const ONE: &str = "/registrations/{registrationId}";
    Api::new(
        "CAPIF_API_Provider_Management_API",
        "TS29222_CAPIF_API_Provider_Management_API",
        "/api-provider-management/v1",
    )
    .by_certificate_alone()
    .with(
        post("/registrations", "Register an API provider domain")
            .takes(api_provider_enrolment_details())
            .answers(201, api_provider_enrolment_details())
            .with_location(),
    )
    .with(
        put(ONE, "Replace a registration")
            .at("registrationId", text(AN_ID))
            .takes(api_provider_enrolment_details())
            .answers(200, api_provider_enrolment_details()),
    )
    .with(
        patch(ONE, "Change a registration")
            .at("registrationId", text(AN_ID))
            .takes_as(MERGE_PATCH, api_provider_enrolment_details_patch())
            .answers(200, api_provider_enrolment_details()),
    )
    .with(delete(ONE, "End a registration").at("registrationId", text(AN_ID)).answers_nothing())
}

/// CAPIF_Publish_Service_API.
fn publish() -> Api {
    const ALL: &str = "/{apfId}/service-apis";
    const ONE: &str = "/{apfId}/service-apis/{serviceApiId}";
    let of_one = |operation: Operation| operation.at("apfId", text(AN_ID)).at("serviceApiId", text(AN_ID));
    Api::new("CAPIF_Publish_Service_API", "TS29222_CAPIF_Publish_Service_API", "/published-apis/v1")
        .by_certificate_alone()
        .with(
            post(ALL, "Publish a service API")
                .at("apfId", text(AN_ID))
                .takes(service_api_description())
                .answers(201, service_api_description())
                .with_location(),
        )
        .with(
            get(ALL, "Give the service APIs that were published")
                .at("apfId", text(AN_ID))
                .answers(200, list(service_api_description())),
        )
        .with(of_one(get(ONE, "Give a published service API")).answers(200, service_api_description()))
        .with(
            of_one(put(ONE, "Replace a published service API"))
                .takes(service_api_description())
                .answers(200, service_api_description()),
        )
        .with(
            of_one(patch(ONE, "Change a published service API"))
                .takes_as(MERGE_PATCH, service_api_description_patch())
                .answers(200, service_api_description()),
        )
        .with(of_one(delete(ONE, "Unpublish a service API")).answers_nothing())
}

/// CAPIF_Discover_Service_API.
fn discover() -> Api {
    Api::new("CAPIF_Discover_Service_API", "TS29222_CAPIF_Discover_Service_API", "/service-apis/v1")
        .by_certificate_alone()
        .with(
            get("/allServiceAPIs", "Find service APIs")
                .needed_query("api-invoker-id", text(AN_ID))
                .query("api-name", text("3gpp-akma"))
                .query("api-version", text("v1"))
                .query("comm-type", open_enumeration(&["REQUEST_RESPONSE", "SUBSCRIBE_NOTIFY"]))
                .query("protocol", open_enumeration(&["HTTP_1_1", "HTTP_2", "MQTT", "WEBSOCKET"]))
                .query("aef-id", text(AN_ID))
                .query("data-format", open_enumeration(&["JSON", "XML", "PROTOBUF3"]))
                .query("api-cat", text("security"))
                .optional_json_query("preferred-aef-loc", aef_location())
                .query("req-api-prov-name", text("operator"))
                .query("supported-features", supported_features())
                .query("api-supported-features", supported_features())
                .answers(200, discovered_apis()),
        )
}

/// CAPIF_API_Invoker_Management_API.
fn invoker_management() -> Api {
    const ONE: &str = "/onboardedInvokers/{onboardingId}";
    Api::new(
        "CAPIF_API_Invoker_Management_API",
        "TS29222_CAPIF_API_Invoker_Management_API",
        "/api-invoker-management/v1",
    )
    .by_certificate_alone()
    .with(
        post("/onboardedInvokers", "Onboard an API invoker")
            .takes(api_invoker_enrolment_details())
            .answers(201, api_invoker_enrolment_details())
            .with_location(),
    )
    .with(
        put(ONE, "Replace what is known of an API invoker")
            .at("onboardingId", text(AN_ID))
            .takes(api_invoker_enrolment_details())
            .answers(200, api_invoker_enrolment_details()),
    )
    .with(
        patch(ONE, "Change what is known of an API invoker")
            .at("onboardingId", text(AN_ID))
            .takes_as(MERGE_PATCH, api_invoker_enrolment_details_patch())
            .answers(200, api_invoker_enrolment_details()),
    )
    .with(delete(ONE, "Off-board an API invoker").at("onboardingId", text(AN_ID)).answers_nothing())
}

/// CAPIF_Security_API.
fn security() -> Api {
    const ONE: &str = "/trustedInvokers/{apiInvokerId}";
    let revoked = post("", "Tell that an authorization ended").takes(security_notification()).answers_nothing();
    Api::new("CAPIF_Security_API", "TS29222_CAPIF_Security_API", "/capif-security/v1")
        .by_certificate_alone()
        .with(
            get(ONE, "Give a security context")
                .at("apiInvokerId", text(AN_ID))
                .query("authenticationInfo", boolean())
                .query("authorizationInfo", boolean())
                .answers(200, service_security()),
        )
        .with(
            put(ONE, "Agree on a security context")
                .at("apiInvokerId", text(AN_ID))
                .takes(service_security())
                .answers(201, service_security())
                .with_location()
                .calls_back("notificationDestination", NOTIFICATION_DESTINATION, revoked),
        )
        .with(delete(ONE, "End a security context").at("apiInvokerId", text(AN_ID)).answers_nothing())
        .with(
            post("/trustedInvokers/{apiInvokerId}/update", "Agree anew on a security context")
                .at("apiInvokerId", text(AN_ID))
                .takes(service_security())
                .answers(200, service_security()),
        )
        .with(
            post("/trustedInvokers/{apiInvokerId}/delete", "Revoke an authorization")
                .at("apiInvokerId", text(AN_ID))
                .takes(security_notification())
                .answers_nothing(),
        )
        .with(
            post("/securities/{securityId}/token", "Give an access token")
                .at("securityId", text(AN_ID))
                .takes_as(FORM, access_token_request())
                .answers(200, access_token_response())
                .answers_as(400, JSON, access_token_error())
                .answers_as(401, JSON, access_token_error()),
        )
}

/// CAPIF_Access_Control_Policy_API.
fn access_control_policy() -> Api {
    Api::new("CAPIF_Access_Control_Policy_API", "TS29222_CAPIF_Access_Control_Policy_API", "/access-control-policy/v1")
        .by_certificate_alone()
        .with(
            get("/accessControlPolicyList/{serviceApiId}", "Say who may use a service API")
                .at("serviceApiId", text(AN_ID))
                .needed_query("aef-id", text(AN_ID))
                .query("api-invoker-id", text(AN_ID))
                .answers(200, policy_list()),
        )
}

/// CAPIF_Logging_API_Invocation_API.
fn logging() -> Api {
    Api::new("CAPIF_Logging_API_Invocation_API", "TS29222_CAPIF_Logging_API_Invocation_API", "/api-invocation-logs/v1")
        .by_certificate_alone()
        .with(
            post("/{aefId}/logs", "Keep a log of invocations")
                .at("aefId", text(AN_ID))
                .takes(invocation_log())
                .answers(201, invocation_log())
                .with_location(),
        )
}

/// CAPIF_Auditing_API.
fn auditing() -> Api {
    Api::new("CAPIF_Auditing_API", "TS29222_CAPIF_Auditing_API", "/logs/v1").by_certificate_alone().with(
        get("/apiInvocationLogs", "Find logs of invocations")
            .query("aef-id", text(AN_ID))
            .query("api-invoker-id", text(AN_ID))
            .query("time-range-start", date_time())
            .query("time-range-end", date_time())
            .query("api-id", text(AN_ID))
            .query("api-name", text("3gpp-akma"))
            .query("api-version", text("v1"))
            .query("protocol", open_enumeration(&["HTTP_1_1", "HTTP_2", "MQTT", "WEBSOCKET"]))
            .query("operation", open_enumeration(&["GET", "POST", "PUT", "PATCH", "DELETE"]))
            .query("result", text("200"))
            .query("resource-name", text("retrieve"))
            .optional_json_query("src-interface", interface_description())
            .optional_json_query("dest-interface", interface_description())
            .answers(200, invocation_logs_found()),
    )
}

/// CAPIF_Events_API.
fn events() -> Api {
    const ONE: &str = "/{subscriberId}/subscriptions/{subscriptionId}";
    let of_one = |operation: Operation| operation.at("subscriberId", text(AN_ID)).at("subscriptionId", text(AN_ID));
    let told = post("", "Tell of an event").takes(event_notification()).answers_nothing();
    Api::new("CAPIF_Events_API", "TS29222_CAPIF_Events_API", "/capif-events/v1")
        .by_certificate_alone()
        .with(
            post("/{subscriberId}/subscriptions", "Subscribe to events")
                .at("subscriberId", text(AN_ID))
                .takes(event_subscription())
                .answers(201, event_subscription())
                .with_location()
                .calls_back("notificationDestination", NOTIFICATION_DESTINATION, told),
        )
        .with(of_one(put(ONE, "Replace a subscription")).takes(event_subscription()).answers(200, event_subscription()))
        .with(
            of_one(patch(ONE, "Change a subscription"))
                .takes_as(MERGE_PATCH, event_subscription_patch())
                .answers(200, event_subscription()),
        )
        .with(of_one(delete(ONE, "End a subscription")).answers_nothing())
}

/// AEF_Security_API, which an API exposing function serves.
#[must_use]
pub fn aef_security() -> Api {
    Api::new("AEF_Security_API", "TS29222_AEF_Security_API", "/aef-security/v1")
        .by_certificate_alone()
        .with(
            post("/check-authentication", "Say whether an API invoker is known")
                .takes(check_authentication_request())
                .answers(200, aef_security_response("CheckAuthenticationRsp")),
        )
        .with(
            post("/revoke-authorization", "Take the end of an authorization")
                .takes(revoke_authorization_request())
                .answers(200, aef_security_response("RevokeAuthorizationRsp")),
        )
}
