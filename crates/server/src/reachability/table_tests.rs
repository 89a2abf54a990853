#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const UTC: OffsetDateTime = datetime!(2026-12-01 0:00 UTC);

/// A table, and the time as a test wants it.
struct World {
    table: Table,
    limits: Limits,
    monitoring: Monitoring,
    at: Moment,
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            trigger_delay_seconds: 0,
            trigger_interval_seconds: 0,
            trigger_validity_seconds: 600,
            trigger_connect_seconds: 30,
            trigger_backoff_first_seconds: 10,
            trigger_backoff_max_seconds: 40,
            trigger_attempts_max: 3,
            trigger_rest_seconds: 1000,
            reachability_wait_seconds: 100,
            ..Limits::default()
        };
        let at = Moment { now: Instant::now(), utc: UTC };
        Self { table: Table::default(), limits, monitoring: Monitoring::default(), at }
    }

    fn monitoring(reports: u32) -> Self {
        Self { monitoring: Monitoring { reports }, ..Self::new() }
    }

    fn pass(&mut self, seconds: u64) {
        self.at.now += Duration::from_secs(seconds);
        self.at.utc += Duration::from_secs(seconds);
    }

    fn want(&mut self, name: &str) {
        let want =
            Want { urgent: false, expires_at: UTC + time::Duration::DAY, availability: None, delay: Duration::ZERO };
        self.table.wanted(&address(name), want, self.at, &self.limits).unwrap();
    }

    fn ask(&mut self) -> Ask {
        match self.table.next(self.monitoring, self.at, &self.limits) {
            Some(Job::Ask(ask)) => ask,
            other => panic!("{other:?}"),
        }
    }

    fn nothing(&mut self) {
        assert!(self.table.next(self.monitoring, self.at, &self.limits).is_none());
    }

    fn withdrawn(&mut self) -> (Service, String) {
        match self.table.next(self.monitoring, self.at, &self.limits) {
            Some(Job::Withdraw(service, resource)) => {
                self.table.withdrawal_ended();
                (service, resource.as_str().to_owned())
            }
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, ask: &Ask, asked: Asked) {
        self.table.ask_ended(ask, asked, self.at, &self.limits);
    }

    /// A trigger that the NEF takes.
    fn trigger(&mut self) -> Ask {
        let ask = self.ask();
        assert_eq!(ask.service, Service::Triggering);
        self.end(&ask, taken("1"));
        ask
    }

    fn report(&mut self, ask: &Ask, result: DeliveryResult) -> Notified {
        self.table.trigger_reported(&ask.token, &result, self.at, &self.limits)
    }

    fn reachable(&mut self, ask: &Ask) -> Notified {
        self.table.reachability_reported(&ask.token, 1, false, self.at, &self.limits)
    }

    fn come(&mut self, name: &str) {
        self.table.settled(&address(name), &self.limits);
    }
}

fn address(name: &str) -> Address {
    Address::ue(&name.parse().unwrap())
}

fn taken(id: &str) -> Asked {
    let resource = ResourceId::of_uri(&format!("/things/{id}"), "things");
    Asked::Taken { resource, reports_follow: true, reachable: false }
}

#[test]
fn a_ue_is_triggered_once_at_a_time_whatever_is_stored_for_it() {
    let mut world = World::new();
    world.want("meter");
    world.want("meter");
    let ask = world.ask();
    world.want("meter");
    world.nothing();
    world.end(&ask, taken("1"));
    world.want("meter");
    world.nothing();
    assert_eq!(world.table.len(), 1);
}

#[test]
fn a_ue_that_comes_by_itself_within_the_delay_is_not_triggered() {
    let mut world = World::new();
    let want = Want {
        urgent: false,
        expires_at: UTC + time::Duration::DAY,
        availability: None,
        delay: Duration::from_secs(2),
    };
    world.table.wanted(&address("meter"), want, world.at, &world.limits).unwrap();
    world.nothing();
    world.come("meter");
    world.pass(10);
    world.nothing();
    assert_eq!(world.table.len(), 0);
}

