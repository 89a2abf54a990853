//! What the hellos of DTLS 1.3 say more (RFC 8446 4.1.4, 4.2; RFC 9147 5.3), and EncryptedExtensions.

use crate::codec::{Malformed, Read, Reader, put_u16, put_vector8, put_vector16};
use crate::handshake::hello::{Extensions, each_extension, u16_list};
use crate::suite::ProtocolVersion;

const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const COOKIE: u16 = 44;
const PSK_KEY_EXCHANGE_MODES: u16 = 45;
const KEY_SHARE: u16 = 51;

/// The pre-shared key with an ephemeral exchange: the only mode here.
pub(crate) const PSK_DHE_KE: u8 = 1;
/// Octets of a binder at least (RFC 8446 4.2.11).
const BINDER_OCTETS_MIN: usize = 32;

/// Of a ClientHello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) versions: Option<Vec<u16>>,
    pub(crate) cookie: Option<Vec<u8>>,
    /// Code point and public key of each.
    pub(crate) key_shares: Option<Vec<(u16, Vec<u8>)>>,
    pub(crate) psk_modes: Option<Vec<u8>>,
    pub(crate) early_data: bool,
    pub(crate) pre_shared_key: Option<OfferedPsks>,
    /// An extension came after pre_shared_key, which must be the last.
    pub(crate) psk_is_not_last: bool,
}

/// The identities with the ages of their tickets, and a binder for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OfferedPsks {
    pub(crate) identities: Vec<(Vec<u8>, u32)>,
    pub(crate) binders: Vec<Vec<u8>>,
}

impl OfferedPsks {
    fn parse(mut reader: Reader<'_>) -> Read<Self> {
        let mut list = Reader::new(reader.vector16()?);
        let mut identities = Vec::new();
        while !list.is_empty() {
            let identity = list.vector16()?;
            if identity.is_empty() {
                return Err(Malformed);
            }
            identities.push((identity.to_vec(), u32::from_be_bytes(list.array()?)));
        }
        let mut list = Reader::new(reader.vector16()?);
        let mut binders = Vec::new();
        while !list.is_empty() {
            let binder = list.vector8()?;
            if binder.len() < BINDER_OCTETS_MIN {
                return Err(Malformed);
            }
            binders.push(binder.to_vec());
        }
        reader.end()?;
        if identities.is_empty() || binders.is_empty() {
            return Err(Malformed);
        }
        Ok(Self { identities, binders })
    }

    fn put(&self, out: &mut Vec<u8>) {
        let mut identities = Vec::new();
        for (identity, age) in &self.identities {
            put_vector16(&mut identities, identity);
            identities.extend_from_slice(&age.to_be_bytes());
        }
        put_vector16(out, &identities);
        let mut binders = Vec::new();
        for binder in &self.binders {
            put_vector8(&mut binders, binder);
        }
        put_vector16(out, &binders);
    }

    /// Octets of the binders, which end a ClientHello and are not part of what they bind (RFC 8446 4.2.11.2).
    pub(crate) fn binders_octets(&self) -> usize {
        2 + self.binders.iter().map(|binder| 1 + binder.len()).sum::<usize>()
    }
}

impl Offer {
    /// Whether DTLS 1.3 is offered.
    pub(crate) fn has_dtls13(&self) -> bool {
        self.has_version(ProtocolVersion::DTLS_1_3_CODE)
    }

    fn has_version(&self, code: u16) -> bool {
        self.versions.as_ref().is_some_and(|versions| versions.contains(&code))
    }

    /// Whether what the ClientHello says of versions allows DTLS 1.2, if it says anything.
    pub(crate) fn allows_dtls12(&self) -> bool {
        self.versions.is_none() || self.has_version(ProtocolVersion::DTLS_1_2_CODE)
    }

    /// An extension of any kind comes.
    pub(crate) fn note_extension(&mut self) {
        self.psk_is_not_last |= self.pre_shared_key.is_some();
    }

