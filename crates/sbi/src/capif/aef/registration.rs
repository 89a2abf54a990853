//! Registering a provider domain and publishing its APIs.
//!
//! The domain has three functions, one of each role, each with a key of its own in the configured directory. What the core
//! function answered is written to `registration.json` before anything is published, so that a restart registers nothing twice.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};
use transport::capif::server_authenticated_client;
use transport::profile::mutual_tls_client;

use super::{AefConfig, ExposedApi};
use crate::capif::connection::{Connection, Content};
use crate::capif::identity::private_file;
use crate::capif::invoker::new_key;
use crate::capif::provider::{
    ApiProviderEnrolmentDetails, ApiProviderFuncRole, ApiProviderFunctionDetails, RegistrationInformation,
};
use crate::capif::publish::{AefProfile, ServiceApiDescription, Version};
use crate::coding::path_segment;
use crate::token::TokenKeys;
use crate::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiError};

/// A registration that is complete.
pub(super) struct Registration {
    pub(super) aef_id: String,
    /// API IDs by API name.
    pub(super) api_ids: Vec<(String, String)>,
    /// Asks as the AEF.
    pub(super) client: SbiClient,
    /// The core function's API root, without a trailing slash.
    pub(super) root: String,
    pub(super) keys: TokenKeys,
}

/// What the core function said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Registered {
    domain: String,
    aef_id: String,
    apf_id: String,
    /// API ID by API name.
    apis: Vec<(String, String)>,
}

impl Registration {
    /// Does what is left to do.
    pub(super) async fn complete(config: &AefConfig, apis: &[ExposedApi]) -> Result<Self, SbiError> {
        let path = path(config);
        let mut registered = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| SbiError::InvalidRequest(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let registered = register(config).await?;
                save(&path, &registered)?;
                registered
            }
            Err(error) => return Err(SbiError::InvalidRequest(format!("{}: {error}", path.display()))),
        };
        publish(config, apis, &mut registered).await?;
        save(&path, &registered)?;
        let root = config.core_function.trim_end_matches('/').to_owned();
        let tls = files(config, "aef");
        let mut connection = Connection::open(&mutual_tls_client(&tls)?, &root).await?;
        let keys = connection.request(Method::GET, JWKS, None, Content::Empty).await?.success()?;
        let keys = TokenKeys::from_jwks(&keys.body).map_err(|error| SbiError::Malformed(error.to_string()))?;
        let client = SbiClient::new(SbiClientConfig { tls, limits: ClientLimits::default() })?;
        Ok(Self { aef_id: registered.aef_id, api_ids: registered.apis, client, root, keys })
    }
}

/// Where it is kept what the registration brought.
pub(super) fn path(config: &AefConfig) -> PathBuf {
    config.data.join("registration.json")
}

async fn register(config: &AefConfig) -> Result<Registered, SbiError> {
    let credential = std::fs::read_to_string(&config.registration_credential)
        .map_err(|error| SbiError::InvalidRequest(format!("{}: {error}", config.registration_credential.display())))?;
    let roles =
        [("aef", ApiProviderFuncRole::Aef), ("apf", ApiProviderFuncRole::Apf), ("amf", ApiProviderFuncRole::Amf)];
    let mut functions = Vec::new();
    for (name, role) in roles {
        functions.push(ApiProviderFunctionDetails {
            api_prov_func_id: None,
            reg_info: RegistrationInformation {
                api_prov_pub_key: new_key(&key_path(config, name))?,
                api_prov_cert: None,
            },
            api_prov_func_role: role,
            api_prov_func_info: None,
        });
    }
    let details = ApiProviderEnrolmentDetails {
        reg_sec: credential.trim().to_owned(),
        api_prov_funcs: Some(functions),
        ..ApiProviderEnrolmentDetails::default()
    };
    let tls = server_authenticated_client(&config.ca)?;
    let mut connection = Connection::open(&tls, &config.core_function).await?;
    let answer = connection
        .request(Method::POST, "/api-provider-management/v1/registrations", None, Content::json(&details)?)
        .await?;
    let details: ApiProviderEnrolmentDetails = answer.into_json()?;
    let missing = |what: &str| SbiError::Malformed(format!("no {what}"));
    let (mut aef_id, mut apf_id) = (None, None);
    for function in details.api_prov_funcs.unwrap_or_default() {
        let (name, id) = match function.api_prov_func_role {
            ApiProviderFuncRole::Aef => ("aef", Some(&mut aef_id)),
            ApiProviderFuncRole::Apf => ("apf", Some(&mut apf_id)),
            _ => ("amf", None),
        };
        let certificate = function.reg_info.api_prov_cert.ok_or_else(|| missing("apiProvCert"))?;
        private_file(&certificate_path(config, name), certificate.as_bytes())?;
        if let Some(id) = id {
            *id = function.api_prov_func_id;
        }
    }
    Ok(Registered {
        domain: details.api_prov_dom_id.ok_or_else(|| missing("apiProvDomId"))?,
        aef_id: aef_id.ok_or_else(|| missing("AEF"))?,
        apf_id: apf_id.ok_or_else(|| missing("APF"))?,
        apis: Vec::new(),
    })
}

