//! The APIs of TS 29.538 that the MSGin5G Server serves on MSGin5G-3, and the one that it asks a Broadcast Message Gateway
//! by on MSGin5G-7.

use message::ts29538::{
    AsMessageDelivery, AsProfile, AsRegistration, AsRegistrationAck, BgMessageDelivery, DeliveryStatusReport,
    MessageDeliveryAck, MessageSegmentParameters, MessagingTopic, RegistrationResult, StoreAndForwardParameters,
    TopicListNotification, TopicListSubscription, TopicListSubscriptionAck, TopicListUnsubscription, TopicSubscription,
    TopicSubscriptionAck, TopicUnsubscription, UeMessageDelivery, UpdateStatus,
};
use message::{Address, AddressType, DeliveryStatus, MessageId, Priority, ReportDeliveryStatus};

use super::api::{Api, Operation, delete, post};
use super::common::{date_time, service_id, supported_features, uri};
use super::schema::{
    Member, Schema, boolean, format, list_of_some, object, open_enumeration, optional, required, text, unsigned,
    visible,
};

/// Path of MSGS_ASRegistration below its root.
const AS_REGISTRATION_API_PATH: &str = "/msgs-asregistration/v1";
/// Path of MSGS_MSGDelivery below its root.
const MSG_DELIVERY_API_PATH: &str = "/msgs-msgdelivery/v1";
/// Path of MSGS_TopiclistEvent below its root.
const TOPICLIST_EVENT_API_PATH: &str = "/msgs-topiclistevent/v1";
/// Path of MSGG_BGDelivery below its root.
const BG_DELIVERY_API_PATH: &str = "/msgg-bgdelivery/v1";

/// MSGS_ASRegistration.
#[must_use]
pub fn msgs_as_registration() -> Api {
    let profile = object(
        "ASProfile",
        vec![
            optional("appName", text("billing")),
            optional("appProviders", list_of_some(text("example"))),
            optional("appSenarios", list_of_some(text("metering"))),
            optional("appCategory", text("utility")),
            optional("asStatus", text("up")),
        ],
    );
    let registration = object(
        "ASRegistration",
        vec![
            required("asSvcId", service_id("billing@lab.example")),
            optional("appId", application_id()),
            optional("targetUri", uri("https://127.0.0.1:9443/inbox")),
            optional("asProf", profile.of::<AsProfile>()),
        ],
    );
    let result = object(
        "RegistrationResult",
        vec![
            optional("title", text("Created")),
            optional("status", unsigned(201)),
            optional("detail", text("registered")),
            optional("cause", text("OVERLOADED")),
        ],
    );
    let acknowledgement = object(
        "ASRegistrationAck",
        vec![
            required("asSvcId", service_id("billing@lab.example")),
            required("result", result.of::<RegistrationResult>()),
        ],
    );
    Api::new("MSGS_ASRegistration", "TS29538_MSGS_ASRegistration", AS_REGISTRATION_API_PATH)
        .with(
            post("/registrations", "Register an Application Server")
                .takes(registration.of::<AsRegistration>())
                .answers(201, acknowledgement.of::<AsRegistrationAck>())
                .with_location(),
        )
        .with(
            delete("/registrations/{registrationId}", "End a registration")
                .at("registrationId", text("2f4f2a9e-6c1b-4d9c-8a51-3d1f0c0f6f11"))
                .answers_nothing(),
        )
}

/// MSGS_MSGDelivery.
#[must_use]
pub fn msgs_msg_delivery() -> Api {
    let as_message = delivery(
        "ASMessageDelivery",
        vec![
            optional("priority", open_enumeration(&["HIGH", "MIDDLE", "LOW"]).of::<Priority>()),
            optional("latency", unsigned(1000)),
        ],
    );
    let report = object(
        "DeliveryStatusReport",
        vec![
            required("oriAddr", address()),
            required("destAddr", address()),
            required("msgId", message_id()),
            optional("failureCause", text("EXPIRED")),
            required(
                "delivSt",
                open_enumeration(&["REPT_DELY_SUCCESS", "REPT_DELY_FAILED"]).of::<ReportDeliveryStatus>(),
            ),
        ],
    );
    Api::new("MSGS_MSGDelivery", "TS29538_MSGS_MSGDelivery", MSG_DELIVERY_API_PATH)
        .with(acknowledged("/deliver-as-message", "Take a message from an AS", as_message.of::<AsMessageDelivery>()))
        .with(acknowledged(
            "/deliver-ue-message",
            "Take a message of a UE behind a gateway",
            delivery("UEMessageDelivery", Vec::new()).of::<UeMessageDelivery>(),
        ))
        .with(acknowledged("/deliver-report", "Take a report", report.of::<DeliveryStatusReport>()))
}

fn acknowledged(path: &'static str, summary: &'static str, takes: Schema) -> Operation {
    let acknowledgement = object(
        "MessageDeliveryAck",
        vec![
            required("oriAddr", address()),
            required("msgId", message_id()),
            optional("status", open_enumeration(&["DELY_FAILED", "DELY_STORED"]).of::<DeliveryStatus>()),
            optional("failureCause", text("EXPIRED")),
        ],
    );
    post(path, summary).takes(takes).answers(200, acknowledgement.of::<MessageDeliveryAck>())
}

fn delivery(name: &'static str, further: Vec<Member>) -> Schema {
    let parameters =
        object("StoreAndForwardParameters", vec![optional("exprTime", date_time())]).of::<StoreAndForwardParameters>();
    let mut members = vec![
        required("oriAddr", address()),
        required("destAddr", address()),
        optional("recAddr", address()),
        optional("appId", application_id()),
        required("msgId", message_id()),
        optional("delivStReqInd", boolean()),
        optional("payload", format("byte", "MjEuNSBrV2g=")),
        optional("segInd", boolean()),
        optional("segParams", segment_parameters()),
        required("stoAndFwInd", boolean()),
        optional("stoAndFwParams", parameters),
    ];
    members.extend(further);
    object(name, members)
}

