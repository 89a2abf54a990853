//! Any client credentials assertion is refused, whatever its header, certificates, claims and signature.
#![no_main]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use sbi::assertion::AssertionKeys;
use transport::profile::CertificateFiles;

/// Some authority, whose key nobody has.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBrzCCAVWgAwIBAgIUG5NPpw2/BTAom7B6KhgKgsoh5wYwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEZnV6ejAeFw0yNjExMzAxMDQ2MTNaFw00NjExMjUxMDQ2MTNa
MA8xDTALBgNVBAMMBGZ1enowWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQkCJs5
ji67bc3+5wnI9yzz4/iLff5eVA48R+XesmCRaR6HI9e4o4vyz6CYms9O1LqQFGno
21PRvmnFeZq9gd+Vo4GOMIGLMB0GA1UdDgQWBBT1J2sUbRXWlRsqGrs1V1767WSK
SzAfBgNVHSMEGDAWgBT1J2sUbRXWlRsqGrs1V1767WSKSzAPBgNVHRMBAf8EBTAD
AQH/MDgGA1UdEQQxMC+GLXVybjp1dWlkOjIyMjIyMjIyLTIyMjItNDIyMi04MjIy
LTIyMjIyMjIyMjIyMjAKBggqhkjOPQQDAgNIADBFAiANtrf+HcdRjXY36WH6y0cq
etGlT/+5Fo+ITt55A7BbMgIhALRxHs40hmpPYPpnWepwgJVfepm7Vg9/wxBOwIZT
L30a
-----END CERTIFICATE-----
";
static KEYS: LazyLock<AssertionKeys> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("fuzz-authority-{}.pem", std::process::id()));
    std::fs::write(&file, AUTHORITY).unwrap();
    // Only the authorities are read. They stay what they are when their file is gone.
    let files = CertificateFiles { certificate: file.clone(), key: file.clone(), ca: file.clone(), crl: None };
    let keys = AssertionKeys::open(&files).unwrap();
    std::fs::remove_file(&file).unwrap();
    keys
});

fuzz_target!(|data: &[u8]| {
    let refused = |text: &str| assert!(KEYS.verify(text, "AANF", 1_800_000_000, 30).is_err());
    if let Ok(text) = std::str::from_utf8(data) {
        refused(text);
    }
    let parts: Vec<&[u8]> = data.splitn(3, |octet| *octet == b'\n').collect();
    if let [first, claims, signature] = parts[..] {
        let (claims, signature) = (URL_SAFE_NO_PAD.encode(claims), URL_SAFE_NO_PAD.encode(signature));
        refused(&format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode(first)));
        let own = AUTHORITY.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        for certificate in [STANDARD.encode(first), own] {
            let header = format!(r#"{{"alg":"ES256","x5c":["{certificate}"]}}"#);
            refused(&format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode(header)));
        }
    }
});
