//! EAP packets of method AKA' (RFC 3748 4, RFC 4187 8 and 10, RFC 9048 3).

use subtle::ConstantTimeEq;

use crate::kdf::hmac_sha_256;
use crate::{Error, KAut, Res};

/// The longest packet that is read, in octets. A challenge has about 130.
pub const EAP_OCTETS_MAX: usize = 2048;

const CODE_REQUEST: u8 = 1;
const CODE_RESPONSE: u8 = 2;
const CODE_SUCCESS: u8 = 3;
const CODE_FAILURE: u8 = 4;
/// The EAP method type of AKA', RFC 9048 6.
const METHOD_AKA_PRIME: u8 = 50;
const MAC_OCTETS: usize = 16;
const WORD: usize = 4;

// RFC 4187 11, RFC 9048 6.
const AT_RAND: u8 = 1;
const AT_AUTN: u8 = 2;
const AT_RES: u8 = 3;
const AT_AUTS: u8 = 4;
const AT_MAC: u8 = 11;
const AT_NOTIFICATION: u8 = 12;
const AT_CLIENT_ERROR_CODE: u8 = 22;
const AT_KDF_INPUT: u8 = 23;
const AT_KDF: u8 = 24;
const AT_CHECKCODE: u8 = 134;
/// From here on attributes may be passed over by who does not know them (RFC 4187 8.1).
const SKIPPABLE_MIN: u8 = 128;

/// An EAP packet: success, failure, or a message of AKA'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EapPacket {
    /// From the server.
    Request {
        /// Pairs a response with its request.
        identifier: u8,
        /// What is asked.
        message: Message,
    },
    /// From the peer.
    Response {
        /// That of the request.
        identifier: u8,
        /// What is answered.
        message: Message,
    },
    /// The server accepts.
    Success {
        /// That of the last response.
        identifier: u8,
    },
    /// The server refuses.
    Failure {
        /// That of the last response.
        identifier: u8,
    },
}

/// A message of AKA': a subtype and its attributes, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What kind of message.
    pub subtype: Subtype,
    /// Its attributes. Each type occurs once, but for AT_KDF and those not known here.
    pub attributes: Vec<Attribute>,
}

/// A message subtype, RFC 4187 11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Subtype {
    /// AKA'-Challenge.
    Challenge,
    /// AKA'-Authentication-Reject: AUTN does not verify.
    AuthenticationReject,
    /// AKA'-Synchronization-Failure: the sequence number is not fresh.
    SynchronizationFailure,
    /// AKA'-Identity; not used in 5G.
    Identity,
    /// AKA'-Notification.
    Notification,
    /// AKA'-Reauthentication; not used in 5G.
    Reauthentication,
    /// AKA'-Client-Error: the peer could not process the request.
    ClientError,
}

/// An attribute of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attribute {
    /// AT_RAND.
    Rand([u8; 16]),
    /// AT_AUTN.
    Autn([u8; 16]),
    /// AT_RES; a RES of whole octets.
    Res(Res),
    /// AT_AUTS.
    Auts([u8; 14]),
    /// AT_MAC. Written as zeros by [`EapPacket::encode`], computed by [`EapPacket::encode_authenticated`], and checked
    /// on the received octets by [`verify_mac`].
    Mac,
    /// AT_KDF.
    Kdf(u16),
    /// AT_KDF_INPUT: the network name.
    KdfInput(String),
    /// AT_CHECKCODE: empty, or 32 octets. Read and not compared: there was no identity exchange to protect, and AT_MAC
    /// covers it.
    Checkcode(Vec<u8>),
    /// AT_CLIENT_ERROR_CODE.
    ClientErrorCode(u16),
    /// AT_NOTIFICATION.
    Notification(u16),
    /// An attribute of a type from 128 on that is passed over: its type and what follows type and length.
    Skippable {
        /// The type.
        attribute_type: u8,
        /// 2 octets more than a multiple of 4, as on the wire.
        value: Vec<u8>,
    },
}

