//! The network repository function (TS 29.510): types of its three services, and the side of whoever uses them.
//!
//! Start from [`NrfClient`], which keeps a function registered and gets access tokens for its requests; it needs only
//! [`NrfConfig`], the section `[nrf]` of a function's configuration. [`NrfApi`] has the plain operations.
//!
//! Types hold the members that are used here by name; all others come in and go out as they are
//! ([`NFProfile::rest`]).

mod aanf_selection;
mod api;
mod config;
mod discovery;
mod kept;
mod management;
mod patch;
mod producer_root;
mod profile;
mod registration;
mod token_request;
mod token_source;

pub use aanf_selection::AanfSelection;
pub use api::NrfApi;
pub use config::{NrfConfig, NrfLimits, peer_fault};
pub use discovery::{DiscoveryQuery, SearchResult, api_root};
pub use management::{
    NFType, NotificationData, NotificationEventType, ServiceNameListCondType, SubscrCond, SubscriptionData, TypeCond,
    UriList, UriListLinks,
};
pub use patch::{PATCH_ITEMS_MAX, PatchError, PatchItem, PatchOperation, apply_patch};
pub use producer_root::ProducerRoot;
pub use profile::{AanfInfo, IpEndPoint, NFProfile, NFService, NFServiceVersion, NFStatus};
pub use registration::{NrfClient, OwnFunction, OwnService};
pub use token_request::{AccessTokenErr, AccessTokenReq, AccessTokenRsp, TokenErrorCode};

/// What stands in a function's configuration in place of a peer's API root, where the NRF is to find the peer
/// ([`ProducerRoot`]).
pub const BY_DISCOVERY: &str = "nrf";

/// Path of Nnrf_NFManagement below the root.
pub const MANAGEMENT_PATH: &str = "/nnrf-nfm/v1";
/// Path of Nnrf_NFDiscovery below the root.
pub const DISCOVERY_PATH: &str = "/nnrf-disc/v1";
/// Path of the token endpoint below the root (TS 29.510 clause 6.3.2).
pub const TOKEN_PATH: &str = "/oauth2/token";