/// Publishes what is not, brings up to date what is, and withdraws what is no more.
async fn publish(config: &AefConfig, apis: &[ExposedApi], registered: &mut Registered) -> Result<(), SbiError> {
    let mut connection = Connection::open(&mutual_tls_client(&files(config, "apf"))?, &config.core_function).await?;
    let collection = format!("/published-apis/v1/{}/service-apis", path_segment(&registered.apf_id));
    let published: Vec<ServiceApiDescription> =
        connection.request(Method::GET, &collection, None, Content::Empty).await?.into_json()?;
    let mut ids = Vec::new();
    for api in apis {
        let description = describe(config, api, &registered.aef_id);
        let before = published.iter().find(|one| one.api_name == api.name).and_then(|one| one.api_id.as_deref());
        let content = Content::json(&description)?;
        let answer: ServiceApiDescription = match before {
            Some(id) => {
                let path = format!("{collection}/{}", path_segment(id));
                connection.request(Method::PUT, &path, None, content).await?.into_json()?
            }
            None => connection.request(Method::POST, &collection, None, content).await?.into_json()?,
        };
        let id = answer.api_id.ok_or_else(|| SbiError::Malformed("no apiId".to_owned()))?;
        ids.push((api.name.to_owned(), id));
    }
    for gone in published.iter().filter(|one| apis.iter().all(|api| api.name != one.api_name)) {
        let path = format!("{collection}/{}", path_segment(gone.api_id.as_deref().unwrap_or_default()));
        connection.request(Method::DELETE, &path, None, Content::Empty).await?.success()?;
    }
    registered.apis = ids;
    Ok(())
}

fn describe(config: &AefConfig, api: &ExposedApi, aef_id: &str) -> ServiceApiDescription {
    let profile = AefProfile {
        aef_id: aef_id.to_owned(),
        versions: vec![Version {
            api_version: api.version.to_owned(),
            resources: (!api.resources.is_empty()).then(|| api.resources.clone()),
            ..Version::default()
        }],
        protocol: Some("HTTP_2".to_owned()),
        data_format: Some("JSON".to_owned()),
        interface_descriptions: Some(config.interfaces.clone()),
        ..AefProfile::default()
    };
    ServiceApiDescription {
        api_name: api.name.to_owned(),
        description: Some(api.description.to_owned()),
        aef_profiles: Some(vec![profile]),
        ..ServiceApiDescription::default()
    }
}

fn files(config: &AefConfig, name: &str) -> CertificateFiles {
    CertificateFiles {
        certificate: certificate_path(config, name),
        key: key_path(config, name),
        ca: config.ca.clone(),
        crl: None,
    }
}

fn certificate_path(config: &AefConfig, name: &str) -> PathBuf {
    config.data.join(format!("{name}.pem"))
}

fn key_path(config: &AefConfig, name: &str) -> PathBuf {
    config.data.join(format!("{name}.key"))
}

fn save(path: &Path, registered: &Registered) -> Result<(), SbiError> {
    let text = serde_json::to_vec_pretty(registered).map_err(|error| SbiError::InvalidRequest(error.to_string()))?;
    private_file(path, &text)
}

/// Makes the directory, for its owner only.
pub(super) fn make_directory(path: &Path) -> Result<(), SbiError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| SbiError::InvalidRequest(format!("{}: {error}", path.display())))
}

/// Where the core function shows the keys that its tokens are checked by.
pub(super) const JWKS: &str = "/.well-known/jwks.json";
/// After the first attempt that failed; then twice as long each time, up to
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// this.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);
