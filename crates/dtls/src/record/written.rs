//! For tests: which numbers were written under which key in this thread. A number and its key make a nonce, and none may come
//! again, whatever was frozen, sealed and opened in between.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

/// By key.
type Numbers = HashMap<Vec<u8>, Vec<Range<u64>>>;

thread_local! {
    static WRITTEN: RefCell<Option<Numbers>> = const { RefCell::new(None) };
}

/// Forgets everything and watches from now on.
pub(crate) fn watch() {
    WRITTEN.with(|written| *written.borrow_mut() = Some(HashMap::new()));
}

/// Records with these numbers are written; panics if one was before.
pub(crate) fn note(key: &[u8], numbers: Range<u64>) {
    WRITTEN.with(|written| {
        let mut written = written.borrow_mut();
        let Some(written) = written.as_mut() else { return };
        let ranges = written.entry(key.to_vec()).or_default();
        let again = ranges.iter().any(|other| numbers.start < other.end && other.start < numbers.end);
        assert!(!again, "{numbers:?} of {ranges:?}");
        match ranges.last_mut().filter(|last| last.end == numbers.start) {
            Some(last) => last.end = numbers.end,
            None => ranges.push(numbers),
        }
    });
}
