//! What can go wrong when something from outside does not have the form the standards give it.

/// Every way in which this crate refuses an input.
///
/// No variant carries the refused value: it may hold a SUPI or key material, and errors end up in logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a SUPI in the form of TS 29.571: the prefix is unknown, an IMSI has not 5 to 15 digits,
    /// or a network-specific identifier is not `username@realm`.
    #[error("not a SUPI: {0}")]
    InvalidSupi(&'static str),
    /// Not a GPSI in the form of TS 29.571: the prefix is unknown, an MSISDN has not 5 to 15 digits,
    /// or an external identifier is not `local@domain`.
    #[error("not a GPSI: {0}")]
    InvalidGpsi(&'static str),
    /// Neither a SUPI nor a GPSI: the text starts with none of the prefixes of TS 29.571.
    #[error("not a UE identity: it starts with no known SUPI or GPSI prefix")]
    InvalidUeId,
    /// The MCC has not three digits, or the MNC not two or three.
    #[error("not a home network: the MCC has three digits, the MNC two or three")]
    InvalidHomeNetwork,
    /// Not one to four decimal digits.
    #[error("not a routing indicator: one to four decimal digits are expected")]
    InvalidRoutingIndicator,
    /// Not a serving network name of TS 24.501 9.12.1.
    #[error("not a serving network name")]
    InvalidServingNetworkName,
    /// The A-KID is empty, too long, holds a character that an NAI cannot hold, or starts with a separator.
    #[error("not an A-KID: {0}")]
    InvalidAKid(&'static str),
    /// The A-KID is usable as an opaque name, but its parts cannot be told apart.
    /// Most likely another vendor's format: see [`AKidFormat`](crate::AKidFormat).
    #[error("the A-KID does not follow the expected format: {0}")]
    AKidParts(&'static str),
    /// Not a host name: a label is empty, too long or holds other than letters, digits and hyphens,
    /// or the text is an IP address.
    #[error("not a fully qualified domain name: {0}")]
    InvalidFqdn(&'static str),
    /// Not five octets in hexadecimal.
    #[error("not a Ua* security protocol identifier: ten hexadecimal digits are expected")]
    InvalidUaProtocolId,
    /// Not `fqdn:hex10`.
    #[error("not an AF_ID: expected a domain name, a colon and ten hexadecimal digits")]
    InvalidAfId,
    /// The TLS PSK identity does not start with `3GPP-AKMA`, or what follows is no A-KID.
    /// Most likely the peer wants another PSK scheme, such as GBA.
    #[error("not an AKMA PSK identity")]
    InvalidPskIdentity,
    /// Not hexadecimal, or not of the expected length.
    #[error("expected {octets} octets as {} hexadecimal digits", octets * 2)]
    InvalidHex {
        /// How many octets were expected.
        octets: usize,
    },
    /// Not 48 bits.
    #[error("a sequence number has 48 bits")]
    InvalidSqn,
    /// The 43-bit SEQ has reached its end; the subscription needs a new K.
    #[error("the sequence number space is used up")]
    SqnExhausted,
    /// A subscriber key, TOP or a parameter of TUAK or MILENAGE has a length the algorithm does not know.
    #[error("not usable as credentials: {0}")]
    InvalidCredentials(&'static str),
    /// A RES has not 4 to 16 octets.
    #[error("a RES has 4 to 16 octets")]
    InvalidRes,
    /// MAC-S of an AUTS is wrong: the token was not made by the USIM holding this K, or not for this RAND.
    #[error("the AUTS does not verify")]
    AutsMac,
    /// A parameter of the key derivation function is longer than its two-octet length can say.
    #[error("a key derivation parameter is longer than 65535 octets")]
    KdfParameterTooLong,
    /// Not a SUCI in the form of TS 23.003 2.2B.
    #[error("not a SUCI: {0}")]
    InvalidSuci(&'static str),
    /// A protection scheme other than null, profile A and profile B.
    #[error("the SUCI protection scheme is not supported")]
    UnsupportedSuciScheme,
    /// The SUCI names a home network key that is not held here.
    #[error("no home network key with this identifier and profile")]
    UnknownSuciKey,
    /// A home network key or an ephemeral key is no valid key of its profile's curve.
    #[error("not a valid elliptic curve key")]
    InvalidCurveKey,
    /// The SUCI does not decrypt: made for another key, or altered.
    #[error("the SUCI does not authenticate under this home network key")]
    SuciMac,
    /// The SUPI cannot be concealed as asked: it is of another home network.
    #[error("the SUPI cannot be concealed for this home network: {0}")]
    SupiNotConcealable(&'static str),
    /// The operating system gave no randomness.
    #[error("no randomness available")]
    Randomness,
    /// Not an EAP packet, or not an EAP-AKA' message that RFC 4187 and RFC 9048 allow.
    #[error("not an EAP-AKA' packet: {0}")]
    InvalidEap(&'static str),
    /// AT_MAC is missing or wrong: the peer has another K_aut, or the packet was altered.
    #[error("the EAP-AKA' packet does not authenticate")]
    EapMac,
    /// A well-formed EAP packet that this side did not ask for: a wrong identifier, or a wrong message.
    #[error("unexpected EAP-AKA' packet: {0}")]
    UnexpectedEap(&'static str),
}
