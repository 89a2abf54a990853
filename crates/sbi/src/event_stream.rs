//! Server-sent events as they come (WHATWG HTML clause 9.2.6), without I/O.

use thiserror::Error;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSentEvent {
    /// Its identifier; empty if it has none.
    pub id: String,
    /// Its data, the lines of it joined by line feeds.
    pub data: String,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EventStreamError {
    /// One event, or one line, is longer than is taken.
    #[error("an event is too long")]
    TooLong,
    /// It is not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// Reads a stream. After each [`EventStream::push`], poll [`EventStream::next_event`] until it has none.
#[derive(Debug)]
pub struct EventStream {
    octets_max: usize,
    /// What came and was not looked at.
    line: Vec<u8>,
    event: ServerSentEvent,
    has_data: bool,
    after_return: bool,
    ready: std::collections::VecDeque<ServerSentEvent>,
}

impl EventStream {
    /// A stream whose events have at most so many octets.
    #[must_use]
    pub fn new(octets_max: usize) -> Self {
        Self {
            octets_max,
            line: Vec::new(),
            event: ServerSentEvent { id: String::new(), data: String::new() },
            has_data: false,
            after_return: false,
            ready: std::collections::VecDeque::new(),
        }
    }

    /// Takes octets in.
    ///
    /// # Errors
    /// [`EventStreamError`]; nothing more can be read then.
    pub fn push(&mut self, octets: &[u8]) -> Result<(), EventStreamError> {
        for octet in octets {
            let follows_return = std::mem::replace(&mut self.after_return, *octet == b'\r');
            match octet {
                // The rest of a CR LF.
                b'\n' if follows_return => {}
                b'\n' | b'\r' => self.end_line()?,
                octet => {
                    if self.line.len() + self.event.data.len() >= self.octets_max {
                        return Err(EventStreamError::TooLong);
                    }
                    self.line.push(*octet);
                }
            }
        }
        Ok(())
    }

    /// The next event that is whole.
    pub fn next_event(&mut self) -> Option<ServerSentEvent> {
        self.ready.pop_front()
    }

    fn end_line(&mut self) -> Result<(), EventStreamError> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).map_err(|_| EventStreamError::NotUtf8)?;
        if line.is_empty() {
            let id = self.event.id.clone();
            let event = std::mem::replace(&mut self.event, ServerSentEvent { id, data: String::new() });
            if std::mem::take(&mut self.has_data) {
                self.ready.push_back(event);
            }
            return Ok(());
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" if !value.contains('\0') => value.clone_into(&mut self.event.id),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                if self.event.data.len() > self.octets_max {
                    return Err(EventStreamError::TooLong);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut stream = EventStream::new(1000);
        let mut events = Vec::new();
        for piece in pieces {
            stream.push(piece).unwrap();
            while let Some(event) = stream.next_event() {
                events.push((event.id, event.data));
            }
        }
        events
    }

    const STREAM: &str =
        ":\n\nid: 1\nevent: message\ndata: {\"a\":1}\n\n: alive\n\ndata: x\ndata:y\r\n\r\nid\ndata\n\nretry: 5\n\n";

    #[test]
    fn fields_comments_and_empty_events_are_read_as_the_specification_has_them() {
        let pair = |id: &str, data: &str| (id.to_owned(), data.to_owned());
        assert_eq!(events(&[STREAM.as_bytes()]), [pair("1", "{\"a\":1}"), pair("1", "x\ny"), pair("", "")]);
    }

    #[test]
    fn what_is_too_long_or_no_text_ends_it() {
        let mut stream = EventStream::new(10);
        assert_eq!(stream.push(&[b'x'; 11]), Err(EventStreamError::TooLong));
        let mut stream = EventStream::new(10);
        assert_eq!(stream.push(b"data: 123\ndata: 456\ndata: 789\n"), Err(EventStreamError::TooLong));
        assert_eq!(EventStream::new(10).push(b"\xff\n"), Err(EventStreamError::NotUtf8));
    }

    proptest! {
        #[test]
        fn where_the_octets_are_cut_makes_no_difference(cuts in proptest::collection::vec(0_usize..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&STREAM.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&STREAM.as_bytes()[from..]);
            prop_assert_eq!(events(&pieces), events(&[STREAM.as_bytes()]));
        }

        #[test]
        fn no_octets_break_it_and_it_holds_no_more_than_it_may(octets in any::<Vec<u8>>()) {
            let mut stream = EventStream::new(16);
            let _ = stream.push(&octets);
            prop_assert!(stream.line.len() <= 16 && stream.event.data.len() <= 32);
        }
    }
}
