//! SEAL group management, SS_GroupManagement (TS 29.549 clause 7.2): types and client.
//!
//! A group of the message service is a VAL group whose identity is the Group Service ID, and its members are VAL users,
//! each a UE Service ID (TS 23.554 clause 8.1.2, TS 23.434). Two things no 3GPP document settles, and this is the one
//! place that does (INFERRED): `valGrpConf` is the JSON text of a [`GroupConfiguration`], and the individual document's
//! `groupDocId` is the Group Service ID, which is what [`SsGmClient`] asks our Configuration Function by.
//! [`SsGmClient::group`] needs neither, so that it serves with any SEAL group management server.

use std::fmt;
use std::str::FromStr;

use message::{Address, AddressType, AsServiceId, ServiceAddress, UeServiceId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use url::form_urlencoded;

use crate::client::SbiClient;
use crate::coding::{path_segment, resource};
use crate::error::SbiError;
use crate::extract::parse_json;
use crate::location::{LocationArea5G, LocationInfo};
use crate::services;
use crate::ss_upr::{VAL_SERVICE_ID, ValTargetUe};

/// Path of the API below its root.
pub const API_PATH: &str = "/ss-gm/v1";

/// A VAL group (TS 29.549 VALGroupDocument).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VALGroupDocument {
    /// The Group Service ID.
    pub val_group_id: ServiceAddress,
    /// A description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grp_desc: Option<String>,
    /// Who belongs to it. Empty when the member is absent: the schema has no empty list.
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<ValTargetUe>,
    /// The service's own configuration; see [`VALGroupDocument::configuration`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_grp_conf: Option<String>,
    /// The VAL services that are enabled on it. Empty when the member is absent.
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub val_service_ids: Vec<String>,
    /// VAL service specific information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_svc_inf: Option<String>,
    /// Features, a hexadecimal bitmask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supp_feat: Option<String>,
    /// URI of this document; the group management server sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub res_uri: Option<String>,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loc_info: Option<LocationInfo>,
    /// Where it is besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_loc_info: Option<LocationArea5G>,
    /// ValSvcAreaId of TS 29.549, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_svc_area_id: Option<Value>,
    /// External group identifier of TS 29.122.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext_grp_id: Option<String>,
    /// PduSessionType of TS 29.571.
    #[serde(default, rename = "com5GLanType", skip_serializing_if = "Option::is_none")]
    pub com_5g_lan_type: Option<String>,
}

impl VALGroupDocument {
    /// A group of that name, enabled for MSGin5G, without members.
    #[must_use]
    pub fn new(val_group_id: ServiceAddress) -> Self {
        Self {
            val_group_id,
            grp_desc: None,
            members: Vec::new(),
            val_grp_conf: None,
            val_service_ids: vec![VAL_SERVICE_ID.to_owned()],
            val_svc_inf: None,
            supp_feat: None,
            res_uri: None,
            loc_info: None,
            add_loc_info: None,
            val_svc_area_id: None,
            ext_grp_id: None,
            com_5g_lan_type: None,
        }
    }

    /// The same group with these members.
    #[must_use]
    pub fn with_members<'a>(mut self, members: impl IntoIterator<Item = &'a UeServiceId>) -> Self {
        self.members = members.into_iter().map(member).collect();
        self
    }

    /// Whether that VAL service is enabled on the group; one that names no service is for all of them (INFERRED).
    #[must_use]
    pub fn serves(&self, val_service_id: &str) -> bool {
        self.val_service_ids.is_empty() || self.val_service_ids.iter().any(|id| id == val_service_id)
    }

    /// The members as UE Service IDs, each once, in the order of the document.
    ///
    /// # Errors
    /// [`InvalidGroup`] when a member is named by `valUeId`, or is no UE Service ID: nobody can be sent a message by
    /// that name, and to leave a member out in silence would be a loss.
    pub fn ue_service_ids(&self) -> Result<Vec<UeServiceId>, InvalidGroup> {
        let mut known = std::collections::HashSet::new();
        let mut members = Vec::with_capacity(self.members.len());
        for member in &self.members {
            let ValTargetUe::ValUserId(text) = member else { return Err(InvalidGroup::Member) };
            let id: UeServiceId = text.parse().map_err(|_| InvalidGroup::Member)?;
            if known.insert(id.clone()) {
                members.push(id);
            }
        }
        Ok(members)
    }

    /// The message service's own part of the document; that of [`GroupConfiguration::default`] when `valGrpConf` is
    /// absent.
    ///
    /// # Errors
    /// [`InvalidGroup`] when it is another text. Who may send cannot be told then, so nobody may.
    pub fn configuration(&self) -> Result<GroupConfiguration, InvalidGroup> {
        match &self.val_grp_conf {
            Some(text) => parse_json(text.as_bytes()).map_err(|_| InvalidGroup::Configuration),
            None => Ok(GroupConfiguration::default()),
        }
    }
}

