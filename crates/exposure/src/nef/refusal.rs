//! Causes of refusals that are this function's own; those of AAnF and MSGin5G Server are passed on as they are.

/// 403: the certificate and the token are not those of one application function that has an entry.
pub const REQUESTER_NOT_ALLOWED: &str = "REQUESTER_NOT_ALLOWED";
/// 403: the AF_ID's FQDN is not among those of the caller's entry.
pub const AF_ID_NOT_ALLOWED: &str = "AF_ID_NOT_ALLOWED";
/// 403: the caller's entry does not let it be this Application Server.
pub const ORIGINATOR_NOT_ALLOWED: &str = "ORIGINATOR_NOT_ALLOWED";
/// 403: the caller's entry does not let it send there.
pub const RECIPIENT_NOT_ALLOWED: &str = "RECIPIENT_NOT_ALLOWED";
/// 403: the caller's entry does not let it subscribe to this Messaging Topic.
pub const TOPIC_NOT_ALLOWED: &str = "TOPIC_NOT_ALLOWED";
/// 403: the caller may not have deliveries or notifications sent there.
pub const TARGET_URI_NOT_ALLOWED: &str = "TARGET_URI_NOT_ALLOWED";
/// 403: the caller may not be notified there that AKMA is disabled; the AAnF's word for it, too.
pub const NOTIFICATION_URI_NOT_ALLOWED: &str = "NOTIFICATION_URI_NOT_ALLOWED";
/// 403: the Application Server has not registered here.
pub const NOT_REGISTERED: &str = "NOT_REGISTERED";
/// 403: the operator's network does not let the NEF ask for this. Asking again is of no use before an operator changes that.
pub const INSIDE_NOT_ALLOWED: &str = "INSIDE_NOT_ALLOWED";
/// 404: no registration of the caller's has this identifier.
pub const REGISTRATION_NOT_FOUND: &str = "REGISTRATION_NOT_FOUND";
/// 404: no subscription of the caller's has this identifier.
pub const SUBSCRIPTION_NOT_FOUND: &str = "SUBSCRIPTION_NOT_FOUND";
/// 503: the function inside that this request needs does not answer, or is overloaded; others may be served.
pub const INSIDE_UNAVAILABLE: &str = "INSIDE_UNAVAILABLE";
/// 503, to the MSGin5G Server: this Application Server outside is away; others are served.
pub const TARGET_UNAVAILABLE: &str = "TARGET_UNAVAILABLE";
/// 429: more requests than the caller's entry allows, per second or under way.
pub const RATE_EXCEEDED: &str = "RATE_EXCEEDED";
/// 429: the Application Server has as many topic list subscriptions as it may.
pub const TOO_MANY_SUBSCRIPTIONS: &str = "TOO_MANY_SUBSCRIPTIONS";
