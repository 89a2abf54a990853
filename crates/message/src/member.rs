//! The one table of JSON member names and fixed values.
//!
//! The normative names of TS 24.538 clause 7.3 are not known to us. These follow the spelling of TS 29.538 where it has
//! the element, so that both interfaces read alike; should the normative ones differ, they change here and nowhere
//! else. Decoding and encoding both read this table, and a test holds the TS 29.538 types to it.

/// Message Type (TS 24.538 clause 7.1).
pub const MESSAGE_TYPE: &str = "msgType";
/// Originating UE or AS Service ID.
pub const ORIGINATOR: &str = "oriAddr";
/// Recipient.
pub const DESTINATION: &str = "destAddr";
/// The group member or topic subscriber that one copy of a message is for (TS 23.554 table 8.3.3-1).
pub const RECIPIENT: &str = "recAddr";
/// What kind of identity an address holds.
pub const ADDRESS_TYPE: &str = "addrType";
/// The identity in an address.
pub const ADDRESS: &str = "addr";
/// Application ID.
pub const APPLICATION_ID: &str = "appId";
/// Message ID.
pub const MESSAGE_ID: &str = "msgId";
/// Delivery status required.
pub const DELIVERY_STATUS_REQUIRED: &str = "delivStReqInd";
/// Payload, base64 (RFC 4648 section 4) with padding.
pub const PAYLOAD: &str = "payload";
/// Priority type.
pub const PRIORITY: &str = "priority";
/// Message is segmented.
pub const SEGMENTED: &str = "segInd";
/// What says where the segment belongs.
pub const SEGMENT_PARAMETERS: &str = "segParams";
/// Segmentation set identifier.
pub const SEGMENTATION_SET_ID: &str = "segId";
/// Total number of message segments.
pub const TOTAL_SEGMENT_COUNT: &str = "totalSegCount";
/// Message segment number.
pub const SEGMENT_NUMBER: &str = "segNumb";
/// Last segment flag.
pub const LAST_SEGMENT_FLAG: &str = "lastSegFlag";
/// Store and forward flag.
pub const STORE_AND_FORWARD: &str = "stoAndFwInd";
/// Store and forward parameters.
pub const STORE_AND_FORWARD_PARAMETERS: &str = "stoAndFwParams";
/// Message expiration time, RFC 3339.
pub const EXPIRATION_TIME: &str = "exprTime";
/// Latency, milliseconds.
pub const LATENCY: &str = "latency";
/// Delivery Status in a message response.
pub const STATUS: &str = "status";
/// Failure Cause.
pub const FAILURE_CAUSE: &str = "failureCause";
/// Delivery Status in a delivery status report.
pub const DELIVERY_STATUS: &str = "delivSt";
/// List of individual messages of an aggregated message (TS 23.554 table 8.4.2-1); tells it apart from a message.
pub const INDIVIDUAL_MESSAGES: &str = "indMsgs";
/// Number of individual messages (TS 23.554 table 8.4.2-1).
pub const INDIVIDUAL_MESSAGE_COUNT: &str = "indMsgCount";
/// What became of each individual message, in the answer to an aggregated one.
pub const INDIVIDUAL_RESPONSES: &str = "indResps";
/// List of individual reports; tells an aggregated delivery status report apart from a single one.
pub const INDIVIDUAL_REPORTS: &str = "indReports";
/// Numbers of the segments that are missing, in a segments recovery.
pub const MISSING_SEGMENTS: &str = "missSegs";
/// Messaging Topics of a subscription or unsubscription.
pub const MESSAGING_TOPICS: &str = "msgTopics";
/// What came of a subscription or unsubscription.
pub const SUBSCRIPTION_STATUS: &str = "subStat";
/// UE Service ID.
pub const UE_SERVICE_ID: &str = "ueSvcId";
/// MSGin5G Client Profile.
pub const CLIENT_PROFILE: &str = "clientProfile";
/// Supported Maximum MSGin5G segment size, octets.
pub const SEGMENT_SIZE: &str = "segmentSize";
/// Client profile: the client takes aggregated messages.
pub const AGGREGATION_SUPPORTED: &str = "aggrSup";
/// Client profile: Client Triggering Information (TS 23.554 table 8.2.1-2).
pub const TRIGGERING_INFORMATION: &str = "trigInfo";
/// Triggering information: UE Identifier.
pub const UE_IDENTIFIER: &str = "ueId";
/// Triggering information: port numbers.
pub const PORTS: &str = "ports";
/// Triggering information: associated protocol.
pub const PROTOCOL: &str = "protocol";
/// Client profile: Client Communication Availability (TS 23.554 table 8.2.1-3).
pub const COMMUNICATION_AVAILABILITY: &str = "commAvail";
/// Availability: scheduled communication time, RFC 3339.
pub const SCHEDULED_TIME: &str = "schedTime";
/// Availability: communication duration, seconds.
pub const COMMUNICATION_DURATION: &str = "commDur";
/// Availability: periodic interval, seconds.
pub const PERIODIC_INTERVAL: &str = "periodInt";
/// AS Service ID (TS 29.538 ASRegistration).
pub const AS_SERVICE_ID: &str = "asSvcId";
/// Where the AS takes messages (TS 29.538 ASRegistration).
pub const TARGET_URI: &str = "targetUri";
/// AS profile (TS 29.538 ASRegistration).
pub const AS_PROFILE: &str = "asProf";
/// AS profile: name of the application.
pub const APPLICATION_NAME: &str = "appName";
/// AS profile: providers of the AS.
pub const APPLICATION_PROVIDERS: &str = "appProviders";
/// AS profile: application scenarios. TS 29.538 spells it so.
pub const APPLICATION_SCENARIOS: &str = "appSenarios";
/// AS profile: category of the application.
pub const APPLICATION_CATEGORY: &str = "appCategory";
/// AS profile: status of the AS.
pub const AS_STATUS: &str = "asStatus";
/// What came of an AS registration (TS 29.538 ASRegistrationAck).
pub const RESULT: &str = "result";

