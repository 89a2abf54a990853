//! Two machines and a network between them, under virtual time: datagrams are lost, repeated, delayed and thereby
//! reordered, as a seed decides.
#![allow(dead_code)] // each test binary uses what it needs

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coap::{ConnectionEvent, DatagramConfig, DatagramConnection};

/// What the network does to datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    pub(crate) loss_percent: u64,
    pub(crate) duplication_percent: u64,
    /// A datagram takes up to so long.
    pub(crate) delay_max: Duration,
}

pub(crate) const PERFECT: Conditions =
    Conditions { loss_percent: 0, duplication_percent: 0, delay_max: Duration::from_millis(10) };

pub(crate) struct Net {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) sides: [DatagramConnection; 2],
    pub(crate) conditions: Conditions,
    /// What happened at each side and has not been taken.
    pub(crate) events: [VecDeque<ConnectionEvent>; 2],
    /// Every datagram that was sent, with who sent it.
    pub(crate) sent: Vec<(usize, Vec<u8>)>,
    /// By arrival: to whom, and what.
    wire: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sequence: u64,
    random: u64,
}

impl Net {
    pub(crate) fn new(config: DatagramConfig, conditions: Conditions, seed: u64) -> Self {
        Self::with([config, config], conditions, seed)
    }

    pub(crate) fn with(configs: [DatagramConfig; 2], conditions: Conditions, seed: u64) -> Self {
        let start = Instant::now();
        let mut side = 0;
        let sides = configs.map(|config| {
            side += 1;
            DatagramConnection::new(Arc::new(config), seed.wrapping_mul(31).wrapping_add(side))
        });
        Self {
            start,
            now: start,
            sides,
            conditions,
            events: Default::default(),
            sent: Vec::new(),
            wire: BTreeMap::new(),
            sequence: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % below.max(1)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// After each input: events until `None`, datagrams until `None`.
    pub(crate) fn poll(&mut self) {
        for side in 0..2 {
            while let Some(event) = self.sides[side].poll_event() {
                self.events[side].push_back(event);
            }
            while let Some(datagram) = self.sides[side].poll_transmit() {
                self.sent.push((side, datagram.clone()));
                self.carry(1 - side, datagram);
            }
        }
    }

    fn carry(&mut self, to: usize, datagram: Vec<u8>) {
        let copies = if self.random(100) < self.conditions.duplication_percent { 2 } else { 1 };
        for _ in 0..copies {
            if self.random(100) < self.conditions.loss_percent {
                continue;
            }
            let delay = self.random(self.conditions.delay_max.as_micros() as u64);
            self.sequence += 1;
            let arrival = self.now + Duration::from_micros(1 + delay);
            self.wire.insert((arrival, self.sequence), (to, datagram.clone()));
        }
    }

    /// Goes on to the next thing that is due, a datagram or a time-out, but not beyond `until`. False if there is none.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        self.poll();
        let arrival = self.wire.first_key_value().map(|((arrival, _), _)| *arrival);
        let timeout = self.sides.iter().filter_map(DatagramConnection::poll_timeout).min();
        let Some(next) = [arrival, timeout].into_iter().flatten().min().filter(|next| *next <= until) else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival.is_some_and(|arrival| arrival <= self.now) {
            if let Some((_, (to, datagram))) = self.wire.pop_first() {
                self.sides[to].receive(&datagram, self.now).unwrap();
            }
        } else {
            for side in &mut self.sides {
                side.handle_timeout(self.now);
            }
            // What was due has been done: otherwise the driver would turn in circles.
            for side in &self.sides {
                assert!(side.poll_timeout().is_none_or(|at| at > self.now), "still due after its time-out was handled");
            }
        }
        self.poll();
        true
    }

    /// Lets `duration` pass, with whatever happens in it.
    pub(crate) fn run(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.step(until) {}
        self.now = until;
    }

    /// Goes on until something happens at that side.
    pub(crate) fn event(&mut self, side: usize) -> ConnectionEvent {
        let until = self.now + Duration::from_secs(3_600);
        loop {
            self.poll();
            if let Some(event) = self.events[side].pop_front() {
                return event;
            }
            assert!(self.step(until), "nothing happens any more");
        }
    }

    /// Goes on until nothing is under way and nothing remembered.
    pub(crate) fn settle(&mut self) {
        let until = self.now + Duration::from_secs(100_000);
        while self.step(until) {}
    }
}
