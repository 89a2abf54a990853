//! Requests that prove the device: one after the other under one nonce, whose count goes up with each (RFC 7616).

use std::sync::Arc;

use akma::{AKid, Challenge, Covered, Credentials, DIGEST_PRODUCT_TOKEN, DigestPassword};
use bytes::Bytes;
use http::{Method, StatusCode};
use sbi::{DeviceConnection, DeviceRequest, DeviceResponse, SbiError};
use uuid::Uuid;

use super::protection;

/// Times that one request is sent: without a nonce or with an old one, and with a new one.
const ATTEMPTS_MAX: u32 = 3;

/// A server, and what proves the device to it.
pub(super) struct Server {
    pub(super) connection: DeviceConnection,
    pub(super) realm: String,
    pub(super) a_kid: AKid,
    pub(super) password: DigestPassword,
    /// Of the resource, with the slash.
    pub(super) path: String,
}

/// One sequence of requests. Those of different sequences may be under way together.
pub(super) struct Proof {
    server: Arc<Server>,
    challenge: Option<Challenge>,
    count: u32,
}

impl Proof {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self { server, challenge: None, count: 0 }
    }

    /// The resource of deliveries.
    pub(super) fn events(&self) -> String {
        format!("{}/events", self.server.path)
    }

    /// Asks without credentials, to be asked for them.
    pub(super) async fn challenge(&mut self) -> Result<Challenge, SbiError> {
        let target = self.events();
        let request = DeviceRequest { method: Method::GET, target, headers: headers(None), body: Bytes::new() };
        let response = self.server.connection.send(request).await?;
        let challenge = challenge_of(&response)
            .ok_or_else(|| SbiError::Malformed("the server does not ask for a digest of SHA-256".to_owned()))?;
        (self.challenge, self.count) = (Some(challenge.clone()), 0);
        Ok(challenge)
    }

    /// One request, with a new nonce if the one at hand is not good any more. `accept` is the media type wanted.
    pub(super) async fn send(
        &mut self,
        method: Method,
        target: &str,
        accept: Option<&'static str>,
        body: Vec<u8>,
    ) -> Result<DeviceResponse, SbiError> {
        let body = Bytes::from(body);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let challenge = match &self.challenge {
                Some(challenge) => challenge.clone(),
                None => self.challenge().await?,
            };
            if challenge.realm != self.server.realm {
                return Err(SbiError::Malformed("the server's realm names somebody else".to_owned()));
            }
            self.count = self.count.saturating_add(1);
            let authorization = self.credentials(&challenge, method.as_str(), target, &body).to_string();
            let mut headers = headers(accept);
            headers.push(("authorization", authorization));
            if !body.is_empty() {
                headers.push(("content-type", "application/json".to_owned()));
            }
            let (method, target) = (method.clone(), target.to_owned());
            let request = DeviceRequest { method, target, headers, body: body.clone() };
            let response = self.server.connection.send(request).await?;
            let stale = (response.status == StatusCode::UNAUTHORIZED).then(|| challenge_of(&response)).flatten();
            match stale.filter(|challenge| challenge.stale && attempts < ATTEMPTS_MAX) {
                Some(challenge) => (self.challenge, self.count) = (Some(challenge), 0),
                None => return Ok(response),
            }
        }
    }

    fn credentials(&self, challenge: &Challenge, method: &str, target: &str, body: &Bytes) -> Credentials {
        let covered = Covered { method, uri: target, body };
        let of = (challenge.realm.as_str(), challenge.nonce.as_str(), self.count);
        let cnonce = Uuid::new_v4().simple().to_string();
        let Server { a_kid, password, .. } = &*self.server;
        Credentials::prove(a_kid.as_str(), password, of, protection(challenge), &cnonce, &covered)
    }
}

fn headers(accept: Option<&'static str>) -> Vec<(&'static str, String)> {
    let agent = format!("msgin5g/{} {DIGEST_PRODUCT_TOKEN}", env!("CARGO_PKG_VERSION"));
    let accept = accept.unwrap_or("application/json");
    vec![("user-agent", agent), ("accept", accept.to_owned())]
}

fn challenge_of(response: &DeviceResponse) -> Option<Challenge> {
    Challenge::parse(response.header("www-authenticate")?).ok()
}
