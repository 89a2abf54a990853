//! An API and its operations, and how they become a document.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::common::problem_details;
use super::schema::{Kind, Schema};
use crate::authorization::ServiceScopes;
use crate::problem::PROBLEM_JSON;

/// On which side of an API we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// We serve it.
    Producer,
    /// We ask for it; its callbacks, if it has any, are what we serve.
    Consumer,
}

impl Role {
    fn other(self) -> Self {
        match self {
            Self::Producer => Self::Consumer,
            Self::Consumer => Self::Producer,
        }
    }
}

/// One API of a 3GPP document.
#[derive(Debug, Clone)]
pub struct Api {
    /// As the 3GPP file is called.
    pub name: &'static str,
    /// The 3GPP file without its extension.
    pub file: &'static str,
    /// Where its resources are, below the API root.
    pub path: &'static str,
    /// Our side.
    pub role: Role,
    /// The scopes that a producer here checks.
    pub(super) service: Option<&'static ServiceScopes>,
    /// Whether who asks is known by its certificate alone, and no access token is looked at.
    pub(super) certificate_alone: bool,
    /// What can be asked.
    pub operations: Vec<Operation>,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) request: Option<(&'static str, Schema)>,
    pub(super) answers: Vec<Answer>,
    pub(super) refusals: Vec<u16>,
    pub(super) callbacks: Vec<(&'static str, &'static str, Operation)>,
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) bodies: Vec<(&'static str, Schema)>,
    /// Headers that are always there.
    pub(super) headers: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) schema: Schema,
    pub(super) required: bool,
    /// The text of a JSON value.
    pub(super) json: bool,
}

pub(super) const JSON: &str = "application/json";
pub(super) const HAL_JSON: &str = "application/3gppHal+json";
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// What any request may be refused with, by the server itself or the rules of access.
const REFUSALS: [u16; 9] = [400, 401, 403, 404, 413, 429, 500, 503, 504];
/// What a request may be refused with besides where its body counts.
const BODY_REFUSALS: [u16; 1] = [415];
/// What others may refuse with besides. Any other status of theirs is a refusal, too: `default`.
const REFUSALS_OF_OTHERS: [u16; 3] = [411, 501, 502];
/// Where others send a request on to.
const REDIRECTIONS: [&str; 2] = ["307", "308"];

impl Api {
    pub(super) fn new(name: &'static str, file: &'static str, path: &'static str) -> Self {
        Self { name, file, path, role: Role::Producer, service: None, certificate_alone: false, operations: Vec::new() }
    }

    pub(super) fn consumed(mut self) -> Self {
        self.role = Role::Consumer;
        self
    }

    /// Its operations have the scopes that a producer checks.
    pub(super) fn scoped(mut self, service: &'static ServiceScopes) -> Self {
        self.service = Some(service);
        self
    }

    /// No access token is looked at.
    pub(super) fn by_certificate_alone(mut self) -> Self {
        self.certificate_alone = true;
        self
    }

    pub(super) fn with(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }

    /// The same API without the operation at `path`, for a function that does not serve all of it.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.operations.retain(|operation| operation.path != path);
        self
    }

    /// The finer scopes that may be asked for besides the service's.
    fn scopes(&self, operation: &Operation) -> &'static [&'static str] {
        let path = shape(&format!("{}{}", self.path, operation.path));
        let mut known = self.service.iter().flat_map(|service| service.operations);
        let known =
            known.find(|known| known.method.eq_ignore_ascii_case(operation.method) && shape(known.path) == path);
        known.map(|known| known.scopes).unwrap_or_default()
    }
}

