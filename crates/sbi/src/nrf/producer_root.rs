//! Where a producer is: at a root in the configuration, or where the NRF finds it.

use super::BY_DISCOVERY;
use super::management::NFType;
use super::registration::NrfClient;
use crate::error::SbiError;

/// The root of a producer's API, as a function's configuration has it:
///
/// | Text | Where the producer is |
/// |---|---|
/// | `https://udm.example:8443` | there |
/// | `nrf` | where the NRF finds it; without one that it finds, requests fail |
/// | `nrf, https://udm.example:8443` | where the NRF finds it; there, while the NRF finds none or does not answer |
///
/// What the NRF found is kept as long as it says, and forgotten as soon as it does not answer: a producer that moves is found
/// without a restart.
#[derive(Debug, Clone)]
pub struct ProducerRoot {
    discovery: Option<Discovery>,
    configured: Option<String>,
}

#[derive(Debug, Clone)]
struct Discovery {
    nrf: NrfClient,
    nf_type: NFType,
    service: &'static str,
}

impl ProducerRoot {
    /// The producer at `root`.
    #[must_use]
    pub fn fixed(root: impl Into<String>) -> Self {
        Self { discovery: None, configured: Some(root.into()) }
    }

    /// Service `service` of functions of `nf_type`, by the text in the configuration.
    ///
    /// # Errors
    /// [`SbiError::InvalidRequest`] when the NRF is to find it and there is none.
    pub fn new(
        text: &str,
        nf_type: &'static str,
        service: &'static str,
        nrf: Option<&NrfClient>,
    ) -> Result<Self, SbiError> {
        let (discovered, configured) = split(text);
        if !discovered {
            return Ok(Self::fixed(text));
        }
        let invalid = |reason: &str| SbiError::InvalidRequest(reason.to_owned());
        let nrf = nrf.cloned().ok_or_else(|| invalid("a producer is to be found by the NRF, and there is no [nrf]"))?;
        let nf_type = nf_type.parse().map_err(|_| invalid("no NF type"))?;
        Ok(Self { discovery: Some(Discovery { nrf, nf_type, service }), configured: configured.map(str::to_owned) })
    }

    /// Where to ask now.
    ///
    /// # Errors
    /// Any [`SbiError`], when the NRF is to say where and does not, and nothing else is configured.
    pub async fn current(&self) -> Result<String, SbiError> {
        let found = match &self.discovery {
            Some(discovery) => discovery.root().await,
            None => Ok(None),
        };
        match (found, &self.configured) {
            (Ok(Some(root)), _) => Ok(root),
            (_, Some(configured)) => Ok(configured.clone()),
            (Ok(None), None) => {
                // A moment later it may have registered.
                Err(SbiError::NrfRefused { reason: "the NRF knows no such producer".to_owned(), transient: true })
            }
            (Err(error), None) => Err(error),
        }
    }

    /// After a request to the root `asked` that came to `outcome`: where to ask instead, if the producer is somewhere else now.
    pub(crate) async fn elsewhere<T>(&self, asked: &str, outcome: &Result<T, SbiError>) -> Option<String> {
        self.forget(outcome);
        let gone = matches!(outcome, Err(SbiError::Unreachable(_)));
        self.discovery.as_ref().filter(|_| gone)?;
        self.current().await.ok().filter(|root| root != asked)
    }

    /// The same for a request that must not be sent twice: the next one is sent where the producer is then.
    pub fn forget<T>(&self, outcome: &Result<T, SbiError>) {
        if let (Some(found), Err(SbiError::Unreachable(_) | SbiError::TimedOut)) = (&self.discovery, outcome) {
            found.nrf.forget_roots(&found.nf_type, found.service, None);
        }
    }
}

impl Discovery {
    async fn root(&self) -> Result<Option<String>, SbiError> {
        Ok(self.nrf.roots(&self.nf_type, self.service, None).await?.into_iter().next())
    }
}

/// Whether the NRF is asked, and the root in the configuration.
pub(super) fn split(text: &str) -> (bool, Option<&str>) {
    match text.split_once(',') {
        Some((first, second)) if first.trim() == BY_DISCOVERY => (true, Some(second.trim())),
        _ if text == BY_DISCOVERY => (true, None),
        _ => (false, Some(text)),
    }
}
