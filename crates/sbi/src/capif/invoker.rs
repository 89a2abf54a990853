//! An API invoker (TS 23.222): from an onboarding credential to a call of a service API.
//!
//! 1. [`Invoker::onboard`]: a key of its own, and a certificate for it (TS 33.122 clause 6.1).
//! 2. [`Invoker::discover`]: which service APIs there are, and where.
//! 3. [`Invoker::negotiate`]: which method of CAPIF-2e secures the calls (clause 6.5.2).
//! 4. [`Invoker::call`]: a call, with a token or a key where the method needs one.
//!
//! An Application Server outside the operator's domain that sends a message, by whichever method there is:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use http::Method;
//! use sbi::capif::connection::Content;
//! use sbi::capif::invoker::{Invoker, InvokerConfig};
//! use sbi::capif::publish::SecurityMethod;
//!
//! let config = InvokerConfig {
//!     core_function: "https://capif.example.com".to_owned(),
//!     ca: "/etc/billing/operator-ca.pem".into(),
//!     directory: "/var/lib/billing/capif".into(),
//!     notification_destination: "https://billing.example.net/capif".to_owned(),
//!     tls12: false, // true where AEF_PSK is wanted
//! };
//! let invoker = match Invoker::open(config.clone()) {
//!     Ok(onboarded) => onboarded,
//!     Err(_) => Invoker::onboard(config, "the credential that the operator gave").await?,
//! };
//! let methods = vec![SecurityMethod::Oauth, SecurityMethod::Pki];
//! let agreement = invoker.negotiate("msgs-msgdelivery", methods).await?;
//! let message = serde_json::json!({
//!     "oriAddr": {"addrType": "AS", "addr": "billing@example.net"},
//!     "destAddr": {"addrType": "UE", "addr": "meter-7@example.com"},
//!     "msgId": "7d3c", "stoAndFwInd": true, "payload": "dGFyaWZmIDI=",
//! });
//! let path = "/msgs-msgdelivery/v1/deliver-as-message";
//! let answer = invoker.call(&agreement, Method::POST, path, Content::json(&message)?).await?;
//! println!("accepted: {:?}", answer.success()?.body);
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use akma::aef_psk;
use http::Method;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use transport::capif::{Tls12Session, mutual_tls12_client, server_authenticated_client};
use transport::profile::mutual_tls_client;

use super::connection::{Answer, Connection, Content};
use super::identity::private_file;
use super::invoker_management::{ApiInvokerEnrolmentDetails, OnboardingInformation};
use super::publish::{AefProfile, DiscoveredApis, DiscoveryQuery, SecurityMethod};
use super::security::{AccessTokenRsp, SecurityInformation, ServiceSecurity};
use crate::coding::path_segment;
use crate::{CertificateFiles, SbiError};

/// What an invoker knows before it is onboarded.
#[derive(Debug, Clone)]
pub struct InvokerConfig {
    /// The core function's API root.
    pub core_function: String,
    /// PEM: the authorities of the core function's and the API exposing functions' certificates.
    pub ca: PathBuf,
    /// Directory of its key (`invoker.key`), certificate (`invoker.pem`) and identity (`invoker.id`).
    pub directory: PathBuf,
    /// Where it is notified, an `https` URI.
    pub notification_destination: String,
    /// Speak TLS 1.2 to the core function, without which there is no AEF_PSK.
    pub tls12: bool,
}

/// An onboarded API invoker.
#[derive(Debug, Clone)]
pub struct Invoker {
    config: InvokerConfig,
    files: CertificateFiles,
    id: String,
}

/// What was agreed upon for one service API at one API exposing function.
#[derive(Debug, Clone)]
pub struct Agreement {
    /// The method.
    pub method: SecurityMethod,
    /// The function.
    pub aef_id: String,
    /// The API's name.
    pub api_name: String,
    /// Where it is called, without the API's name.
    pub root: String,
    /// What AEF_PSK is made of, with method PSK.
    session: Option<Tls12Session>,
    information: String,
}

impl Invoker {
    /// Makes a key, and has the core function onboard its holder for `credential`, which is then spent.
    ///
    /// # Errors
    /// Any [`SbiError`]; [`SbiError::Problem`] 401 for a credential that is unknown or spent.
    pub async fn onboard(config: InvokerConfig, credential: &str) -> Result<Self, SbiError> {
        let key_path = config.directory.join("invoker.key");
        let public = new_key(&key_path)?;
        let details = ApiInvokerEnrolmentDetails {
            onboarding_information: OnboardingInformation {
                api_invoker_public_key: public,
                ..OnboardingInformation::default()
            },
            notification_destination: config.notification_destination.clone(),
            ..ApiInvokerEnrolmentDetails::default()
        };
        let tls = server_authenticated_client(&config.ca)?;
        let mut connection = Connection::open(&tls, &config.core_function).await?;
        let answer =
            connection.request(Method::POST, ONBOARDED_INVOKERS, Some(credential), Content::json(&details)?).await?;
        let details: ApiInvokerEnrolmentDetails = answer.into_json()?;
        let id = details.api_invoker_id.ok_or_else(|| missing("apiInvokerId"))?;
        let certificate =
            details.onboarding_information.api_invoker_certificate.ok_or_else(|| missing("apiInvokerCertificate"))?;
        private_file(&config.directory.join("invoker.pem"), certificate.as_bytes())?;
        private_file(&config.directory.join("invoker.id"), id.as_bytes())?;
        Ok(Self::with(config, id))
    }

