//! Every limit of OSCORE, in one place.

/// Longest Sender ID and Recipient ID, in octets: the nonce of 13 less six (RFC 8613 3.3). A longer one is
/// [`super::OscoreError::InvalidParameter`]; in an OSCORE option it names no context.
pub const KEY_ID_OCTETS_MAX: usize = 7;

/// Longest ID Context, in octets. A longer one is [`super::OscoreError::InvalidParameter`]; in an OSCORE option it names
/// no context.
pub const ID_CONTEXT_OCTETS_MAX: usize = 64;

/// Longest OSCORE option, in octets (RFC 8613 2). A longer one is [`super::OscoreError::NotDecoded`].
pub const OSCORE_OPTION_OCTETS_MAX: usize = 255;

/// Longest Partial IV, in octets. The option can say 6 and 7; those are reserved and
/// [`super::OscoreError::NotDecoded`].
pub const PARTIAL_IV_OCTETS_MAX: usize = 5;

/// Highest Sender Sequence Number: 2^40 - 1 (RFC 8613 7.2.1). After it [`super::OscoreError::SequenceExhausted`]: the
/// context protects nothing any more, a new one is to be agreed.
pub const SEQUENCE_NUMBER_MAX: u64 = (1 << 40) - 1;

/// How many Partial IVs back from the highest one a request may come (RFC 8613 3.2.2 wants 32 at least). An older one is
/// [`super::OscoreError::Replay`].
pub const REPLAY_WINDOW_SIZE: u64 = 64;

/// How many sequence numbers are reserved with one write to disk (K of RFC 8613 Appendix B.1.1), if nothing else is said.
/// So many are skipped at most by each restart, of 2^40.
pub const SEQUENCE_STEP_DEFAULT: u32 = 1_024;

/// Largest body of a [`super::Message`], options, marker and payload, in octets: what the stream takes by default,
/// 64 KiB with its options. MAX_UNFRAGMENTED_SIZE of RFC 8613 4.1.3.4.2. A larger one is
/// [`super::OscoreError::MessageTooLarge`].
pub const MESSAGE_OCTETS_MAX: usize = 66_560;

/// Largest plaintext, code, options and payload, in octets: AES-CCM-16 counts its length in two octets. A larger one is
/// [`super::OscoreError::MessageTooLarge`]; use Block1 or Block2 before protecting.
pub const PLAINTEXT_OCTETS_MAX: usize = 65_535;

/// Options of one message, outer and inner each. More are [`super::OscoreError::TooManyOptions`].
pub const OPTIONS_MAX: usize = 64;

/// Longest value of one option, in octets: that of Proxy-Uri, the longest there is (RFC 7252 5.10). A longer one is
/// [`super::OscoreError::Malformed`].
pub const OPTION_VALUE_OCTETS_MAX: usize = 1_034;

/// Longest master secret, in octets. A longer or empty one is [`super::OscoreError::InvalidParameter`].
pub const MASTER_SECRET_OCTETS_MAX: usize = 64;

/// Longest master salt, in octets: that of an `/akma` exchange, its two bodies. A longer one is
/// [`super::OscoreError::InvalidParameter`].
pub const MASTER_SALT_OCTETS_MAX: usize = 2 * AKMA_BODY_OCTETS_MAX;

/// Largest body of an `/akma` request or response, in octets. A larger one is
/// [`super::OscoreError::AkmaNotDecoded`].
pub const AKMA_BODY_OCTETS_MAX: usize = 512;

/// Longest A-KID of an `/akma` request, in octets. A longer one is [`super::OscoreError::AkmaNotDecoded`].
pub const A_KID_OCTETS_MAX: usize = 253;

/// Length of the value of an Echo option of ours, in octets: as long as that of a datagram connection.
pub const ECHO_OCTETS: usize = crate::ECHO_OCTETS;