/// A member of a group, as the document has it.
#[must_use]
pub fn member(ue_service_id: &UeServiceId) -> ValTargetUe {
    ValTargetUe::ValUserId(ue_service_id.as_str().to_owned())
}

/// What is wrong with a group that is, for the API, well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidGroup {
    /// A member has no UE Service ID.
    #[error("a member of the group is no UE Service ID")]
    Member,
    /// `valGrpConf` is not the JSON text of a [`GroupConfiguration`].
    #[error("valGrpConf holds no configuration of an MSGin5G group")]
    Configuration,
}

/// What `valGrpConf` holds for MSGin5G, as JSON text (INFERRED):
/// `{"senders":["UE:meter-7@lab.example","AS:billing@lab.example"],"validatingAs":"audit@lab.example"}`.
///
/// A member that is not known is an error: it may be a restriction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupConfiguration {
    /// Who may send to the group besides its members: UEs and Application Servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub senders: Vec<GroupSender>,
    /// The Application Server that gets each message first and may refuse it (TS 23.554 clause 8.7.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validating_as: Option<AsServiceId>,
}

impl GroupConfiguration {
    /// Whether `address` is among the further senders.
    #[must_use]
    pub fn allows(&self, address: &Address) -> bool {
        self.senders.iter().any(|sender| sender.0 == *address)
    }

    /// The JSON text for [`VALGroupDocument::val_grp_conf`]; none where it says nothing.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        // Texts always code.
        (*self != Self::default()).then(|| serde_json::to_string(self).unwrap_or_default())
    }
}

/// A UE or an Application Server, written `UE:meter-7@lab.example` or `AS:billing@lab.example`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GroupSender(Address);

impl GroupSender {
    /// Its address.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.0
    }
}

/// The text is not `UE:` or `AS:` with a service identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not UE: or AS: followed by a service identity")]
pub struct InvalidGroupSender;

impl FromStr for GroupSender {
    type Err = InvalidGroupSender;

    fn from_str(text: &str) -> Result<Self, InvalidGroupSender> {
        let (kind, addr) = text.split_once(':').ok_or(InvalidGroupSender)?;
        let addr_type = match kind {
            "UE" => AddressType::Ue,
            "AS" => AddressType::As,
            _ => return Err(InvalidGroupSender),
        };
        let addr = addr.parse().map_err(|_| InvalidGroupSender)?;
        Ok(Self(Address { addr_type, addr }))
    }
}

impl TryFrom<String> for GroupSender {
    type Error = InvalidGroupSender;

    fn try_from(text: String) -> Result<Self, InvalidGroupSender> {
        text.parse()
    }
}

impl From<GroupSender> for String {
    fn from(sender: GroupSender) -> Self {
        sender.to_string()
    }
}

impl fmt::Display for GroupSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A change to a document, sent as a merge patch (TS 29.549 VALGroupDocumentPatch, RFC 7396). `None` leaves a member as
/// it is, `Some(None)` removes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VALGroupDocumentPatch {
    /// The description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grp_desc: Option<Option<String>>,
    /// All members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Option<Vec<ValTargetUe>>>,
    /// The service's own configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_grp_conf: Option<Option<String>>,
    /// The services enabled on the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_service_ids: Option<Option<Vec<String>>>,
}

/// The query of `GET /group-documents`.
///
/// `after` and `limit` are our own: TS 29.549 has no pages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GroupQuery {
    /// Only the group of this identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_group_id: Option<String>,
    /// Only groups on which this service is enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_service_id: Option<String>,
    /// Only groups behind this identity in the order of their octets: the last of the page before, or empty for the
    /// first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How many at most; the server has a limit of its own. An empty page is the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl GroupQuery {
    /// The query string, without `?`.
    fn encode(&self) -> String {
        let mut parameters = form_urlencoded::Serializer::new(String::new());
        let texts = [
            ("val-group-id", self.val_group_id.as_ref()),
            ("val-service-id", self.val_service_id.as_ref()),
            ("after", self.after.as_ref()),
        ];
        for (name, value) in texts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            parameters.append_pair(name, value);
        }
        if let Some(limit) = self.limit {
            parameters.append_pair("limit", &limit.to_string());
        }
        parameters.finish()
    }
}