    /// The invoker whose files are in the configured directory.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when they are not there.
    pub fn open(config: InvokerConfig) -> Result<Self, SbiError> {
        let id = std::fs::read_to_string(config.directory.join("invoker.id"))
            .map_err(|error| SbiError::InvalidRequest(format!("not onboarded: {error}")))?;
        Ok(Self::with(config, id))
    }

    fn with(config: InvokerConfig, id: String) -> Self {
        let files = CertificateFiles {
            certificate: config.directory.join("invoker.pem"),
            key: config.directory.join("invoker.key"),
            ca: config.ca.clone(),
            crl: None,
        };
        Self { config, files, id }
    }

    /// Its API invoker ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its certificate and key.
    #[must_use]
    pub fn files(&self) -> &CertificateFiles {
        &self.files
    }

    /// A connection to the core function, by certificate (CAPIF-1e).
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn connect(&self) -> Result<Connection, SbiError> {
        let tls = if self.config.tls12 { mutual_tls12_client(&self.files)? } else { mutual_tls_client(&self.files)? };
        Connection::open(&tls, &self.config.core_function).await
    }

    /// The service APIs that match `query`; who asks is filled in.
    ///
    /// # Errors
    /// Any [`SbiError`].
    pub async fn discover(&self, query: DiscoveryQuery) -> Result<DiscoveredApis, SbiError> {
        let query = DiscoveryQuery { api_invoker_id: self.id.clone(), ..query };
        let path = format!("/service-apis/v1/allServiceAPIs?{}", form(&query)?);
        self.connect().await?.request(Method::GET, &path, None, Content::Empty).await?.into_json()
    }

    /// Agrees with the core function on a method for API `api_name` at the first API exposing function that has it.
    ///
    /// It replaces the security context that there was.
    ///
    /// # Errors
    /// [`SbiError::Problem`] 403 when no method of `preferred` is possible; 404 here when nobody exposes the API.
    pub async fn negotiate(&self, api_name: &str, preferred: Vec<SecurityMethod>) -> Result<Agreement, SbiError> {
        let agreed = self.negotiate_all(&[api_name], None, &preferred).await?;
        agreed.into_iter().next().ok_or_else(|| missing("selSecurityMethod"))
    }

    /// Agrees with the core function on a method for each of the APIs `api_names`, all of them at one API exposing function:
    /// `aef_id`, or the first that has the first of them. One agreement for each, in their order.
    ///
    /// They replace the security context that there was, all at once.
    ///
    /// # Errors
    /// As [`Invoker::negotiate`].
    pub async fn negotiate_all(
        &self,
        api_names: &[&str],
        aef_id: Option<&str>,
        preferred: &[SecurityMethod],
    ) -> Result<Vec<Agreement>, SbiError> {
        let mut at = aef_id.map(str::to_owned);
        let mut found = Vec::new();
        for api_name in api_names {
            let (api, profile) = self.profile_of(api_name, at.as_deref()).await?;
            at.get_or_insert_with(|| profile.aef_id.clone());
            found.push((*api_name, api, profile));
        }
        let wish = |(_, api, profile): &(&str, Option<String>, AefProfile)| {
            SecurityInformation::for_aef(&profile.aef_id, api.as_deref(), preferred.to_vec())
        };
        let context = ServiceSecurity {
            security_info: found.iter().map(wish).collect(),
            notification_destination: self.config.notification_destination.clone(),
            request_test_notification: None,
            websock_notif_config: None,
            supported_features: None,
        };
        let mut connection = self.connect().await?;
        let path = format!("/capif-security/v1/trustedInvokers/{}", path_segment(&self.id));
        let agreed: ServiceSecurity =
            connection.request(Method::PUT, &path, None, Content::json(&context)?).await?.into_json()?;
        if agreed.security_info.len() != found.len() {
            return Err(missing("securityInfo for each API"));
        }
        let chosen = agreed.security_info.into_iter().map(|entry| entry.sel_security_method);
        let each = found.iter().zip(chosen).map(|((api_name, _, profile), method)| {
            let method = method.ok_or_else(|| missing("selSecurityMethod"))?;
            self.agreement(api_name, profile, method, connection.tls12_session().cloned())
        });
        each.collect()
    }

