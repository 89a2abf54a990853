//! ClientHello, HelloVerifyRequest, ServerHello (RFC 6347 4.2.1, RFC 5246 7.4.1) and their extensions. What only DTLS 1.3
//! says in them is in [`offer`](super::offer).

use crate::codec::{Malformed, Read, Reader, put_u16, put_vector8, put_vector16};
use crate::config::is_host_name;
use crate::connection_id::ConnectionId;
use crate::handshake::offer::{Answer, Offer};
use crate::limits::SERVER_NAME_OCTETS_MAX;
use crate::suite::{CipherSuite, Group, ProtocolVersion};

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const EC_POINT_FORMATS: u16 = 11;
const EXTENDED_MASTER_SECRET: u16 = 23;
const CONNECTION_ID: u16 = 54;
const RENEGOTIATION_INFO: u16 = 0xff01;

/// TLS_EMPTY_RENEGOTIATION_INFO_SCSV (RFC 5746 3.3).
const RENEGOTIATION_SCSV: u16 = 0x00ff;
const POINT_FORMAT_UNCOMPRESSED: u8 = 0;
const COMPRESSION_NULL: u8 = 0;
const NAME_TYPE_HOST: u8 = 0;
/// Octets of a hello's random.
pub(crate) const RANDOM_OCTETS: usize = 32;
/// The random by which a ServerHello is a HelloRetryRequest (RFC 8446 4.1.3).
pub(crate) const HELLO_RETRY_REQUEST: [u8; RANDOM_OCTETS] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
/// What a server that speaks DTLS 1.3 and answers with 1.2 writes at the end of its random (RFC 8446 4.1.3).
pub(crate) const DOWNGRADED: [u8; 8] = *b"DOWNGRD\x01";
/// The same of a server that speaks TLS 1.2 at least and answers with something older still.
pub(crate) const DOWNGRADED_FURTHER: [u8; 8] = *b"DOWNGRD\x00";

/// A ClientHello, as far as it concerns us. Suites and groups that are not spoken here are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientHello {
    pub(crate) version: u16,
    pub(crate) random: [u8; RANDOM_OCTETS],
    pub(crate) session_id: Vec<u8>,
    pub(crate) cookie: Vec<u8>,
    pub(crate) cipher_suites: Vec<CipherSuite>,
    pub(crate) compression_null: bool,
    pub(crate) groups: Vec<Group>,
    /// `None`: not said, which means uncompressed.
    pub(crate) point_format_uncompressed: Option<bool>,
    pub(crate) extended_master_secret: bool,
    /// By extension or by SCSV.
    pub(crate) secure_renegotiation: bool,
    /// A renegotiation_info that is not empty: a renegotiation, which a first handshake is not.
    pub(crate) renegotiates: bool,
    pub(crate) connection_id: Option<Vec<u8>>,
    pub(crate) server_name: Option<String>,
    /// What only DTLS 1.3 says.
    pub(crate) offer: Offer,
}

impl ClientHello {
    /// Reads a body. The parts that a cookie is bound to are given by [`cookie_bound_parts`].
    pub(crate) fn parse(body: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(body);
        let version = reader.u16()?;
        let random = reader.array()?;
        let session_id = reader.vector8()?.to_vec();
        let cookie = reader.vector8()?.to_vec();
        let suites = u16_list(reader.vector16()?)?;
        let compression = reader.vector8()?;
        if session_id.len() > 32 || compression.is_empty() {
            return Err(Malformed);
        }
        let mut hello = Self {
            version,
            random,
            session_id,
            cookie,
            cipher_suites: suites.iter().filter_map(|code| CipherSuite::from_code(*code)).collect(),
            compression_null: compression.contains(&COMPRESSION_NULL),
            groups: Vec::new(),
            point_format_uncompressed: None,
            extended_master_secret: false,
            secure_renegotiation: suites.contains(&RENEGOTIATION_SCSV),
            renegotiates: false,
            connection_id: None,
            server_name: None,
            offer: Offer::default(),
        };
        each_extension(reader, |number, data| hello.take_extension(number, data))?;
        Ok(hello)
    }

    fn take_extension(&mut self, number: u16, data: &[u8]) -> Read<()> {
        let mut reader = Reader::new(data);
        self.offer.note_extension();
        match number {
            SERVER_NAME => self.server_name = host_name(&mut reader)?,
            SUPPORTED_GROUPS => {
                self.groups = u16_list(reader.vector16()?)?.into_iter().filter_map(Group::from_code).collect();
            }
            EC_POINT_FORMATS => {
                self.point_format_uncompressed = Some(reader.vector8()?.contains(&POINT_FORMAT_UNCOMPRESSED));
            }
            EXTENDED_MASTER_SECRET => self.extended_master_secret = true,
            CONNECTION_ID => self.connection_id = Some(reader.vector8()?.to_vec()),
            RENEGOTIATION_INFO => {
                self.secure_renegotiation = true;
                self.renegotiates = !reader.vector8()?.is_empty();
            }
            _ => return self.offer.take_extension(number, reader),
        }
        reader.end()
    }

