//! What one source, one A-KID and all of them may have, and what is told of those who want more.

use super::*;

#[tokio::test]
async fn what_could_be_amplified_is_counted_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let socket = socket_to(&server).await;
    let source = socket.local_addr().unwrap().to_string();
    let unprotected = Message::new(Code::GET, &[(11, b"msgin5g")], b"").unwrap();
    let agreement = akma_request(&ue).to_message().unwrap();
    for message_id in 0..20 {
        for request in [&unprotected, &agreement] {
            let asked = datagram(request, message_id);
            socket.send(&asked).await.unwrap();
            assert!(said(&socket).await.len() <= 3 * asked.len());
        }
    }
    server.until_metric("oscore_refused_total{reason=\"unprotected\"} 20").await;
    server.until_metric("oscore_agreements_total{outcome=\"challenged\"} 20").await;
    log.tells("OSCORE request refused", &[("reason", "unprotected"), ("source", &source)]).await;
    log.tells("/akma answered with Echo", &[("source", &source)]).await;
    // What nobody takes, and nothing is answered to.
    socket.send(&[0; 3]).await.unwrap();
    socket.send(&[0x60, 0x45, 0, 1]).await.unwrap();
    for reason in ["unreadable", "nobodys"] {
        server.until_metric(&format!("oscore_refused_total{{reason=\"{reason}\"}} 1")).await;
        log.tells("OSCORE datagram dropped", &[("reason", reason), ("source", &source)]).await;
    }
    over_udp(&server, &ue).await.unwrap();
}

#[tokio::test]
async fn more_sources_than_may_agree_are_refused_at_the_limit_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let limits = OscoreLimits { unproven_per_source_max: 1, ..OscoreLimits::default() };
    let server = Server::start_with(&Home::knowing(&[&ue]), limits).await;
    let socket = socket_to(&server).await;
    assert_eq!(agree(&socket, &akma_request(&ue), 1).await.code(), Code::CREATED);
    assert_eq!(agree(&socket, &akma_request(&ue), 11).await.code(), Code::TOO_MANY_REQUESTS);
    server.until_metric("oscore_agreements_total{outcome=\"too_many\"} 1").await;
    log.tells("/akma refused", &[("reason", "too_many")]).await;
}

#[tokio::test]
async fn one_source_cannot_take_the_place_of_others_and_gets_it_back_when_its_contexts_are_dropped() {
    let ue = Ue::number(1);
    let limits = OscoreLimits { unproven_per_source_max: 2, unproven_seconds: 2, ..OscoreLimits::default() };
    let server = Server::start_with(&Home::knowing(&[&ue]), limits).await;
    let socket = socket_to(&server).await;
    let request = akma_request(&ue);
    assert_eq!(agree(&socket, &request, 10).await.code(), Code::CREATED);
    let unused = agree(&socket, &request, 20).await;
    assert_eq!(unused.code(), Code::CREATED);
    assert_eq!(agree(&socket, &request, 30).await.code(), Code::TOO_MANY_REQUESTS);
    // Both are dropped, since nobody came for them.
    server.until_metric("oscore_agreements_total{outcome=\"unused\"} 2").await;
    assert_eq!(agree(&socket, &request, 40).await.code(), Code::CREATED);
    let parameters = request.complete(key(&ue).expose(), &unused).unwrap();
    let mut context = SecurityContext::fresh(&parameters, Durability::Volatile).unwrap();
    let late = context.protect_request(&Message::new(Code::GET, &[], b"").unwrap()).unwrap().0;
    socket.send(&datagram(&late, 50)).await.unwrap();
    assert_eq!(Unbound::parse(&said(&socket).await).unwrap().message().code(), Code::UNAUTHORIZED);
}

#[tokio::test]
async fn no_more_contexts_than_allowed() {
    let ue = Ue::number(1);
    let limits = OscoreLimits { contexts_max: 1, ..OscoreLimits::default() };
    let server = Server::start_with(&Home::knowing(&[&ue]), limits).await;
    let mut carrier = over_udp(&server, &ue).await.unwrap();
    let refused = over_udp(&server, &ue).await.err();
    assert!(matches!(refused, Some(ClientHandshakeError::Busy)), "{refused:?}");
    assert_echo(&mut carrier, b"as before").await;
}

#[tokio::test]
async fn of_one_a_kid_few_contexts_wait_and_who_asks_for_many_loses_its_own() {
    let ue = Ue::number(1);
    let limits = OscoreLimits { unproven_per_a_kid_max: 3, ..OscoreLimits::default() };
    let mut server = Server::start_with(&Home::knowing(&[&ue]), limits).await;
    let mut hand = ByHand::agree(&server, &ue).await;
    // Who knows the A-KID asks from elsewhere.
    let socket = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    socket.connect(server.udp).await.unwrap();
    for number in 0..5 {
        assert_eq!(agree(&socket, &akma_request(&ue), 10 * number).await.code(), Code::CREATED);
    }
    server.until_metric("oscore_agreements_total{outcome=\"displaced\"} 3").await;
    let first = hand.request(b"first");
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    assert_eq!(server.peers.recv().await.unwrap().a_kid, ue.a_kid);
    // From many addresses the oldest goes, and its UE agrees anew.
    let hand = ByHand::agree(&server, &ue).await;
    for address in ["127.0.0.3:0", "127.0.0.4:0", "127.0.0.5:0"] {
        let socket = UdpSocket::bind(address).await.unwrap();
        socket.connect(server.udp).await.unwrap();
        assert_eq!(agree(&socket, &akma_request(&ue), 7).await.code(), Code::CREATED);
    }
    drop(hand);
    over_udp(&server, &ue).await.unwrap();
}

#[tokio::test]
async fn what_a_session_does_not_take_is_counted_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let limits = OscoreLimits { queue_datagrams_max: 1, ..OscoreLimits::default() };
    let server = Server::start_with(&Home::knowing(&[&ue]), limits).await;
    let mut hand = ByHand::agree(&server, &ue).await;
    let first = hand.request(b"first");
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    // Somebody who has recorded it.
    let elsewhere = socket_at("127.0.0.2:0", &server).await;
    elsewhere.send(&first).await.unwrap();
    server.until_refused("from_elsewhere").await;
    let source = elsewhere.local_addr().unwrap().to_string();
    log.tells("OSCORE datagram dropped", &[("reason", "from_elsewhere"), ("source", &source)]).await;
    // All are there before the listener gets its turn, and the session gets none before the listener's is over.
    for _ in 0..20 {
        hand.socket.try_send(&first).unwrap();
    }
    server.until_refused("queue_full").await;
    let source = hand.socket.local_addr().unwrap().to_string();
    log.tells("OSCORE datagram dropped", &[("reason", "queue_full"), ("source", &source)]).await;
    let next = hand.request(b"next");
    hand.socket.send(&next).await.unwrap();
    assert_eq!(hand.answer().await, b"next");
}

#[tokio::test]
async fn sessions_that_begin_while_too_many_wait_to_be_accepted_are_dropped_counted_and_told() {
    let log = SecurityLog::record();
    let ue = Ue::number(1);
    let server = Server::start_that(false, &Home::knowing(&[&ue]), OscoreLimits::default()).await;
    // One more than may wait.
    for _ in 0..=1_024 {
        let mut hand = ByHand::agree(&server, &ue).await;
        let first = hand.request(b"first");
        hand.socket.send(&first).await.unwrap();
    }
    server.until_refused("not_accepted").await;
    log.tells("OSCORE datagram dropped", &[("reason", "not_accepted")]).await;
}
