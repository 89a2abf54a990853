//! ACK (RFC 9147 7).

use crate::codec::{Malformed, Read, Reader, put_vector16};
use crate::limits::RECORD_CONTENT_OCTETS_MAX;
use crate::record::epochs::RecordNumber;

const NUMBER_OCTETS: usize = 16;

/// Octets of an ACK of so many records.
pub(crate) const fn octets(numbers: usize) -> usize {
    2 + numbers * NUMBER_OCTETS
}

pub(crate) fn encode(numbers: &[RecordNumber]) -> Vec<u8> {
    let mut list = Vec::with_capacity(numbers.len() * NUMBER_OCTETS);
    for number in numbers {
        list.extend_from_slice(&number.epoch.to_be_bytes());
        list.extend_from_slice(&number.sequence.to_be_bytes());
    }
    let mut out = Vec::with_capacity(octets(numbers.len()));
    put_vector16(&mut out, &list);
    out
}

pub(crate) fn parse(content: &[u8]) -> Read<Vec<RecordNumber>> {
    if content.len() > RECORD_CONTENT_OCTETS_MAX {
        return Err(Malformed);
    }
    let mut reader = Reader::new(content);
    let (pairs, rest) = reader.vector16()?.as_chunks::<NUMBER_OCTETS>();
    reader.end()?;
    if !rest.is_empty() {
        return Err(Malformed);
    }
    pairs
        .iter()
        .map(|pair| {
            let mut reader = Reader::new(pair);
            Ok(RecordNumber {
                epoch: u64::from_be_bytes(reader.array()?),
                sequence: u64::from_be_bytes(reader.array()?),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_ack_is_read_as_it_was_written(numbers in prop::collection::vec(any::<(u64, u64)>(), 0..40)) {
            let numbers: Vec<_> =
                numbers.into_iter().map(|(epoch, sequence)| RecordNumber { epoch, sequence }).collect();
            prop_assert_eq!(parse(&encode(&numbers)).unwrap(), numbers);
        }

        #[test]
        fn an_ack_that_is_read_is_written_the_same(content in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(numbers) = parse(&content) {
                prop_assert_eq!(encode(&numbers), content);
            }
        }
    }
}
