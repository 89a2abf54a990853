//! The OpenAPI 3.0 documents of what this project serves and asks for.
//!
//! Each API is described once, in the module named for it, from the types that handlers and clients read and write with:
//! tests hold every described object to its type, member by member, and others hold every operation to the running
//! function. [`router`] serves the document of a function's APIs at [`DOCUMENT_PATH`].

mod api;
mod capif;
mod capif_schemas;
mod common;
mod naanf;
mod nausf;
mod northbound;
mod nrf;
mod nudm;
mod probe;
mod schema;
mod seal;
#[cfg(test)]
mod tests;
mod ts29538;

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::header::CONTENT_TYPE;

pub use api::{Api, Operation, Role, document};
pub use capif::{aef_security, capif_core_function};
pub use naanf::{naanf_akma, nef_akma};
pub use nausf::nausf_ue_authentication;
pub use northbound::{device_triggering, monitoring_event};
pub use nrf::{nnrf_access_token, nnrf_nf_discovery, nnrf_nf_management};
pub use nudm::nudm_ue_authentication;
pub use schema::{Member, Schema};
pub use seal::{ss_group_management, ss_user_profile_retrieval};
pub use ts29538::{bg_delivery, msgs_as_registration, msgs_msg_delivery, msgs_topiclist_event};

/// Where a function serves the document of its APIs: `GET`, for every peer that its TLS layer lets in.
pub const DOCUMENT_PATH: &str = "/openapi.json";

/// Every API that is described.
#[must_use]
pub fn all() -> Vec<Api> {
    let mut apis = vec![
        naanf_akma(),
        nef_akma(),
        nausf_ue_authentication(),
        nudm_ue_authentication(),
        ss_user_profile_retrieval(),
        ss_group_management(),
        msgs_as_registration(),
        msgs_msg_delivery(),
        msgs_topiclist_event(),
        bg_delivery(),
        device_triggering(),
        monitoring_event(),
        nnrf_nf_management(),
        nnrf_nf_discovery(),
        nnrf_access_token(),
        aef_security(),
    ];
    apis.extend(capif_core_function());
    apis
}

/// Serves one document for `apis` at [`DOCUMENT_PATH`]. It is written once: asking for it again and again costs little.
pub fn router<S: Clone + Send + Sync + 'static>(apis: &[Api]) -> Router<S> {
    let text = Bytes::from(document(apis).to_string());
    Router::new().route(DOCUMENT_PATH, get(async move || ([(CONTENT_TYPE, "application/json")], text.clone())))
}
