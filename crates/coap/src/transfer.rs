//! What goes out and comes in blocks for one request of ours (RFC 7959), whatever carries its messages: datagrams, which
//! cut what is outside, or protected messages, which are cut inside (RFC 8613 4.1.3.4.1).
//!
//! ```text
//! Block1 0 ─ 2.31 ─> 1 ─ ... ─> last block ─> response ── one block? ── yes ──> done
//!                                                └ no ──> Block2 1 ─> 2 ─ ... ──> done
//! ```

use crate::block::{Block, BlockSize, Extras, Uint, number};
use crate::code::Code;
use crate::datagram::merged;
use crate::event::Failure;
use crate::frame::OptionReader;
use crate::message::Response;

/// How far a request of ours is that does not fit into one message, or whose response does not.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    upload: Option<Upload>,
    download: Option<Box<Download>>,
    /// Request-Tag of what went out in blocks, or is like another that is under way: the requests for the blocks of the
    /// response belong to the same operation.
    tag: Option<u32>,
    /// What may be tried once has been tried.
    restarted: bool,
}

/// A body that goes out in blocks.
#[derive(Clone, Copy, Debug)]
struct Upload {
    offset: usize,
    size: BlockSize,
}

/// A body that comes in blocks; the response holds what has come.
#[derive(Debug)]
struct Download {
    response: Response,
    etag: Option<Box<[u8]>>,
    size: BlockSize,
}

/// What comes after a response.
#[derive(Debug)]
pub(crate) enum Step {
    /// Another message.
    Again,
    Done(Response),
    Failed(Failure),
    /// The blocks are of different states of the resource (RFC 7959 2.4).
    Changed,
}

/// What a step depends on besides the response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepContext {
    /// Of the whole body of the request.
    pub(crate) payload_octets: usize,
    /// The largest response that is taken.
    pub(crate) response_octets_max: usize,
    /// Request-Tag of what is begun anew: a number that no other attempt has (RFC 9175 3.3).
    pub(crate) tag: u32,
}

impl Transfer {
    /// Tells the request from others that look the same.
    pub(crate) fn tagged(&mut self, tag: u32) {
        self.tag = Some(tag);
    }

    /// From the first block on, under a tag that no other attempt has (RFC 9175 3.3).
    pub(crate) fn begin_upload(&mut self, size: BlockSize, tag: u32) {
        self.upload = Some(Upload { offset: 0, size });
        self.tag = Some(tag);
    }

    /// The rest of a response, of which that is the first block.
    pub(crate) fn begin_download(&mut self, extras: &Extras<'_>, response: Response, size: BlockSize) {
        self.upload = None;
        self.download = Some(Box::new(Download { response, etag: extras.etag.map(Box::from), size }));
    }

    /// Forgets what has come, to ask once more; false if that has been done before.
    pub(crate) fn may_fetch_anew(&mut self) -> bool {
        let may = !self.restarted;
        if may {
            self.restarted = true;
            self.download = None;
        }
        may
    }

    /// Octets of a response of which not all blocks have come.
    pub(crate) fn octets_held(&self) -> usize {
        self.download.as_ref().map_or(0, |download| download.response.payload.len())
    }