#[test]
fn a_ue_that_keeps_coming_and_going_is_triggered_no_more_often_than_the_interval() {
    let mut world = World::new();
    world.limits.trigger_interval_seconds = 60;
    world.want("meter");
    let ask = world.trigger();
    world.report(&ask, DeliveryResult::Success);
    for _ in 0..5 {
        world.come("meter");
        world.pass(10);
        world.want("meter");
        world.nothing();
    }
    world.pass(10);
    let ask = world.ask();
    // One that came while the NEF was asked counts, too.
    world.come("meter");
    world.end(&ask, Asked::InDoubt);
    world.pass(59);
    world.want("meter");
    world.nothing();
    world.pass(1);
    world.trigger();
}

#[test]
fn what_is_remembered_of_those_that_left_is_bounded_by_time_and_number() {
    let mut world = World::new();
    (world.limits.trigger_interval_seconds, world.limits.triggers_watched_max) = (60, 2);
    for name in ["a", "b", "c"] {
        world.want(name);
        let ask = world.trigger();
        world.report(&ask, DeliveryResult::Success);
        world.come(name);
    }
    assert_eq!((world.table.lately.len(), world.table.lately_order.len()), (2, 2));
    world.pass(60);
    world.want("d");
    let ask = world.trigger();
    world.report(&ask, DeliveryResult::Success);
    world.come("d");
    assert_eq!((world.table.lately.len(), world.table.lately_order.len()), (1, 1));
}

#[test]
fn what_the_nef_still_holds_is_withdrawn_when_the_ue_comes() {
    let mut world = World::new();
    world.want("meter");
    world.trigger();
    world.come("meter");
    assert_eq!(world.withdrawn(), (Service::Triggering, "1".to_owned()));
    world.nothing();
}

#[test]
fn what_was_delivered_is_not_withdrawn() {
    let mut world = World::new();
    world.want("meter");
    let ask = world.trigger();
    assert_eq!(world.report(&ask, DeliveryResult::Success), Notified::Awaited(address("meter")));
    world.come("meter");
    world.nothing();
}

#[test]
fn a_ue_that_comes_while_the_nef_is_asked_has_its_trigger_withdrawn_afterwards() {
    let mut world = World::new();
    world.want("meter");
    let ask = world.ask();
    world.come("meter");
    world.want("meter");
    let again = world.ask();
    world.end(&ask, taken("1"));
    world.end(&again, taken("2"));
    assert_eq!(world.withdrawn(), (Service::Triggering, "1".to_owned()));
    assert_eq!(world.report(&ask, DeliveryResult::Expired), Notified::Over);
    assert_eq!(world.report(&again, DeliveryResult::Unconfirmed), Notified::Awaited(address("meter")));
}

#[test]
fn a_trigger_is_repeated_with_back_off_and_then_left_alone() {
    let mut world = World::new();
    world.want("meter");
    for pause in [10, 20] {
        world.trigger();
        world.pass(600);
        world.nothing();
        // The pause is up to a half shorter at random.
        world.pass(pause);
        world.want("meter");
    }
    world.trigger();
    world.pass(600);
    world.nothing();
    world.pass(999);
    world.nothing();
    world.pass(1);
    world.nothing();
    assert_eq!(world.table.len(), 0, "nothing was stored while it was left alone");
}

#[test]
fn what_is_stored_while_a_ue_is_left_alone_begins_anew_afterwards() {
    let mut world = World::new();
    world.want("meter");
    for _ in 0..3 {
        let ask = world.trigger();
        world.report(&ask, DeliveryResult::Failure);
        world.nothing();
        world.pass(40);
    }
    world.want("meter");
    world.nothing();
    world.pass(1000);
    world.trigger();
}

#[test]
fn a_delivered_trigger_gives_the_ue_so_long_to_connect() {
    let mut world = World::new();
    world.want("meter");
    let ask = world.trigger();
    world.report(&ask, DeliveryResult::Success);
    world.pass(29);
    world.nothing();
    world.pass(1);
    world.nothing();
    world.pass(10);
    world.trigger();
}

#[test]
fn a_report_that_overtakes_the_answer_counts() {
    let mut world = World::new();
    world.want("meter");
    let ask = world.ask();
    assert_eq!(world.report(&ask, DeliveryResult::Success), Notified::Awaited(address("meter")));
    world.end(&ask, taken("1"));
    world.pass(30);
    world.nothing();
    world.pass(10);
    let ask = world.ask();
    world.report(&ask, DeliveryResult::Failure);
    world.end(&ask, taken("2"));
    world.pass(20);
    world.trigger();
}