impl EapPacket {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`Error::InvalidEap`] for anything that RFC 3748 and RFC 4187 do not allow, another method, a type below 128
    /// that is not known, and a packet beyond [`EAP_OCTETS_MAX`].
    pub fn decode(octets: &[u8]) -> Result<Self, Error> {
        let (&[code, identifier, length_high, length_low], body) =
            octets.split_first_chunk().ok_or(Error::InvalidEap("it is shorter than its header"))?;
        if octets.len() > EAP_OCTETS_MAX {
            return Err(Error::InvalidEap("it is longer than 2048 octets"));
        }
        if usize::from(u16::from_be_bytes([length_high, length_low])) != octets.len() {
            return Err(Error::InvalidEap("its length field is wrong"));
        }
        match code {
            CODE_REQUEST => Ok(Self::Request { identifier, message: Message::decode(body)? }),
            CODE_RESPONSE => Ok(Self::Response { identifier, message: Message::decode(body)? }),
            CODE_SUCCESS if body.is_empty() => Ok(Self::Success { identifier }),
            CODE_FAILURE if body.is_empty() => Ok(Self::Failure { identifier }),
            CODE_SUCCESS | CODE_FAILURE => Err(Error::InvalidEap("a success or failure has no body")),
            _ => Err(Error::InvalidEap("its code is none of request, response, success, failure")),
        }
    }

    /// Writes the packet; an AT_MAC in it is left zero.
    ///
    /// # Errors
    /// [`Error::InvalidEap`] when an attribute or the packet is longer than its length field can say.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let (code, identifier, message) = match self {
            Self::Request { identifier, message } => (CODE_REQUEST, *identifier, Some(message)),
            Self::Response { identifier, message } => (CODE_RESPONSE, *identifier, Some(message)),
            Self::Success { identifier } => (CODE_SUCCESS, *identifier, None),
            Self::Failure { identifier } => (CODE_FAILURE, *identifier, None),
        };
        let mut body = Vec::new();
        if let Some(message) = message {
            body.extend([METHOD_AKA_PRIME, message.subtype.code(), 0, 0]);
            for attribute in &message.attributes {
                attribute.encode(&mut body)?;
            }
        }
        let length = body.len() + WORD;
        if length > EAP_OCTETS_MAX {
            return Err(Error::InvalidEap("it is longer than 2048 octets"));
        }
        let length = u16::try_from(length).map_err(|_| Error::InvalidEap("it is longer than 2048 octets"))?;
        let [length_high, length_low] = length.to_be_bytes();
        let mut packet = vec![code, identifier, length_high, length_low];
        packet.append(&mut body);
        Ok(packet)
    }

    /// Writes the packet with its AT_MAC computed, RFC 9048 3.4.2: HMAC-SHA-256-128 over the whole packet.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), and [`Error::EapMac`] when the packet has no AT_MAC.
    pub fn encode_authenticated(&self, k_aut: &KAut) -> Result<Vec<u8>, Error> {
        let mut packet = self.encode()?;
        let parts = AroundMac::find(&packet)?;
        let (mac, offset) = (parts.compute(k_aut), parts.before.len());
        packet.iter_mut().skip(offset).zip(mac).for_each(|(octet, mac)| *octet = mac);
        Ok(packet)
    }

    /// The identifier.
    pub fn identifier(&self) -> u8 {
        match self {
            Self::Request { identifier, .. }
            | Self::Response { identifier, .. }
            | Self::Success { identifier }
            | Self::Failure { identifier } => *identifier,
        }
    }
}

/// Verifies the AT_MAC of a received packet, in constant time.
///
/// # Errors
/// [`Error::EapMac`] when it is missing or wrong, [`Error::InvalidEap`] when the packet is malformed.
pub fn verify_mac(packet: &[u8], k_aut: &KAut) -> Result<(), Error> {
    // The packet was most likely decoded before; doing it here keeps the promise for who did not.
    EapPacket::decode(packet)?;
    let parts = AroundMac::find(packet)?;
    if parts.compute(k_aut).ct_eq(parts.mac).into() { Ok(()) } else { Err(Error::EapMac) }
}

/// A packet around the 16 octets of its AT_MAC.
struct AroundMac<'packet> {
    before: &'packet [u8],
    mac: &'packet [u8; MAC_OCTETS],
    after: &'packet [u8],
}

impl<'packet> AroundMac<'packet> {
    fn find(packet: &'packet [u8]) -> Result<Self, Error> {
        const HEADERS: usize = 2 * WORD;
        // Type, length and two reserved octets.
        const BEFORE_VALUE: usize = 4;
        let mut offset = HEADERS;
        while let Some((&[attribute_type, words], _)) = packet.get(offset..).and_then(|rest| rest.split_first_chunk()) {
            if attribute_type == AT_MAC {
                let (before, rest) = packet.split_at_checked(offset + BEFORE_VALUE).ok_or(Error::EapMac)?;
                let (mac, after) = rest.split_first_chunk().ok_or(Error::EapMac)?;
                return Ok(Self { before, mac, after });
            }
            if words == 0 {
                break;
            }
            offset += usize::from(words) * WORD;
        }
        Err(Error::EapMac)
    }