    /// Writes a body. Null compression, no session to resume.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, self.version);
        out.extend_from_slice(&self.random);
        put_vector8(&mut out, &self.session_id);
        put_vector8(&mut out, &self.cookie);
        let codes: Vec<u8> = self.cipher_suites.iter().flat_map(|suite| suite.code().to_be_bytes()).collect();
        put_vector16(&mut out, &codes);
        put_vector8(&mut out, &[COMPRESSION_NULL]);

        let mut extensions = Extensions::default();
        if let Some(name) = &self.server_name {
            let mut entry = vec![NAME_TYPE_HOST];
            put_vector16(&mut entry, name.as_bytes());
            extensions.put(SERVER_NAME, |data| put_vector16(data, &entry));
        }
        // They say nothing to DTLS 1.3.
        if self.cipher_suites.iter().any(|suite| suite.is_of(ProtocolVersion::Dtls12)) {
            extensions.put(EXTENDED_MASTER_SECRET, |_| {});
            extensions.put(RENEGOTIATION_INFO, |data| put_vector8(data, &[]));
        }
        if !self.groups.is_empty() {
            let groups: Vec<u8> = self.groups.iter().flat_map(|group| group.code().to_be_bytes()).collect();
            extensions.put(SUPPORTED_GROUPS, |data| put_vector16(data, &groups));
            if self.point_format_uncompressed.is_some() {
                extensions.put(EC_POINT_FORMATS, |data| put_vector8(data, &[POINT_FORMAT_UNCOMPRESSED]));
            }
        }
        if let Some(id) = &self.connection_id {
            extensions.put(CONNECTION_ID, |data| put_vector8(data, id));
        }
        self.offer.put(&mut extensions);
        extensions.end(&mut out);
        out
    }
}

/// What of a ClientHello a cookie is bound to (RFC 6347 4.2.1: the parameters that a client must repeat), in two parts
/// around the cookie itself.
pub(crate) fn cookie_bound_parts(body: &[u8]) -> Read<(&[u8], &[u8])> {
    let mut reader = Reader::new(body);
    reader.take(2 + RANDOM_OCTETS)?;
    reader.vector8()?;
    let before = body.get(..body.len() - reader.rest().len()).ok_or(Malformed)?;
    reader.vector8()?;
    let after = reader.rest();
    reader.vector16()?;
    reader.vector8()?;
    let after = after.get(..after.len() - reader.rest().len()).ok_or(Malformed)?;
    Ok((before, after))
}

/// The random of a ClientHello's first fragment.
pub(crate) fn client_random(start_of_body: &[u8]) -> Option<[u8; RANDOM_OCTETS]> {
    let mut reader = Reader::new(start_of_body);
    reader.u16().ok()?;
    reader.array().ok()
}

/// A HelloVerifyRequest. Its version means nothing (RFC 6347 4.2.1).
pub(crate) struct HelloVerifyRequest<'a> {
    pub(crate) cookie: &'a [u8],
}

impl<'a> HelloVerifyRequest<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Read<Self> {
        let mut reader = Reader::new(body);
        reader.u16()?;
        let cookie = reader.vector8()?;
        reader.end()?;
        Ok(Self { cookie })
    }

    pub(crate) fn encode(&self, version: u16) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, version);
        put_vector8(&mut out, self.cookie);
        out
    }
}

/// A ServerHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerHello {
    pub(crate) version: u16,
    pub(crate) random: [u8; RANDOM_OCTETS],
    pub(crate) session_id: Vec<u8>,
    pub(crate) cipher_suite: u16,
    pub(crate) compression: u8,
    pub(crate) extended_master_secret: bool,
    /// `Some(true)`: present and empty, as a first handshake's is.
    pub(crate) renegotiation_info: Option<bool>,
    pub(crate) point_formats: bool,
    pub(crate) server_name: bool,
    pub(crate) connection_id: Option<Vec<u8>>,
    /// What only DTLS 1.3 says.
    pub(crate) answer: Answer,
    /// An extension that we never offer.
    pub(crate) unknown_extension: bool,
}

