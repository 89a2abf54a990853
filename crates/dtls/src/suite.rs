//! What is negotiated: versions, cipher suites, groups.

use crate::crypto::aead::Aead;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// RFC 6347.
    Dtls12,
    /// RFC 9147.
    Dtls13,
}

impl ProtocolVersion {
    pub(crate) const DTLS_1_0_CODE: u16 = 0xfeff;
    pub(crate) const DTLS_1_2_CODE: u16 = 0xfefd;
    pub(crate) const DTLS_1_3_CODE: u16 = 0xfefc;
}

/// A cipher suite, which says the version too. The Ua* protocol identifier of AKMA, and so K_AF, depends on the
/// [`CipherSuite::code`] with DTLS 1.2, and on the version alone with DTLS 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CipherSuite {
    /// TLS_CHACHA20_POLY1305_SHA256 of DTLS 1.3 (RFC 8446).
    Chacha20Poly1305,
    /// TLS_AES_128_GCM_SHA256 of DTLS 1.3 (RFC 8446).
    Aes128Gcm,
    /// TLS_AES_128_CCM_SHA256 of DTLS 1.3 (RFC 8446).
    Aes128Ccm,
    /// TLS_AES_128_CCM_8_SHA256 of DTLS 1.3 (RFC 8446): a tag of 8 octets.
    Aes128Ccm8,
    /// TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 (RFC 7905).
    EcdhePskChacha20Poly1305,
    /// TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256 (RFC 8442).
    EcdhePskAes128Gcm,
    /// TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256 (RFC 8442).
    EcdhePskAes128Ccm,
    /// TLS_PSK_WITH_AES_128_GCM_SHA256 (RFC 5487): no forward secrecy.
    PskAes128Gcm,
    /// TLS_PSK_WITH_AES_128_CCM (RFC 6655): no forward secrecy.
    PskAes128Ccm,
    /// TLS_PSK_WITH_AES_128_CCM_8 (RFC 6655): no forward secrecy, a tag of 8 octets.
    PskAes128Ccm8,
}

impl CipherSuite {
    /// Those with forward secrecy and a tag of 16 octets, in the order of preference: the default.
    pub const FORWARD_SECRET: [Self; 6] = [
        Self::Chacha20Poly1305,
        Self::Aes128Gcm,
        Self::Aes128Ccm,
        Self::EcdhePskChacha20Poly1305,
        Self::EcdhePskAes128Gcm,
        Self::EcdhePskAes128Ccm,
    ];

    /// Those of DTLS 1.3, in the order of preference.
    pub const DTLS13: [Self; 4] = [Self::Chacha20Poly1305, Self::Aes128Gcm, Self::Aes128Ccm, Self::Aes128Ccm8];

    /// Those of DTLS 1.2, in the order of preference.
    pub const DTLS12: [Self; 6] = [
        Self::EcdhePskChacha20Poly1305,
        Self::EcdhePskAes128Gcm,
        Self::EcdhePskAes128Ccm,
        Self::PskAes128Gcm,
        Self::PskAes128Ccm,
        Self::PskAes128Ccm8,
    ];

    /// All, in the order of preference.
    pub const ALL: [Self; 10] = [
        Self::Chacha20Poly1305,
        Self::Aes128Gcm,
        Self::Aes128Ccm,
        Self::Aes128Ccm8,
        Self::EcdhePskChacha20Poly1305,
        Self::EcdhePskAes128Gcm,
        Self::EcdhePskAes128Ccm,
        Self::PskAes128Gcm,
        Self::PskAes128Ccm,
        Self::PskAes128Ccm8,
    ];

    /// The code point.
    pub const fn code(self) -> u16 {
        match self {
            Self::Chacha20Poly1305 => 0x1303,
            Self::Aes128Gcm => 0x1301,
            Self::Aes128Ccm => 0x1304,
            Self::Aes128Ccm8 => 0x1305,
            Self::EcdhePskChacha20Poly1305 => 0xccac,
            Self::EcdhePskAes128Gcm => 0xd001,
            Self::EcdhePskAes128Ccm => 0xd005,
            Self::PskAes128Gcm => 0x00a8,
            Self::PskAes128Ccm => 0xc0a4,
            Self::PskAes128Ccm8 => 0xc0a8,
        }
    }

    /// The suite of a code point, if it is spoken here.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.code() == code)
    }

    /// The version that it is of.
    pub const fn version(self) -> ProtocolVersion {
        match self {
            Self::Chacha20Poly1305 | Self::Aes128Gcm | Self::Aes128Ccm | Self::Aes128Ccm8 => ProtocolVersion::Dtls13,
            _ => ProtocolVersion::Dtls12,
        }
    }

    /// Whether the keys come from an ephemeral key exchange besides the pre-shared key: with DTLS 1.3 always.
    pub const fn is_forward_secret(self) -> bool {
        !matches!(self, Self::PskAes128Gcm | Self::PskAes128Ccm | Self::PskAes128Ccm8)
    }

    pub(crate) fn is_of(self, version: ProtocolVersion) -> bool {
        self.version() == version
    }

    pub(crate) const fn aead(self) -> Aead {
        match self {
            Self::Chacha20Poly1305 | Self::EcdhePskChacha20Poly1305 => Aead::Chacha20Poly1305,
            Self::Aes128Gcm | Self::EcdhePskAes128Gcm | Self::PskAes128Gcm => Aead::Aes128Gcm,
            Self::Aes128Ccm | Self::EcdhePskAes128Ccm | Self::PskAes128Ccm => Aead::Aes128Ccm,
            Self::Aes128Ccm8 | Self::PskAes128Ccm8 => Aead::Aes128Ccm8,
        }
    }
}

/// A group of the ephemeral key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Group {
    /// X25519 (RFC 7748).
    X25519,
    /// secp256r1.
    P256,
}

impl Group {
    /// All, in the order of preference: the default.
    pub const ALL: [Self; 2] = [Self::X25519, Self::P256];

    /// The code point.
    pub const fn code(self) -> u16 {
        match self {
            Self::X25519 => 29,
            Self::P256 => 23,
        }
    }

    /// The group of a code point, if it is spoken here.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.code() == code)
    }
}
