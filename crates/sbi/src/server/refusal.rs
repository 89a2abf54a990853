//! Connections that are closed before their first request, and why.

use std::ffi::c_int;

use openssl::ssl;
use openssl::x509::X509VerifyResult;
use openssl_sys::{
    X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_REVOKED,
    X509_V_ERR_CERT_SIGNATURE_FAILURE, X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
    X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
    X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_OK,
};

/// Why a connection did not come to serve requests: a metric label, words for the log, and the audit's reason where it was decided
/// that this peer may not.
pub(super) struct Refusal {
    pub(super) kind: &'static str,
    pub(super) reason: String,
    pub(super) decision: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(kind: &'static str, reason: impl ToString) -> Self {
        Self { kind, reason: reason.to_string(), decision: None }
    }

    pub(super) fn decided(self, reason: &'static str) -> Self {
        Self { decision: Some(reason), ..self }
    }

    /// A handshake that failed: by the client's certificate, or by something else.
    pub(super) fn of_handshake(error: &ssl::Error, verified: X509VerifyResult) -> Self {
        let refusal = Self::new("tls", error);
        let missing = |one: &openssl::error::Error| one.reason_code() == NO_CERTIFICATE;
        if error.ssl_error().is_some_and(|stack| stack.errors().iter().any(missing)) {
            return refusal.decided("certificate_missing");
        }
        match refused_certificate(verified) {
            Some(reason) => refusal.decided(reason),
            None => refusal,
        }
    }
}

/// Why a client's certificate was refused, as the audit has it; `None` where it was not.
fn refused_certificate(verified: X509VerifyResult) -> Option<&'static str> {
    match verified.as_raw() {
        X509_V_OK => None,
        X509_V_ERR_CERT_REVOKED => Some("certificate_revoked"),
        X509_V_ERR_CERT_HAS_EXPIRED | X509_V_ERR_CERT_NOT_YET_VALID => Some("certificate_expired"),
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        | X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        | X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        | X509_V_ERR_CERT_SIGNATURE_FAILURE
        | X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        | X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN => Some("certificate_untrusted"),
        _ => Some("certificate_refused"),
    }
}

/// OpenSSL's reason SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE.
const NO_CERTIFICATE: c_int = 199;