/// A path without the names of its variables.
fn shape(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

pub(super) fn post(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("post", path, summary)
}

pub(super) fn put(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("put", path, summary)
}

pub(super) fn get(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("get", path, summary)
}

pub(super) fn patch(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("patch", path, summary)
}

pub(super) fn delete(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("delete", path, summary)
}

pub(super) fn options(path: &'static str, summary: &'static str) -> Operation {
    Operation::new("options", path, summary)
}

impl Operation {
    fn new(method: &'static str, path: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            summary,
            parameters: Vec::new(),
            request: None,
            answers: Vec::new(),
            refusals: Vec::new(),
            callbacks: Vec::new(),
        }
    }

    /// A variable of the path.
    pub(super) fn at(self, name: &'static str, schema: Schema) -> Self {
        self.parameter(Parameter { name, place: "path", schema, required: true, json: false })
    }

    /// A query parameter that may be absent.
    pub(super) fn query(self, name: &'static str, schema: Schema) -> Self {
        self.parameter(Parameter { name, place: "query", schema, required: false, json: false })
    }

    /// A query parameter that must be there, the text of a JSON value.
    pub(super) fn json_query(self, name: &'static str, schema: Schema) -> Self {
        self.parameter(Parameter { name, place: "query", schema, required: true, json: true })
    }

    /// A query parameter that must be there.
    pub(super) fn needed_query(self, name: &'static str, schema: Schema) -> Self {
        self.parameter(Parameter { name, place: "query", schema, required: true, json: false })
    }

    /// A query parameter that may be absent, the text of a JSON value.
    pub(super) fn optional_json_query(self, name: &'static str, schema: Schema) -> Self {
        self.parameter(Parameter { name, place: "query", schema, required: false, json: true })
    }

    /// A header that may be absent.
    pub(super) fn header(self, name: &'static str, schema: Schema) -> Self {
        self.parameter(Parameter { name, place: "header", schema, required: false, json: false })
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    pub(super) fn takes(self, schema: Schema) -> Self {
        self.takes_as(JSON, schema)
    }

    pub(super) fn takes_as(mut self, media_type: &'static str, schema: Schema) -> Self {
        self.request = Some((media_type, schema));
        self
    }

    pub(super) fn answers(self, status: u16, schema: Schema) -> Self {
        self.answers_as(status, JSON, schema)
    }

    /// Called again for the same status, it names a further media type.
    pub(super) fn answers_as(mut self, status: u16, media_type: &'static str, schema: Schema) -> Self {
        match self.answers.last_mut() {
            Some(answer) if answer.status == status => answer.bodies.push((media_type, schema)),
            _ => self.answers.push(Answer { status, bodies: vec![(media_type, schema)], headers: Vec::new() }),
        }
        self
    }

    /// 204.
    pub(super) fn answers_nothing(mut self) -> Self {
        self.answers.push(Answer { status: 204, bodies: Vec::new(), headers: Vec::new() });
        self
    }

    /// The answer named last says in `Location` where the new resource is.
    pub(super) fn with_location(self) -> Self {
        self.with_header("Location")
    }

    /// The answer named last has this header.
    pub(super) fn with_header(mut self, name: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push(name);
        }
        self
    }

    /// A status of this operation's own, with problem details.
    pub(super) fn refuses(mut self, status: u16) -> Self {
        self.refusals.push(status);
        self
    }

    /// Whoever serves the operation will call back at `expression`.
    pub(super) fn calls_back(mut self, name: &'static str, expression: &'static str, operation: Operation) -> Self {
        self.callbacks.push((name, expression, operation));
        self
    }

    /// `side` is ours: whoever is asked by a producer's callback is a consumer, and the other way round.
    fn render(&self, components: &mut Map<String, Value>, side: Role, security: Option<Value>) -> Value {
        let mut operation = Map::new();
        operation.insert("summary".to_owned(), self.summary.into());
        if let Some(security) = security {
            operation.insert("security".to_owned(), security);
        }
        let parameters: Vec<_> = self.parameters.iter().map(|parameter| parameter.render(components)).collect();
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), parameters.into());
        }
        if let Some((media_type, schema)) = &self.request {
            let content = content(media_type, schema, components);
            operation.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
        }
        operation.insert("responses".to_owned(), self.responses(components, side));
        if !self.callbacks.is_empty() {
            let callbacks: Map<_, _> = self
                .callbacks
                .iter()
                .map(|(name, expression, callback)| {
                    let rendered = callback.render(components, side.other(), None);
                    ((*name).to_owned(), json!({*expression: {callback.method: rendered}}))
                })
                .collect();
            operation.insert("callbacks".to_owned(), callbacks.into());
        }
        operation.into()
    }

    fn responses(&self, components: &mut Map<String, Value>, answered_by: Role) -> Value {
        let mut responses = Map::new();
        for answer in &self.answers {
            let description = http::StatusCode::from_u16(answer.status).ok().and_then(|code| code.canonical_reason());
            let mut response = json!({"description": description.unwrap_or_default()});
            if let (Value::Object(members), false) = (&mut response, answer.bodies.is_empty()) {
                let contents = answer.bodies.iter();
                let contents = contents.map(|(media_type, schema)| of_media_type(media_type, schema, components));
                members.insert("content".to_owned(), contents.collect::<Map<_, _>>().into());
            }
            if let (Value::Object(members), false) = (&mut response, answer.headers.is_empty()) {
                members.insert("headers".to_owned(), headers(&answer.headers));
            }
            responses.insert(answer.status.to_string(), response);
        }
        for status in self.refusal_statuses(answered_by) {
            let description = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
            let (media_type, problem) = of_media_type(PROBLEM_JSON, &problem_details(), components);
            let response = responses
                .entry(status.to_string())
                .or_insert_with(|| json!({"description": description.unwrap_or_default(), "content": {}}));
            // Besides what the operation itself says with this status, if it does.
            if let Some(Value::Object(contents)) = response.get_mut("content") {
                contents.insert(media_type, problem);
            }
        }
        if answered_by == Role::Consumer {
            for status in REDIRECTIONS {
                let there = json!({"description": "Asked there instead", "headers": headers(&["Location"])});
                responses.insert(status.to_owned(), there);
            }
            responses.insert("default".to_owned(), json!({"description": "Any other status is a refusal"}));
        }
        responses.into()
    }

    fn refusal_statuses(&self, answered_by: Role) -> Vec<u16> {
        let mut statuses = REFUSALS.to_vec();
        if answered_by == Role::Consumer {
            statuses.extend(REFUSALS_OF_OTHERS);
        }
        if self.request.is_some() {
            statuses.extend(BODY_REFUSALS);
        }
        statuses.extend(&self.refusals);
        statuses.sort_unstable();
        statuses
    }
}

