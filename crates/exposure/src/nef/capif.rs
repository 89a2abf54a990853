//! The NEF as API exposing function: which of its APIs a CAPIF core function is told of.

use sbi::capif::aef::{ExposedApi, application_server_apis};

use super::scope;

/// The APIs that are served, as they are published.
pub(crate) fn apis(akma: bool, msgin5g: bool) -> Vec<ExposedApi> {
    let mut apis = Vec::new();
    if akma {
        apis.push(ExposedApi::new(scope::AKMA, "AKMA application keys (TS 29.522)", &[("AKMA", "/retrieve")]));
    }
    if msgin5g {
        apis.extend(application_server_apis());
    }
    apis
}
