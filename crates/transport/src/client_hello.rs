//! The parts of a ClientHello that decide whether, and for whom, a key is looked up (RFC 8446 clause 4.1.2).
//!
//! OpenSSL parses the same octets again and has the last word on all else.

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The host name of the server_name extension (RFC 6066 clause 3), as sent.
    pub server_name: Option<Vec<u8>>,
    /// supported_versions holds TLS 1.3 (0x0304).
    pub offers_tls13: bool,
    /// The cipher suites, as sent.
    pub cipher_suites: Vec<u16>,
    /// psk_key_exchange_modes holds psk_dhe_ke (RFC 8446 clause 4.2.9).
    pub psk_dhe_ke: bool,
    /// The identities of pre_shared_key (RFC 8446 clause 4.2.11), the first [`IDENTITIES_KEPT_MAX`]; `None`
    /// without the extension.
    pub psk_identities: Option<Vec<Vec<u8>>>,
    /// early_data is there (RFC 8446 clause 4.2.10). It is never accepted.
    pub early_data: bool,
}

/// Identities of one ClientHello that are looked at; further ones are ignored.
pub const IDENTITIES_KEPT_MAX: usize = 2;

impl ClientHello {
    /// Parses the body of the handshake message, without its four octets of header.
    ///
    /// `None` when a length does not add up or an extension of interest comes twice.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut rest = Reader(body);
        rest.take(VERSION_OCTETS + RANDOM_OCTETS)?;
        rest.vector8()?; // legacy_session_id
        let suites = rest.vector16()?.0;
        rest.vector8()?; // legacy_compression_methods
        if suites.len() % 2 != 0 {
            return None;
        }
        let mut hello = Self { cipher_suites: pairs(suites), ..Self::default() };
        if rest.is_empty() {
            return Some(hello); // TLS 1.2 allows a hello without extensions
        }
        let mut extensions = rest.vector16()?;
        let mut seen = Vec::new();
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let content = extensions.vector16()?;
            if EXTENSIONS_READ.contains(&kind) {
                if seen.contains(&kind) {
                    return None;
                }
                seen.push(kind);
                hello.read_extension(kind, content)?;
            }
        }
        rest.is_empty().then_some(hello)
    }

    fn read_extension(&mut self, kind: u16, mut content: Reader<'_>) -> Option<()> {
        match kind {
            SERVER_NAME => self.server_name = host_name(content)?,
            SUPPORTED_VERSIONS => {
                let versions = content.vector8()?.0;
                self.offers_tls13 = pairs(versions).contains(&TLS_1_3);
            }
            PSK_KEY_EXCHANGE_MODES => self.psk_dhe_ke = content.vector8()?.0.contains(&PSK_DHE_KE),
            PRE_SHARED_KEY => self.psk_identities = Some(identities(content.vector16()?)?),
            EARLY_DATA => self.early_data = true,
            _ => {}
        }
        Some(())
    }
}

/// The first host name of a ServerNameList.
fn host_name(mut content: Reader<'_>) -> Option<Option<Vec<u8>>> {
    let mut names = content.vector16()?;
    while !names.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?.0;
        if kind == HOST_NAME {
            return Some(Some(name.to_vec()));
        }
    }
    Some(None)
}

fn identities(mut offered: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut kept = Vec::new();
    while !offered.is_empty() {
        let identity = offered.vector16()?.0;
        offered.take(TICKET_AGE_OCTETS)?;
        if kept.len() < IDENTITIES_KEPT_MAX {
            kept.push(identity.to_vec());
        }
    }
    Some(kept)
}

fn pairs(octets: &[u8]) -> Vec<u16> {
    octets.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
}

/// Reads from the front; `None` when there is too little.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (front, back) = self.0.split_at_checked(octets)?;
        self.0 = back;
        Some(front)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<Reader<'a>> {
        let octets = self.u8()?;
        self.take(usize::from(octets)).map(Reader)
    }

    pub(crate) fn vector16(&mut self) -> Option<Reader<'a>> {
        let octets = self.u16()?;
        self.take(usize::from(octets)).map(Reader)
    }
}

const VERSION_OCTETS: usize = 2;
const RANDOM_OCTETS: usize = 32;
const TICKET_AGE_OCTETS: usize = 4;
const TLS_1_3: u16 = 0x0304;
const PSK_DHE_KE: u8 = 1;
const HOST_NAME: u8 = 0;
// RFC 8446 clause 4.2.
const SERVER_NAME: u16 = 0;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const PSK_KEY_EXCHANGE_MODES: u16 = 45;
const EXTENSIONS_READ: [u16; 5] = [SERVER_NAME, PRE_SHARED_KEY, EARLY_DATA, SUPPORTED_VERSIONS, PSK_KEY_EXCHANGE_MODES];
