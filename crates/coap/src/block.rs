//! Block-wise transfer (RFC 7959): the Block options, what is put together from blocks, and what is cut into them.

use std::time::Instant;

use coap_lite::CoapOption;

use crate::code::Code;
use crate::datagram::merged;
use crate::frame::{Frame, OptionReader, read_uint};
use crate::message::{Refusal, Response};

/// Observe, Block1, Block2 and the like: numbers of the options that this module and its neighbours write.
pub(crate) mod number {
    pub(crate) const ETAG: u16 = 4;
    pub(crate) const OBSERVE: u16 = 6;
    pub(crate) const CONTENT_FORMAT: u16 = 12;
    pub(crate) const BLOCK2: u16 = 23;
    pub(crate) const BLOCK1: u16 = 27;
    pub(crate) const SIZE2: u16 = 28;
    pub(crate) const SIZE1: u16 = 60;
    /// RFC 9175 2.2.1.
    pub(crate) const ECHO: u16 = 252;
    /// RFC 7967.
    pub(crate) const NO_RESPONSE: u16 = 258;
    /// RFC 9175 3.2.1.
    pub(crate) const REQUEST_TAG: u16 = 292;
}

/// SZX of the largest block, 1024 octets. 7 is for streams only (RFC 8323 6).
const SIZE_EXPONENT_MAX: u8 = 6;

/// The largest NUM of a Block option, 20 bits.
const NUMBER_MAX: usize = 0xf_ffff;

/// The size of a block, as its exponent: 0 to 6 for 16 to 1024 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockSize(u8);

impl BlockSize {
    /// The largest size of at most so many octets, but never less than 16.
    pub(crate) fn at_most(octets: usize) -> Self {
        Self((0..=SIZE_EXPONENT_MAX).rev().find(|exponent| 16 << exponent <= octets).unwrap_or(0))
    }

    pub(crate) const fn octets(self) -> usize {
        16 << self.0
    }
}

/// The value of Block1 or Block2 (RFC 7959 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) number: usize,
    pub(crate) more: bool,
    pub(crate) size: BlockSize,
}

impl Block {
    /// None if the value is too long or of the reserved size.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        let value = read_uint(value, 3)?;
        let exponent = (value & 7) as u8;
        (exponent <= SIZE_EXPONENT_MAX).then_some(Self {
            number: (value >> 4) as usize,
            more: value & 8 != 0,
            size: BlockSize(exponent),
        })
    }

    /// The block that starts at `offset` of a body of `octets`; `offset` is a multiple of the size.
    pub(crate) fn at(offset: usize, octets: usize, size: BlockSize) -> Self {
        Self { number: offset / size.octets(), more: offset + size.octets() < octets, size }
    }

    pub(crate) fn offset(self) -> usize {
        self.number * self.size.octets()
    }

    pub(crate) fn encode(self) -> Uint {
        Uint::new((self.number as u32) << 4 | u32::from(self.more) << 3 | u32::from(self.size.0))
    }

    /// As a refusal names it: no more is wanted (RFC 7959 2.3).
    pub(crate) fn last(self) -> Self {
        Self { more: false, ..self }
    }

    /// Its part of the body.
    pub(crate) fn slice(self, body: &[u8]) -> &[u8] {
        let start = self.offset().min(body.len());
        let end = (self.offset() + self.size.octets()).min(body.len());
        body.get(start..end).unwrap_or_default()
    }
}

/// Whether a body can be cut into blocks of that size at all.
pub(crate) fn is_countable(octets: usize, size: BlockSize) -> bool {
    octets <= (NUMBER_MAX + 1) * size.octets()
}

/// An unsigned integer as an option value: as few octets as it needs (RFC 7252 3.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uint {
    octets: [u8; 4],
    zeros: u8,
}

impl Uint {
    pub(crate) fn new(value: u32) -> Self {
        Self { octets: value.to_be_bytes(), zeros: (value.leading_zeros() / 8) as u8 }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.octets.get(usize::from(self.zeros)..).unwrap_or_default()
    }
}

/// The options that the datagram machine deals with itself, as they stand in a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extras<'a> {
    pub(crate) etag: Option<&'a [u8]>,
    pub(crate) observe: Option<u32>,
    pub(crate) block1: Option<Block>,
    pub(crate) block2: Option<Block>,
    pub(crate) size1: Option<u32>,
    pub(crate) size2: Option<u32>,
    pub(crate) echo: Option<&'a [u8]>,
    /// RFC 7967: the classes that need no response.
    pub(crate) no_response: u8,
    /// Request-Tag.
    pub(crate) tag: Option<&'a [u8]>,
}

/// A Block option that is repeated, too long or of the reserved size.
pub(crate) const BAD_BLOCK: Refusal = Refusal { code: Code::BAD_REQUEST, diagnostic: "block out of range" };

