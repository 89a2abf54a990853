//! Certificates that are from the right authority and still no good: of the wrong kind, or withdrawn.

use openssl::ssl::SslContext;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use transport::profile::{CertificateFiles, client_session, mutual_tls_client, mutual_tls_server};

use crate::profile::{Authority, BOTH, Issue, Met, meet};

const HOST: &str = "nf.lab.example";
const SERVER: u64 = 11;
const CLIENT: u64 = 12;

fn issue(authority: &Authority, name: &str, serial: u64, usages: &[ExtendedKeyUsagePurpose]) -> CertificateFiles {
    let names = vec![SanType::DnsName(HOST.try_into().unwrap())];
    authority.issue_as(Issue { name, serial, usages, names })
}

fn server(authority: &Authority, usages: &[ExtendedKeyUsagePurpose]) -> SslContext {
    mutual_tls_server(&issue(authority, "server", SERVER, usages)).unwrap()
}

fn client(authority: &Authority, usages: &[ExtendedKeyUsagePurpose]) -> SslContext {
    mutual_tls_client(&issue(authority, "client", CLIENT, usages)).unwrap()
}

async fn met(server: &SslContext, client: &SslContext) -> Met {
    meet(server, client_session(client, HOST).unwrap()).await
}

#[tokio::test]
async fn a_certificate_is_good_only_for_what_it_is_meant_for() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
    let authority = Authority::new();
    for usages in [&[ServerAuth][..], &[], &[Any]] {
        let Met { server, .. } = met(&server(&authority, BOTH), &client(&authority, usages)).await;
        assert!(server.is_err(), "a client with {usages:?}");
    }
    for usages in [&[ClientAuth][..], &[], &[Any]] {
        let Met { client, .. } = met(&server(&authority, usages), &client(&authority, BOTH)).await;
        assert!(client.is_err(), "a server with {usages:?}");
    }
    let Met { client, server } = met(&server(&authority, &[ServerAuth]), &client(&authority, &[ClientAuth])).await;
    assert!(client.is_ok() && server.is_ok());
}

/// Whether a server and a client get on when each checks the other against `crl`.
async fn get_on(authority: &Authority, crl: &[u8]) -> (bool, bool) {
    let path = authority.path("ca.crl");
    std::fs::write(&path, crl).unwrap();
    let server_files = issue(authority, "server", SERVER, BOTH);
    let client_files = issue(authority, "client", CLIENT, BOTH);
    let checking = |files: &CertificateFiles| CertificateFiles { crl: Some(path.clone()), ..files.clone() };
    let checking_server = mutual_tls_server(&checking(&server_files)).unwrap();
    let plain_client = mutual_tls_client(&client_files).unwrap();
    let client_let_in = met(&checking_server, &plain_client).await.server.is_ok();
    let plain_server = mutual_tls_server(&server_files).unwrap();
    let checking_client = mutual_tls_client(&checking(&client_files)).unwrap();
    let server_trusted = met(&plain_server, &checking_client).await.client.is_ok();
    (client_let_in, server_trusted)
}

#[tokio::test]
async fn who_is_on_the_crl_is_refused_whichever_end_it_is() {
    let authority = Authority::new();
    assert_eq!(get_on(&authority, authority.crl(&[7], 2099).pem().unwrap().as_bytes()).await, (true, true));
    assert_eq!(get_on(&authority, authority.crl(&[CLIENT], 2099).pem().unwrap().as_bytes()).await, (false, true));
    assert_eq!(get_on(&authority, authority.crl(&[7, SERVER], 2099).der()).await, (true, false), "in DER");
}

#[tokio::test]
async fn an_expired_crl_or_another_authority_s_lets_nobody_in() {
    let authority = Authority::new();
    assert_eq!(get_on(&authority, authority.crl(&[], 2021).pem().unwrap().as_bytes()).await, (false, false));
    let elsewhere = Authority::new();
    assert_eq!(get_on(&authority, elsewhere.crl(&[], 2099).pem().unwrap().as_bytes()).await, (false, false));
    let both = [elsewhere.crl(&[], 2099).pem().unwrap(), authority.crl(&[], 2099).pem().unwrap()].concat();
    assert!(get_on(&authority, both.as_bytes()).await.0, "of several CRLs the right one counts");
}
