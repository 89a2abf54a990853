//! Keys from a file that something else fills.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use akma::AKid;
use futures_util::{FutureExt, future::BoxFuture};
use zeroize::Zeroizing;

use super::{AkmaMaterial, KeySource, KeySourceError};

/// Longest key file read, in octets; more is refused as malformed.
pub const KEY_FILE_OCTETS_MAX: u64 = 8_192;

/// Reads `{"a_kid":"…","k_akma":"64 hex digits"}` from a file, each time keys are asked for.
#[derive(Clone, Debug)]
pub struct FileKeySource {
    path: PathBuf,
}

impl FileKeySource {
    /// A source that reads `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn read(&self) -> Result<AkmaMaterial, KeySourceError> {
        AkmaMaterial::from_json(&read_bounded(&self.path)?, &self.path.display().to_string())
    }
}

/// Reads a whole key file. Its memory is wiped after use.
pub(super) fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeySourceError> {
    let io = |source| KeySourceError::Io { action: "read", path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    // Room for all of it at once: growing would leave copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(KEY_FILE_OCTETS_MAX as usize + 1));
    file.take(KEY_FILE_OCTETS_MAX + 1).read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > KEY_FILE_OCTETS_MAX {
        let detail = format!("it is longer than {KEY_FILE_OCTETS_MAX} octets");
        return Err(KeySourceError::Malformed { origin: path.display().to_string(), detail });
    }
    Ok(text)
}

impl KeySource for FileKeySource {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        async move {
            let material = self.read()?;
            if refused == Some(&material.a_kid) {
                return Err(KeySourceError::NothingNewer { origin: self.path.display().to_string() });
            }
            Ok(material)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn document(name: &str) -> String {
        format!(r#"{{"a_kid":"{name}@realm.example","k_akma":"{}"}}"#, "ab".repeat(32))
    }

    #[tokio::test]
    async fn a_refused_a_kid_is_not_yielded_again_until_the_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        std::fs::write(&path, document("0.old")).unwrap();
        let source = FileKeySource::new(&path);
        let old = source.obtain(None).await.unwrap().a_kid;
        assert!(matches!(source.obtain(Some(&old)).await, Err(KeySourceError::NothingNewer { .. })));
        std::fs::write(&path, document("0.new")).unwrap();
        assert_eq!(source.obtain(Some(&old)).await.unwrap().a_kid.as_str(), "0.new@realm.example");
    }

    #[tokio::test]
    async fn a_missing_or_oversized_file_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let error = FileKeySource::new(&path).obtain(None).await.unwrap_err();
        assert!(matches!(error, KeySourceError::Io { .. }));
        assert!(error.to_string().contains("keys.json"));
        std::fs::write(&path, " ".repeat(KEY_FILE_OCTETS_MAX as usize + 1)).unwrap();
        let error = FileKeySource::new(&path).obtain(None).await.unwrap_err();
        assert!(matches!(error, KeySourceError::Malformed { .. }));
    }
}
