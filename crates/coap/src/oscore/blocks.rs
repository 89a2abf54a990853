//! Block-wise transfer inside OSCORE (RFC 8613 4.1.3.4.1): each block is a message of its own, protected for itself, so
//! that whoever is between the two cannot take the blocks of one body for those of another.
//!
//! ```text
//! verified request ──> Block1? ── more to come ──> 2.31          (or 4.00, 4.08, 4.13, 4.29, 5.03)
//!        │              └ last, or none ─┐
//!        ├── Block2 > 0, kept ──> that block of the response     (or 4.08)
//!        ▼                               ▼
//!      event ──> response ──> fits? ── yes ──> protected
//!                              └ no ──> kept; its first block protected
//! ```
//!
//! What we ask ourselves goes by [`crate::transfer`], as over datagrams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::message::Message;
use crate::block::{
    Assembled, Assemblies, Block, BlockSize, Bounds, Extras, KeptResponses, Uint, download_key, etag, is_countable,
    number, upload_key,
};
use crate::code::Code;
use crate::error::ConnectionError;
use crate::frame::{Frame, OptionWriter, Token};
use crate::limits::{DatagramConfig, StreamConfig, TOO_MANY_REQUESTS_MAX_AGE_SECONDS};
use crate::message::{self, ExchangeId, Refusal, Request, Response, Served};

/// Options of one inner message; more are 4.00. What the transports take, too.
pub(super) const INNER_OPTIONS_MAX: usize = 32;

/// What is understood of inner messages.
pub(super) const INNER: Served = Served { block_wise: true, oscore: false };

/// What a datagram has besides the options and payload that are protected, at most: header, token, OSCORE option without
/// ID Context, marker, code and tag.
const OUTER_OCTETS_MAX: usize = 48;

/// What the options that are added for block-wise transfer take at most, Request-Tag included.
const BLOCK_OPTIONS_OCTETS: usize = 32;

/// Octets that all connections together may hold of bodies in blocks: the limit in all, besides those of each.
#[derive(Debug)]
pub struct BlockBudget {
    octets_max: usize,
    used: AtomicUsize,
}

impl BlockBudget {
    /// So many octets.
    #[must_use]
    pub fn new(octets_max: usize) -> Arc<Self> {
        Arc::new(Self { octets_max, used: AtomicUsize::new(0) })
    }

    /// Octets that are held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// How bodies are cut and put together inside the protection, and what is held of them.
#[derive(Clone, Debug)]
pub struct InnerBlocks {
    /// The largest payload that is put together, in octets. A request with more is answered 4.13, a response with more is
    /// [`crate::Failure::TooLarge`]; one of ours that is cut has no more, either:
    /// [`ConnectionError::MessageTooLargeForPeer`].
    pub payload_octets_max: usize,
    /// Options and payload, in octets, that are protected as one message. What is larger goes in blocks; none: nothing is
    /// cut, as over a stream.
    pub message_octets_max: Option<usize>,
    /// The largest block that is sent, in octets: 16 to 1024, a power of 2; what lies between counts as the next below. A
    /// peer that wants smaller ones gets them.
    pub block_octets_max: u16,
    /// Octets that are held for the peer: of its requests that come in blocks, until they are answered, and of responses
    /// that come in blocks. Over it, of the requests that are incomplete the one that has waited longest is thrown away; if
    /// that does not help, the block is answered 4.29 with a Max-Age of
    /// [`crate::TOO_MANY_REQUESTS_MAX_AGE_SECONDS`], and a response is [`crate::Failure::TooLarge`]. A request is taken if
    /// there is nothing besides.
    pub held_octets_max: usize,
    /// Requests of the peer that come in blocks and are not complete. Over it the one that has waited longest is thrown
    /// away, and its next block is answered 4.08.
    pub assemblies_max: usize,
    /// Responses to the peer that are larger than a block and have not been fetched to the end. Over it the oldest is thrown
    /// away: its next block is answered 4.08, or comes out of a new response if the request was a GET or FETCH.
    pub responses_kept_max: usize,
    /// Octets of those responses. Over it the oldest is thrown away, but never the only one.
    pub responses_octets_max: usize,
    /// How long what is incomplete waits for its next block.
    pub lifetime: Duration,
    /// The limit in all. Over it a block or response of the peer is answered 5.03 with the same Max-Age, or
    /// [`crate::Failure::TooLarge`].
    pub budget: Option<Arc<BlockBudget>>,
}

impl Default for InnerBlocks {
    /// What comes in blocks is taken; nothing is cut.
    fn default() -> Self {
        Self { message_octets_max: None, ..Self::for_datagrams(&DatagramConfig::default()) }
    }
}

impl InnerBlocks {
    /// For messages that go in datagrams: what does not fit into one is cut. The limits are those of what lies outside.
    #[must_use]
    pub fn for_datagrams(config: &DatagramConfig) -> Self {
        let limits = &config.limits;
        Self {
            payload_octets_max: config.max_message_size_own as usize,
            message_octets_max: Some(limits.datagram_octets_max.saturating_sub(OUTER_OCTETS_MAX)),
            block_octets_max: limits.block_octets_max,
            held_octets_max: limits.requests_octets_max,
            assemblies_max: limits.assemblies_max,
            responses_kept_max: limits.responses_kept_max,
            responses_octets_max: limits.responses_octets_max,
            lifetime: config.transmission.exchange_lifetime(),
            budget: None,
        }
    }