impl<'a> Extras<'a> {
    /// Reads a message that is well formed; where it is not, reading stops, and whoever reads the whole of it says so.
    pub(crate) fn read(frame: &Frame<'a>) -> Result<Self, Refusal> {
        let mut extras = Self::default();
        let mut options = frame.options();
        while let Ok(Some((number, value))) = options.next() {
            match CoapOption::from(number) {
                CoapOption::ETag if extras.etag.is_none() && (1..=8).contains(&value.len()) => {
                    extras.etag = Some(value);
                }
                CoapOption::Observe if extras.observe.is_none() => extras.observe = read_uint(value, 3),
                CoapOption::Block1 if extras.block1.is_none() => {
                    extras.block1 = Some(Block::read(value).ok_or(BAD_BLOCK)?);
                }
                CoapOption::Block2 if extras.block2.is_none() => {
                    extras.block2 = Some(Block::read(value).ok_or(BAD_BLOCK)?);
                }
                CoapOption::Block1 | CoapOption::Block2 => return Err(BAD_BLOCK),
                CoapOption::Size1 => extras.size1 = read_uint(value, 4),
                CoapOption::Size2 => extras.size2 = read_uint(value, 4),
                CoapOption::NoResponse if value.len() <= 1 => extras.no_response = value.first().copied().unwrap_or(0),
                _ if number == number::ECHO && (1..=40).contains(&value.len()) => extras.echo = Some(value),
                _ if number == number::REQUEST_TAG && extras.tag.is_none() => extras.tag = Some(value),
                _ => {}
            }
        }
        Ok(extras)
    }

    /// Whether a response of that code is not wanted (RFC 7967 2.1).
    pub(crate) fn suppresses(no_response: u8, code: Code) -> bool {
        (1..=7).contains(&code.class()) && no_response >> (code.class() - 1) & 1 == 1
    }
}

/// What the blocks of one request body have in common: the method and all options but those that change from block to
/// block (RFC 7959 2.5, RFC 9175 3.3).
pub(crate) fn upload_key(frame: &Frame<'_>) -> Box<[u8]> {
    const CHANGING: &[u16] = &[
        number::OBSERVE,
        number::BLOCK2,
        number::BLOCK1,
        number::SIZE2,
        number::SIZE1,
        number::ECHO,
        number::NO_RESPONSE,
    ];
    key(frame, CHANGING)
}

/// What the requests for the blocks of one response have in common. Peers differ in whether they repeat what described the
/// payload of the first; a FETCH repeats the payload (RFC 8132 2.3.2).
pub(crate) fn download_key(frame: &Frame<'_>) -> Box<[u8]> {
    const CHANGING: &[u16] = &[
        number::OBSERVE,
        number::CONTENT_FORMAT,
        number::BLOCK2,
        number::BLOCK1,
        number::SIZE2,
        number::SIZE1,
        number::ECHO,
        number::NO_RESPONSE,
        number::REQUEST_TAG,
    ];
    key(frame, CHANGING)
}

/// What a request has in common with its repetition that proves an address (RFC 9175 2.3): all but Echo.
pub(crate) fn repetition_key(frame: &Frame<'_>) -> Box<[u8]> {
    let mut key = key(frame, &[number::ECHO]).into_vec();
    key.extend_from_slice(payload(frame));
    key.into()
}

fn key(frame: &Frame<'_>, changing: &[u16]) -> Box<[u8]> {
    let mut key = merged(frame.options(), changing, &[]);
    key.push(frame.code.octet());
    if frame.code == Code::FETCH {
        key.extend_from_slice(payload(frame));
    }
    key.into()
}

/// The payload of a message whose options have been found to be well formed.
pub(crate) fn payload<'a>(frame: &Frame<'a>) -> &'a [u8] {
    let mut options: OptionReader<'a> = frame.options();
    while let Ok(Some(_)) = options.next() {}
    options.payload().unwrap_or_default()
}

/// A request of the peer of which some blocks have come (RFC 7959 2.5: handed over whole or not at all).
#[derive(Debug)]
struct Assembly {
    key: Box<[u8]>,
    body: Vec<u8>,
    expires: Instant,
}

impl Assembly {
    fn octets(&self) -> usize {
        self.key.len() + self.body.len()
    }
}

/// What becomes of a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Assembled {
    /// The next one, please.
    Continue,
    /// That was the last: the whole body.
    Complete(Vec<u8>),
    Refused(Refusal),
}

/// Those requests.
#[derive(Debug, Default)]
pub(crate) struct Assemblies(Vec<Assembly>);