/// Asks a SEAL group management server, or our Configuration Function, about groups, and provisions them.
#[derive(Debug, Clone)]
pub struct SsGmClient {
    http: SbiClient,
    root: String,
}

impl SsGmClient {
    /// A client of the server at `root`, for example `https://configuration.example:8443`.
    #[must_use]
    pub fn new(http: SbiClient, root: impl Into<String>) -> Self {
        Self { http: http.for_service(services::AF, services::SS_GM.service), root: root.into() }
    }

    /// The group of that Group Service ID on which MSGin5G is enabled; none when the server does not know it.
    ///
    /// # Errors
    /// [`SbiError::Malformed`] when the server has several; else any but those of starting.
    pub async fn group(&self, val_group_id: &ServiceAddress) -> Result<Option<VALGroupDocument>, SbiError> {
        let query = GroupQuery {
            val_group_id: Some(val_group_id.as_str().to_owned()),
            val_service_id: Some(VAL_SERVICE_ID.to_owned()),
            ..GroupQuery::default()
        };
        let documents = match self.documents(&query).await {
            Ok(documents) => documents,
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Any other group says nothing about this one, whatever made the server send it.
        let mut documents = documents
            .into_iter()
            .filter(|document| document.val_group_id == *val_group_id && document.serves(VAL_SERVICE_ID));
        match (documents.next(), documents.next()) {
            (document, None) => Ok(document),
            (_, Some(_)) => Err(SbiError::Malformed("several documents of one group".to_owned())),
        }
    }

    /// The groups that a query is about.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn documents(&self, query: &GroupQuery) -> Result<Vec<VALGroupDocument>, SbiError> {
        let uri = resource(&self.root, &format!("{API_PATH}/group-documents?{}", query.encode()));
        self.http.get(&uri).await?.into_body()
    }