    /// For messages that go over a stream: what the peer cuts is taken, nothing else is cut.
    #[must_use]
    pub fn for_streams(config: &StreamConfig) -> Self {
        Self { payload_octets_max: config.max_message_size_own as usize, ..Self::default() }
    }

    /// All connections that are given the same count together.
    #[must_use]
    pub fn within(mut self, budget: &Arc<BlockBudget>) -> Self {
        self.budget = Some(Arc::clone(budget));
        self
    }

    /// Whether our own messages are cut inside; then nobody's are put together that were cut outside.
    pub(super) fn cuts(&self) -> bool {
        self.message_octets_max.is_some()
    }

    /// The block size of a request that is not protected as one message; none if it is.
    ///
    /// # Errors
    /// [`ConnectionError::MessageTooLargeForPeer`].
    pub(super) fn upload_size(&self, request: &Message) -> Result<Option<BlockSize>, ConnectionError> {
        let Some(octets_max) = self.message_octets_max else { return Ok(None) };
        let (octets, payload) = (request.body().len(), request.payload().len());
        if payload > self.payload_octets_max {
            return Err(too_large(payload, self.payload_octets_max));
        }
        if octets + BLOCK_OPTIONS_OCTETS <= octets_max {
            return Ok(None);
        }
        let room = octets_max.saturating_sub(octets - payload + BLOCK_OPTIONS_OCTETS);
        let size = BlockSize::at_most(room.min(self.block_octets_max.into()));
        if room < size.octets() || !is_countable(payload, size) {
            return Err(too_large(octets, octets_max));
        }
        Ok(Some(size))
    }
}

fn too_large(octets: usize, octets_max: usize) -> ConnectionError {
    ConnectionError::MessageTooLargeForPeer {
        octets: octets as u64,
        octets_max: u32::try_from(octets_max).unwrap_or(u32::MAX),
    }
}

/// What the response to a request depends on besides itself.
#[derive(Debug, Default)]
pub(super) struct Reply {
    block1: Option<Block>,
    block2: Option<Block>,
    key: Box<[u8]>,
    tag: Option<Box<[u8]>>,
    /// What its request counts for, if it came in blocks.
    pub(super) octets_held: usize,
}

/// What becomes of a request of the peer.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is whole.
    Request(Request, Reply),
    /// It is answered without being handed over.
    Answered(Message),
}