    /// Takes one that may be of DTLS 1.3.
    pub(crate) fn take_extension(&mut self, number: u16, mut reader: Reader<'_>) -> Read<()> {
        match number {
            SUPPORTED_VERSIONS => self.versions = Some(u16_list(reader.vector8()?)?),
            COOKIE => self.cookie = Some(nonempty(reader.vector16()?)?.to_vec()),
            KEY_SHARE => {
                let mut list = Reader::new(reader.vector16()?);
                let mut shares = Vec::new();
                while !list.is_empty() {
                    shares.push((list.u16()?, nonempty(list.vector16()?)?.to_vec()));
                }
                self.key_shares = Some(shares);
            }
            PSK_KEY_EXCHANGE_MODES => self.psk_modes = Some(nonempty(reader.vector8()?)?.to_vec()),
            EARLY_DATA => self.early_data = true,
            PRE_SHARED_KEY => {
                self.pre_shared_key = Some(OfferedPsks::parse(reader)?);
                return Ok(());
            }
            _ => return Ok(()),
        }
        reader.end()
    }

    pub(crate) fn put(&self, extensions: &mut Extensions) {
        let codes = |codes: &[u16]| codes.iter().flat_map(|code| code.to_be_bytes()).collect::<Vec<u8>>();
        if let Some(versions) = &self.versions {
            extensions.put(SUPPORTED_VERSIONS, |data| put_vector8(data, &codes(versions)));
        }
        if let Some(cookie) = &self.cookie {
            extensions.put(COOKIE, |data| put_vector16(data, cookie));
        }
        if let Some(shares) = &self.key_shares {
            let mut list = Vec::new();
            for (group, public) in shares {
                put_u16(&mut list, *group);
                put_vector16(&mut list, public);
            }
            extensions.put(KEY_SHARE, |data| put_vector16(data, &list));
        }
        if let Some(modes) = &self.psk_modes {
            extensions.put(PSK_KEY_EXCHANGE_MODES, |data| put_vector8(data, modes));
        }
        if self.early_data {
            extensions.put(EARLY_DATA, |_| {});
        }
        if let Some(psks) = &self.pre_shared_key {
            extensions.put(PRE_SHARED_KEY, |data| psks.put(data));
        }
    }
}

/// Of a ServerHello or HelloRetryRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) version: Option<u16>,
    /// The group and, but for a HelloRetryRequest, the public key.
    pub(crate) key_share: Option<(u16, Option<Vec<u8>>)>,
    /// Which identity is taken.
    pub(crate) identity: Option<u16>,
    pub(crate) cookie: Option<Vec<u8>>,
}

impl Answer {
    /// Takes an extension; returns whether it is known.
    pub(crate) fn take_extension(&mut self, number: u16, mut reader: Reader<'_>, is_retry: bool) -> Read<bool> {
        match number {
            SUPPORTED_VERSIONS => self.version = Some(reader.u16()?),
            KEY_SHARE => {
                let group = reader.u16()?;
                let public = if is_retry { None } else { Some(nonempty(reader.vector16()?)?.to_vec()) };
                self.key_share = Some((group, public));
            }
            PRE_SHARED_KEY => self.identity = Some(reader.u16()?),
            COOKIE => self.cookie = Some(nonempty(reader.vector16()?)?.to_vec()),
            _ => return Ok(false),
        }
        reader.end()?;
        Ok(true)
    }

    pub(crate) fn put(&self, extensions: &mut Extensions) {
        if let Some(version) = self.version {
            extensions.put(SUPPORTED_VERSIONS, |data| put_u16(data, version));
        }
        if let Some((group, public)) = &self.key_share {
            extensions.put(KEY_SHARE, |data| {
                put_u16(data, *group);
                if let Some(public) = public {
                    put_vector16(data, public);
                }
            });
        }
        if let Some(identity) = self.identity {
            extensions.put(PRE_SHARED_KEY, |data| put_u16(data, identity));
        }
        if let Some(cookie) = &self.cookie {
            extensions.put(COOKIE, |data| put_vector16(data, cookie));
        }
    }
}

/// The numbers of the extensions in EncryptedExtensions (RFC 8446 4.3.1), whose contents say nothing to us.
pub(crate) fn encrypted_extensions(body: &[u8]) -> Read<Vec<u16>> {
    if body.is_empty() {
        return Err(Malformed);
    }
    let mut numbers = Vec::new();
    each_extension(Reader::new(body), |number, _| {
        numbers.push(number);
        Ok(())
    })?;
    Ok(numbers)
}

fn nonempty(octets: &[u8]) -> Read<&[u8]> {
    if octets.is_empty() { Err(Malformed) } else { Ok(octets) }
}
