//! The lab core: UDM/ARPF, AUSF and NRF over their standard interfaces, and the certificates and subscribers of a home
//! network on one machine.
//!
//! Start from [`Directory`], which makes a network on disk, and [`nrf::start`], [`udm::start`] and [`ausf::start`], which
//! run its core. For tests and development: a real NRF, UDM and AUSF take their place by configuration.
//!
//! ```no_run
//! # async fn example() -> Result<(), lab::LabError> {
//! let mut directory = lab::Directory::open_or_create("lab".as_ref())?;
//! let ports = directory.choose_ports(None)?;
//! let shutdown = tokio_util::sync::CancellationToken::new();
//! let nrf = lab::nrf::start(directory.nrf_configuration(&ports)?, shutdown.clone()).await?;
//! let udm = lab::udm::start(directory.udm_configuration(&ports)?, shutdown.clone()).await?;
//! let ausf = lab::ausf::start(directory.ausf_configuration(&ports)?, shutdown.clone()).await?;
//! directory.write_lab_json(&ports)?;
//! shutdown.cancelled().await;
//! ausf.stopped().await;
//! udm.stopped().await;
//! nrf.stopped().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod ausf;
mod authorisation;
mod capif;
mod configuration_files;
mod directory;
mod error;
mod lab_json;
pub mod nrf;
mod outside;
mod pki;
mod ports;
mod revocation;
mod subscription;
pub mod udm;

pub use authorisation::AllowedCallers;
pub use capif::{CapifCredential, CapifCredentials};
pub use directory::{ApplicationServer, Directory, Function, LabGroup, Network};
pub use error::LabError;
pub use lab_json::{
    LabApplicationServer, LabCapifOnboarding, LabCore, LabExternalApplicationServer, LabHomeNetwork, LabJson,
    LabNfClient, LabServer, LabSubscriber,
};
pub use outside::{OUTSIDE_FUNCTIONS, OutsideFunction};
pub use pki::{CertificateAuthority, CertificateRequest};
pub use ports::Ports;
pub use revocation::{CRL_RENEWAL, Revocations};
pub use subscription::{Algorithm, AuthenticationMethod, SecretHex, Subscription, SubscriptionSummary};
pub use udm::SubscriberClient;