/// The peer's bodies in blocks.
#[derive(Debug)]
pub(super) struct PeerBlocks {
    settings: Arc<InnerBlocks>,
    assemblies: Assemblies,
    kept: KeptResponses,
    /// What this connection counts for in the budget.
    share: usize,
}

impl Drop for PeerBlocks {
    fn drop(&mut self) {
        self.set_share(0);
    }
}

impl PeerBlocks {
    pub(super) fn new(settings: Arc<InnerBlocks>) -> Self {
        Self { settings, assemblies: Assemblies::default(), kept: KeptResponses::default(), share: 0 }
    }

    pub(super) fn settings(&self) -> &InnerBlocks {
        &self.settings
    }

    /// Takes a verified request. `besides` are octets held for the peer elsewhere.
    pub(super) fn take(&mut self, message: &Message, exchange: ExchangeId, besides: usize, now: Instant) -> Taken {
        match self.read(message, exchange, besides, now) {
            Ok((request, reply)) => Taken::Request(request, reply),
            Err(answer) => Taken::Answered(answer),
        }
    }

    fn read(
        &mut self,
        message: &Message,
        exchange: ExchangeId,
        besides: usize,
        now: Instant,
    ) -> Result<(Request, Reply), Message> {
        let frame = Frame::new(message.code(), Token::default(), message.body());
        let mut request = match message::read_request(&frame, exchange, INNER_OPTIONS_MAX, INNER) {
            Ok(Ok(request)) => Request { observe: None, ..request },
            Ok(Err(refusal)) => return Err(refused(refusal, None)),
            Err(_) => return Err(answer(Code::BAD_REQUEST, &[], b"")),
        };
        let extras = Extras::read(&frame).map_err(|refusal| refused(refusal, None))?;
        let mut octets_held = 0;
        if let Some(block) = extras.block1 {
            request.payload = self.assemble(&frame, &extras, block, &request.payload, besides, now)?;
            octets_held = request.payload.len();
        }
        let key = download_key(&frame);
        if let Some(block) = extras.block2.filter(|block| block.number > 0) {
            self.answer_block(message.code(), &key, &extras, block, now)?;
        }
        let tag = extras.tag.map(Box::from);
        Ok((request, Reply { block1: extras.block1, block2: extras.block2, key, tag, octets_held }))
    }

    /// Takes a block of a request; the whole body once it is complete.
    fn assemble(
        &mut self,
        frame: &Frame<'_>,
        extras: &Extras<'_>,
        block: Block,
        payload: &[u8],
        besides: usize,
        now: Instant,
    ) -> Result<Vec<u8>, Message> {
        let bounds = Bounds {
            entries_max: self.settings.assemblies_max,
            octets_max: self.settings.payload_octets_max,
            expires: now + self.settings.lifetime,
        };
        let key = upload_key(frame);
        let octets = key.len() + payload.len();
        let follows = block.number == 0 || self.assemblies.has(&key);
        if follows {
            if !self.assemblies.make_room(&key, octets, besides, self.settings.held_octets_max) {
                return Err(later(Code::TOO_MANY_REQUESTS));
            }
            if !self.set_share(besides + self.octets() + octets) {
                self.settle(besides);
                return Err(later(Code::SERVICE_UNAVAILABLE));
            }
        }
        let assembled = self.assemblies.take(key, block, payload, extras.size1, &bounds);
        let complete = if let Assembled::Complete(body) = &assembled { body.len() } else { 0 };
        self.settle(besides + complete);
        match assembled {
            Assembled::Complete(body) => Ok(body),
            Assembled::Continue => {
                // RFC 7959 2.3: the number is the peer's, the size what we would like from now on.
                let size = block.size.min(BlockSize::at_most(self.settings.block_octets_max.into()));
                let block1 = Block { size, ..block }.encode();
                Err(answer(Code::CONTINUE, &[(number::BLOCK1, block1.as_slice())], b""))
            }
            Assembled::Refused(refusal) if refusal.code == Code::REQUEST_ENTITY_TOO_LARGE => {
                let size1 = Uint::new(u32::try_from(self.settings.payload_octets_max).unwrap_or(u32::MAX));
                let options = [(number::BLOCK1, block.last().encode()), (number::SIZE1, size1)];
                let options: Vec<_> = options.iter().map(|(number, value)| (*number, value.as_slice())).collect();
                Err(answer(refusal.code, &options, b""))
            }
            Assembled::Refused(refusal) => Err(refused(refusal, Some(block))),
        }
    }