    /// The tag over the packet with AT_MAC at zero.
    fn compute(&self, k_aut: &KAut) -> [u8; MAC_OCTETS] {
        let tag = hmac_sha_256(k_aut.expose(), &[self.before, &[0; MAC_OCTETS], self.after]);
        *tag.first_chunk().expect("a tag of 32 octets has a first 16")
    }
}

impl Message {
    /// The RAND, if there is one.
    pub fn rand(&self) -> Option<&[u8; 16]> {
        self.find(|attribute| if let Attribute::Rand(rand) = attribute { Some(rand) } else { None })
    }

    /// The AUTN, if there is one.
    pub fn autn(&self) -> Option<&[u8; 16]> {
        self.find(|attribute| if let Attribute::Autn(autn) = attribute { Some(autn) } else { None })
    }

    /// The RES, if there is one.
    pub fn res(&self) -> Option<&Res> {
        self.find(|attribute| if let Attribute::Res(res) = attribute { Some(res) } else { None })
    }

    /// The AUTS, if there is one.
    pub fn auts(&self) -> Option<&[u8; 14]> {
        self.find(|attribute| if let Attribute::Auts(auts) = attribute { Some(auts) } else { None })
    }

    /// The network name of AT_KDF_INPUT, if there is one.
    pub fn network_name(&self) -> Option<&str> {
        self.find(|attribute| if let Attribute::KdfInput(name) = attribute { Some(name.as_str()) } else { None })
    }

    /// The code of AT_CLIENT_ERROR_CODE, if there is one.
    pub fn client_error_code(&self) -> Option<u16> {
        self.find(|attribute| if let Attribute::ClientErrorCode(code) = attribute { Some(*code) } else { None })
    }

    /// The values of all AT_KDF, in order.
    pub fn kdfs(&self) -> Vec<u16> {
        let kdf = |attribute: &Attribute| if let Attribute::Kdf(kdf) = attribute { Some(*kdf) } else { None };
        self.attributes.iter().filter_map(kdf).collect()
    }

    fn find<'a, T>(&'a self, select: impl Fn(&'a Attribute) -> Option<T>) -> Option<T> {
        self.attributes.iter().find_map(select)
    }

    fn decode(body: &[u8]) -> Result<Self, Error> {
        let (&[method, subtype, _, _], mut rest) =
            body.split_first_chunk().ok_or(Error::InvalidEap("it is shorter than the header of AKA'"))?;
        if method != METHOD_AKA_PRIME {
            return Err(Error::InvalidEap("its method is not AKA'"));
        }
        let subtype = Subtype::from_code(subtype).ok_or(Error::InvalidEap("its subtype is not known"))?;
        let mut attributes: Vec<Attribute> = Vec::new();
        while !rest.is_empty() {
            let (&[attribute_type, words], _) =
                rest.split_first_chunk().ok_or(Error::InvalidEap("an attribute is shorter than its header"))?;
            let (attribute, left) = rest
                .split_at_checked(usize::from(words) * WORD)
                .ok_or(Error::InvalidEap("an attribute is longer than the packet"))?;
            let value = attribute.get(2..).ok_or(Error::InvalidEap("an attribute has length 0"))?;
            let attribute = Attribute::decode(attribute_type, value)?;
            if attribute.is_single() && attributes.iter().any(|other| other.type_code() == attribute_type) {
                return Err(Error::InvalidEap("an attribute occurs twice"));
            }
            attributes.push(attribute);
            rest = left;
        }
        Ok(Self { subtype, attributes })
    }
}

impl Subtype {
    const fn code(self) -> u8 {
        match self {
            Self::Challenge => 1,
            Self::AuthenticationReject => 2,
            Self::SynchronizationFailure => 4,
            Self::Identity => 5,
            Self::Notification => 12,
            Self::Reauthentication => 13,
            Self::ClientError => 14,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Challenge,
            2 => Self::AuthenticationReject,
            4 => Self::SynchronizationFailure,
            5 => Self::Identity,
            12 => Self::Notification,
            13 => Self::Reauthentication,
            14 => Self::ClientError,
            _ => return None,
        })
    }
}

