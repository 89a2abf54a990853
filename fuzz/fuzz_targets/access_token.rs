//! Any text is refused as an access token, or was signed by the key: header and claims as they come, and made of what
//! comes.
#![no_main]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use sbi::token::{AccessTokenClaims, TokenKeys, TokenSigner};

static SIGNER: LazyLock<TokenSigner> =
    LazyLock::new(|| TokenSigner::from_pem(TokenSigner::generate_pem().unwrap().as_bytes()).unwrap());
static KEYS: LazyLock<TokenKeys> = LazyLock::new(|| TokenKeys::from_jwks(SIGNER.jwks().to_string().as_bytes()).unwrap());

fuzz_target!(|data: &[u8]| {
    let _ = TokenKeys::from_jwks(data);
    let _ = TokenKeys::from_pem(data);
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(KEYS.verify::<AccessTokenClaims>(text).is_err());
    }
    let mut parts = data.splitn(3, |octet| *octet == b'\n').map(|part| URL_SAFE_NO_PAD.encode(part));
    if let (Some(header), Some(claims), Some(signature)) = (parts.next(), parts.next(), parts.next()) {
        assert!(KEYS.verify::<AccessTokenClaims>(&format!("{header}.{claims}.{signature}")).is_err());
    }
    // Claims behind a signature that is right.
    if let Ok(claims) = serde_json::from_slice::<serde_json::Value>(data) {
        let token = SIGNER.sign(&claims).unwrap();
        if let Ok(read) = KEYS.verify::<AccessTokenClaims>(&token) {
            let again = SIGNER.sign(&read).unwrap();
            assert_eq!(KEYS.verify::<AccessTokenClaims>(&again).unwrap(), read);
        }
    }
});
