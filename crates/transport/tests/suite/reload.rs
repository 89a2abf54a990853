//! Files that change while the program runs.

use openssl::ssl::{NameType, SslContext};
use rcgen::SanType;
use transport::profile::{
    CertificateFiles, ReloadOutcome, ReloadingContext, client_session, mutual_tls_client, peer_certificates,
};

use crate::profile::{Authority, BOTH, Issue, Met, meet};

const HOST: &str = "nf.lab.example";

fn issue(authority: &Authority, name: &str, serial: u64) -> CertificateFiles {
    let names = vec![
        SanType::DnsName(HOST.try_into().unwrap()),
        SanType::DnsName("*.nf.lab.example".try_into().unwrap()),
        SanType::IpAddress("127.0.0.1".parse().unwrap()),
    ];
    authority.issue_as(Issue { name, serial, usages: BOTH, names })
}

fn client(authority: &Authority) -> SslContext {
    mutual_tls_client(&issue(authority, "client", 12)).unwrap()
}

/// The serial number of the certificate that a server with `context` shows.
async fn serial_shown(context: &SslContext, client: &SslContext) -> String {
    let Met { client, .. } = meet(context, client_session(client, HOST).unwrap()).await;
    let shown = client.unwrap().ssl().peer_certificate().unwrap();
    shown.serial_number().to_bn().unwrap().to_dec_str().unwrap().to_string()
}

#[tokio::test]
async fn a_changed_certificate_is_shown_from_the_next_connection_on() {
    let authority = Authority::new();
    let context = ReloadingContext::server(issue(&authority, "server", 1), false).unwrap();
    let client = client(&authority);
    assert!(matches!(context.refresh(), ReloadOutcome::Unchanged));
    assert_eq!(serial_shown(&context.current(), &client).await, "1");
    issue(&authority, "server", 2);
    assert!(matches!(context.refresh(), ReloadOutcome::Reloaded));
    assert_eq!(context.generation(), 1);
    assert_eq!(serial_shown(&context.current(), &client).await, "2");
    assert!(matches!(context.refresh(), ReloadOutcome::Unchanged));
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_old_ones_serving_until_they_can() {
    let authority = Authority::new();
    let files = issue(&authority, "server", 1);
    let context = ReloadingContext::server(files.clone(), false).unwrap();
    let client = client(&authority);
    // Half of a change: a new certificate whose key is not there yet.
    let next = issue(&authority, "next", 2);
    std::fs::copy(&next.certificate, &files.certificate).unwrap();
    assert!(matches!(context.refresh(), ReloadOutcome::Failed(_)));
    assert!(matches!(context.refresh(), ReloadOutcome::Failed(_)), "it is tried again");
    assert_eq!(serial_shown(&context.current(), &client).await, "1");
    std::fs::copy(&next.key, &files.key).unwrap();
    assert!(matches!(context.refresh(), ReloadOutcome::Reloaded));
    assert_eq!(serial_shown(&context.current(), &client).await, "2");
    std::fs::remove_file(&files.ca).unwrap();
    assert!(matches!(context.refresh(), ReloadOutcome::Failed(_)));
    assert_eq!(serial_shown(&context.current(), &client).await, "2");
}

#[tokio::test]
async fn a_peer_of_an_open_connection_loses_its_right_with_the_crl() {
    let authority = Authority::new();
    let crl = authority.path("ca.crl");
    std::fs::write(&crl, authority.crl(&[], 2099).pem().unwrap()).unwrap();
    let files = CertificateFiles { crl: Some(crl.clone()), ..issue(&authority, "server", 1) };
    let context = ReloadingContext::server(files, false).unwrap();
    let client = client(&authority);
    let Met { server, .. } = meet(&context.current(), client_session(&client, HOST).unwrap()).await;
    let peer = peer_certificates(server.unwrap().ssl()).unwrap();
    assert!(context.vouches_for(&peer).is_ok());
    for (list, why) in [(authority.crl(&[12], 2099), "revoked"), (authority.crl(&[], 2021), "the CRL ran out")] {
        std::fs::write(&crl, list.pem().unwrap()).unwrap();
        assert!(matches!(context.refresh(), ReloadOutcome::Reloaded));
        assert!(context.vouches_for(&peer).is_err(), "{why}");
    }
    std::fs::write(&crl, authority.crl(&[13], 2099).pem().unwrap()).unwrap();
    assert!(matches!(context.refresh(), ReloadOutcome::Reloaded));
    assert!(context.vouches_for(&peer).is_ok(), "another is revoked");
}

#[tokio::test]
async fn a_peer_of_an_open_connection_loses_its_right_with_its_authority() {
    let (authority, elsewhere) = (Authority::new(), Authority::new());
    let files = issue(&authority, "server", 1);
    let context = ReloadingContext::server(files.clone(), false).unwrap();
    let Met { server, .. } = meet(&context.current(), client_session(&client(&authority), HOST).unwrap()).await;
    let peer = peer_certificates(server.unwrap().ssl()).unwrap();
    std::fs::copy(elsewhere.path("ca.pem"), &files.ca).unwrap();
    assert!(matches!(context.refresh(), ReloadOutcome::Reloaded));
    assert!(context.vouches_for(&peer).is_err());
}

#[tokio::test]
async fn a_server_name_that_is_not_ours_is_refused_where_that_is_asked_for() {
    let authority = Authority::new();
    let files = issue(&authority, "server", 1);
    let client = client(&authority);
    let strict = ReloadingContext::server(files.clone(), true).unwrap().current();
    let lenient = ReloadingContext::server(files, false).unwrap().current();
    for (name, is_ours) in [
        (Some("NF.lab.example"), true),
        (Some("a.nf.lab.example"), true),
        (None, true),
        (Some("a.b.nf.lab.example"), false),
        (Some(".nf.lab.example"), false),
        (Some("other.lab.example"), false),
    ] {
        let session = || {
            let mut session = client_session(&client, "127.0.0.1").unwrap();
            if let Some(name) = name {
                session.set_hostname(name).unwrap();
            }
            session
        };
        let Met { client, server } = meet(&strict, session()).await;
        assert_eq!(server.is_ok(), is_ours, "{name:?}");
        if !is_ours {
            let refusal = client.unwrap_err().to_string();
            assert!(refusal.contains("unrecognized name"), "{refusal}");
        }
        let Met { server, .. } = meet(&lenient, session()).await;
        assert_eq!(server.unwrap().ssl().servername(NameType::HOST_NAME), name);
    }
}