#[test]
fn reports_on_what_is_over_change_nothing_and_are_known_for_a_while() {
    let mut world = World::new();
    world.limits.notifications_over_max = 1;
    world.want("meter");
    let first = world.trigger();
    world.report(&first, DeliveryResult::Expired);
    assert_eq!(world.report(&first, DeliveryResult::Success), Notified::Over);
    world.pass(10);
    let second = world.trigger();
    world.report(&second, DeliveryResult::Expired);
    assert_eq!(world.report(&first, DeliveryResult::Success), Notified::Unknown);
    assert_eq!(world.report(&second, DeliveryResult::Success), Notified::Over);
    // A destination is for one service.
    assert!(!world.table.knows(&second.token, Service::Monitoring));
    assert_eq!(world.reachable(&second), Notified::Unknown);
    world.pass(20);
    world.trigger();
}

#[test]
fn a_result_of_a_later_release_says_nothing() {
    let mut world = World::new();
    world.want("meter");
    let ask = world.trigger();
    world.report(&ask, DeliveryResult::Other("SEEN".to_owned()));
    world.pass(599);
    world.nothing();
    world.pass(11);
    world.nothing();
    world.pass(10);
    world.trigger();
}

#[test]
fn a_window_is_waited_for_and_bounds_the_validity() {
    let mut world = World::new();
    let availability = CommunicationAvailability {
        start: UTC + time::Duration::seconds(100),
        duration_seconds: 60,
        interval_seconds: Some(1000),
    };
    let want = Want {
        urgent: true,
        expires_at: UTC + time::Duration::DAY,
        availability: Some(availability),
        delay: Duration::ZERO,
    };
    world.table.wanted(&address("meter"), want, world.at, &world.limits).unwrap();
    world.pass(99);
    world.nothing();
    assert_eq!(world.table.next_due(&world.limits), Some(world.at.now + Duration::from_secs(1)));
    world.pass(21);
    let ask = world.trigger();
    assert_eq!((ask.validity_seconds, ask.urgent), (40, true));
    // The next attempt waits for the next window.
    world.pass(100);
    world.nothing();
    world.pass(100);
    world.nothing();
    world.pass(1110 - 320);
    assert_eq!(world.trigger().validity_seconds, 50);
}

#[test]
fn a_schedule_that_is_over_says_nothing_about_now() {
    let mut world = World::new();
    let over =
        CommunicationAvailability { start: UTC - time::Duration::DAY, duration_seconds: 60, interval_seconds: None };
    let want = Want {
        urgent: false,
        expires_at: UTC + time::Duration::minutes(1),
        availability: Some(over),
        delay: Duration::ZERO,
    };
    world.table.wanted(&address("meter"), want, world.at, &world.limits).unwrap();
    assert_eq!(world.trigger().validity_seconds, 60);
}

#[test]
fn nobody_is_woken_for_what_has_expired() {
    let mut world = World::new();
    let want = Want {
        urgent: false,
        expires_at: UTC + time::Duration::seconds(5),
        availability: None,
        delay: Duration::from_secs(10),
    };
    world.table.wanted(&address("meter"), want, world.at, &world.limits).unwrap();
    world.pass(10);
    world.nothing();
    assert_eq!(world.table.len(), 0);
}

#[test]
fn one_ue_too_many_is_not_watched() {
    let mut world = World::new();
    world.limits.triggers_watched_max = 1;
    world.want("meter");
    let want = Want { urgent: false, expires_at: UTC, availability: None, delay: Duration::ZERO };
    assert_eq!(world.table.wanted(&address("other"), want, world.at, &world.limits), Err(TableFull));
}

#[test]
fn requests_at_once_are_bounded_and_a_failing_nef_gets_one_after_a_pause() {
    let mut world = World::new();
    world.limits.triggers_in_flight_max = 2;
    for name in ["a", "b", "c"] {
        world.want(name);
    }
    let asks = [world.ask(), world.ask()];
    world.nothing();
    for ask in &asks {
        world.end(ask, Asked::Unavailable(Some(Duration::from_secs(30))));
    }
    world.pass(29);
    world.nothing();
    world.pass(1);
    let ask = world.ask();
    world.nothing();
    world.end(&ask, taken("1"));
    // It answers: as many as before.
    world.ask();
    world.ask();
}

