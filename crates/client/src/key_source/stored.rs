//! Keys kept between runs.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use akma::AKid;
use futures_util::{FutureExt, future::BoxFuture};

use super::{AkmaMaterial, KeySource, KeySourceError, file::read_bounded};

/// Keeps the keys of another source in a file that only its owner may read, and asks the source only when there are
/// none or the server refused them: primary authentication costs the home network more than reading a file.
pub struct StoredKeySource {
    path: PathBuf,
    inner: Box<dyn KeySource>,
}

impl StoredKeySource {
    /// Keeps the keys of `inner` in `path`.
    pub fn new(path: impl Into<PathBuf>, inner: Box<dyn KeySource>) -> Self {
        Self { path: path.into(), inner }
    }

    /// The keys in the file; none if there is no file.
    ///
    /// # Errors
    /// [`KeySourceError::Io`] or [`KeySourceError::Malformed`].
    pub fn stored(&self) -> Result<Option<AkmaMaterial>, KeySourceError> {
        match read_bounded(&self.path) {
            Ok(text) => AkmaMaterial::from_json(&text, &self.path.display().to_string()).map(Some),
            Err(KeySourceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the source for new keys, whatever is in the file, and keeps them.
    ///
    /// # Errors
    /// Those of the source, and [`KeySourceError::Io`] if they cannot be kept.
    pub async fn renew(&self) -> Result<AkmaMaterial, KeySourceError> {
        let old = self.stored().unwrap_or_default().map(|material| material.a_kid);
        let material = match self.inner.obtain(old.as_ref()).await {
            // A source that someone else fills has what it has.
            Err(KeySourceError::NothingNewer { .. }) => self.inner.obtain(None).await?,
            other => other?,
        };
        self.keep(&material)?;
        Ok(material)
    }

    fn keep(&self, material: &AkmaMaterial) -> Result<(), KeySourceError> {
        let text = material.to_json().map_err(io::Error::other).and_then(|text| replace_private(&self.path, &text));
        text.map_err(|source| KeySourceError::Io { action: "write", path: self.path.clone(), source })
    }
}

impl KeySource for StoredKeySource {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        async move {
            // A file that cannot be read is replaced: everything in it can be had again.
            if let Some(material) = self.stored().unwrap_or_default()
                && refused != Some(&material.a_kid)
            {
                return Ok(material);
            }
            let material = self.inner.obtain(refused).await?;
            self.keep(&material)?;
            Ok(material)
        }
        .boxed()
    }
}

/// Replaces a file in one step with one that only its owner may read: after a crash there is the old or the new one.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = directory.join(name);
    let written = write_private(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    std::fs::File::open(directory)?.sync_all()
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU32, Ordering};

    use akma::KAkma;

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicU32);

    impl KeySource for Counting {
        fn obtain<'a>(&'a self, _refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
            let run = self.0.fetch_add(1, Ordering::SeqCst);
            let a_kid = format!("0.{run}@realm.example").parse().unwrap();
            async move { Ok(AkmaMaterial { a_kid, k_akma: KAkma::from_bytes([7; 32]), ue_id: None }) }.boxed()
        }
    }

    #[tokio::test]
    async fn the_source_is_asked_only_when_there_are_no_keys_or_they_were_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/akma.json");
        let source = StoredKeySource::new(&path, Box::new(Counting::default()));
        assert!(source.stored().unwrap().is_none());
        let first = source.obtain(None).await.unwrap().a_kid;
        assert_eq!(source.obtain(None).await.unwrap().a_kid, first);
        let second = source.obtain(Some(&first)).await.unwrap().a_kid;
        assert_ne!(second, first);
        assert_eq!(source.stored().unwrap().unwrap().a_kid, second);
        assert_eq!(source.obtain(Some(&first)).await.unwrap().a_kid, second);
        assert_ne!(source.renew().await.unwrap().a_kid, second);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_owner_may_read_the_kept_keys() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("akma.json");
        let source = StoredKeySource::new(&path, Box::new(Counting::default()));
        source.obtain(None).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[tokio::test]
    async fn a_damaged_key_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("akma.json");
        std::fs::write(&path, "{").unwrap();
        let source = StoredKeySource::new(&path, Box::new(Counting::default()));
        assert!(source.stored().is_err());
        source.obtain(None).await.unwrap();
        assert!(source.stored().unwrap().is_some());
    }
}