    /// Options and payload of the next message of a request, of which those are the whole.
    pub(crate) fn compose<'p>(
        &self,
        method: Code,
        options: &[u8],
        mut payload: &'p [u8],
        left_out: &[u16],
        echo: Option<&[u8]>,
    ) -> (Vec<u8>, &'p [u8]) {
        let (block1, block2, size1, tag);
        let (mut left_out, mut added): (&[u16], Vec<(u16, &[u8])>) = (left_out, Vec::new());
        if let Some(download) = &self.download {
            let next = Block {
                number: download.response.payload.len() / download.size.octets(),
                more: false,
                size: download.size,
            };
            block2 = next.encode();
            added.push((number::BLOCK2, block2.as_slice()));
            // RFC 8132 2.3.2: the payload of a FETCH is part of what it asks for; others have delivered theirs.
            left_out = &[number::OBSERVE];
            if method != Code::FETCH {
                payload = &[];
            }
        } else if let Some(upload) = &self.upload {
            let block = Block::at(upload.offset, payload.len(), upload.size);
            block1 = block.encode();
            added.push((number::BLOCK1, block1.as_slice()));
            if upload.offset == 0 {
                size1 = Uint::new(u32::try_from(payload.len()).unwrap_or(u32::MAX));
                added.push((number::SIZE1, size1.as_slice()));
            }
            payload = block.slice(payload);
        }
        if let Some(echo) = echo {
            added.push((number::ECHO, echo));
        }
        if let Some(number) = self.tag {
            tag = number.to_be_bytes();
            added.push((number::REQUEST_TAG, &tag));
        }
        (merged(OptionReader::new(options), left_out, &added), payload)
    }

    /// What a response leads to.
    pub(crate) fn step(&mut self, extras: &Extras<'_>, response: Response, context: &StepContext) -> Step {
        if self.download.is_some() {
            return self.step_download(extras, response, context);
        }
        if let Some(step) = self.step_upload(extras, &response, context) {
            return step;
        }
        match extras.block2 {
            Some(block) if block.number > 0 => Step::Failed(Failure::Unusable),
            Some(block) if block.more => {
                if response.payload.len() != block.size.octets() {
                    return Step::Failed(Failure::Unusable);
                }
                if extras.size2.unwrap_or(0) as usize > context.response_octets_max {
                    return Step::Failed(Failure::TooLarge);
                }
                self.begin_download(extras, response, block.size);
                Step::Again
            }
            _ if response.payload.len() > context.response_octets_max => Step::Failed(Failure::TooLarge),
            _ => Step::Done(response),
        }
    }

    /// None if the response is the one to the whole request.
    fn step_upload(&mut self, extras: &Extras<'_>, response: &Response, context: &StepContext) -> Option<Step> {
        let octets = context.payload_octets;
        let Some(upload) = &mut self.upload else {
            return match (response.code, extras.block1) {
                // RFC 7959 2.9.3: it would rather have blocks.
                (Code::REQUEST_ENTITY_TOO_LARGE, Some(block)) if !self.restarted && octets > block.size.octets() => {
                    self.restarted = true;
                    self.begin_upload(block.size, context.tag);
                    Some(Step::Again)
                }
                (Code::CONTINUE, _) => Some(Step::Failed(Failure::Unusable)),
                _ => None,
            };
        };
        let sent = Block::at(upload.offset, octets, upload.size);
        match (response.code, extras.block1) {
            (code, Some(block)) if sent.more && code.is_success() => {
                if block.number != sent.number || block.size > sent.size {
                    return Some(Step::Failed(Failure::Unusable));
                }
                upload.offset += upload.size.octets();
                upload.size = block.size;
                Some(Step::Again)
            }
            (Code::CONTINUE, _) => Some(Step::Failed(Failure::Unusable)),
            (Code::REQUEST_ENTITY_TOO_LARGE, Some(block)) if upload.offset == 0 && block.size < upload.size => {
                upload.size = block.size;
                Some(Step::Again)
            }
            // The peer has lost what came before, for example by starting anew.
            (Code::REQUEST_ENTITY_INCOMPLETE, _) if upload.offset > 0 && !self.restarted => {
                self.restarted = true;
                let size = upload.size;
                self.begin_upload(size, context.tag);
                Some(Step::Again)
            }
            _ => None,
        }
    }

    fn step_download(&mut self, extras: &Extras<'_>, response: Response, context: &StepContext) -> Step {
        let Some(download) = &mut self.download else { return Step::Failed(Failure::Unusable) };
        if !response.code.is_success() {
            return Step::Done(response);
        }
        let body = &mut download.response.payload;
        let Some(block) = extras.block2 else { return Step::Failed(Failure::Unusable) };
        let whole = if block.more {
            response.payload.len() == block.size.octets()
        } else {
            response.payload.len() <= block.size.octets()
        };
        if extras.etag != download.etag.as_deref() {
            return Step::Changed;
        }
        if !whole
            || response.code != download.response.code
            || block.offset() != body.len()
            || block.size > download.size
        {
            return Step::Failed(Failure::Unusable);
        }
        if body.len() + response.payload.len() > context.response_octets_max {
            return Step::Failed(Failure::TooLarge);
        }
        body.extend_from_slice(&response.payload);
        download.size = block.size;
        if block.more {
            return Step::Again;
        }
        self.download.take().map_or(Step::Failed(Failure::Unusable), |download| Step::Done(download.response))
    }
}
