//! One operator's domain: its authority, the certificates of producer and consumer, and an NRF as far as its tokens go.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use lab::{CertificateAuthority, CertificateRequest};
use sbi::token::{AccessTokenClaims, Audience, TokenSigner};
use sbi::{CertificateFiles, ClientLimits, SbiClient, SbiClientConfig, SbiError, TokenSource, TokenTarget, services};
use uuid::Uuid;

use crate::BenchError;

/// What is needed to start a producer and to ask it.
pub(crate) struct Domain {
    /// The producer's certificate, key and authority.
    pub(super) producer: CertificateFiles,
    /// NF instance ID of the one consumer, which is AUSF and AF in one.
    pub(super) consumer_id: Uuid,
    /// NF instance ID of the issuer of tokens.
    pub(super) issuer_id: Uuid,
    /// Its public key.
    pub(super) issuer_keys: PathBuf,
    consumer: CertificateFiles,
    token: Arc<str>,
}

impl Domain {
    /// Makes one in `directory`.
    pub(crate) fn create(directory: &Path) -> Result<Self, BenchError> {
        let authority = CertificateAuthority::open_or_create(&directory.join("pki"), REALM).map_err(failed)?;
        let (producer_id, consumer_id, issuer_id) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let certificate = |name: &str, nf_instance_id, nf_type: &str| {
            let request = CertificateRequest {
                common_name: name.to_owned(),
                nf_instance_id,
                nf_type: nf_type.to_owned(),
                dns_names: vec![format!("{name}.bench.example")],
                addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            };
            let files = authority.issue(name, &request).map_err(failed)?;
            Ok::<_, BenchError>(CertificateFiles { crl: None, ..files })
        };
        let pem = TokenSigner::generate_pem().map_err(failed)?;
        let signer = TokenSigner::from_pem(pem.as_bytes()).map_err(failed)?;
        let issuer_keys = directory.join("issuer.jwks");
        std::fs::write(&issuer_keys, signer.jwks().to_string())?;
        let expiry = SystemTime::now() + TOKEN_LIFETIME;
        let claims = AccessTokenClaims::new(
            issuer_id.to_string(),
            consumer_id.to_string(),
            Audience::NfType(services::AANF.to_owned()),
            SCOPE,
            expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        );
        Ok(Self {
            producer: certificate("aanf", producer_id, services::AANF)?,
            consumer: certificate("consumer", consumer_id, services::AUSF)?,
            consumer_id,
            issuer_id,
            issuer_keys,
            token: signer.sign(&claims).map_err(failed)?.into(),
        })
    }

    /// A client whose requests carry an access token.
    pub(crate) fn client(&self) -> Result<SbiClient, BenchError> {
        let limits = ClientLimits { request_timeout_milliseconds: 60_000, ..ClientLimits::default() };
        let client = SbiClient::new(SbiClientConfig { tls: self.consumer.clone(), limits }).map_err(failed)?;
        Ok(client.with_tokens(Arc::new(OneToken(Arc::clone(&self.token)))).for_service(services::AANF, SCOPE))
    }
}

/// One token for everything.
struct OneToken(Arc<str>);

impl TokenSource for OneToken {
    fn token(&self, _: &TokenTarget, _: &str) -> BoxFuture<'_, Result<Arc<str>, SbiError>> {
        let token = Arc::clone(&self.0);
        Box::pin(async move { Ok(token) })
    }

    fn rejected(&self, _: &TokenTarget, _: &str, _: &str) {}
}

pub(super) fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Provision(error.to_string())
}

const REALM: &str = "5gc.mnc001.mcc001.3gppnetwork.org";
const SCOPE: &str =
    "naanf-akma naanf-akma:anchorkey naanf-akma:applicationkeyget naanf-akma:applicationkeyget:supi-access";
/// Longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
