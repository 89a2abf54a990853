//! Whatever segments come, in whatever order and at whatever times: the reassembler keeps within its limits, counts what
//! it holds, gives out nothing that is larger than allowed, and in the end holds nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use message::segmentation::{Insert, Overdue, Reassembler, ReassemblyLimits, SetKey};
use message::{Address, Message, Priority, SegmentParameters};

const LIMITS: ReassemblyLimits = ReassemblyLimits {
    sets_per_peer_max: 2,
    octets_per_peer_max: 4_000,
    sets_max: 3,
    octets_max: 6_000,
    payload_octets_max: 300,
    wait_milliseconds: 50,
    recoveries_max: 2,
    lifetime_milliseconds_max: 400,
    completed_max: 2,
    completed_milliseconds: 100,
};

// Eight octets are one step.
fuzz_target!(|octets: &[u8]| {
    let mut reassembler = Reassembler::new(LIMITS);
    let mut now = 0;
    for step in octets.chunks_exact(8) {
        let &[names, number, high, total, flags, payload, pause, fill] = step else { continue };
        now += u64::from(pause);
        let message = segment(names, u32::from(number) | u32::from(high & 0x07) << 8, total, flags, payload, fill);
        let key = SetKey::of(&message).expect("a segment");
        match reassembler.insert(message, now) {
            Insert::Complete(whole) => {
                assert!(whole.payload.len() <= LIMITS.payload_octets_max && whole.segment.is_none());
                if flags & 4 == 0 {
                    assert!(reassembler.remove(&key));
                }
            }
            Insert::Held | Insert::Duplicate | Insert::Refused(_) => {}
        }
        if flags & 8 != 0 {
            check(&reassembler.due(now));
        }
        assert!(reassembler.sets() <= LIMITS.sets_max && reassembler.octets() <= LIMITS.octets_max);
        assert_eq!(reassembler.sets() == 0, reassembler.octets() == 0);
    }
    while let Some(due) = reassembler.next_due() {
        assert!(due <= now + LIMITS.lifetime_milliseconds_max);
        check(&reassembler.due(due));
    }
    assert_eq!((reassembler.sets(), reassembler.octets()), (0, 0));
});

fn check(overdue: &[Overdue]) {
    for one in overdue {
        if let Overdue::Missing { missing, .. } = one {
            assert!((1..=1_024).contains(&missing.len()) && missing.is_sorted());
        }
    }
}

fn segment(names: u8, number: u32, total: u8, flags: u8, payload: u8, fill: u8) -> Message {
    let name = |prefix: &str, number: u8| format!("{prefix}{number}");
    Message {
        originator: Address::ue(&name("ue-", names & 3).parse().expect("an identity")),
        destination: Address::ue(&"target".parse().expect("an identity")),
        recipient: None,
        message_id: name("m-", names >> 4 & 1).parse().expect("an identity"),
        application_id: None,
        delivery_status_required: flags & 16 != 0,
        store_and_forward: false,
        expiration_time: None,
        priority: Priority::Middle,
        payload: vec![fill; usize::from(payload)],
        segment: Some(SegmentParameters {
            set_id: name("s-", names >> 2 & 3).parse().expect("an identity"),
            total_count: (flags & 1 != 0).then_some(u32::from(total)),
            number,
            last: flags & 2 != 0,
        }),
        latency: None,
    }
}
