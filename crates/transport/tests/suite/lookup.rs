//! The discipline of key lookups, under virtual time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use akma::UaProtocolId;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use transport::{
    FoundKey, KeyLookup, KeyRequest, KeySource, KeySourceError, LookupLimits, LookupRefusal, TransportMetrics,
};

use crate::scene::{Home, Mood, Ue, fqdn};

fn lookup(home: &Arc<Home>, limits: LookupLimits) -> Arc<KeyLookup> {
    let source: Arc<dyn KeySource> = home.clone();
    Arc::new(KeyLookup::new(source, fqdn(), limits, TransportMetrics::default()))
}

fn request(ue: &Ue) -> KeyRequest {
    request_from(ue, "192.0.2.1")
}

fn request_from(ue: &Ue, source: &str) -> KeyRequest {
    KeyRequest { a_kid: ue.a_kid.clone(), protocol: UaProtocolId::TLS_1_3, source: source.parse::<IpAddr>().unwrap() }
}

/// Starts resolving, and lets it get as far as it can.
async fn begin(tasks: &mut JoinSet<Result<FoundKey, LookupRefusal>>, lookup: &Arc<KeyLookup>, request: KeyRequest) {
    let lookup = lookup.clone();
    tasks.spawn(async move { lookup.resolve(request).await });
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_for_one_key_ask_once() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(go_on.clone()));
    let lookup = lookup(&home, LookupLimits { joiners_max: 4, ..LookupLimits::default() });
    let mut tasks = JoinSet::new();
    for _ in 0..5 {
        begin(&mut tasks, &lookup, request(&ue)).await;
    }
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy), "one joiner too many");
    assert_eq!(home.asked(), 1);
    go_on.notify_one();
    while let Some(answer) = tasks.join_next().await {
        assert_eq!(answer.unwrap().unwrap().key.k_af, ue.key(UaProtocolId::TLS_1_3));
    }
    assert_eq!(home.asked(), 1);
    home.becomes(Mood::Answers);
    lookup.resolve(request(&ue)).await.unwrap();
    assert_eq!(home.asked(), 2, "the next connection asks again");
}

