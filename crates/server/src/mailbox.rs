//! How the rest of the server reaches the task that carries messages to one recipient: a session, or an AS's courier.
//!
//! Not a channel: a channel of the runtime takes kilobytes before its first use, and a server holds a mailbox for every
//! idle connection. This one takes what it holds. It is bounded by what can be put into it: one answer for each request
//! the session took (`requests_per_connection_max`), few orders to close or to re-validate, and a mark that deliveries wait.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use coap::ExchangeId;
use futures_util::task::AtomicWaker;
use message::{FailureCause, TopicSubscriptionResponse};

use crate::delivery::Answer;
use crate::sync::lock;

/// Why a session is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The same UE Service ID registered on a newer connection.
    Replaced,
    /// The registration was removed.
    Deregistered,
    /// Its A-KID has as many connections as it may.
    TooMany,
    /// AKMA is not to be used any more under its A-KID (TS 33.535 clause 7.1).
    ServiceDisabled,
    /// The server stops: finish what is in flight first.
    Stopping,
}

/// One thing put into a mailbox.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The answer to a request of this session's peer.
    Answer(ExchangeId, Answer),
    /// The answer to a topic subscription or unsubscription of this session's peer.
    Topics(ExchangeId, TopicAnswer),
    /// Ask at once whether key and association are still good, and end if not.
    Revalidate,
    /// End.
    Close(CloseReason),
}

/// What a UE is told about its topics.
#[derive(Debug)]
pub(crate) struct TopicAnswer {
    pub(crate) response: Box<TopicSubscriptionResponse>,
    /// Why it was refused; decides the code.
    pub(crate) refused: Option<FailureCause>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    /// Something in the recipient's pipeline changed.
    knocked: AtomicBool,
    /// Nobody takes anything out any more.
    closed: AtomicBool,
    waker: AtomicWaker,
}

impl Mailbox {
    /// Leaves a letter.
    pub(crate) fn post(&self, letter: Letter) {
        lock(&self.letters).push_back(letter);
        self.waker.wake();
    }

    /// Says that the recipient's pipeline is worth a look. Cheap when nobody looked since the last time.
    pub(crate) fn knock(&self) {
        if !self.knocked.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Says that whoever took letters has ended.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether [`Mailbox::close`] was called.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ready once there is a letter or a knock; the knock is taken. The task is woken at the next one.
    pub(crate) fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        if self.take_knock() || !lock(&self.letters).is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether there is neither letter nor knock, and nobody has closed it.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.is_closed() && !self.knocked.load(Ordering::Acquire) && lock(&self.letters).is_empty()
    }

    /// Takes the mark left by [`Mailbox::knock`].
    pub(crate) fn take_knock(&self) -> bool {
        self.knocked.swap(false, Ordering::AcqRel)
    }

    /// The oldest letter. Gives the memory back with the last one.
    pub(crate) fn take(&self) -> Option<Letter> {
        let mut letters = lock(&self.letters);
        let letter = letters.pop_front();
        if letters.is_empty() && letters.capacity() > 16 {
            *letters = VecDeque::new();
        }
        letter
    }
}
