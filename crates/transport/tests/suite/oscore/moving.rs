//! A UE whose address changes while its request waits, and somebody who has recorded that request.

use super::*;

/// A session, and a request of it that was answered where the UE is no more.
async fn answered_elsewhere(server: &Server, ue: &Ue) -> (ByHand, Vec<u8>) {
    let mut hand = ByHand::agree(server, ue).await;
    let first = hand.request(b"first");
    hand.socket.send(&first).await.unwrap();
    assert!(Unbound::parse(&said(&hand.socket).await).unwrap().is_protected());
    (hand, first)
}

/// What is asked at a new address.
async fn question(socket: &UdpSocket, copy: &[u8]) -> Vec<u8> {
    let question = said(socket).await;
    let read = Unbound::parse(&question).unwrap();
    assert!(read.is_request() && read.is_protected() && read.token().len() == 8);
    assert!(question.len() <= 3 * copy.len());
    question
}

#[tokio::test]
async fn a_ue_that_moves_while_its_request_waits_goes_on_at_once() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let (mut hand, first) = answered_elsewhere(&server, &ue).await;
    hand.socket = socket_to(&server).await;
    // One copy, and nothing else of its own accord.
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    server.until_metric("oscore_address_changes_total 1").await;
    // What is unsolicited comes there, too: the address is proven.
    hand.request_to_ask_back();
    hand.until_asked("again").await;
    server.until_metric("oscore_address_changes_total 1").await;
}

#[tokio::test]
async fn who_repeats_a_request_from_many_ports_keeps_no_ue_that_moves_from_being_asked() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let (mut hand, first) = answered_elsewhere(&server, &ue).await;
    // It is in another network from now on, and so is somebody who sends before it, and between question and answer.
    hand.socket = socket_at("127.0.0.2:0", &server).await;
    let mut ports = Vec::new();
    for number in 0..20 {
        if number == 10 {
            hand.socket.send(&first).await.unwrap();
            ports.push(question(&hand.socket, &first).await);
        }
        let thief = socket_at("127.0.0.3:0", &server).await;
        thief.send(&first).await.unwrap();
        ports.push(question(&thief, &first).await);
    }
    // The UE answers what it was asked before those of the second half.
    hand.machine.receive(&ports[10], Instant::now()).unwrap();
    hand.socket.send(&hand.machine.poll_transmit().unwrap()).await.unwrap();
    assert_eq!(hand.answer().await, b"first");
    server.until_metric("oscore_address_changes_total 1").await;
    hand.request_to_ask_back();
    hand.until_asked("again").await;
    server.until_metric("oscore_address_changes_total 1").await;
}

#[tokio::test]
async fn who_repeats_a_request_from_elsewhere_gets_a_question_and_never_the_answer() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    let (mut hand, first) = answered_elsewhere(&server, &ue).await;
    let mut thieves = Vec::new();
    for number in 1..=6 {
        let thief = socket_to(&server).await;
        thief.send(&first).await.unwrap();
        let question = question(&thief, &first).await;
        server.until_metric(&format!("oscore_refused_total{{reason=\"from_elsewhere\"}} {number}")).await;
        thieves.push((thief, question));
    }
    // The UE answers one of the questions, and that is recorded.
    let now = Instant::now();
    hand.machine.receive(&thieves[4].1, now).unwrap();
    let recorded = hand.machine.poll_transmit().unwrap();
    let (thief, asked) = &thieves[5];
    let mut relabelled = recorded.clone();
    relabelled[2..12].copy_from_slice(&asked[2..12]);
    let mut altered = relabelled.clone();
    *altered.last_mut().unwrap() ^= 1;
    let unprotected = [&[0x68, 0x45][..], &asked[2..12]].concat();
    // The answer to another question, that altered, none at all, and the right one from where it was not asked.
    for (number, forged) in (7..).zip([relabelled, altered, unprotected, recorded]) {
        thief.send(&forged).await.unwrap();
        server.until_metric(&format!("oscore_refused_total{{reason=\"from_elsewhere\"}} {number}")).await;
    }
    assert!(server.metrics().contains("oscore_address_changes_total 0"), "{}", server.metrics());
    hand.socket.send(&first).await.unwrap();
    assert_eq!(hand.answer().await, b"first", "the UE is where it was, and so is its answer");
    hand.request_to_ask_back();
    hand.until_asked("again").await;
    for (thief, _) in &thieves {
        let more = thief.try_recv(&mut [0; 2_048]);
        assert!(more.is_err(), "one question each");
    }
}
