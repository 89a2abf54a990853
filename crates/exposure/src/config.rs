//! The configuration file of the exposure functions.

use serde::{Deserialize, Serialize};

use crate::error::ExposureError;
use crate::{capif, nef};

/// `[nef]`, `[capif]`, or both.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network exposure function; none runs if absent.
    #[serde(default)]
    pub nef: Option<nef::Config>,
    /// The CAPIF core function; none runs if absent.
    #[serde(default)]
    pub capif: Option<capif::Config>,
}

impl Config {
    /// The same, with the entries of the functions' policy files in place where one is named.
    ///
    /// # Errors
    /// As [`nef::Config::with_policy`] and [`capif::Config::with_policy`].
    pub fn with_policy(self) -> Result<Self, ExposureError> {
        let nef = self.nef.map(nef::Config::with_policy).transpose()?;
        let capif = self.capif.map(capif::Config::with_policy).transpose()?;
        Ok(Self { nef, capif })
    }

    /// Opens every file that a start opens.
    ///
    /// # Errors
    /// As [`nef::Config::check_files`] and [`capif::Config::check_files`].
    pub fn check_files(&self) -> Result<(), ExposureError> {
        self.nef.as_ref().map_or(Ok(()), nef::Config::check_files)?;
        self.capif.as_ref().map_or(Ok(()), capif::Config::check_files)
    }

    /// Finds what is wrong with the configuration itself, without touching files or addresses.
    ///
    /// # Errors
    /// [`ExposureError::Configuration`] naming the key.
    pub fn check(&self) -> Result<(), ExposureError> {
        if self.nef.is_none() && self.capif.is_none() {
            return Err(ExposureError::Configuration("neither [nef] nor [capif] is there".to_owned()));
        }
        self.nef.as_ref().map_or(Ok(()), nef::Config::check)?;
        self.capif.as_ref().map_or(Ok(()), capif::Config::check)
    }
}
