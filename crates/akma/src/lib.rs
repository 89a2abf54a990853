//! AKMA and 5G primary authentication: derivations, identities and formats. No sockets, no clock, no storage.
//!
//! Start from [`UsimCredentials`], what a subscriber and the home network share, and from [`AKid`], the name under
//! which the key made of it is known. Everything between is a function of its arguments; the only thing taken from
//! outside is randomness for the ephemeral key of [`Suci::conceal`].
//!
//! # From K to K_AF
//!
//! ```
//! use akma::{
//!     AKid, AfId, Amf, HomeNetwork, PskIdentity, RoutingIndicator, Separator, Sqn, Supi, UaProtocolId, Usim,
//!     UsimCredentials, a_tid, hxres_star, k_af, k_akma, k_seaf,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let supi: Supi = "imsi-001010000000001".parse()?;
//! let network = HomeNetwork::new("001", "01")?;
//! let serving = network.serving_network_name();
//! let credentials = UsimCredentials::milenage_opc(&[0x46; 16], &[0xcd; 16]);
//!
//! // The home network makes a vector, with the next sequence number; the AUSF keeps XRES* and K_AUSF.
//! let rand = [0x23; 16]; // fresh and random, in life
//! let vector = credentials.vector(&rand, Sqn::ZERO.next()?, Amf::FIVE_G);
//! let hxres = hxres_star(&rand, &vector.xres_star(&serving));
//!
//! // The UE checks AUTN and answers; the SEAF compares HRES*, the AUSF RES*.
//! let mut usim = Usim::new(credentials, Sqn::ZERO);
//! let answer = usim.authenticate(&vector.rand, &vector.autn)?;
//! let res_star = answer.res_star(&serving);
//! assert_eq!(hxres_star(&rand, &res_star), hxres);
//! assert_eq!(res_star, vector.xres_star(&serving));
//!
//! // Both have K_AUSF, and from it the anchor of the serving network and that of AKMA.
//! let k_ausf = answer.k_ausf(&serving);
//! assert_eq!(k_ausf, vector.k_ausf(&serving));
//! let _k_seaf = k_seaf(&k_ausf, &serving);
//! let k_akma = k_akma(&k_ausf, &supi);
//! let a_kid = AKid::format(&RoutingIndicator::default(), &a_tid(&k_ausf, &supi), &network);
//!
//! // The UE names its key in the TLS handshake; the application function asks the AAnF for K_AF by that name.
//! let identity = PskIdentity::encode(&a_kid, Separator::Semicolon);
//! assert_eq!(PskIdentity::parse(&identity)?, a_kid);
//! let af_id = AfId::new("msgin5g.example.com".parse()?, UaProtocolId::TLS_1_3);
//! let k_af = k_af(&k_akma, &af_id);
//! assert_eq!(k_af.expose().len(), 32);
//! # Ok(())
//! # }
//! ```
//!
//! # What is defined where, and what proves it
//!
//! Every vector is a fixture of this crate, in `tests/fixtures`; a test counts them.
//!
//! | Function | Clause | Vectors |
//! |---|---|---|
//! | [`Milenage`] f1, f1*, f2 to f5, f5*, OPc | TS 35.206 4.1 | TS 35.207 (18), TS 35.208 (19); on random inputs, the crate `milenage` |
//! | [`Tuak`] f1, f1*, f2 to f5, f5*, TOPc | TS 35.231 6 | TS 35.232 and TS 35.233 (12); Keccak-f\[1600\] of TS 35.232 (6) |
//! | [`UsimCredentials::vector`], AUTN | TS 33.102 6.3.2 | own computation, 5G part equal to CryptoMobile's (2) |
//! | [`UsimCredentials::auts`], [`UsimCredentials::verify_auts`] | TS 33.102 6.3.3, 6.3.5 | own computation (2) |
//! | [`Usim::authenticate`], [`SqnWindow`] | TS 33.102 6.3.3, C.2, C.3.2; separation bit TS 33.501 6.1.3 | none published; behaviour and properties tested |
//! | [`Sqn::next`] | TS 33.102 C.1.1.2, C.3.2 | none published; properties tested |
//! | [`KdfInput`] | TS 33.220 B.2 | K_gNB, S-K_gNB, K_ASME of srsRAN_4G (3); own computation (1) |
//! | [`k_ausf_5g_aka`] | TS 33.501 A.2 | own computation, equal to CryptoMobile's (2) |
//! | [`res_star`] | TS 33.501 A.4 | the same |
//! | [`hxres_star`] | TS 33.501 A.5 | the same |
//! | [`k_seaf`] | TS 33.501 A.6 | the same |
//! | [`k_amf`] | TS 33.501 A.7 | the same |
//! | [`k_akma`] | TS 33.535 A.2 | own computation, HMAC by the openssl command line (2); two wrong derivations seen in the wild (2) |
//! | [`a_tid`] | TS 33.535 A.3 | own computation (2) |
//! | [`k_af`], [`AfId::to_bytes`] | TS 33.535 A.4, TS 33.220 H | own computation (2) |
//! | [`aef_psk`] | TS 33.122 A.1 | own computation, HMAC by the openssl command line (1) |
//! | [`AKid`], [`AKidFormat`] | TS 33.535 6.1 | none: the text form is a decision of ours, pinned by a test |
//! | [`PskIdentity`] | TS 33.535 B.1.3, TS 24.109 K.3 | none: the separator is a decision of ours, pinned by a test |
//! | [`Credentials`], [`Challenge`] | TS 33.535 B.1.2, RFC 7616 | RFC 7616 3.9.1; the realm and the text of K_AF are decisions of ours, pinned by a test |
//! | [`eap_aka_prime::ck_prime_ik_prime`] | TS 33.501 A.3, TS 33.402 A.2, RFC 9048 3.3 | RFC 5448 Appendix C (1); own computation (2) |
//! | [`eap_aka_prime::Keys`] | RFC 9048 3.3, 3.4; identity TS 33.501 F.3 | RFC 9048 Appendix C (1) |
//! | [`eap_aka_prime::k_ausf_eap_aka_prime`] | TS 33.501 6.1.3.1 | follows from the EMSK above |
//! | [`eap_aka_prime::EapPacket`], [`eap_aka_prime::Server`], [`eap_aka_prime::Peer`] | RFC 9048 3, RFC 4187 8 to 10 | none; one against the other, and properties |
//! | [`Suci`], [`SuciHomeKey`], null scheme, profiles A and B | TS 33.501 C.2, C.3, TS 23.003 2.2B | TS 33.501 C.4 (5) |
//!
//! # Rules that hold throughout
//!
//! - The SUPI enters a derivation as the bare IMSI or NAI ([`Supi::kdf_value`]), never as `imsi-…`.
//! - Keys are wiped when dropped, compared in constant time, and never printed. A [`Supi`], a [`Gpsi`] and a
//!   null-scheme [`Suci`] have a `Debug` that hides them; errors carry no input.
//! - Nothing that is parsed can panic; each parser has an upper bound on its input.
//! - What the standards leave open is decided in one named place: [`AKidFormat`], [`Separator`], [`AfId`], [`Fqdn`],
//!   [`digest_realm`], [`DigestPassword`], [`DigestUaProtocol`].

