//! The key that signs tokens.

use std::path::Path;

use sbi::token::TokenSigner;

use crate::LabError;
use crate::pki::write_private;

/// The key in the PEM file `path`, made there first if need be, readable by the owner only.
pub(super) fn open_or_create(path: &Path) -> Result<TokenSigner, LabError> {
    let unusable =
        |error: sbi::token::TokenError| LabError::Content { path: path.to_owned(), reason: error.to_string() };
    match std::fs::read(path) {
        Ok(pem) => TokenSigner::from_pem(&zeroize::Zeroizing::new(pem)).map_err(unusable),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            let pem = zeroize::Zeroizing::new(TokenSigner::generate_pem().map_err(unusable)?);
            write_private(path, pem.as_bytes())?;
            TokenSigner::from_pem(pem.as_bytes()).map_err(unusable)
        }
        Err(source) => Err(LabError::file(path, source)),
    }
}

/// Writes the public key for producers.
pub(super) fn write_jwks(path: &Path, signer: &TokenSigner) -> Result<(), LabError> {
    write_private(path, signer.jwks().to_string().as_bytes())
}