    /// Makes a group. It is on disk when this returns.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn create(&self, document: &VALGroupDocument) -> Result<VALGroupDocument, SbiError> {
        let uri = resource(&self.root, &format!("{API_PATH}/group-documents"));
        self.http.post(&uri, document).await?.into_body()
    }

    /// The group of that Group Service ID, whatever services are enabled on it; none when there is none.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn document(&self, val_group_id: &ServiceAddress) -> Result<Option<VALGroupDocument>, SbiError> {
        match self.http.get(&self.uri(val_group_id)).await {
            Ok(response) => response.into_body().map(Some),
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces a group that is there.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn replace(&self, document: &VALGroupDocument) -> Result<(), SbiError> {
        self.http.put::<_, Value>(&self.uri(&document.val_group_id), document).await.map(drop)
    }

    /// Changes a group that is there.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn modify(&self, val_group_id: &ServiceAddress, patch: &VALGroupDocumentPatch) -> Result<(), SbiError> {
        self.http.patch::<_, Value>(&self.uri(val_group_id), patch).await.map(drop)
    }

    /// Removes a group; `false` when it was not there.
    ///
    /// # Errors
    /// Any [`SbiError`] but those of starting.
    pub async fn remove(&self, val_group_id: &ServiceAddress) -> Result<bool, SbiError> {
        match self.http.delete::<Value>(&self.uri(val_group_id)).await {
            Ok(_) => Ok(true),
            Err(SbiError::Problem(problem)) if problem.status == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn uri(&self, val_group_id: &ServiceAddress) -> String {
        resource(&self.root, &document_path(val_group_id))
    }
}

/// Path of a group's document below the root, which our Configuration Function serves it at.
#[must_use]
pub fn document_path(val_group_id: &ServiceAddress) -> String {
    format!("{API_PATH}/group-documents/{}", path_segment(val_group_id.as_str()))
}

/// A list that the schema wants at least one element in (`minItems: 1`).
fn one_or_more<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.is_empty() { Err(serde::de::Error::custom("an empty list")) } else { Ok(list) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(value: Value) -> Result<VALGroupDocument, crate::ProblemDetails> {
        parse_json(value.to_string().as_bytes())
    }

    #[test]
    fn a_document_is_spelled_as_in_29_549_and_nothing_of_it_is_lost() {
        let value = json!({
            "valGroupId": "fleet@lab.example", "grpDesc": "lorries", "members": [{"valUserId": "a"}, {"valUeId": "b"}],
            "valGrpConf": "{}", "valServiceIds": ["msgin5g"], "valSvcInf": "x", "suppFeat": "0", "resUri": "/x",
            "locInfo": {"cellId": "1"}, "addLocInfo": {"geographicAreas": []}, "valSvcAreaId": "area",
            "extGrpId": "g@example.com", "com5GLanType": "ETHERNET"
        });
        assert_eq!(serde_json::to_value(parsed(value.clone()).unwrap()).unwrap(), value);
        let least = json!({"valGroupId": "g"});
        assert_eq!(serde_json::to_value(parsed(least.clone()).unwrap()).unwrap(), least);
    }

    #[test]
    fn what_the_schema_refuses_is_refused_and_named() {
        let missing = parsed(json!({"members": [{"valUserId": "a"}]})).unwrap_err();
        assert_eq!(missing.invalid_params[0].param, "/valGroupId");
        for (value, at) in [
            (json!({"valGroupId": "a b"}), "/valGroupId"),
            (json!({"valGroupId": "g", "members": []}), "/members"),
            (json!({"valGroupId": "g", "members": [{}]}), "/members/0"),
            (json!({"valGroupId": "g", "members": [{"valUserId": "a", "valUeId": "b"}]}), "/members/0"),
            (json!({"valGroupId": "g", "valServiceIds": []}), "/valServiceIds"),
        ] {
            let problem = parsed(value.clone()).unwrap_err();
            assert!(problem.invalid_params[0].param.starts_with(at), "{value}: {problem:?}");
        }
    }

    #[test]
    fn members_are_ue_service_ids_once_each_or_the_group_is_of_no_use() {
        let members = |members: Value| parsed(json!({"valGroupId": "g", "members": members})).unwrap().ue_service_ids();
        let ids = members(json!([{"valUserId": "b"}, {"valUserId": "a"}, {"valUserId": "b"}])).unwrap();
        assert_eq!(ids.iter().map(UeServiceId::as_str).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(members(json!([{"valUeId": "imsi-001010000000001"}])), Err(InvalidGroup::Member));
        assert_eq!(members(json!([{"valUserId": "a b"}])), Err(InvalidGroup::Member));
    }

    #[test]
    fn the_configuration_is_json_text_and_anything_else_allows_nobody() {
        let of = |text: &str| parsed(json!({"valGroupId": "g", "valGrpConf": text})).unwrap().configuration();
        let configuration = of(r#"{"senders":["UE:x","AS:y"],"validatingAs":"audit"}"#).unwrap();
        assert!(configuration.allows(&Address::ue(&"x".parse().unwrap())));
        assert!(configuration.allows(&Address::application_server(&"y".parse().unwrap())));
        assert!(!configuration.allows(&Address::ue(&"y".parse().unwrap())));
        assert_eq!(configuration.to_text().unwrap(), r#"{"senders":["UE:x","AS:y"],"validatingAs":"audit"}"#);
        assert_eq!(of("{}").unwrap(), GroupConfiguration::default());
        assert_eq!(GroupConfiguration::default().to_text(), None);
        for wrong in ["", "all", "7", r#"{"senders":["x"]}"#, r#"{"senders":["GROUP:x"]}"#, r#"{"muted":true}"#] {
            assert_eq!(of(wrong), Err(InvalidGroup::Configuration), "{wrong}");
        }
    }

    #[test]
    fn a_patch_tells_what_to_leave_and_what_to_remove() {
        let patch = VALGroupDocumentPatch { members: Some(None), ..VALGroupDocumentPatch::default() };
        assert_eq!(serde_json::to_value(patch).unwrap(), json!({"members": null}));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn senders_are_written_as_they_are_read(kind in "UE|AS", id in "[!-~]{1,40}") {
            let text = format!("{kind}:{id}");
            prop_assert_eq!(text.parse::<GroupSender>().unwrap().to_string(), text);
        }

        #[test]
        fn no_text_makes_a_configuration_panic(text in ".{0,80}") {
            let document = VALGroupDocument { val_grp_conf: Some(text), ..VALGroupDocument::new("g".parse().unwrap()) };
            let _ = document.configuration();
        }
    }
}