impl Parameter {
    fn render(&self, components: &mut Map<String, Value>) -> Value {
        let schema = self.schema.render(components);
        let mut parameter = json!({"name": self.name, "in": self.place, "required": self.required});
        if let Value::Object(members) = &mut parameter {
            if self.json {
                members.insert("content".to_owned(), json!({JSON: {"schema": schema}}));
            } else {
                members.insert("schema".to_owned(), schema);
            }
            if matches!(self.schema.kind, Kind::List { .. }) {
                // Its elements stand behind one another, between commas.
                members.insert("style".to_owned(), "form".into());
                members.insert("explode".to_owned(), false.into());
            }
        }
        parameter
    }
}

fn headers(names: &[&str]) -> Value {
    let described = json!({"required": true, "schema": {"type": "string"}});
    names.iter().map(|name| ((*name).to_owned(), described.clone())).collect::<Map<_, _>>().into()
}

fn content(media_type: &str, schema: &Schema, components: &mut Map<String, Value>) -> Value {
    Map::from_iter([of_media_type(media_type, schema, components)]).into()
}

fn of_media_type(media_type: &str, schema: &Schema, components: &mut Map<String, Value>) -> (String, Value) {
    (media_type.to_owned(), json!({"schema": schema.render(components), "example": schema.example(true)}))
}

/// A token, of the service or of a finer scope, or none where the deployment says that TLS identity is enough.
fn security(service: &str, scopes: &[&str]) -> Value {
    let mut alternatives = vec![json!({}), json!({"oAuth2ClientCredentials": [service]})];
    for scope in scopes {
        alternatives.push(json!({"oAuth2ClientCredentials": [service, scope]}));
    }
    alternatives.into()
}

/// One OpenAPI document for these APIs.
#[must_use]
pub fn document(apis: &[Api]) -> Value {
    let mut components = Map::new();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut scopes = Map::new();
    for api in apis {
        // TS 29.501: a service's name is the first segment of its path.
        let service = api.path.trim_start_matches('/').split('/').next().unwrap_or_default();
        if !api.certificate_alone {
            scopes.insert(service.to_owned(), format!("Access to {}", api.name).into());
        }
        for operation in &api.operations {
            let finer = api.scopes(operation);
            for scope in finer {
                scopes.insert((*scope).to_owned(), format!("{} {}", operation.method, operation.path).into());
            }
            let security = if api.certificate_alone { json!([{}]) } else { security(service, finer) };
            let rendered = operation.render(&mut components, api.role, Some(security));
            let path = paths.entry(format!("{}{}", api.path, operation.path)).or_default();
            path.insert(operation.method.to_owned(), rendered);
        }
    }
    let names: Vec<_> = apis.iter().map(|api| api.name).collect();
    let mut security_schemes = json!({});
    if !scopes.is_empty() {
        security_schemes = json!({"oAuth2ClientCredentials": {
            "type": "oauth2",
            "flows": {"clientCredentials": {"tokenUrl": "/oauth2/token", "scopes": scopes}}
        }});
    }
    json!({
        "openapi": "3.0.3",
        "info": {"title": names.join(", "), "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": security_schemes
        }
    })
}
