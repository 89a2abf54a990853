//! Any sequence of operations against a model that is a sorted list.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use message::{Address, Priority};
use proptest::prelude::*;
use store::{EmbeddedStore, NewStoredMessage, Position, Store, StoreLimits, StoreOptions, StoredKind};
use time::{Duration, OffsetDateTime};

#[derive(Debug, Clone)]
enum Operation {
    Store {
        recipient: usize,
        priority: Priority,
        expires_in: Option<u8>,
    },
    /// Removes the message of that rank among the recipient's.
    Remove {
        recipient: usize,
        rank: prop::sample::Index,
    },
    Pending {
        recipient: usize,
        after: Option<prop::sample::Index>,
        limit: usize,
    },
    Expired {
        now: u8,
        limit: usize,
    },
    Reopen,
}

#[derive(Debug, Clone, PartialEq)]
struct Held {
    recipient: usize,
    position: Position,
    expires_in: Option<u8>,
    body: Vec<u8>,
}

const RECIPIENTS: usize = 3;
const PER_RECIPIENT_MAX: usize = 12;

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let recipient = 0..RECIPIENTS;
    let priority = prop_oneof![Just(Priority::High), Just(Priority::Middle), Just(Priority::Low)];
    let operation = prop_oneof![
        8 => (recipient.clone(), priority, any::<Option<u8>>())
            .prop_map(|(recipient, priority, expires_in)| Operation::Store { recipient, priority, expires_in }),
        5 => (recipient.clone(), any::<prop::sample::Index>())
            .prop_map(|(recipient, rank)| Operation::Remove { recipient, rank }),
        4 => (recipient, any::<Option<prop::sample::Index>>(), 0_usize..8)
            .prop_map(|(recipient, after, limit)| Operation::Pending { recipient, after, limit }),
        3 => (any::<u8>(), 0_usize..8).prop_map(|(now, limit)| Operation::Expired { now, limit }),
        1 => Just(Operation::Reopen),
    ];
    prop::collection::vec(operation, 1..80)
}

fn address(recipient: usize) -> Address {
    Address::ue(&"u".repeat(recipient + 1).parse().unwrap())
}

fn at(offset: u8) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::milliseconds(i64::from(offset))
}

struct Run {
    directory: tempfile::TempDir,
    store: Option<EmbeddedStore>,
    /// In the order they are to be delivered, all recipients mixed.
    held: Vec<Held>,
    last: Option<u64>,
}

impl Run {
    fn store(&self) -> &EmbeddedStore {
        self.store.as_ref().unwrap()
    }

    fn open(&mut self) {
        self.store = None;
        let limits = StoreLimits { messages_per_recipient_max: PER_RECIPIENT_MAX, ..StoreLimits::default() };
        let options = StoreOptions { limits, ..StoreOptions::default() };
        self.store = Some(EmbeddedStore::open(self.directory.path(), options).unwrap());
    }

    fn of(&self, recipient: usize) -> Vec<Held> {
        self.held.iter().filter(|held| held.recipient == recipient).cloned().collect()
    }

    async fn apply(&mut self, number: usize, operation: Operation) {
        match operation {
            Operation::Store { recipient, priority, expires_in } => {
                self.put(number, recipient, priority, expires_in).await
            }
            Operation::Remove { recipient, rank } => {
                let held = self.of(recipient);
                if !held.is_empty() {
                    let position = rank.get(&held).position;
                    let removed = self.store().remove_messages(&address(recipient), vec![position]).await.unwrap();
                    assert_eq!(removed, [position]);
                    self.held.retain(|held| held.position != position);
                }
            }
            Operation::Pending { recipient, after, limit } => {
                let held = self.of(recipient);
                let after = after.filter(|_| !held.is_empty()).map(|after| after.get(&held).position);
                let found = self.store().pending(&address(recipient), after, limit).await.unwrap();
                let expected = held.into_iter().filter(|held| after.is_none_or(|after| held.position > after));
                let found: Vec<_> = found.into_iter().map(|message| (message.position, message.body)).collect();
                let expected: Vec<_> = expected.take(limit).map(|held| (held.position, held.body)).collect();
                assert_eq!(found, expected);
            }
            Operation::Expired { now, limit } => {
                let found = self.store().expired(at(now), limit).await.unwrap();
                let mut due: Vec<_> =
                    self.held.iter().filter_map(|held| held.expires_in.filter(|in_| *in_ <= now)).collect();
                due.sort_unstable();
                let times: Vec<_> = found.iter().map(|message| message.expires_at.unwrap()).collect();
                assert_eq!(times, due.into_iter().take(limit).map(at).collect::<Vec<_>>());
            }
            Operation::Reopen => self.open(),
        }
        for recipient in 0..RECIPIENTS {
            assert_eq!(self.store().pending_count(&address(recipient)), self.of(recipient).len());
        }
        let waiting = self.store().pending_recipients(None, 10).len();
        assert_eq!(waiting, (0..RECIPIENTS).filter(|recipient| !self.of(*recipient).is_empty()).count());
    }

    async fn put(&mut self, number: usize, recipient: usize, priority: Priority, expires_in: Option<u8>) {
        let body = number.to_string().into_bytes();
        let message = NewStoredMessage {
            recipient: address(recipient),
            originator: number.is_multiple_of(2).then(|| address(0)),
            message_id: None,
            priority,
            expires_at: expires_in.map(at),
            kind: StoredKind::Message,
            body: body.clone(),
            deduplication: None,
        };
        let answer = self.store().store_message(message).await;
        if self.of(recipient).len() >= PER_RECIPIENT_MAX {
            assert!(answer.is_err());
            return;
        }
        let position = answer.unwrap();
        assert!(self.last.is_none_or(|last| position.sequence() > last));
        self.last = Some(position.sequence());
        self.held.push(Held { recipient, position, expires_in, body });
        self.held.sort_by_key(|held| held.position);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_sorted_list_does(operations in operations()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let mut run = Run { directory, store: None, held: Vec::new(), last: None };
            run.open();
            for (number, operation) in operations.into_iter().enumerate() {
                run.apply(number, operation).await;
            }
        });
    }
}
