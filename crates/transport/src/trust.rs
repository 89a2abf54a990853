//! Certificates that vouch for something else than a TLS connection, such as a signed statement: checked as those of TLS
//! clients are, against authorities and CRLs that change while the program runs.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::store::{X509Store, X509StoreRef};
use openssl::x509::{X509, X509ExtendedKeyUsage, X509Ref, X509StoreContext, X509VerifyResult};

use crate::LogThrottle;
use crate::profile::{CertificateFiles, ProfileError, Role, certificates, trust};
use crate::reload::{Stamp, stamp};

/// Authorities and their CRLs, made of files, and made anew when these change.
///
/// As in [`crate::profile::ReloadingContext`], a changed set takes the old one's place whole or not at all; while a new one
/// cannot be used the old one stands, until its CRL runs out.
pub struct ReloadingTrust {
    files: CertificateFiles,
    interval: Duration,
    current: RwLock<Arc<X509Store>>,
    looked: Mutex<Looked>,
}

/// Why a certificate vouches for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Untrusted {
    /// It, or that of an authority on the way, is on a CRL.
    Revoked,
    /// Anything else: another authority, another purpose, run out, no CRL to look at, or a CRL that has run out.
    Other,
}

/// The last look at the files.
struct Looked {
    at: Instant,
    /// What the current store was made of; `None` after a failure, so that the next look tries again.
    stamps: Option<[Option<Stamp>; 2]>,
}

impl ReloadingTrust {
    /// The authorities and CRLs of `files`, whose certificate and key do not matter; looked at again when they are needed and
    /// `interval` has passed.
    ///
    /// # Errors
    /// [`ProfileError`], naming the file at fault.
    pub fn open(files: CertificateFiles, interval: Duration) -> Result<Self, ProfileError> {
        // Stamps first: a file that is replaced while it is read counts as changed at the next look.
        let stamps = Some(stamps(&files));
        let current = RwLock::new(Arc::new(store(&files)?));
        Ok(Self { files, interval, current, looked: Mutex::new(Looked { at: Instant::now(), stamps }) })
    }

    /// Whether the holder of `own` could connect as a TLS client now, with `chain` as what it sends besides: its certificate
    /// leads to a trusted authority, is meant for clients, valid, and on no CRL.
    ///
    /// # Errors
    /// [`Untrusted`]; that memory is short counts, too.
    pub fn vouches_for(&self, own: &X509Ref, chain: &[X509]) -> Result<(), Untrusted> {
        self.look();
        let store = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let verify = || {
            let mut others = Stack::new()?;
            for certificate in chain {
                others.push(certificate.clone())?;
            }
            verified(&store, own, &others)
        };
        let outcome = verify();
        // What OpenSSL noted of it must not be taken for an error of the next connection on this thread.
        let _ = ErrorStack::get();
        match outcome {
            Ok(X509VerifyResult::OK) if is_for_clients(own) => Ok(()),
            Ok(refusal) if refusal.as_raw() == openssl_sys::X509_V_ERR_CERT_REVOKED => Err(Untrusted::Revoked),
            _ => Err(Untrusted::Other),
        }
    }

    fn look(&self) {
        // Whoever holds the lock is looking.
        let Ok(mut looked) = self.looked.try_lock() else { return };
        if looked.at.elapsed() < self.interval {
            return;
        }
        looked.at = Instant::now();
        let found = stamps(&self.files);
        if looked.stamps.as_ref() == Some(&found) {
            return;
        }
        let ca = self.files.ca.display();
        match store(&self.files) {
            Ok(store) => {
                looked.stamps = Some(found);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(store);
                tracing::info!(target: "security", %ca, "authorities and CRL taken anew");
            }
            Err(error) => {
                looked.stamps = None;
                if let Some(unlogged) = NOT_RELOADED.admit() {
                    tracing::error!(target: "security", %ca, %error, unlogged,
                        "changed authorities or CRL cannot be used, the old ones stand");
                }
            }
        }
    }
}

impl std::fmt::Debug for ReloadingTrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReloadingTrust")
            .field("ca", &self.files.ca)
            .field("crl", &self.files.crl)
            .finish_non_exhaustive()
    }
}

/// What OpenSSL says to a certificate and its chain.
pub(crate) fn verified(
    store: &X509StoreRef,
    own: &X509Ref,
    chain: &Stack<X509>,
) -> Result<X509VerifyResult, ErrorStack> {
    X509StoreContext::new()?.init(store, own, chain, |verification| {
        verification.verify_cert()?;
        Ok(verification.error())
    })
}

/// TS 33.310 clause 6.1.3c wants the extended key usage there; OpenSSL takes a certificate without for any purpose.
fn is_for_clients(own: &X509Ref) -> bool {
    own.extended_key_usage().is_some_and(|usages| usages.contains(X509ExtendedKeyUsage::SSL_CLIENT))
}

fn store(files: &CertificateFiles) -> Result<X509Store, ProfileError> {
    trust(files, &certificates(&files.ca)?, Role::Server { strict_server_name: false, certificate_required: true })
}

fn stamps(files: &CertificateFiles) -> [Option<Stamp>; 2] {
    [stamp(&files.ca), files.crl.as_deref().and_then(stamp)]
}

static NOT_RELOADED: LogThrottle = LogThrottle::new();