impl ServerHello {
    pub(crate) fn parse(body: &[u8]) -> Read<Self> {
        let mut reader = Reader::new(body);
        let mut hello = Self {
            version: reader.u16()?,
            random: reader.array()?,
            session_id: reader.vector8()?.to_vec(),
            cipher_suite: reader.u16()?,
            compression: reader.u8()?,
            extended_master_secret: false,
            renegotiation_info: None,
            point_formats: false,
            server_name: false,
            connection_id: None,
            answer: Answer::default(),
            unknown_extension: false,
        };
        each_extension(reader, |number, data| hello.take_extension(number, data))?;
        Ok(hello)
    }

    fn take_extension(&mut self, number: u16, data: &[u8]) -> Read<()> {
        let mut reader = Reader::new(data);
        match number {
            EXTENDED_MASTER_SECRET => self.extended_master_secret = true,
            RENEGOTIATION_INFO => self.renegotiation_info = Some(reader.vector8()?.is_empty()),
            EC_POINT_FORMATS => {
                self.point_formats = true;
                reader.vector8()?;
            }
            SERVER_NAME => self.server_name = true,
            CONNECTION_ID => self.connection_id = Some(reader.vector8()?.to_vec()),
            _ => {
                let known = self.answer.take_extension(number, reader, self.random == HELLO_RETRY_REQUEST)?;
                self.unknown_extension |= !known;
                return Ok(());
            }
        }
        reader.end()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_u16(&mut out, self.version);
        out.extend_from_slice(&self.random);
        put_vector8(&mut out, &self.session_id);
        put_u16(&mut out, self.cipher_suite);
        out.push(self.compression);
        let mut extensions = Extensions::default();
        if self.extended_master_secret {
            extensions.put(EXTENDED_MASTER_SECRET, |_| {});
        }
        if self.renegotiation_info.is_some() {
            extensions.put(RENEGOTIATION_INFO, |data| put_vector8(data, &[]));
        }
        if self.point_formats {
            extensions.put(EC_POINT_FORMATS, |data| put_vector8(data, &[POINT_FORMAT_UNCOMPRESSED]));
        }
        if self.server_name {
            extensions.put(SERVER_NAME, |_| {});
        }
        if let Some(id) = &self.connection_id {
            extensions.put(CONNECTION_ID, |data| put_vector8(data, id));
        }
        self.answer.put(&mut extensions);
        extensions.end(&mut out);
        out
    }
}

/// What a peer's connection_id extension wants, if we can.
pub(crate) fn peer_connection_id(extension: &[u8]) -> Option<ConnectionId> {
    ConnectionId::new(extension).ok()
}

#[derive(Default)]
pub(crate) struct Extensions(Vec<u8>);

impl Extensions {
    pub(crate) fn put(&mut self, number: u16, data: impl FnOnce(&mut Vec<u8>)) {
        let mut octets = Vec::new();
        data(&mut octets);
        put_u16(&mut self.0, number);
        put_vector16(&mut self.0, &octets);
    }

    pub(crate) fn end(self, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            put_vector16(out, &self.0);
        }
    }
}

/// Calls `take` for each extension. A hello may end without the list; an extension may come once.
pub(crate) fn each_extension(mut reader: Reader<'_>, mut take: impl FnMut(u16, &[u8]) -> Read<()>) -> Read<()> {
    if reader.is_empty() {
        return Ok(());
    }
    let mut extensions = Reader::new(reader.vector16()?);
    reader.end()?;
    let mut seen = Vec::new();
    while !extensions.is_empty() {
        let number = extensions.u16()?;
        let data = extensions.vector16()?;
        if seen.contains(&number) || seen.len() >= EXTENSIONS_MAX {
            return Err(Malformed);
        }
        seen.push(number);
        take(number, data)?;
    }
    Ok(())
}

/// Extensions of one hello; more are malformed, so that looking for repeated ones stays cheap.
const EXTENSIONS_MAX: usize = 64;

pub(crate) fn u16_list(octets: &[u8]) -> Read<Vec<u16>> {
    let (pairs, rest) = octets.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(Malformed);
    }
    Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

/// The host name of a ServerNameList (RFC 6066 3), in lower case.
fn host_name(reader: &mut Reader<'_>) -> Read<Option<String>> {
    let mut list = Reader::new(reader.vector16()?);
    let mut name = None;
    while !list.is_empty() {
        let name_type = list.u8()?;
        let value = list.vector16()?;
        if name_type != NAME_TYPE_HOST {
            continue;
        }
        if name.is_some() || value.is_empty() || value.len() > SERVER_NAME_OCTETS_MAX || !is_host_name(value) {
            return Err(Malformed);
        }
        name = Some(std::str::from_utf8(value).map_err(|_| Malformed)?.to_ascii_lowercase());
    }
    Ok(name)
}
