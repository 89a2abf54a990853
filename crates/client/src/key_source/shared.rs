//! One source for several who need keys.

use std::{fmt, sync::Arc};

use akma::AKid;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::Mutex;

use super::{AkmaMaterial, KeySource, KeySourceError};

/// Keys of one source for everybody in a process who needs them: the client, and whoever follows its configuration. Each
/// primary authentication makes the A-KID before it worthless (TS 33.535 clause 6.1), so if each asked for itself, they
/// would take each other's keys away. Cheap to clone; all clones have the same keys.
#[derive(Clone)]
pub struct SharedKeySource {
    inner: Arc<dyn KeySource>,
    /// What it yielded last. Held while it is asked, so that it is asked once at a time.
    material: Arc<Mutex<Option<AkmaMaterial>>>,
}

impl SharedKeySource {
    /// Shares a source.
    pub fn new(inner: impl KeySource) -> Self {
        Self { inner: Arc::new(inner), material: Arc::default() }
    }
}

impl fmt::Debug for SharedKeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKeySource").finish_non_exhaustive()
    }
}

impl KeySource for SharedKeySource {
    fn obtain<'a>(&'a self, refused: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
        async move {
            let mut known = self.material.lock().await;
            if let Some(material) = &*known
                && refused != Some(&material.a_kid)
            {
                return Ok(material.clone());
            }
            let material = self.inner.obtain(refused).await?;
            *known = Some(material.clone());
            Ok(material)
        }
        .boxed()
    }
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
        fn obtain<'a>(&'a self, _: Option<&'a AKid>) -> BoxFuture<'a, Result<AkmaMaterial, KeySourceError>> {
            async {
                let run = self.0.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let a_kid = format!("0.{run}@realm.example").parse().unwrap();
                Ok(AkmaMaterial { a_kid, k_akma: KAkma::from_bytes([run as u8; 32]), ue_id: None })
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn all_get_the_same_keys_and_those_that_are_refused_are_replaced_once() {
        let source = SharedKeySource::new(Counting::default());
        let other = source.clone();
        let (first, second) = tokio::join!(source.obtain(None), other.obtain(None));
        let old = first.unwrap().a_kid;
        assert_eq!(second.unwrap().a_kid, old);
        let (first, second) = tokio::join!(source.obtain(Some(&old)), other.obtain(Some(&old)));
        let new = first.unwrap().a_kid;
        assert_ne!(new, old);
        assert_eq!(second.unwrap().a_kid, new, "whoever comes second gets what replaced them");
        assert_eq!(source.obtain(None).await.unwrap().a_kid, new);
    }
}
