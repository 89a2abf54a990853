//! Connection IDs (RFC 9146).

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::crypto;
use crate::error::Error;
use crate::limits::CONNECTION_ID_OCTETS_MAX;
use crate::record::{self, ContentType, unified};

/// A Connection ID: what the peer writes into each protected record, so that it reaches this session from any address.
/// An empty one says that none is wanted.
#[derive(Clone, Copy)]
pub struct ConnectionId {
    octets: [u8; CONNECTION_ID_OCTETS_MAX],
    length: u8,
}

impl ConnectionId {
    /// None is wanted.
    pub const EMPTY: Self = Self { octets: [0; CONNECTION_ID_OCTETS_MAX], length: 0 };

    /// Takes at most [`CONNECTION_ID_OCTETS_MAX`] octets. All of one server's must have the same length, since nothing in
    /// a record tells it.
    ///
    /// # Errors
    /// [`Error::ConnectionIdLength`].
    pub fn new(octets: &[u8]) -> Result<Self, Error> {
        let mut id = Self::EMPTY;
        let place = id.octets.get_mut(..octets.len()).ok_or(Error::ConnectionIdLength(octets.len()))?;
        place.copy_from_slice(octets);
        id.length = u8::try_from(octets.len()).map_err(|_| Error::ConnectionIdLength(octets.len()))?;
        Ok(id)
    }

    /// A random one of `octets` octets. With 8, two of a million are equal with a probability of 3 in 10^8; a server
    /// looks whether it has it already.
    ///
    /// # Errors
    /// [`Error::ConnectionIdLength`], [`Error::Random`].
    pub fn random(octets: usize) -> Result<Self, Error> {
        let mut random = [0; CONNECTION_ID_OCTETS_MAX];
        crypto::random(&mut random)?;
        Self::new(random.get(..octets).ok_or(Error::ConnectionIdLength(octets))?)
    }

    /// The Connection ID of a datagram's first record, if it has one, for a server whose IDs have `octets` octets. Looks
    /// at the header only: whether the record is authentic turns out in [`crate::Connection::handle_datagram`].
    pub fn of_datagram(datagram: &[u8], octets: usize) -> Option<Self> {
        if unified::is_unified(datagram) {
            let (record, _) = unified::split(datagram, octets)?;
            return Self::new(record.connection_id?).ok();
        }
        let (record, _) = record::split(datagram, octets)?;
        if record.content_type != ContentType::TLS12_CID {
            return None;
        }
        Self::new(record.connection_id).ok()
    }

    /// Its octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Its length in octets.
    pub fn len(&self) -> usize {
        usize::from(self.length)
    }

    /// Whether none is wanted.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl PartialEq for ConnectionId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ConnectionId {}

impl Hash for ConnectionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionId(")?;
        for octet in self.as_bytes() {
            write!(f, "{octet:02x}")?;
        }
        f.write_str(")")
    }
}