    /// Answers for a response that is kept, or says that there is none. Nothing if the application is to be asked: a GET or
    /// FETCH may begin anywhere.
    fn answer_block(
        &mut self,
        method: Code,
        key: &[u8],
        extras: &Extras<'_>,
        block: Block,
        now: Instant,
    ) -> Result<(), Message> {
        const LOST: Refusal =
            Refusal { code: Code::REQUEST_ENTITY_INCOMPLETE, diagnostic: "that response is no longer here" };
        let Some(kept) = self.kept.find(key, extras.tag, now + self.settings.lifetime) else {
            return if matches!(method, Code::GET | Code::FETCH) { Ok(()) } else { Err(refused(LOST, None)) };
        };
        let response = kept.response.clone();
        let cut = Cut::of(&self.settings, &response, None, Some(block));
        if !cut.more && !cut.out_of_range {
            self.kept.forget(key, extras.tag);
        }
        Err(cut.message(&response).unwrap_or_else(|_| later(Code::SERVICE_UNAVAILABLE)))
    }

    /// The message of a response, or of its first block, the whole of which is then kept.
    ///
    /// # Errors
    /// [`ConnectionError::MessageTooLargeForPeer`].
    pub(super) fn compose(
        &mut self,
        reply: &Reply,
        response: &Response,
        besides: usize,
        now: Instant,
    ) -> Result<Message, ConnectionError> {
        let octets = response.payload.len();
        if self.settings.message_octets_max.is_some() && octets > self.settings.payload_octets_max {
            return Err(too_large(octets, self.settings.payload_octets_max));
        }
        let cut = Cut::of(&self.settings, response, reply.block1, reply.block2);
        if cut.is_cut && !is_countable(octets, cut.size) {
            return Err(too_large(octets, self.settings.payload_octets_max));
        }
        let message = cut.message(response)?;
        if cut.more {
            if !self.set_share(besides + self.octets() + octets) {
                self.settle(besides);
                return Ok(later(Code::SERVICE_UNAVAILABLE));
            }
            let bounds = Bounds {
                entries_max: self.settings.responses_kept_max,
                octets_max: self.settings.responses_octets_max,
                expires: now + self.settings.lifetime,
            };
            self.kept.keep(reply.key.clone(), reply.tag.clone(), response.clone(), &bounds);
        }
        self.settle(besides);
        Ok(message)
    }

    /// Whether so many octets of a response of the peer are within the limits, `besides` included.
    pub(super) fn has_room(&mut self, besides: usize, octets: usize) -> bool {
        let room = besides + octets <= self.settings.held_octets_max.max(self.settings.payload_octets_max)
            && self.set_share(besides + self.octets() + octets);
        if !room {
            self.settle(besides);
        }
        room
    }

    /// Counts what is held now; `besides` elsewhere.
    pub(super) fn settle(&mut self, besides: usize) {
        // Less than before, or what was granted.
        self.set_share(besides + self.octets());
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.assemblies.expire(now);
        self.kept.expire(now);
    }

    /// When all that is incomplete is forgotten.
    pub(super) fn settled_at(&self) -> Option<Instant> {
        self.assemblies.settled_at().max(self.kept.settled_at())
    }

    fn octets(&self) -> usize {
        self.assemblies.octets() + self.kept.octets()
    }