impl Assemblies {
    /// Takes one block. `announced` is Size1.
    pub(crate) fn take(
        &mut self,
        key: Box<[u8]>,
        block: Block,
        payload: &[u8],
        announced: Option<u32>,
        bounds: &Bounds,
    ) -> Assembled {
        const INCOMPLETE: Refusal =
            Refusal { code: Code::REQUEST_ENTITY_INCOMPLETE, diagnostic: "blocks before this one are missing" };
        const TOO_LARGE: Refusal = Refusal { code: Code::REQUEST_ENTITY_TOO_LARGE, diagnostic: "" };
        let fits = if block.more { payload.len() == block.size.octets() } else { payload.len() <= block.size.octets() };
        if !fits {
            return Assembled::Refused(Refusal { code: Code::BAD_REQUEST, diagnostic: "block of another size" });
        }
        // RFC 7959 2.5: the first block begins anew.
        if block.number == 0 {
            self.0.retain(|assembly| assembly.key != key);
        }
        let place = self.0.iter().position(|assembly| assembly.key == key);
        let octets = place.and_then(|place| self.0.get(place)).map_or(0, |assembly| assembly.body.len());
        let announced = announced.map_or(0, |size| size as usize);
        if block.offset().saturating_add(payload.len()).max(announced) > bounds.octets_max {
            return Assembled::Refused(TOO_LARGE);
        }
        if octets != block.offset() {
            return Assembled::Refused(INCOMPLETE);
        }
        let mut body = place.map(|place| self.0.swap_remove(place).body).unwrap_or_default();
        body.extend_from_slice(payload);
        if !block.more {
            return Assembled::Complete(body);
        }
        if self.0.len() >= bounds.entries_max.max(1) {
            self.drop_oldest_but(&key);
        }
        self.0.push(Assembly { key, body, expires: bounds.expires });
        Assembled::Continue
    }

    /// Throws away others than that with `key`, those that have waited longest first, until `octets` more are within the
    /// limit, with `besides` that are held elsewhere. False, and nothing is thrown away, if that would not do. What would be
    /// there alone is within it.
    pub(crate) fn make_room(&mut self, key: &[u8], octets: usize, besides: usize, octets_max: usize) -> bool {
        let own = self.0.iter().find(|assembly| *assembly.key == *key).map_or(0, Assembly::octets);
        if besides > 0 && besides + own + octets > octets_max {
            return false;
        }
        while besides + self.octets() + octets > octets_max && self.drop_oldest_but(key) {}
        true
    }

    /// Whether an earlier block of that request has come.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.0.iter().any(|assembly| *assembly.key == *key)
    }

    pub(crate) fn octets(&self) -> usize {
        self.0.iter().map(Assembly::octets).sum()
    }

    fn drop_oldest_but(&mut self, key: &[u8]) -> bool {
        let others = self.0.iter().enumerate().filter(|(_, assembly)| *assembly.key != *key);
        let oldest = others.min_by_key(|(_, assembly)| assembly.expires).map(|(place, _)| place);
        oldest.map(|place| self.0.swap_remove(place)).is_some()
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.0.retain(|assembly| assembly.expires > now);
    }

    pub(crate) fn settled_at(&self) -> Option<Instant> {
        self.0.iter().map(|assembly| assembly.expires).max()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the tables of this module are held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) entries_max: usize,
    /// Of one body that is put together; of all responses that are kept.
    pub(crate) octets_max: usize,
    pub(crate) expires: Instant,
}

/// A response of ours that the peer fetches block by block.
#[derive(Debug)]
pub(crate) struct Kept {
    key: Box<[u8]>,
    /// Request-Tag of the request: tells it from others with the same key (RFC 9175 3.3).
    tag: Option<Box<[u8]>>,
    pub(crate) response: Response,
    pub(crate) etag: [u8; ETAG_OCTETS],
    expires: Instant,
}

impl Kept {
    fn octets(&self) -> usize {
        self.key.len() + self.tag.as_ref().map_or(0, |tag| tag.len()) + self.response.payload.len()
    }
}

/// Those responses.
#[derive(Debug, Default)]
pub(crate) struct KeptResponses(Vec<Kept>);

impl KeptResponses {
    /// Keeps a response, in place of an earlier one to the same request.
    pub(crate) fn keep(&mut self, key: Box<[u8]>, tag: Option<Box<[u8]>>, response: Response, bounds: &Bounds) {
        self.0.retain(|kept| kept.key != key || kept.tag != tag);
        if self.0.len() >= bounds.entries_max.max(1) {
            self.0.remove(0);
        }
        let etag = etag(&response.payload);
        self.0.push(Kept { key, tag, response, etag, expires: bounds.expires });
        while self.0.len() > 1 && self.octets() > bounds.octets_max {
            self.0.remove(0);
        }
    }

    pub(crate) fn octets(&self) -> usize {
        self.0.iter().map(Kept::octets).sum()
    }

    pub(crate) fn find(&mut self, key: &[u8], tag: Option<&[u8]>, expires: Instant) -> Option<&Kept> {
        let place = self.place(key, tag)?;
        let kept = self.0.get_mut(place)?;
        kept.expires = expires;
        Some(kept)
    }

