//! The concealed subscription identifier: its text form, concealing and deconcealing (TS 33.501 6.12 and Annex C,
//! TS 23.003 2.2B).

mod ecies;
mod keys;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

pub use self::keys::{NullScheme, SuciHomeKey, SuciHomeKeys, SuciPublicKey};

use self::ecies::SchemeOutput;
use crate::identity::{NAI_OCTETS_MAX, is_digits, serde_as_text};
use crate::{Error, Fqdn, HomeNetwork, RoutingIndicator, Supi, SupiKind};

/// The longest MSIN, in digits: a SUPI's 15 less the three of the MCC and the two of the MNC (TS 23.003 2.2).
const MSIN_DIGITS_MAX: usize = 10;

/// A protection scheme of TS 33.501 Annex C.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SuciScheme {
    /// No protection, C.2.
    Null,
    /// ECIES on Curve25519, C.3.4.1.
    ProfileA,
    /// ECIES on secp256r1, C.3.4.2.
    ProfileB,
}

/// A SUCI: `suci-0-<mcc>-<mnc>-<routing indicator>-<scheme>-<key identifier>-<output>` for an IMSI,
/// `suci-1-<realm>-…` for an NAI (TS 29.571 `SupiOrSuci`).
///
/// The output is the MSIN digits or the NAI's username in the null scheme, and hexadecimal in the others. A null-scheme
/// SUCI shows the SUPI: `Debug` hides the output, and `Display` is for the wire, not for logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Suci {
    home: Home,
    routing_indicator: RoutingIndicator,
    key_id: u8,
    output: Output,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Home {
    Imsi(HomeNetwork),
    Nai(Fqdn),
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Output {
    Null(String),
    ProfileA(SchemeOutput<{ SuciPublicKey::PROFILE_A_OCTETS }>),
    ProfileB(SchemeOutput<{ SuciPublicKey::PROFILE_B_OCTETS }>),
}

impl Suci {
    /// The longest text that is read, in octets: an NAI's realm and an encrypted username, each at its longest.
    pub const OCTETS_MAX: usize = 1024;

    /// Conceals a SUPI for its home network; `None` for a key means the null scheme.
    ///
    /// An IMSI is split by `home_network`, whose MNC must have the right number of digits; for an NAI it is not used.
    ///
    /// # Errors
    /// [`Error::SupiNotConcealable`] when the IMSI is of another network, or the SUPI neither IMSI nor NAI;
    /// [`Error::Randomness`] when no ephemeral key can be made.
    pub fn conceal(
        supi: &Supi,
        home_network: &HomeNetwork,
        routing_indicator: &RoutingIndicator,
        key: Option<&SuciPublicKey>,
    ) -> Result<Self, Error> {
        let Some(key) = key else {
            return Self::conceal_null(supi, home_network, routing_indicator);
        };
        // A random octet string is no key of P-256 once in 2^32.
        const ATTEMPTS: usize = 8;
        for _ in 0..ATTEMPTS {
            let mut ephemeral = Zeroizing::new([0; 32]);
            getrandom::fill(ephemeral.as_mut_slice()).map_err(|_| Error::Randomness)?;
            match Self::conceal_with_ephemeral(supi, home_network, routing_indicator, key, &ephemeral) {
                Err(Error::InvalidCurveKey) => {}
                done => return done,
            }
        }
        Err(Error::InvalidCurveKey)
    }

    /// Conceals with an ephemeral private key of the caller's: for test vectors, or where randomness comes from
    /// elsewhere. Never use one twice.
    ///
    /// # Errors
    /// As [`conceal`](Self::conceal), and [`Error::InvalidCurveKey`] when a key does not fit the curve, or when the
    /// home network's X25519 key yields a shared secret of zeros.
    pub fn conceal_with_ephemeral(
        supi: &Supi,
        home_network: &HomeNetwork,
        routing_indicator: &RoutingIndicator,
        key: &SuciPublicKey,
        ephemeral: &[u8; 32],
    ) -> Result<Self, Error> {
        let (home, plain) = split(supi, home_network)?;
        let plaintext = match home {
            Home::Imsi(_) => Zeroizing::new(msin_to_bcd(plain)?),
            Home::Nai(_) => Zeroizing::new(plain.as_bytes().to_vec()),
        };
        let output = key.encrypt(ephemeral, &plaintext)?;
        Self { home, routing_indicator: routing_indicator.clone(), key_id: key.key_id(), output }.if_unambiguous()
    }

    fn conceal_null(
        supi: &Supi,
        home_network: &HomeNetwork,
        routing_indicator: &RoutingIndicator,
    ) -> Result<Self, Error> {
        let (home, plain) = split(supi, home_network)?;
        let output = Output::Null(plain.to_owned());
        Self { home, routing_indicator: routing_indicator.clone(), key_id: 0, output }.if_unambiguous()
    }

    /// The protection scheme.
    pub fn scheme(&self) -> SuciScheme {
        match self.output {
            Output::Null(_) => SuciScheme::Null,
            Output::ProfileA(_) => SuciScheme::ProfileA,
            Output::ProfileB(_) => SuciScheme::ProfileB,
        }
    }

    /// The home network public key identifier: 0 in the null scheme, else 1 to 255.
    pub fn key_id(&self) -> u8 {
        self.key_id
    }

    /// The routing indicator, by which AUSF and UDM are selected.
    pub fn routing_indicator(&self) -> &RoutingIndicator {
        &self.routing_indicator
    }

    /// The home network, if the SUPI is an IMSI.
    pub fn home_network(&self) -> Option<&HomeNetwork> {
        match &self.home {
            Home::Imsi(home_network) => Some(home_network),
            Home::Nai(_) => None,
        }
    }

    /// The NAI's realm, if the SUPI is an NAI.
    pub fn realm(&self) -> Option<&Fqdn> {
        match &self.home {
            Home::Imsi(_) => None,
            Home::Nai(realm) => Some(realm),
        }
    }

    /// The scheme output as it goes over the air (TS 24.501 9.11.3.4): BCD or UTF-8 in the null scheme, else
    /// ephemeral key, ciphertext and MAC.
    pub fn scheme_output(&self) -> Vec<u8> {
        match (&self.output, &self.home) {
            (Output::Null(msin), Home::Imsi(_)) => msin_to_bcd(msin).unwrap_or_default(),
            (Output::Null(username), Home::Nai(_)) => username.as_bytes().to_vec(),
            (Output::ProfileA(output), _) => output.to_bytes(),
            (Output::ProfileB(output), _) => output.to_bytes(),
        }
    }

    /// The SUPI in a null-scheme SUCI.
    ///
    /// # Errors
    /// [`Error::UnknownSuciKey`] when it is protected.
    pub fn null_scheme_supi(&self) -> Result<Supi, Error> {
        match &self.output {
            Output::Null(plain) => self.supi(plain),
            _ => Err(Error::UnknownSuciKey),
        }
    }

    /// The SUPI of a decrypted scheme input.
    fn supi_of_plaintext(&self, plaintext: &[u8]) -> Result<Supi, Error> {
        match self.home {
            Home::Imsi(_) => self.supi(&Zeroizing::new(msin_from_bcd(plaintext)?)),
            Home::Nai(_) => {
                let username =
                    std::str::from_utf8(plaintext).map_err(|_| Error::InvalidSuci("the username is not UTF-8"))?;
                self.supi(username)
            }
        }
    }

    fn supi(&self, plain: &str) -> Result<Supi, Error> {
        match &self.home {
            Home::Imsi(home_network) => {
                Supi::from_imsi(&format!("{}{}{plain}", home_network.mcc(), home_network.mnc()))
            }
            Home::Nai(realm) => Supi::from_nai(&format!("{plain}@{realm}")),
        }
    }

    /// Hyphens separate the parts, and may occur in a realm or a username: a SUCI that would be read as another is
    /// not made.
    fn if_unambiguous(self) -> Result<Self, Error> {
        match self.to_string().parse::<Self>() {
            Ok(read) if read == self => Ok(self),
            _ => Err(Error::SupiNotConcealable("its text form would be ambiguous")),
        }
    }
}

impl FromStr for Suci {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.len() > Self::OCTETS_MAX {
            return Err(Error::InvalidSuci("it is longer than 1024 octets"));
        }
        let rest = text.strip_prefix("suci-").ok_or(Error::InvalidSuci("it does not start with suci-"))?;
        match rest.split_once('-') {
            Some(("0", rest)) => parse_imsi_suci(rest),
            Some(("1", rest)) => parse_nai_suci(rest),
            _ => Err(Error::InvalidSuci("its SUPI type is neither IMSI (0) nor NAI (1)")),
        }
    }
}

