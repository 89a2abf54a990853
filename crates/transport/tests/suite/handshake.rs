//! Handshakes that succeed, between our two ends.

use akma::{Separator, UaProtocolId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use transport::{OfferedVersions, PskClientConfig, TlsVersion};

use crate::scene::{Home, Server, UE_ID, Ue, assert_echo, with_the_answer_held};

#[tokio::test]
async fn tls_1_3_proves_the_peer_and_carries_octets_both_ways() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    let mut stream = server.connect(&ue).await.unwrap();
    assert_eq!((stream.tls_version(), stream.cipher()), (TlsVersion::Tls13, "TLS_AES_128_GCM_SHA256"));
    let peer = server.result().await.unwrap();
    assert_eq!(peer.a_kid, ue.a_kid);
    assert_eq!(peer.protocol, UaProtocolId::TLS_1_3);
    assert_eq!(peer.tls_version, TlsVersion::Tls13);
    assert_eq!(peer.ue_id.unwrap().as_str(), UE_ID);
    assert!(peer.expires_at.is_some());
    let octets: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
    for chunk in octets.chunks(10_000) {
        assert_echo(&mut stream, chunk).await;
    }
}

#[tokio::test]
async fn tls_1_2_uses_the_key_of_the_negotiated_suite() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    let config = PskClientConfig { versions: OfferedVersions::Tls12, ..PskClientConfig::default() };
    let mut stream = server.connect_as(&ue, config).await.unwrap();
    assert_eq!(stream.tls_version(), TlsVersion::Tls12);
    assert_eq!(stream.cipher(), "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256");
    let peer = server.result().await.unwrap();
    assert_eq!(peer.protocol, UaProtocolId::tls_1_2(0xCCAC));
    assert_eq!(peer.tls_version, TlsVersion::Tls12);
    assert_echo(&mut stream, &[42; 50_000]).await;
}

#[tokio::test]
async fn over_tls_a_peer_has_the_time_at_which_the_key_server_was_asked() {
    let ue = Ue::number(1);
    let home = Home::knowing(&[&ue]);
    let mut server = Server::start(&home).await;
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let config = PskClientConfig { versions, ..PskClientConfig::default() };
        let (stream, asked) = with_the_answer_held(&home, server.connect_as(&ue, config)).await;
        let _stream = stream.unwrap();
        assert!(asked.contains(&server.result().await.unwrap().asked_at));
    }
}

#[tokio::test]
async fn ecdhe_psk_is_preferred_over_plain_psk_where_both_are_allowed() {
    let ue = Ue::number(1);
    let server = Server::start_with(&Home::knowing(&[&ue]), |config| config.allow_plain_psk_tls12 = true, |_| {}).await;
    let config =
        PskClientConfig { versions: OfferedVersions::Tls12, allow_plain_psk_tls12: true, ..PskClientConfig::default() };
    let stream = server.connect_as(&ue, config).await.unwrap();
    assert_eq!(stream.cipher(), "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256");
}

#[tokio::test]
async fn every_separator_of_the_identity_is_understood() {
    let ue = Ue::number(1);
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    for separator in [Separator::Semicolon, Separator::Dot, Separator::None] {
        for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
            let config = PskClientConfig { separator, versions, ..PskClientConfig::default() };
            server.connect_as(&ue, config).await.unwrap();
            assert_eq!(server.result().await.unwrap().a_kid, ue.a_kid);
        }
    }
}

#[tokio::test]
async fn what_arrives_together_with_the_last_handshake_message_is_not_lost() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    // In TLS 1.3 the client's Finished and its first data leave back to back.
    for octets in [1, 3_000, 60_000] {
        let stream = server.connect(&ue).await.unwrap();
        let (mut from, mut to) = tokio::io::split(stream);
        let sent = vec![octets as u8; octets];
        let expected = sent.clone();
        let writing = tokio::spawn(async move { to.write_all(&sent).await.map(|()| to) });
        let mut back = vec![0; octets];
        from.read_exact(&mut back).await.unwrap();
        assert!(back == expected);
        writing.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn closing_is_told_to_the_other_side() {
    let ue = Ue::number(1);
    let server = Server::start(&Home::knowing(&[&ue])).await;
    for versions in [OfferedVersions::Tls13, OfferedVersions::Tls12] {
        let config = PskClientConfig { versions, ..PskClientConfig::default() };
        let mut stream = server.connect_as(&ue, config).await.unwrap();
        assert_echo(&mut stream, b"last words").await;
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn many_ues_connect_at_once() {
    let ues: Vec<Ue> = (0..40).map(Ue::number).collect();
    let home = Home::knowing(&ues.iter().collect::<Vec<_>>());
    let server = std::sync::Arc::new(Server::start(&home).await);
    let mut clients = tokio::task::JoinSet::new();
    for ue in ues {
        let server = server.clone();
        clients.spawn(async move {
            let mut stream = server.connect(&ue).await.unwrap();
            assert_echo(&mut stream, ue.identity().as_bytes()).await;
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(home.asked(), 40);
}

#[tokio::test]
async fn the_key_log_is_written_only_where_configuration_says_so() {
    let ue = Ue::number(1);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.log");
    let server = Server::start_with(&Home::knowing(&[&ue]), |config| config.key_log = Some(path.clone()), |_| {}).await;
    assert_echo(&mut server.connect(&ue).await.unwrap(), b"x").await;
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.contains("CLIENT_TRAFFIC_SECRET_0 ") && log.contains("SERVER_TRAFFIC_SECRET_0 "), "{log}");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn operators_see_how_handshakes_end() {
    let (ue, stranger) = (Ue::number(1), Ue::number(2));
    let mut server = Server::start(&Home::knowing(&[&ue])).await;
    let _stream = server.connect(&ue).await.unwrap();
    server.result().await.unwrap();
    server.connect(&stranger).await.unwrap_err();
    server.refusal().await;
    let text = server.metrics();
    for line in [
        "psk_handshakes_total{outcome=\"accepted\"} 1",
        "psk_handshakes_total{outcome=\"unknown_a_kid\"} 1",
        "psk_handshakes_in_progress 0",
        "psk_handshake_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}
