//! One message as many (TS 23.554 clause 8.5), and back: [`segment`] cuts, [`Reassembler`] puts together. No clock: times
//! come in as milliseconds of whatever clock the caller has.
//!
//! What the clause says of each segment: every one carries originator, recipient, Message ID, segmentation set
//! identifier and segment number; "delivery status required" and the total number of segments are in the first only, the
//! last segment flag in the last only. What else a message has (Application ID, store and forward, priority, latency) is
//! repeated in every segment here (INFERRED), so that each can be routed, stored and ordered like any message; when they
//! are put together, what the first segment says holds.
//!
//! ```
//! use message::segmentation::{Insert, Reassembler, ReassemblyLimits, segment};
//! # let message = message::Message {
//! #     originator: message::Address::ue(&"a".parse()?), destination: message::Address::ue(&"b".parse()?),
//! #     recipient: None, message_id: "1".parse()?, application_id: None, delivery_status_required: true,
//! #     store_and_forward: false, expiration_time: None, priority: message::Priority::Middle,
//! #     payload: vec![7; 5_000], segment: None, latency: None,
//! # };
//! let mut segments = segment(&message, "set-1".parse()?, 2_048)?;
//! segments.reverse();
//! let mut reassembler = Reassembler::new(ReassemblyLimits::default());
//! let arrivals: Vec<_> = segments.into_iter().map(|segment| reassembler.insert(segment, 0)).collect();
//! assert_eq!(arrivals, [Insert::Held, Insert::Held, Insert::Complete(Box::new(message))]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod reassembly;

pub use reassembly::{
    Insert, Overdue, Reassembler, ReassemblyLimits, SEGMENT_OVERHEAD_OCTETS, SET_OVERHEAD_OCTETS, SetKey,
};

use crate::identity::SegmentationSetId;
use crate::limits::SEGMENTS_MAX;
use crate::model::{Message, SegmentParameters};

/// Why a message is not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSegmentable {
    /// It is a segment already.
    #[error("the message is a segment already")]
    Segment,
    /// Segments of no octets.
    #[error("segments of no octets")]
    NoOctets,
    /// It would take more than [`SEGMENTS_MAX`].
    #[error("{segments} segments, at most {} are made", SEGMENTS_MAX)]
    TooMany {
        /// How many it would take.
        segments: usize,
    },
}

/// Cuts `message` into segments of at most `segment_octets` octets of payload, in order, numbered from 1, of the set
/// `set_id`. All have the Message ID of the message. A message that needs no cutting comes back alone and as it is, not
/// as a segment.
pub fn segment(
    message: &Message,
    set_id: SegmentationSetId,
    segment_octets: usize,
) -> Result<Vec<Message>, NotSegmentable> {
    if message.segment.is_some() {
        return Err(NotSegmentable::Segment);
    }
    if message.payload.len() <= segment_octets {
        return Ok(vec![message.clone()]);
    }
    if segment_octets == 0 {
        return Err(NotSegmentable::NoOctets);
    }
    let segments = message.payload.len().div_ceil(segment_octets);
    let total = u32::try_from(segments).ok().filter(|total| *total <= SEGMENTS_MAX);
    let Some(total) = total else { return Err(NotSegmentable::TooMany { segments }) };
    let cut = |(number, payload): (u32, &[u8])| Message {
        originator: message.originator.clone(),
        destination: message.destination.clone(),
        recipient: message.recipient.clone(),
        message_id: message.message_id.clone(),
        application_id: message.application_id.clone(),
        delivery_status_required: message.delivery_status_required && number == 1,
        store_and_forward: message.store_and_forward,
        expiration_time: message.expiration_time,
        priority: message.priority,
        payload: payload.to_vec(),
        segment: Some(SegmentParameters {
            set_id: set_id.clone(),
            total_count: (number == 1).then_some(total),
            number,
            last: number == total,
        }),
        latency: message.latency,
    };
    Ok((1..).zip(message.payload.chunks(segment_octets)).map(cut).collect())
}