impl Attribute {
    fn type_code(&self) -> u8 {
        match self {
            Self::Rand(_) => AT_RAND,
            Self::Autn(_) => AT_AUTN,
            Self::Res(_) => AT_RES,
            Self::Auts(_) => AT_AUTS,
            Self::Mac => AT_MAC,
            Self::Kdf(_) => AT_KDF,
            Self::KdfInput(_) => AT_KDF_INPUT,
            Self::Checkcode(_) => AT_CHECKCODE,
            Self::ClientErrorCode(_) => AT_CLIENT_ERROR_CODE,
            Self::Notification(_) => AT_NOTIFICATION,
            Self::Skippable { attribute_type, .. } => *attribute_type,
        }
    }

    /// Whether RFC 4187 lets it occur once only.
    fn is_single(&self) -> bool {
        !matches!(self, Self::Kdf(_) | Self::Skippable { .. })
    }

    /// `value` is what follows type and length: 2 octets more than a multiple of 4.
    fn decode(attribute_type: u8, value: &[u8]) -> Result<Self, Error> {
        const WRONG: Error = Error::InvalidEap("an attribute has a wrong length");
        let (&head, rest) = value.split_first_chunk::<2>().ok_or(WRONG)?;
        let number = u16::from_be_bytes(head);
        let only_number = || if rest.is_empty() { Ok(number) } else { Err(WRONG) };
        match attribute_type {
            AT_RAND => rest.try_into().map(Self::Rand).map_err(|_| WRONG),
            AT_AUTN => rest.try_into().map(Self::Autn).map_err(|_| WRONG),
            AT_RES => {
                if !number.is_multiple_of(8) {
                    return Err(Error::InvalidEap("a RES has a fraction of an octet"));
                }
                let res = unpad(rest, usize::from(number / 8)).ok_or(WRONG)?;
                Res::from_slice(res).map(Self::Res).map_err(|_| WRONG)
            }
            AT_AUTS => value.try_into().map(Self::Auts).map_err(|_| WRONG),
            AT_MAC if rest.len() == MAC_OCTETS => Ok(Self::Mac),
            AT_MAC => Err(WRONG),
            AT_KDF => only_number().map(Self::Kdf),
            AT_KDF_INPUT => {
                let name = unpad(rest, usize::from(number)).ok_or(WRONG)?;
                let name = std::str::from_utf8(name).map_err(|_| Error::InvalidEap("the network name is not UTF-8"))?;
                Ok(Self::KdfInput(name.to_owned()))
            }
            AT_CHECKCODE if rest.is_empty() || rest.len() == 32 => Ok(Self::Checkcode(rest.to_vec())),
            AT_CHECKCODE => Err(WRONG),
            AT_CLIENT_ERROR_CODE => only_number().map(Self::ClientErrorCode),
            AT_NOTIFICATION => only_number().map(Self::Notification),
            SKIPPABLE_MIN.. => Ok(Self::Skippable { attribute_type, value: value.to_vec() }),
            _ => Err(Error::InvalidEap("an attribute is not known and may not be passed over")),
        }
    }

    fn encode(&self, packet: &mut Vec<u8>) -> Result<(), Error> {
        let number = |octets: usize| u16::try_from(octets).map_err(|_| TOO_LONG).map(u16::to_be_bytes);
        let (head, rest): ([u8; 2], &[u8]) = match self {
            Self::Rand(octets) | Self::Autn(octets) => ([0, 0], octets),
            Self::Res(res) => (number(res.expose().len() * 8)?, res.expose()),
            Self::Auts([first, second, rest @ ..]) => ([*first, *second], rest),
            Self::Mac => ([0, 0], &[0; MAC_OCTETS]),
            Self::Kdf(value) | Self::ClientErrorCode(value) | Self::Notification(value) => (value.to_be_bytes(), &[]),
            Self::KdfInput(name) => (number(name.len())?, name.as_bytes()),
            Self::Checkcode(octets) => ([0, 0], octets),
            Self::Skippable { value, .. } => {
                let (head, rest) = value.split_first_chunk().ok_or(Error::InvalidEap("an attribute is too short"))?;
                (*head, rest)
            }
        };
        let words = u8::try_from(1 + rest.len().div_ceil(WORD)).map_err(|_| TOO_LONG)?;
        let padding = rest.len().next_multiple_of(WORD) - rest.len();
        packet.extend([self.type_code(), words]);
        packet.extend(head);
        packet.extend_from_slice(rest);
        packet.extend(std::iter::repeat_n(0, padding));
        Ok(())
    }
}

const TOO_LONG: Error = Error::InvalidEap("an attribute is too long");

/// The first `octets` of a value that is padded to whole words, and by no more than that.
fn unpad(padded: &[u8], octets: usize) -> Option<&[u8]> {
    if octets.next_multiple_of(WORD) == padded.len() { padded.get(..octets) } else { None }
}