    /// Takes or gives back what the connection holds; false, and nothing is changed, if the budget has no more.
    fn set_share(&mut self, octets: usize) -> bool {
        let Some(budget) = &self.settings.budget else { return true };
        if octets <= self.share {
            budget.used.fetch_sub(self.share - octets, Ordering::Relaxed);
        } else {
            let more = octets - self.share;
            let taken = budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|used| *used <= budget.octets_max)
            });
            if taken.is_err() {
                return false;
            }
        }
        self.share = octets;
        true
    }
}

/// What of a response goes out, and how it says so.
struct Cut {
    base: Vec<u8>,
    block1: Option<Block>,
    block2: Option<Block>,
    etag: Option<[u8; crate::block::ETAG_OCTETS]>,
    size: BlockSize,
    size2: Option<Uint>,
    is_cut: bool,
    more: bool,
    /// There is no such block.
    out_of_range: bool,
}

impl Cut {
    fn of(settings: &InnerBlocks, response: &Response, block1: Option<Block>, asked: Option<Block>) -> Self {
        let mut base = Vec::new();
        response.write_options(&mut OptionWriter::new(&mut base), false);
        let octets = response.payload.len();
        let room = settings.message_octets_max.map(|max| max.saturating_sub(base.len() + BLOCK_OPTIONS_OCTETS));
        let size = BlockSize::at_most(usize::from(settings.block_octets_max).min(room.unwrap_or(usize::MAX)));
        let wanted = asked.map(|block| block.size);
        let size = wanted.map_or(size, |wanted| wanted.min(size));
        let offset = asked.map_or(0, Block::offset);
        let is_cut = offset > 0
            || room.is_some_and(|room| octets >= room)
            || wanted.is_some_and(|wanted| octets > wanted.octets());
        let out_of_range = offset > 0 && offset >= octets;
        let shown = is_cut || (asked.is_some() && octets > 0);
        let block2 = (shown && !out_of_range).then(|| Block::at(offset, octets, size));
        let more = block2.is_some_and(|block| block.more);
        let etag = (is_cut && !out_of_range).then(|| etag(&response.payload));
        let size2 = (more && offset == 0).then(|| Uint::new(u32::try_from(octets).unwrap_or(u32::MAX)));
        Self { base, block1, block2, etag, size, size2, is_cut, more, out_of_range }
    }

    fn message(&self, response: &Response) -> Result<Message, ConnectionError> {
        let block1 = self.block1.map(Block::encode);
        let block2 = self.block2.map(Block::encode);
        let mut added: Vec<(u16, &[u8])> = Vec::new();
        added.extend(self.etag.as_ref().map(|etag| (number::ETAG, &etag[..])));
        for (number, value) in [(number::BLOCK2, &block2), (number::BLOCK1, &block1), (number::SIZE2, &self.size2)] {
            added.extend(value.as_ref().map(|value| (number, value.as_slice())));
        }
        let payload = match self.block2 {
            _ if self.out_of_range => &[],
            Some(block) => block.slice(&response.payload),
            None => &response.payload[..],
        };
        // RFC 7959 2.4 leaves the answer to a block beyond the end to RFC 7252's 4.00.
        let code = if self.out_of_range { Code::BAD_REQUEST } else { response.code };
        Message::merged(code, &self.base, &[], &added, payload).map_err(|_| too_large(payload.len(), 0))
    }
}

/// 4.xx with a text, for people.
fn refused(refusal: Refusal, block1: Option<Block>) -> Message {
    let block1 = block1.map(|block| block.last().encode());
    let options: Vec<(u16, &[u8])> = block1.iter().map(|value| (number::BLOCK1, value.as_slice())).collect();
    answer(refusal.code, &options, refusal.diagnostic.as_bytes())
}

/// Over a limit, for the time being.
fn later(code: Code) -> Message {
    let max_age = Uint::new(TOO_MANY_REQUESTS_MAX_AGE_SECONDS);
    answer(code, &[(super::message::number::MAX_AGE, max_age.as_slice())], b"")
}

fn answer(code: Code, options: &[(u16, &[u8])], payload: &[u8]) -> Message {
    Message::new(code, options, payload).unwrap_or_else(|_| Message::empty(code))
}