#[tokio::test(start_paused = true)]
async fn who_joins_a_question_has_the_time_at_which_that_was_asked() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(go_on.clone()));
    let lookup = lookup(&home, LookupLimits::default());
    let (mut tasks, asked_at) = (JoinSet::new(), Instant::now());
    for _ in 0..2 {
        begin(&mut tasks, &lookup, request(&ue)).await;
        sleep(Duration::from_secs(1)).await;
    }
    go_on.notify_one();
    for _ in 0..2 {
        assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap().asked_at, asked_at);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_gives_up_does_not_take_the_answer_from_those_who_joined() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(go_on.clone()));
    let lookup = lookup(&home, LookupLimits::default());
    let (mut first, mut second) = (JoinSet::new(), JoinSet::new());
    begin(&mut first, &lookup, request(&ue)).await;
    begin(&mut second, &lookup, request(&ue)).await;
    first.abort_all();
    while first.join_next().await.is_some() {}
    go_on.notify_one();
    assert!(second.join_next().await.unwrap().unwrap().is_ok());
    assert_eq!(home.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_protocol_has_its_own_key() {
    let ue = Ue::number(1);
    let lookup = lookup(&Home::knowing(&[&ue]), LookupLimits::default());
    for protocol in [UaProtocolId::TLS_1_3, UaProtocolId::tls_1_2(0xCCAC)] {
        let found = lookup.resolve(KeyRequest { protocol, ..request(&ue) }).await.unwrap();
        assert_eq!(found.key.k_af, ue.key(protocol));
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_is_remembered_briefly_and_within_bounds() {
    let (ue, other) = (Ue::number(1), Ue::number(2));
    let home = Home::knowing(&[]);
    let limits = LookupLimits { negative_cache_ms: 2_000, negative_cache_entries_max: 1, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    for _ in 0..3 {
        assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Unknown));
    }
    assert_eq!(home.asked(), 1);
    home.learns(&ue);
    sleep(Duration::from_millis(2_000)).await;
    assert!(lookup.resolve(request(&ue)).await.is_ok());
    home.forgets(&ue);
    for ue in [&ue, &other, &ue] {
        assert_eq!(lookup.resolve(request(ue)).await, Err(LookupRefusal::Unknown));
    }
    assert_eq!(home.asked(), 5, "with room for one, the first was forgotten for the second");
    lookup.forget(&ue.a_kid);
    home.learns(&ue);
    assert!(lookup.resolve(request(&ue)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_found_key_is_reused_only_as_configured() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let lookup = lookup(&home, LookupLimits { positive_cache_seconds: 10, ..LookupLimits::default() });
    let asked_at = Instant::now();
    for _ in 0..3 {
        assert_eq!(lookup.resolve(request(&ue)).await.unwrap().asked_at, asked_at);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(home.asked(), 1);
    sleep(Duration::from_secs(7)).await;
    lookup.resolve(request(&ue)).await.unwrap();
    assert_eq!(home.asked(), 2);
    home.forgets(&ue);
    lookup.forget(&ue.a_kid);
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Unknown));
}

#[tokio::test(start_paused = true)]
async fn an_a_kid_forgotten_in_mid_lookup_is_asked_for_again() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(go_on.clone()));
    let lookup = lookup(&home, LookupLimits { positive_cache_seconds: 10, ..LookupLimits::default() });
    let mut tasks = JoinSet::new();
    begin(&mut tasks, &lookup, request(&ue)).await;
    lookup.forget(&ue.a_kid);
    home.becomes(Mood::Answers);
    home.forgets(&ue);
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Unknown), "no joining of the older lookup");
    go_on.notify_one();
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), Err(LookupRefusal::Unknown));
    assert_eq!(home.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_expired_key_is_not_a_key() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::AnswersExpired);
    let lookup = lookup(&home, LookupLimits { positive_cache_seconds: 10, ..LookupLimits::default() });
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Expired));
    home.becomes(Mood::Answers);
    assert!(lookup.resolve(request(&ue)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn lookups_are_limited_per_source_and_in_all() {
    let home = Home::knowing(&[]);
    home.becomes(Mood::Silent);
    let limits = LookupLimits { in_flight_max: 3, in_flight_per_source_max: 2, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    let mut tasks = JoinSet::new();
    begin(&mut tasks, &lookup, request_from(&Ue::number(1), "192.0.2.1")).await;
    begin(&mut tasks, &lookup, request_from(&Ue::number(2), "192.0.2.1")).await;
    let third = lookup.resolve(request_from(&Ue::number(3), "192.0.2.1")).await;
    assert_eq!(third, Err(LookupRefusal::Busy), "this source has its share");
    begin(&mut tasks, &lookup, request_from(&Ue::number(4), "192.0.2.2")).await;
    let fourth = lookup.resolve(request_from(&Ue::number(5), "192.0.2.3")).await;
    assert_eq!(fourth, Err(LookupRefusal::Busy), "no more in all");
    assert_eq!(home.asked(), 3);
    // The time-out gives the places back.
    while let Some(answer) = tasks.join_next().await {
        assert_eq!(answer.unwrap(), Err(LookupRefusal::TimedOut));
    }
    home.becomes(Mood::Answers);
    assert_eq!(lookup.resolve(request(&Ue::number(5))).await, Err(LookupRefusal::Unknown));
}

#[tokio::test(start_paused = true)]
async fn who_invents_a_kids_asks_a_few_times_a_second_and_others_go_on() {
    let good = Ue::number(0);
    let home = Home::knowing(&[&good]);
    let limits = LookupLimits { unknown_per_second_per_source_max: 2, negative_cache_ms: 0, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    let mut refusals = Vec::new();
    for number in 1..=100 {
        refusals.push(lookup.resolve(request_from(&Ue::number(number), "192.0.2.66")).await.unwrap_err());
    }
    assert_eq!(home.asked(), 20, "ten seconds' worth");
    assert!(refusals.iter().skip(20).all(|refusal| *refusal == LookupRefusal::Busy));
    for _ in 0..100 {
        assert!(lookup.resolve(request(&good)).await.is_ok(), "another source, and a good A-KID");
    }
    sleep(Duration::from_secs(1)).await;
    for number in 1..=100 {
        lookup.resolve(request_from(&Ue::number(number), "192.0.2.66")).await.unwrap_err();
    }
    assert_eq!(home.asked(), 122, "what a second brings");
}

#[tokio::test(start_paused = true)]
async fn one_source_asks_so_often_and_no_more_even_for_a_kids_that_are_good() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let lookup = lookup(&home, LookupLimits { per_second_per_source_max: 3, ..LookupLimits::default() });
    let mut found = 0;
    for _ in 0..100 {
        match lookup.resolve(request(&ue)).await {
            Ok(_) => found += 1,
            Err(refusal) => assert_eq!(refusal, LookupRefusal::Busy),
        }
    }
    assert_eq!((found, home.asked()), (30, 30));
    assert!(lookup.resolve(request_from(&ue, "192.0.2.2")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_proven_peer_is_revalidated_whatever_strangers_at_its_address_do() {
    let (ue, stranger) = (Ue::number(1), Ue::number(2));
    let home = Home::knowing(&[&ue]);
    let limits = LookupLimits { unknown_per_second_per_source_max: 1, negative_cache_ms: 0, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    while lookup.resolve(request(&stranger)).await != Err(LookupRefusal::Busy) {}
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy));
    assert!(lookup.revalidate(request(&ue)).await.is_ok());
    home.forgets(&ue);
    assert_eq!(lookup.revalidate(request(&ue)).await, Err(LookupRefusal::Unknown));
}

#[tokio::test(start_paused = true)]
async fn strangers_that_have_every_place_keep_no_proven_peer_from_being_revalidated() {
    let ue = Ue::number(0);
    let home = Home::knowing(&[&ue]);
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(go_on.clone()));
    let limits = LookupLimits { in_flight_max: 3, in_flight_per_source_max: 2, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    let mut strangers = JoinSet::new();
    for (number, source) in [(1, "192.0.2.1"), (2, "192.0.2.1"), (3, "192.0.2.2")] {
        begin(&mut strangers, &lookup, request_from(&Ue::number(number), source)).await;
    }
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy), "strangers have every place");
    home.becomes(Mood::Answers);
    assert!(lookup.revalidate(request(&ue)).await.is_ok());
    assert_eq!((home.asked(), strangers.len()), (4, 3), "while they wait");
}

#[tokio::test(start_paused = true)]
async fn a_revalidation_joins_no_question_of_a_stranger() {
    let ue = Ue::number(0);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Silent);
    let lookup = lookup(&home, LookupLimits { joiners_max: 0, ..LookupLimits::default() });
    let mut strangers = JoinSet::new();
    begin(&mut strangers, &lookup, request_from(&ue, "192.0.2.66")).await;
    home.becomes(Mood::Answers);
    assert!(lookup.revalidate(request(&ue)).await.is_ok());
    assert_eq!(home.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn revalidations_are_limited_in_all_and_take_no_place_of_strangers() {
    let home = Home::knowing(&[]);
    home.becomes(Mood::Silent);
    let limits = LookupLimits { in_flight_max: 2, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    let mut proven = JoinSet::new();
    for number in [1, 2] {
        let (lookup, request) = (lookup.clone(), request(&Ue::number(number)));
        proven.spawn(async move { lookup.revalidate(request).await });
    }
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    assert_eq!(lookup.revalidate(request(&Ue::number(3))).await, Err(LookupRefusal::Busy));
    home.becomes(Mood::Answers);
    assert_eq!(lookup.resolve(request(&Ue::number(4))).await, Err(LookupRefusal::Unknown), "it was asked");
    home.becomes(Mood::Silent);
    while let Some(answer) = proven.join_next().await {
        assert_eq!(answer.unwrap(), Err(LookupRefusal::TimedOut));
    }
    home.becomes(Mood::Answers);
    assert_eq!(lookup.revalidate(request(&Ue::number(3))).await, Err(LookupRefusal::Unknown), "places are given back");
}

#[tokio::test(start_paused = true)]
async fn who_knows_an_a_kid_does_not_keep_its_ue_from_joining() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let go_on = Arc::new(Notify::new());
    home.becomes(Mood::Waits(go_on.clone()));
    let limits = LookupLimits { joiners_per_source_max: 2, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        begin(&mut tasks, &lookup, request_from(&ue, "192.0.2.66")).await;
    }
    for _ in 0..100 {
        let refused = lookup.resolve(request_from(&ue, "192.0.2.66")).await;
        assert_eq!(refused, Err(LookupRefusal::Busy));
    }
    begin(&mut tasks, &lookup, request(&ue)).await;
    assert_eq!((home.asked(), tasks.len()), (1, 4));
    go_on.notify_one();
    while let Some(answer) = tasks.join_next().await {
        assert!(answer.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_among_those_who_wait_is_given_back() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Silent);
    let lookup = lookup(&home, LookupLimits { joiners_per_source_max: 1, ..LookupLimits::default() });
    let (mut first, mut second) = (JoinSet::new(), JoinSet::new());
    begin(&mut first, &lookup, request(&ue)).await;
    begin(&mut second, &lookup, request(&ue)).await;
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy));
    second.abort_all();
    while second.join_next().await.is_some() {}
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::TimedOut), "it waited with the first");
}

#[tokio::test(start_paused = true)]
async fn a_key_server_that_wants_fewer_questions_is_no_failing_one() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let lookup = lookup(&home, LookupLimits { breaker_failures: 2, ..LookupLimits::default() });
    home.becomes(Mood::Fails(KeySourceError::TooMany("429".into())));
    for _ in 0..10 {
        assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy));
    }
    assert_eq!(home.asked(), 10, "the breaker stays closed");
    home.becomes(Mood::Answers);
    assert!(lookup.resolve(request(&ue)).await.is_ok(), "nothing is remembered");
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_server_is_left_alone_and_then_probed() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Fails(KeySourceError::Unavailable("down".into())));
    let limits = LookupLimits { breaker_failures: 3, breaker_open_ms: 2_000, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    for _ in 0..10 {
        assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Unavailable));
    }
    assert_eq!(home.asked(), 3);
    sleep(Duration::from_millis(2_000)).await;
    for _ in 0..5 {
        assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Unavailable));
    }
    assert_eq!(home.asked(), 4, "one probe");
    home.becomes(Mood::Answers);
    sleep(Duration::from_millis(2_000)).await;
    for _ in 0..5 {
        assert!(lookup.resolve(request(&ue)).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_single_requests_do_not_open_the_breaker() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Fails(KeySourceError::Refused("400".into())));
    let limits = LookupLimits { breaker_failures: 2, negative_cache_ms: 0, ..LookupLimits::default() };
    let lookup = lookup(&home, limits);
    for _ in 0..10 {
        assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Unknown));
    }
    assert_eq!(home.asked(), 10);
    home.becomes(Mood::Answers);
    assert!(lookup.resolve(request(&ue)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_about_one_ue_or_about_us_neither_opens_the_breaker_nor_is_remembered() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let lookup = lookup(&home, LookupLimits { breaker_failures: 2, ..LookupLimits::default() });
    let cases = [
        (KeySourceError::NotYet("no GPSI yet".into()), LookupRefusal::Unavailable),
        (KeySourceError::NotAsked("too many requests".into()), LookupRefusal::Busy),
    ];
    for (error, refusal) in cases {
        home.becomes(Mood::Fails(error));
        for _ in 0..10 {
            assert_eq!(lookup.resolve(request(&ue)).await, Err(refusal));
        }
    }
    assert_eq!(home.asked(), 20);
    home.becomes(Mood::Answers);
    assert!(lookup.resolve(request(&ue)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_asked_nothing_leaves_the_breaker_to_the_next() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    home.becomes(Mood::Fails(KeySourceError::Unavailable("down".into())));
    let lookup = lookup(&home, LookupLimits { breaker_failures: 1, ..LookupLimits::default() });
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Unavailable));
    sleep(Duration::from_millis(2_000)).await;
    home.becomes(Mood::Fails(KeySourceError::NotAsked("too many requests".into())));
    assert_eq!(lookup.resolve(request(&ue)).await, Err(LookupRefusal::Busy));
    home.becomes(Mood::Answers);
    assert!(lookup.resolve(request(&ue)).await.is_ok(), "asked at once");
}

#[tokio::test(start_paused = true)]
async fn operators_see_the_outcomes() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut registry = Registry::default();
    let source: Arc<dyn KeySource> = home.clone();
    let metrics = TransportMetrics::register(&mut registry);
    let lookup = KeyLookup::new(source.clone(), fqdn(), LookupLimits::default(), metrics.clone());
    lookup.resolve(request(&ue)).await.unwrap();
    lookup.resolve(request(&Ue::number(2))).await.unwrap_err();
    let none = LookupLimits { in_flight_per_source_max: 0, ..LookupLimits::default() };
    KeyLookup::new(source, fqdn(), none, metrics).resolve(request(&ue)).await.unwrap_err();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "akma_key_lookups_total{outcome=\"found\"} 1",
        "akma_key_lookups_total{outcome=\"unknown\"} 1",
        "akma_key_lookups_at_limit_total{limit=\"in_flight_per_source_max\"} 1",
        "akma_key_lookups_in_flight 0",
        "akma_key_lookup_seconds_count 2",
        "akma_key_lookup_breaker_open 0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}