#[test]
fn an_absent_nef_costs_no_attempts_and_a_silent_one_does() {
    let mut world = World::new();
    world.want("meter");
    for _ in 0..10 {
        let ask = world.ask();
        world.end(&ask, Asked::Unavailable(None));
        world.pass(60);
    }
    for _ in 0..3 {
        let ask = world.ask();
        world.end(&ask, Asked::InDoubt);
        world.pass(60);
    }
    world.pass(60);
    world.nothing();
    world.want("meter");
    world.pass(1000);
    world.ask();
}

#[test]
fn one_that_may_not_be_triggered_is_left_alone_and_one_that_is_undecided_is_not() {
    let mut world = World::new();
    world.want("meter");
    let ask = world.ask();
    world.end(&ask, Asked::Undecided);
    world.pass(10);
    let ask = world.ask();
    world.end(&ask, Asked::NotAllowed);
    world.pass(999);
    world.nothing();
    world.pass(1);
    world.nothing();
    assert_eq!(world.table.len(), 0);
}

#[test]
fn monitoring_holds_the_trigger_until_the_report() {
    let mut world = World::monitoring(1);
    world.want("meter");
    let monitoring = world.ask();
    assert_eq!(monitoring.service, Service::Monitoring);
    world.end(&monitoring, taken("s"));
    world.pass(50);
    world.nothing();
    assert_eq!(world.reachable(&monitoring), Notified::Awaited(address("meter")));
    world.trigger();
    // One report was all: nothing is left to end at the NEF.
    assert_eq!(world.reachable(&monitoring), Notified::Over);
    world.come("meter");
    assert_eq!(world.withdrawn().0, Service::Triggering);
    world.nothing();
}

#[test]
fn a_report_that_comes_with_the_answer_or_before_it_counts() {
    for early in [false, true] {
        let mut world = World::monitoring(1);
        world.want("meter");
        let monitoring = world.ask();
        if early {
            world.reachable(&monitoring);
        }
        let resource = ResourceId::of_uri("/things/s", "things");
        world.end(&monitoring, Asked::Taken { resource, reports_follow: early, reachable: !early });
        let ask = loop {
            match world.table.next(world.monitoring, world.at, &world.limits).unwrap() {
                Job::Ask(ask) => break ask,
                Job::Withdraw(..) => world.table.withdrawal_ended(),
            }
        };
        assert_eq!(ask.service, Service::Triggering);
    }
}

#[test]
fn a_network_that_says_nothing_or_does_not_monitor_triggers_all_the_same() {
    for refused in [false, true] {
        let mut world = World::monitoring(1);
        world.want("meter");
        let monitoring = world.ask();
        world.end(&monitoring, if refused { Asked::Refused } else { taken("s") });
        if !refused {
            world.pass(99);
            world.nothing();
            world.pass(1);
        }
        world.trigger();
    }
}

#[test]
fn a_subscription_with_several_reports_cuts_a_pause_short_and_ends_with_the_ue() {
    let mut world = World::monitoring(3);
    world.want("meter");
    let monitoring = world.ask();
    world.end(&monitoring, taken("s"));
    world.reachable(&monitoring);
    let ask = world.trigger();
    world.report(&ask, DeliveryResult::Expired);
    world.nothing();
    world.reachable(&monitoring);
    let ask = world.trigger();
    world.report(&ask, DeliveryResult::Success);
    world.come("meter");
    assert_eq!(world.withdrawn(), (Service::Monitoring, "s".to_owned()));
    world.nothing();
}

#[test]
fn a_subscription_that_the_nef_ends_no_longer_holds_the_trigger() {
    let mut world = World::monitoring(3);
    world.want("meter");
    let monitoring = world.ask();
    world.end(&monitoring, taken("s"));
    let notified = world.table.reachability_reported(&monitoring.token, 0, true, world.at, &world.limits);
    assert_eq!(notified, Notified::Awaited(address("meter")));
    world.trigger();
}

#[test]
fn a_test_notification_changes_nothing() {
    let mut world = World::monitoring(1);
    world.want("meter");
    let monitoring = world.ask();
    world.end(&monitoring, taken("s"));
    let notified = world.table.reachability_reported(&monitoring.token, 0, false, world.at, &world.limits);
    assert_eq!(notified, Notified::Awaited(address("meter")));
    world.nothing();
}

