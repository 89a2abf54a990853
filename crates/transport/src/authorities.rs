//! Authorities whose word counts for more than that of others that are trusted at the same place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::LogThrottle;
use crate::peer_identity::{PeerIdentity, key_sha256};
use crate::profile::{ProfileError, certificates};
use crate::reload::{ReloadOutcome, Stamp, stamp};

/// The authorities in a PEM file. A listener may trust several; only who was verified by way of one of these is theirs.
///
/// They are told by their keys, so that an authority whose certificate was renewed is the same. The file is read anew by
/// [`Authorities::refresh`]; one that cannot be used leaves the earlier authorities as they are.
pub struct Authorities {
    path: PathBuf,
    keys: RwLock<Arc<[[u8; 32]]>>,
    /// What the keys were read of; `None` after a failure, so that the next look tries again.
    seen: Mutex<Option<Stamp>>,
}

impl Authorities {
    /// Those in the PEM file at `path`.
    ///
    /// # Errors
    /// [`ProfileError`], naming the file.
    pub fn of_file(path: PathBuf) -> Result<Self, ProfileError> {
        // First: a file that is replaced while it is read counts as changed at the next look.
        let seen = Mutex::new(stamp(&path));
        let keys = RwLock::new(keys_in(&path)?);
        Ok(Self { path, keys, seen })
    }

    /// Whether one of them is in the chain by which `peer` was verified.
    #[must_use]
    pub fn vouch_for(&self, peer: &PeerIdentity) -> bool {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        peer.authority_keys_sha256.iter().any(|key| keys.contains(key))
    }

    /// Looks at the file, and takes it anew if it is another than before. Blocks as long as that takes.
    pub fn refresh(&self) -> ReloadOutcome {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let found = stamp(&self.path);
        if found.is_some() && *seen == found {
            return ReloadOutcome::Unchanged;
        }
        match keys_in(&self.path) {
            Ok(keys) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
                *seen = found;
                tracing::info!(target: "security", authorities = %self.path.display(), "authorities taken anew");
                ReloadOutcome::Reloaded
            }
            Err(error) => {
                *seen = None;
                if let Some(unlogged) = NOT_READ.admit() {
                    tracing::error!(target: "security", authorities = %self.path.display(), %error, unlogged,
                        "a changed file of authorities cannot be used, the earlier ones stay");
                }
                ReloadOutcome::Failed(error)
            }
        }
    }
}

impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authorities").field("path", &self.path).finish_non_exhaustive()
    }
}

fn keys_in(path: &Path) -> Result<Arc<[[u8; 32]]>, ProfileError> {
    let not_pem = || ProfileError::NotPem { path: path.to_owned(), expected: "certificate" };
    certificates(path)?.iter().map(|authority| key_sha256(authority).ok_or_else(not_pem)).collect()
}

static NOT_READ: LogThrottle = LogThrottle::new();