impl fmt::Display for Suci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.home {
            Home::Imsi(home_network) => write!(f, "suci-0-{}-{}", home_network.mcc(), home_network.mnc())?,
            Home::Nai(realm) => write!(f, "suci-1-{realm}")?,
        }
        let scheme = match self.scheme() {
            SuciScheme::Null => 0,
            SuciScheme::ProfileA => 1,
            SuciScheme::ProfileB => 2,
        };
        write!(f, "-{}-{scheme}-{}-", self.routing_indicator, self.key_id)?;
        match &self.output {
            Output::Null(plain) => f.write_str(plain),
            _ => f.write_str(&hex::encode(self.scheme_output())),
        }
    }
}

impl fmt::Debug for Suci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suci")
            .field("home", &self.home)
            .field("routing_indicator", &self.routing_indicator)
            .field("scheme", &self.scheme())
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

serde_as_text!(Suci, Suci::to_string);

/// `<mcc>-<mnc>-<rid>-<scheme>-<key>-<output>`.
fn parse_imsi_suci(text: &str) -> Result<Suci, Error> {
    let mut parts = text.splitn(3, '-');
    let (Some(mcc), Some(mnc), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Error::InvalidSuci("parts are missing"));
    };
    let home_network = HomeNetwork::new(mcc, mnc).map_err(|_| Error::InvalidSuci("MCC or MNC is wrong"))?;
    let suci = parse_protected(Home::Imsi(home_network), rest)?;
    if let Output::Null(msin) = &suci.output {
        msin_to_bcd(msin)?;
        suci.supi(msin).map_err(|_| Error::InvalidSuci("the IMSI is too short"))?;
    }
    Ok(suci)
}