    pub(crate) fn forget(&mut self, key: &[u8], tag: Option<&[u8]>) {
        if let Some(place) = self.place(key, tag) {
            self.0.remove(place);
        }
    }

    /// Where the tag is not repeated, it is the newest of those with the key.
    fn place(&self, key: &[u8], tag: Option<&[u8]>) -> Option<usize> {
        let exact = self.0.iter().position(|kept| *kept.key == *key && kept.tag.as_deref() == tag);
        exact.or_else(|| self.0.iter().rposition(|kept| *kept.key == *key && tag.is_none()))
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.0.retain(|kept| kept.expires > now);
    }

    pub(crate) fn settled_at(&self) -> Option<Instant> {
        self.0.iter().map(|kept| kept.expires).max()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Length of the ETag that we give to a response in blocks.
pub(crate) const ETAG_OCTETS: usize = 8;

/// Tells one body from another (RFC 7959 2.4: blocks of different ones must not be put together). It guards against
/// change, not against forgery; FNV-1a, 64 bits.
pub(crate) fn etag(body: &[u8]) -> [u8; ETAG_OCTETS] {
    body.iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3))
        .to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    /// RFC 7959 3: `1:0/1/128`, `1:3/0/128`, `2:1/0/64` and their like, as option values.
    #[test]
    fn block_options_are_those_of_rfc_7959() {
        for (number, more, octets, value) in [
            (0, true, 128, &[0x0b][..]),
            (3, false, 128, &[0x33]),
            (1, false, 64, &[0x12]),
            (0, false, 16, &[]),
            (1_048_575, true, 1_024, &[0xff, 0xff, 0xfe]),
        ] {
            let block = Block { number, more, size: BlockSize::at_most(octets) };
            assert_eq!(block.encode().as_slice(), value);
            assert_eq!(Block::read(value), Some(block));
        }
        assert_eq!(Block::read(&[0x07]), None, "reserved");
        assert_eq!(Block::read(&[0, 0, 0, 0]), None, "too long");
        assert_eq!(BlockSize::at_most(3).octets(), 16);
        assert_eq!(BlockSize::at_most(1_023).octets(), 512);
        assert_eq!(BlockSize::at_most(9_999).octets(), 1_024);
    }

    fn bounds(start: Instant) -> Bounds {
        Bounds { entries_max: 2, octets_max: 64, expires: start + Duration::from_secs(9) }
    }

    fn block(number: usize, more: bool) -> Block {
        Block { number, more, size: BlockSize::at_most(16) }
    }

    #[test]
    fn a_body_is_put_together_in_order_and_in_no_other() {
        let (mut assemblies, start) = (Assemblies::default(), Instant::now());
        let bounds = bounds(start);
        let key = || Box::from(&b"key"[..]);
        assert_eq!(assemblies.take(key(), block(0, true), &[1; 16], Some(20), &bounds), Assembled::Continue);
        let complete = assemblies.take(key(), block(1, false), &[2; 4], None, &bounds);
        assert_eq!(complete, Assembled::Complete([vec![1; 16], vec![2; 4]].concat()));
        assert!(assemblies.is_empty());
        for (number, payload, code) in [
            (1, &[0; 16][..], Code::REQUEST_ENTITY_INCOMPLETE),
            (9, &[0; 16], Code::REQUEST_ENTITY_TOO_LARGE),
            (0, &[0; 15], Code::BAD_REQUEST),
        ] {
            match assemblies.take(key(), block(number, true), payload, None, &bounds) {
                Assembled::Refused(refusal) => assert_eq!(refusal.code, code),
                other => panic!("{other:?}"),
            }
        }
        let announced = assemblies.take(key(), block(0, true), &[0; 16], Some(65), &bounds);
        assert!(matches!(announced, Assembled::Refused(Refusal { code: Code::REQUEST_ENTITY_TOO_LARGE, .. })));
    }

    #[test]
    fn over_the_limit_the_body_that_has_waited_longest_goes() {
        let (mut assemblies, start) = (Assemblies::default(), Instant::now());
        for (key, wait) in [(b"a", 3), (b"b", 2), (b"c", 4)] {
            let bounds = Bounds { expires: start + Duration::from_secs(wait), ..bounds(start) };
            let taken = assemblies.take(Box::from(&key[..]), block(0, true), &[0; 16], None, &bounds);
            assert_eq!(taken, Assembled::Continue);
        }
        let mut left: Vec<_> = assemblies.0.iter().map(|assembly| assembly.key.to_vec()).collect();
        left.sort();
        assert_eq!(left, [b"a", b"c"]);
        assemblies.expire(start + Duration::from_secs(4));
        assert!(assemblies.is_empty());
    }
}