/// MSGS_TopiclistEvent.
#[must_use]
pub fn msgs_topiclist_event() -> Api {
    Api::new("MSGS_TopiclistEvent", "TS29538_MSGS_TopiclistEvent", TOPICLIST_EVENT_API_PATH)
        .with(
            post("/topiclist-subscriptions", "Subscribe to the list of topics")
                .takes(topic_list_subscription())
                .answers(201, topic_acknowledgement("TopicListSubscriptionAck", true).of::<TopicListSubscriptionAck>())
                .with_location()
                .calls_back(
                    "MessagingTopicListNotification",
                    "{$request.body#/notificationURI}",
                    post("", "Tell of topics").takes(topic_list_notification()).answers_nothing(),
                ),
        )
        .with(
            post("/topiclist-subscriptions/{subscriptionId}", "End such a subscription")
                .at("subscriptionId", text("2f4f2a9e-6c1b-4d9c-8a51-3d1f0c0f6f11"))
                .takes(
                    object(
                        "TopicListUnsubscription",
                        vec![required("oriAddr", address()), required("destAddr", address())],
                    )
                    .of::<TopicListUnsubscription>(),
                )
                .answers_nothing(),
        )
        .with(
            post("/request-topic-subscription", "Subscribe to topics")
                .takes(
                    object(
                        "TopicSubscription",
                        vec![
                            required("oriAddr", address()),
                            required("msgTopics", topics()),
                            optional("exprTime", date_time()),
                        ],
                    )
                    .of::<TopicSubscription>(),
                )
                .answers(200, topic_acknowledgement("TopicSubscriptionAck", false).of::<TopicSubscriptionAck>()),
        )
        .with(
            post("/request-topic-unsubscription", "Unsubscribe from topics")
                .takes(
                    object(
                        "TopicUnsubscription",
                        vec![required("oriAddr", address()), required("msgTopics", topics())],
                    )
                    .of::<TopicUnsubscription>(),
                )
                .answers_nothing(),
        )
}

fn topic_list_subscription() -> Schema {
    object(
        "TopicListSubscription",
        vec![
            required("oriAddr", address()),
            required("destAddr", address()),
            required("notificationURI", uri("https://127.0.0.1:9443/topics")),
            optional("exprTime", date_time()),
            optional("suppFeat", supported_features()),
        ],
    )
    .of::<TopicListSubscription>()
}

fn topic_list_notification() -> Schema {
    let topic = object(
        "MessagingTopic",
        vec![
            required("msgTopic", service_id("alerts/fire")),
            required("updateStat", open_enumeration(&["CREATED", "DELETED"]).of::<UpdateStatus>()),
        ],
    );
    let topics = list_of_some(topic.of::<MessagingTopic>()).up_to(message::TOPICS_PER_NOTIFICATION_MAX);
    object("TopicListNotification", vec![required("msgTopics", topics), optional("exprTime", date_time())])
        .of::<TopicListNotification>()
}

fn topic_acknowledgement(name: &'static str, features: bool) -> Schema {
    let mut members = vec![required("subStat", text("SUBSCRIBED")), optional("exprTime", date_time())];
    if features {
        members.push(optional("suppFeat", supported_features()));
    }
    object(name, members)
}

fn topics() -> Schema {
    list_of_some(service_id("alerts/fire")).up_to(message::TOPICS_PER_REQUEST_MAX)
}

/// MSGG_BGDelivery, which a Broadcast Message Gateway serves.
#[must_use]
pub fn bg_delivery() -> Api {
    let message = object(
        "BgMessageDelivery",
        vec![
            required("oriAddr", address()),
            optional("destAddr", address()),
            optional("appId", application_id()),
            required("msgId", message_id()),
            optional("delivStReqInd", boolean()),
            optional("payload", format("byte", "MjEuNSBrV2g=")),
            optional("segInd", boolean()),
            optional("segParams", segment_parameters()),
            optional("priority", open_enumeration(&["HIGH", "MIDDLE", "LOW"]).of::<Priority>()),
        ],
    );
    Api::new("MSGG_BGDelivery", "TS29538_MSGG_BGDelivery", BG_DELIVERY_API_PATH).consumed().with(
        post("/deliver-message", "Broadcast a message").takes(message.of::<BgMessageDelivery>()).answers_nothing(),
    )
}

fn address() -> Schema {
    let kind = open_enumeration(&["UE", "AS", "GROUP", "BC", "TOPIC"]).of::<AddressType>();
    object("Address", vec![required("addrType", kind), required("addr", service_id("meter-7@lab.example"))])
        .of::<Address>()
}

fn segment_parameters() -> Schema {
    object(
        "MessageSegmentParameters",
        vec![
            optional("segId", visible(message::SEGMENTATION_SET_ID_OCTETS_MAX, "set-1")),
            optional("totalSegCount", unsigned(2)),
            optional("segNumb", unsigned(1)),
            optional("lastSegFlag", boolean()),
        ],
    )
    .of::<MessageSegmentParameters>()
}

fn message_id() -> Schema {
    visible(message::MESSAGE_ID_OCTETS_MAX, "7f3c1f0e-9d0a-4a39-9d8c-2f5d5f6f0a11").of::<MessageId>()
}

fn application_id() -> Schema {
    text("metering").of::<message::ApplicationId>()
}
