//! ServerKeyExchange and ClientKeyExchange of the PSK suites (RFC 4279 2, RFC 5489 2).

use crate::codec::{Malformed, Read, Reader, put_u16, put_vector8, put_vector16};

const NAMED_CURVE: u8 = 3;

/// ServerKeyExchange: the identity hint and, with ECDHE, group and public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerKeyExchange {
    pub(crate) identity_hint: Vec<u8>,
    /// Code point and public key.
    pub(crate) share: Option<(u16, Vec<u8>)>,
}

impl ServerKeyExchange {
    pub(crate) fn parse(body: &[u8], ephemeral: bool) -> Read<Self> {
        let mut reader = Reader::new(body);
        let identity_hint = reader.vector16()?.to_vec();
        let share = if ephemeral {
            if reader.u8()? != NAMED_CURVE {
                return Err(Malformed);
            }
            Some((reader.u16()?, reader.vector8()?.to_vec()))
        } else {
            None
        };
        reader.end()?;
        Ok(Self { identity_hint, share })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_vector16(&mut out, &self.identity_hint);
        if let Some((group, public)) = &self.share {
            out.push(NAMED_CURVE);
            put_u16(&mut out, *group);
            put_vector8(&mut out, public);
        }
        out
    }
}

/// ClientKeyExchange: the identity and, with ECDHE, the public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientKeyExchange {
    pub(crate) identity: Vec<u8>,
    pub(crate) public: Option<Vec<u8>>,
}

impl ClientKeyExchange {
    pub(crate) fn parse(body: &[u8], ephemeral: bool) -> Read<Self> {
        let mut reader = Reader::new(body);
        let identity = reader.vector16()?.to_vec();
        let public = if ephemeral { Some(reader.vector8()?.to_vec()) } else { None };
        reader.end()?;
        Ok(Self { identity, public })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_vector16(&mut out, &self.identity);
        if let Some(public) = &self.public {
            put_vector8(&mut out, public);
        }
        out
    }
}