/// One Messaging Topic (TS 29.538 MessagingTopic).
pub const MESSAGING_TOPIC: &str = "msgTopic";
/// What happened to the topic (TS 29.538 MessagingTopic).
pub const UPDATE_STATUS: &str = "updateStat";
/// Where notifications go (TS 29.538 TopicListSubscription).
pub const NOTIFICATION_URI: &str = "notificationURI";
/// Supported features (TS 29.538 TopicListSubscription).
pub const SUPPORTED_FEATURES: &str = "suppFeat";

/// Values of [`SUBSCRIPTION_STATUS`]. TS 29.538 leaves them free; these are ours (INFERRED).
pub mod subscription_status {
    /// Subscribed to every topic asked for.
    pub const SUBSCRIBED: &str = "SUBSCRIBED";
    /// Not subscribed any more, or never was.
    pub const UNSUBSCRIBED: &str = "UNSUBSCRIBED";
    /// Nothing was changed; the failure cause says why.
    pub const REFUSED: &str = "REFUSED";
}

/// Values of [`MESSAGE_TYPE`] (TS 24.538 clause 7.1). Release 17 closes the list at seven; the types of topic
/// subscription and stored message update are ours (INFERRED).
pub mod message_type {
    /// Registration.
    pub const REGISTRATION: &str = "REG";
    /// De-registration.
    pub const DEREGISTRATION: &str = "DEREG";
    /// Message.
    pub const MESSAGE: &str = "MSG";
    /// Message response.
    pub const MESSAGE_RESPONSE: &str = "MSGRESP";
    /// Delivery status report.
    pub const DELIVERY_STATUS_REPORT: &str = "IMDN";
    /// Segments recovery.
    pub const SEGMENT_RECOVERY: &str = "SEGREC";
    /// Message segments received confirmation.
    pub const SEGMENT_CONFIRMATION: &str = "SEGCONFIR";
    /// Topic subscription (INFERRED).
    pub const TOPIC_SUBSCRIPTION: &str = "TOPSUB";
    /// Topic unsubscription (INFERRED).
    pub const TOPIC_UNSUBSCRIPTION: &str = "TOPUNSUB";
    /// Answer to a topic subscription or unsubscription (INFERRED).
    pub const TOPIC_SUBSCRIPTION_RESPONSE: &str = "TOPRESP";
    /// Stored message update (INFERRED).
    pub const STORED_MESSAGE_UPDATE: &str = "STOUPD";
}