#![forbid(unsafe_code)]

mod a_kid;
mod af_id;
mod anchor;
mod capif;
mod credentials;
pub mod eap_aka_prime;
mod error;
mod five_g_aka;
mod http_digest;
mod identity;
mod kdf;
mod keys;
mod milenage;
mod network;
mod sqn;
mod suci;
mod tuak;
mod usim;

pub use a_kid::{AKid, AKidFormat, AKidParts, ATidEncoding, PskIdentity, Separator};
pub use af_id::{AfId, Fqdn, UaProtocolId};
pub use anchor::{a_tid, k_af, k_akma};
pub use capif::aef_psk;
pub use credentials::{AuthenticationVector, UsimCredentials};
pub use error::Error;
pub use five_g_aka::{ABBA_INITIAL, hxres_star, k_amf, k_ausf_5g_aka, k_seaf, res_star};
pub use http_digest::{
    Challenge, Covered, Credentials, DIGEST_HEADER_OCTETS_MAX, DIGEST_PRODUCT_TOKEN, DigestError, DigestPassword,
    DigestUaProtocol, Qop, digest_realm,
};
pub use identity::{Gpsi, NAI_OCTETS_MAX, Supi, SupiKind, UeId};
pub use kdf::KdfInput;
pub use keys::{
    ATid, AefPsk, Ak, Ck, CkPrime, Emsk, HresStar, Ik, IkPrime, KAf, KAkma, KAmf, KAusf, KAut, KEncr, KRe, KSeaf, Msk,
    Res, ResStar,
};
pub use milenage::{Milenage, MilenageOutput};
pub use network::{HomeNetwork, RoutingIndicator, ServingNetworkName};
pub use sqn::{Amf, Sqn, SqnLimits, SqnRefusal, SqnWindow};
pub use suci::{NullScheme, Suci, SuciHomeKey, SuciHomeKeys, SuciPublicKey, SuciScheme};
pub use tuak::{Tuak, TuakKeyLength, TuakOutput, TuakTagLength};
pub use usim::{Usim, UsimFailure, UsimResponse};