    /// Identifier of API `api_name`, and its profile at `aef_id`, or at the first API exposing function that has it.
    async fn profile_of(&self, api_name: &str, aef_id: Option<&str>) -> Result<(Option<String>, AefProfile), SbiError> {
        let query = DiscoveryQuery {
            api_name: Some(api_name.to_owned()),
            aef_id: aef_id.map(str::to_owned),
            ..DiscoveryQuery::default()
        };
        let found = self.discover(query).await?;
        let api = found.service_api_descriptions.unwrap_or_default().into_iter().next();
        let api =
            api.ok_or_else(|| SbiError::Problem(Box::new(crate::ProblemDetails::not_found("API_NOT_PUBLISHED"))))?;
        let profile = api.profiles().first().cloned().ok_or_else(|| missing("aefProfiles"))?;
        Ok((api.api_id, profile))
    }

    fn agreement(
        &self,
        api_name: &str,
        profile: &AefProfile,
        method: SecurityMethod,
        session: Option<Tls12Session>,
    ) -> Result<Agreement, SbiError> {
        let interface = profile.interface_for(&method).ok_or_else(|| missing("interfaceDescriptions"))?;
        Ok(Agreement {
            aef_id: profile.aef_id.clone(),
            api_name: api_name.to_owned(),
            root: interface.root(),
            information: interface.information(),
            session: session.filter(|_| method == SecurityMethod::Psk),
            method,
        })
    }

    /// A token for `scope`; for all that the security context has if absent.
    ///
    /// # Errors
    /// [`SbiError::Problem`] 400 or 401 in the words of RFC 6749.
    pub async fn token(&self, scope: Option<&str>) -> Result<AccessTokenRsp, SbiError> {
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", &self.id)];
        fields.extend(scope.map(|scope| ("scope", scope)));
        let path = self.token_path();
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.connect().await?.request(Method::POST, &path, None, Content::Form(form)).await?.into_json()
    }

    /// Where its tokens come from, for a [`crate::client_credentials::ClientCredentials`] that keeps them while they are good.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}{}", self.config.core_function.trim_end_matches('/'), self.token_path())
    }

    fn token_path(&self) -> String {
        format!("/capif-security/v1/securities/{}/token", path_segment(&self.id))
    }

    /// Opens a connection to the API exposing function as agreed (CAPIF-2e).
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn connect_to(&self, agreement: &Agreement) -> Result<Connection, SbiError> {
        if agreement.method != SecurityMethod::Psk {
            return Connection::open(&mutual_tls_client(&self.files)?, &agreement.root).await;
        }
        let session = agreement.session.as_ref().ok_or_else(|| missing("session of TLS 1.2"))?;
        let key = aef_psk(&session.master_secret, &agreement.information, &session.session_id)
            .map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
        Connection::open_psk(&agreement.root, &self.id, &key).await
    }

    /// Calls `path` of the service API as agreed: connects, and brings a token where the method wants one.
    ///
    /// # Errors
    /// Any [`SbiError`]; a refusal of the API is an [`Answer`].
    pub async fn call(
        &self,
        agreement: &Agreement,
        method: Method,
        path: &str,
        content: Content,
    ) -> Result<Answer, SbiError> {
        let token = match agreement.method {
            SecurityMethod::Oauth => Some(self.token(None).await?.access_token),
            _ => None,
        };
        self.connect_to(agreement).await?.request(method, path, token.as_deref(), content).await
    }

    /// Leaves: the core function forgets the invoker, and everything that it was trusted with ends.
    ///
    /// # Errors
    /// Any [`SbiError`].
    pub async fn offboard(&self) -> Result<(), SbiError> {
        let path = format!("{ONBOARDED_INVOKERS}/{}", path_segment(&self.id));
        self.connect().await?.request(Method::DELETE, &path, None, Content::Empty).await?.success()?;
        Ok(())
    }
}

/// Makes a P-256 key in `path`; gives the public key as PEM.
pub(crate) fn new_key(path: &Path) -> Result<String, SbiError> {
    let make = || -> Result<(Vec<u8>, Vec<u8>), ErrorStack> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        Ok((key.private_key_to_pem_pkcs8()?, key.public_key_to_pem()?))
    };
    let (private, public) = make().map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
    private_file(path, &zeroize::Zeroizing::new(private))?;
    String::from_utf8(public).map_err(|_| SbiError::InvalidRequest("the public key is no PEM".to_owned()))
}

/// The members of `value` as a query.
pub(crate) fn form<T: serde::Serialize>(value: &T) -> Result<String, SbiError> {
    let value = serde_json::to_value(value).map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::String(text) => form.append_pair(name, text),
            other => form.append_pair(name, &other.to_string()),
        };
    }
    Ok(form.finish())
}

fn missing(what: &str) -> SbiError {
    SbiError::Malformed(format!("no {what}"))
}

const ONBOARDED_INVOKERS: &str = "/api-invoker-management/v1/onboardedInvokers";
