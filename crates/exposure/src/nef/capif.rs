//! The NEF as API exposing function: which of its APIs a CAPIF core function is told of.

use sbi::capif::aef::ExposedApi;
use sbi::capif::publish::Resource;

use super::scope;

/// The APIs that are served, as they are published.
pub(crate) fn apis(akma: bool, msgin5g: bool) -> Vec<ExposedApi> {
    let api = |name, description, resources: &[(&str, &str)]| ExposedApi {
        name,
        version: "v1",
        description,
        resources: resources.iter().map(|(name, uri)| resource(name, uri)).collect(),
    };
    let mut apis = Vec::new();
    if akma {
        apis.push(api(scope::AKMA, "AKMA application keys (TS 29.522)", &[("AKMA", "/retrieve")]));
    }
    if msgin5g {
        apis.push(api(
            scope::AS_REGISTRATION,
            "MSGin5G: registration of Application Servers (TS 29.538)",
            &[("AS Registrations", "/registrations")],
        ));
        apis.push(api(
            scope::MESSAGE_DELIVERY,
            "MSGin5G: messages of Application Servers (TS 29.538)",
            &[("AS Message", "/deliver-as-message"), ("Report", "/deliver-report")],
        ));
        apis.push(api(
            scope::TOPIC_LIST_EVENT,
            "MSGin5G: lists of Messaging Topics (TS 29.538)",
            &[("Topic List Subscriptions", "/subscriptions")],
        ));
    }
    apis
}

fn resource(name: &str, uri: &str) -> Resource {
    Resource {
        resource_name: name.to_owned(),
        comm_type: "REQUEST_RESPONSE".to_owned(),
        uri: uri.to_owned(),
        ..Resource::default()
    }
}
