//! Certificates, keys, authorities and CRLs that change while the program runs.
//!
//! Nobody tells us of a changed file: the context's user calls [`ReloadingContext::refresh`] now and then, or before it
//! needs the context. A changed set of files takes the old one's place whole or not at all; while a new
//! one cannot be used the old one serves on, until its CRL runs out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ssl::{SslContext, SslRef};
use openssl::stack::Stack;
use openssl::x509::{X509, X509VerifyResult};

use crate::LogThrottle;
use crate::profile::{CertificateFiles, ProfileError, Role, context};
use crate::trust::verified;

/// A TLS context made of files, and made anew when they change.
pub struct ReloadingContext {
    files: CertificateFiles,
    role: Role,
    current: RwLock<Current>,
    looked: Mutex<Looked>,
}

struct Current {
    context: SslContext,
    generation: u64,
}

/// The last look at the files.
struct Looked {
    at: Instant,
    /// What the current context was made of; `None` after a failure, so that the next look tries again.
    stamps: Option<Stamps>,
}

/// What a look at the files came to.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReloadOutcome {
    /// Nothing has changed.
    Unchanged,
    /// What connects from now on meets the new files. Connections that are there may have lost their right: ask
    /// [`ReloadingContext::vouches_for`].
    Reloaded,
    /// The files changed and cannot be used: the context made of the old ones serves on. It was logged.
    Failed(ProfileError),
}

/// The certificates that a peer proved itself with, kept to look at them again.
pub struct PeerCertificates {
    own: X509,
    chain: Stack<X509>,
}

/// The peer's certificates after a handshake, or `None` when it showed none.
#[must_use]
pub fn peer_certificates(ssl: &SslRef) -> Option<PeerCertificates> {
    let own = ssl.peer_certificate()?;
    let mut chain = Stack::new().ok()?;
    for certificate in ssl.verified_chain()? {
        chain.push(certificate.to_owned()).ok()?;
    }
    Some(PeerCertificates { own, chain })
}

impl ReloadingContext {
    /// A context as [`crate::profile::mutual_tls_server`] makes it. With `strict_server_name`, a client that asks for a
    /// server name (SNI) that is not among the DNS names of the certificate gets the alert `unrecognized_name`; one
    /// that asks for none, or connects to an address, is answered.
    ///
    /// # Errors
    /// [`ProfileError`], naming the file at fault.
    pub fn server(files: CertificateFiles, strict_server_name: bool) -> Result<Self, ProfileError> {
        Self::new(files, Role::Server { strict_server_name, certificate_required: true })
    }

    /// A context as [`crate::capif::optional_tls_server`] makes it.
    ///
    /// # Errors
    /// [`ProfileError`], naming the file at fault.
    pub fn server_for_any_client(files: CertificateFiles, strict_server_name: bool) -> Result<Self, ProfileError> {
        Self::new(files, Role::Server { strict_server_name, certificate_required: false })
    }

    /// A context for clients that prove themselves inside the connection (TS 33.535 Annex B.1.2): none is asked for a
    /// certificate, and HTTP/2 or HTTP/1.1 is spoken, which is what ALPN selects or none does. Of `files`, the authority is not
    /// used. `strict_server_name` as for [`ReloadingContext::server`].
    ///
    /// # Errors
    /// [`ProfileError`], naming the file at fault.
    pub fn server_for_devices(files: CertificateFiles, strict_server_name: bool) -> Result<Self, ProfileError> {
        Self::new(files, Role::DeviceServer { strict_server_name })
    }

    /// A context as [`crate::profile::mutual_tls_client`] makes it.
    ///
    /// # Errors
    /// [`ProfileError`], naming the file at fault.
    pub fn client(files: CertificateFiles) -> Result<Self, ProfileError> {
        Self::new(files, Role::Client)
    }

    fn new(files: CertificateFiles, role: Role) -> Result<Self, ProfileError> {
        // Stamps first: a file that is replaced while it is read counts as changed at the next look.
        let stamps = Some(stamps(&files));
        let current = Current { context: context(&files, role)?, generation: 0 };
        let looked = Mutex::new(Looked { at: Instant::now(), stamps });
        Ok(Self { files, role, current: RwLock::new(current), looked })
    }

    /// The context for a new connection.
    #[must_use]
    pub fn current(&self) -> SslContext {
        self.current.read().unwrap_or_else(PoisonError::into_inner).context.clone()
    }

    /// How often the files have been taken anew. A connection made in an earlier generation may have lost its right.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// [`ReloadingContext::refresh`], if that was not done within `interval`.
    pub fn refresh_if_due(&self, interval: Duration) -> ReloadOutcome {
        // Whoever holds the lock is looking.
        let due = self.looked.try_lock().is_ok_and(|looked| looked.at.elapsed() >= interval);
        if due { self.refresh() } else { ReloadOutcome::Unchanged }
    }

    /// The file of the own certificate.
    #[must_use]
    pub fn certificate(&self) -> &Path {
        &self.files.certificate
    }

    /// Looks at the files, by identity, size and time of change, and takes them anew if one is another than before.
    /// Reads a few small files: microseconds, or where the disk is slow, as long as that takes.
    pub fn refresh(&self) -> ReloadOutcome {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.at = Instant::now();
        let found = stamps(&self.files);
        if looked.stamps.as_ref() == Some(&found) {
            return ReloadOutcome::Unchanged;
        }
        match context(&self.files, self.role) {
            Ok(context) => {
                looked.stamps = Some(found);
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                current.context = context;
                current.generation += 1;
                drop(current);
                tracing::info!(target: "security", certificate = %self.files.certificate.display(),
                    "certificate, key, authorities and CRL taken anew");
                ReloadOutcome::Reloaded
            }
            Err(error) => {
                looked.stamps = None;
                if let Some(unlogged) = NOT_RELOADED.admit() {
                    tracing::error!(target: "security", certificate = %self.files.certificate.display(), %error, unlogged,
                        "changed certificate files cannot be used, the old ones serve on");
                }
                ReloadOutcome::Failed(error)
            }
        }
    }

    /// Whether a peer that proved itself earlier could do so now: its certificates are still of a trusted authority,
    /// still valid, and on no CRL.
    ///
    /// # Errors
    /// What OpenSSL has against them; that memory is short counts, too.
    pub fn vouches_for(&self, peer: &PeerCertificates) -> Result<(), X509VerifyResult> {
        let outcome = verified(self.current().cert_store(), &peer.own, &peer.chain);
        // What OpenSSL noted of it must not be taken for an error of the next connection on this thread.
        let _ = ErrorStack::get();
        match outcome {
            Ok(X509VerifyResult::OK) => Ok(()),
            Ok(refusal) => Err(refusal),
            Err(_) => Err(X509VerifyResult::APPLICATION_VERIFICATION),
        }
    }
}

impl std::fmt::Debug for ReloadingContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReloadingContext").field("files", &self.files).field("role", &self.role).finish_non_exhaustive()
    }
}

type Stamps = [Option<Stamp>; 4];

/// What tells one version of a file from another.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    octets: u64,
    changed: (i64, i64),
}

fn stamps(files: &CertificateFiles) -> Stamps {
    [stamp(&files.certificate), stamp(&files.key), stamp(&files.ca), files.crl.as_deref().and_then(stamp)]
}

pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        octets: metadata.len(),
        changed: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

static NOT_RELOADED: LogThrottle = LogThrottle::new();
