//! The few MQTT 3.1.1 control packets that sending and receiving with QoS 1 takes. Written for a client that speaks to
//! one known broker: it reads what mosquitto sends, not whatever the protocol allows.

use crate::BenchError;

/// A packet from the broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// CONNACK with its return code, of which 0 is success, and whether the session was there already.
    ConnectAcknowledgement { code: u8, session_present: bool },
    /// SUBACK.
    SubscribeAcknowledgement,
    /// PUBACK with its packet identifier.
    PublishAcknowledgement(u16),
    /// PUBLISH with QoS 1.
    Publish { identifier: u16, payload: Vec<u8> },
    /// Anything else; nothing that needs an answer here.
    Other,
}

pub(super) fn connect(out: &mut Vec<u8>, client: &str, clean_session: bool) {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.push(4);
    body.push(if clean_session { 0x02 } else { 0 });
    body.extend_from_slice(&0_u16.to_be_bytes()); // no keep-alive
    text(&mut body, client);
    packet(out, 0x10, &body);
}

pub(super) fn subscribe(out: &mut Vec<u8>, identifier: u16, topic: &str) {
    let mut body = identifier.to_be_bytes().to_vec();
    text(&mut body, topic);
    body.push(1);
    packet(out, 0x82, &body);
}

pub(super) fn publish(out: &mut Vec<u8>, identifier: u16, topic: &str, payload: &[u8]) {
    let mut body = Vec::with_capacity(4 + topic.len() + payload.len());
    text(&mut body, topic);
    body.extend_from_slice(&identifier.to_be_bytes());
    body.extend_from_slice(payload);
    packet(out, 0x32, &body);
}

pub(super) fn publish_acknowledgement(out: &mut Vec<u8>, identifier: u16) {
    packet(out, 0x40, &identifier.to_be_bytes());
}

pub(super) fn disconnect(out: &mut Vec<u8>) {
    packet(out, 0xe0, &[]);
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Topics and client names here are a few octets long.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut length = body.len();
    loop {
        let more = length > 0x7f;
        out.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    out.extend_from_slice(body);
}

/// Takes one packet off the front of `octets`; `None` when it is not all there yet.
pub(super) fn take(octets: &mut Vec<u8>) -> Result<Option<Packet>, BenchError> {
    let Some((first, body, total)) = split(octets)? else { return Ok(None) };
    let wrong = || BenchError::Protocol(format!("MQTT packet {first:#04x} is too short"));
    let packet = match first >> 4 {
        2 => match body {
            [flags, code] => Packet::ConnectAcknowledgement { code: *code, session_present: flags & 1 != 0 },
            _ => return Err(wrong()),
        },
        3 => {
            let (topic, rest) = body.split_first_chunk().ok_or_else(wrong)?;
            let rest = rest.get(usize::from(u16::from_be_bytes(*topic))..).ok_or_else(wrong)?;
            let (identifier, payload) = rest.split_first_chunk().ok_or_else(wrong)?;
            Packet::Publish { identifier: u16::from_be_bytes(*identifier), payload: payload.to_vec() }
        }
        4 => Packet::PublishAcknowledgement(u16::from_be_bytes(*body.first_chunk().ok_or_else(wrong)?)),
        9 => Packet::SubscribeAcknowledgement,
        _ => Packet::Other,
    };
    octets.drain(..total);
    Ok(Some(packet))
}

/// The first octet, the body and the whole length of a packet.
type Parts<'a> = (u8, &'a [u8], usize);

/// The packet at the front, if it is all there.
fn split(octets: &[u8]) -> Result<Option<Parts<'_>>, BenchError> {
    let Some((first, rest)) = octets.split_first() else { return Ok(None) };
    let mut length = 0;
    for (index, octet) in rest.iter().take(4).enumerate() {
        length |= usize::from(octet & 0x7f) << (7 * index);
        if octet & 0x80 == 0 {
            let start = index + 2;
            return Ok(octets.get(start..start + length).map(|body| (*first, body, start + length)));
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(BenchError::Protocol("MQTT packet length".to_owned())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn packets_are_taken_whole_whatever_the_pieces() {
        let mut sent = Vec::new();
        publish(&mut sent, 7, "ue/1", &[9; 300]);
        publish_acknowledgement(&mut sent, 513);
        let mut arrived = Vec::new();
        let mut taken = Vec::new();
        for octet in sent {
            arrived.push(octet);
            taken.extend(take(&mut arrived).unwrap());
        }
        let publish = Packet::Publish { identifier: 7, payload: vec![9; 300] };
        assert_eq!(taken, [publish, Packet::PublishAcknowledgement(513)]);
        assert!(arrived.is_empty());
    }

    #[test]
    fn a_length_without_end_is_refused() {
        assert!(take(&mut vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(take(&mut vec![0x30, 1, 0]).is_err());
    }
}