/// `<realm>-<rid>-<scheme>-<key>-<output>`, where the realm may hold hyphens: the first division that works is taken.
fn parse_nai_suci(text: &str) -> Result<Suci, Error> {
    let mut last = Error::InvalidSuci("parts are missing");
    for (position, _) in text.match_indices('-') {
        let (realm, rest) = text.split_at(position);
        // It is written without the dot, and may then be read as another.
        if realm.ends_with('.') {
            continue;
        }
        let Ok(home) = realm.parse().map(Home::Nai) else { continue };
        match parse_protected(home, rest.strip_prefix('-').unwrap_or(rest)) {
            Ok(suci) => {
                if let Output::Null(username) = &suci.output {
                    suci.supi(username).map_err(|_| Error::InvalidSuci("the NAI is malformed"))?;
                }
                return Ok(suci);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `<rid>-<scheme>-<key>-<output>`.
fn parse_protected(home: Home, text: &str) -> Result<Suci, Error> {
    let mut parts = text.splitn(4, '-');
    let (Some(routing_indicator), Some(scheme), Some(key_id), Some(output)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Error::InvalidSuci("parts are missing"));
    };
    let routing_indicator =
        routing_indicator.parse().map_err(|_| Error::InvalidSuci("the routing indicator is wrong"))?;
    let key_id = parse_key_id(key_id)?;
    let output = match scheme {
        "0" if key_id != 0 => return Err(Error::InvalidSuci("the null scheme has key identifier 0")),
        "0" => Output::Null(output.to_owned()),
        "1" | "2" if key_id == 0 => return Err(Error::InvalidSuci("a protected SUCI has a key identifier from 1")),
        "1" => Output::ProfileA(SchemeOutput::from_hex(output)?),
        "2" => Output::ProfileB(SchemeOutput::from_hex(output)?),
        other if other.len() == 1 && other.bytes().all(|octet| octet.is_ascii_hexdigit()) => {
            return Err(Error::UnsupportedSuciScheme);
        }
        _ => return Err(Error::InvalidSuci("the scheme is not one hexadecimal digit")),
    };
    Ok(Suci { home, routing_indicator, key_id, output })
}

/// Decimal without leading zeros, 0 to 255.
fn parse_key_id(text: &str) -> Result<u8, Error> {
    if !is_digits(text) || (text.len() > 1 && text.starts_with('0')) {
        return Err(Error::InvalidSuci("the key identifier is not a decimal number"));
    }
    text.parse().map_err(|_| Error::InvalidSuci("the key identifier is above 255"))
}

/// The part of the SUPI that stays legible, and the part to conceal.
fn split<'supi>(supi: &'supi Supi, home_network: &HomeNetwork) -> Result<(Home, &'supi str), Error> {
    match (supi.imsi(), supi.kind(), supi.nai()) {
        (Some(imsi), ..) => {
            let msin = imsi
                .strip_prefix(home_network.mcc())
                .and_then(|rest| rest.strip_prefix(home_network.mnc()))
                .filter(|msin| !msin.is_empty())
                .ok_or(Error::SupiNotConcealable("the IMSI is of another home network"))?;
            Ok((Home::Imsi(home_network.clone()), msin))
        }
        (None, SupiKind::Nai, Some((username, realm))) => Ok((Home::Nai(realm.parse()?), username)),
        _ => Err(Error::SupiNotConcealable("it is neither an IMSI nor an NAI")),
    }
}

/// The MSIN as TS 33.501 C.3.2 has it encrypted: two digits an octet, the first in the low half; an odd one out is
/// padded with F.
fn msin_to_bcd(msin: &str) -> Result<Vec<u8>, Error> {
    if !is_digits(msin) || msin.len() > MSIN_DIGITS_MAX {
        return Err(Error::InvalidSuci("an MSIN has 1 to 10 digits"));
    }
    let (pairs, rest) = msin.as_bytes().as_chunks::<2>();
    let mut bcd: Vec<u8> = pairs.iter().map(|[first, second]| ((second - b'0') << 4) | (first - b'0')).collect();
    bcd.extend(rest.iter().map(|last| 0xf0 | (last - b'0')));
    Ok(bcd)
}

fn msin_from_bcd(bcd: &[u8]) -> Result<String, Error> {
    const WRONG: Error = Error::InvalidSuci("the decrypted MSIN is not in BCD");
    let (last, pairs) = bcd.split_last().ok_or(WRONG)?;
    let digit = |half: u8| char::from_digit(u32::from(half), 10).ok_or(WRONG);
    let mut msin = String::with_capacity(bcd.len() * 2);
    for pair in pairs {
        msin.push(digit(pair & 0xf)?);
        msin.push(digit(pair >> 4)?);
    }
    msin.push(digit(last & 0xf)?);
    if last >> 4 != 0xf {
        msin.push(digit(last >> 4)?);
    }
    if msin.len() > MSIN_DIGITS_MAX { Err(WRONG) } else { Ok(msin) }
}

/// The longest scheme input: an NAI's username.
const PLAINTEXT_OCTETS_MAX: usize = NAI_OCTETS_MAX;