/// What may happen to a table.
#[derive(Clone, Debug)]
enum Step {
    Want(u8),
    Come(u8),
    Pass(u16),
    Next,
    End(u8, u8),
    Report(u8, u8),
    Reachable(u8, u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_u8).prop_map(Step::Want),
        (0..4_u8).prop_map(Step::Come),
        (0..700_u16).prop_map(Step::Pass),
        Just(Step::Next),
        Just(Step::Next),
        (any::<u8>(), 0..8_u8).prop_map(|(which, how)| Step::End(which, how)),
        (any::<u8>(), 0..5_u8).prop_map(|(which, result)| Step::Report(which, result)),
        (any::<u8>(), 0..3_u8, any::<bool>()).prop_map(|(which, reports, end)| Step::Reachable(which, reports, end)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the NEF does in whatever order: one request about a UE at a time, nothing grows beyond its bound, and
    /// whoever is watched is waited for or falls due.
    #[test]
    fn any_order_of_events_keeps_the_table_whole(steps in proptest::collection::vec(step(), 0..120), reports in 0..3_u32) {
        let mut world = World::monitoring(reports);
        world.limits.triggers_watched_max = 3;
        world.limits.notifications_over_max = 5;
        let (mut open, mut asked): (Vec<Ask>, Vec<Ask>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Want(name) => {
                    let want = Want {
                        urgent: name == 1,
                        expires_at: world.at.utc + time::Duration::hours(1),
                        availability: None,
                        delay: Duration::from_secs(name.into()),
                    };
                    let _ = world.table.wanted(&address(&format!("ue-{name}")), want, world.at, &world.limits);
                }
                Step::Come(name) => world.come(&format!("ue-{name}")),
                Step::Pass(seconds) => world.pass(seconds.into()),
                Step::Next => match world.table.next(world.monitoring, world.at, &world.limits) {
                    Some(Job::Ask(ask)) => {
                        let twice = open.iter().any(|other| other.address == ask.address && other.series == ask.series);
                        prop_assert!(!twice);
                        asked.push(ask.clone());
                        open.push(ask);
                    }
                    Some(Job::Withdraw(..)) => world.table.withdrawal_ended(),
                    None => {}
                },
                Step::End(which, how) if !open.is_empty() => {
                    let ask = open.swap_remove(usize::from(which) % open.len());
                    let how = match how {
                        0 => taken("1"),
                        1 => Asked::Failed,
                        2 => Asked::Refused,
                        3 => Asked::InDoubt,
                        4 => Asked::Unavailable(None),
                        5 => Asked::NotAllowed,
                        6 => Asked::Undecided,
                        _ => Asked::Needless,
                    };
                    world.end(&ask, how);
                }
                Step::Report(which, result) if !asked.is_empty() => {
                    let ask = asked[usize::from(which) % asked.len()].clone();
                    let result = [
                        DeliveryResult::Success,
                        DeliveryResult::Failure,
                        DeliveryResult::Expired,
                        DeliveryResult::Unconfirmed,
                        DeliveryResult::Terminate,
                    ][usize::from(result)].clone();
                    world.report(&ask, result);
                }
                Step::Reachable(which, reports, end) if !asked.is_empty() => {
                    let token = asked[usize::from(which) % asked.len()].token.clone();
                    world.table.reachability_reported(&token, reports.into(), end, world.at, &world.limits);
                }
                _ => {}
            }
            world.table.check(&world.limits, open.len())?;
        }
    }
}

impl Table {
    fn check(&self, limits: &Limits, open: usize) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.in_flight, open);
        prop_assert!(self.watches.len() <= limits.triggers_watched_max);
        prop_assert!(self.over.len() <= limits.notifications_over_max);
        prop_assert!(self.lately_order.len() <= limits.triggers_watched_max);
        prop_assert!(self.lately.len() <= self.lately_order.len());
        prop_assert!(self.destinations.len() <= 2 * self.watches.len() + self.over.len());
        let due = self.watches.iter().filter_map(|(address, watch)| watch.due.map(|due| (due, address.clone())));
        prop_assert_eq!(due.collect::<BTreeSet<_>>(), self.due.clone());
        for watch in self.watches.values() {
            prop_assert_eq!(watch.due.is_none(), matches!(watch.step, super::Step::Asking(_)));
        }
        Ok(())
    }
}
