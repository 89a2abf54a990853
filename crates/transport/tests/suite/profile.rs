//! The certificate side of the TLS profile.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslMethod, SslVersion};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_openssl::SslStream;
use transport::profile::{
    Authorities, CertificateFiles, PeerIdentity, ProfileError, ReloadOutcome, client_session, mutual_tls_client,
    mutual_tls_server, peer_identity,
};

const INSTANCE: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

pub(crate) struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// How a certificate is issued, where it is not as usual.
pub(crate) struct Issue<'a> {
    pub(crate) name: &'a str,
    pub(crate) serial: u64,
    pub(crate) usages: &'a [ExtendedKeyUsagePurpose],
    pub(crate) names: Vec<SanType>,
}

pub(crate) const BOTH: &[ExtendedKeyUsagePurpose] =
    &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("Test authority")
    }

    /// Of this name: two of one name, and without key identifiers, are not told apart by a verifier.
    fn named(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn issue(&self, name: &str, names: Vec<SanType>) -> CertificateFiles {
        self.issue_as(Issue { name, serial: 1, usages: BOTH, names })
    }

    pub(crate) fn issue_as(&self, issue: Issue<'_>) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, issue.name);
        params.serial_number = Some(SerialNumber::from(issue.serial));
        params.subject_alt_names = issue.names;
        params.extended_key_usages = issue.usages.to_vec();
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 34], b"\x30\x05\x16\x03AMF".to_vec())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = CertificateFiles {
            certificate: self.path(&format!("{}.pem", issue.name)),
            key: self.path(&format!("{}.key", issue.name)),
            ca: self.path("ca.pem"),
            crl: None,
        };
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// A CRL that names these serial numbers, good until the first day of `until`.
    pub(crate) fn crl(&self, revoked: &[u64], until: i32) -> rcgen::CertificateRevocationList {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap()
    }

    fn server(&self) -> SslContext {
        let names = vec![
            SanType::DnsName("AAnF.lab.example".try_into().unwrap()),
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
        ];
        mutual_tls_server(&self.issue("aanf", names)).unwrap()
    }

    fn client(&self) -> SslContext {
        let names = vec![
            SanType::URI("https://example.com/nf".try_into().unwrap()),
            SanType::URI(format!("urn:UUID:{}", INSTANCE.to_uppercase()).try_into().unwrap()),
            SanType::DnsName("Server.lab.example".try_into().unwrap()),
        ];
        mutual_tls_client(&self.issue("server", names)).unwrap()
    }
}

pub(crate) struct Met {
    pub(crate) client: Result<SslStream<TcpStream>, openssl::ssl::Error>,
    pub(crate) server: Result<SslStream<TcpStream>, openssl::ssl::Error>,
}

pub(crate) async fn meet(server: &SslContext, client: Ssl) -> Met {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut connecting = SslStream::new(client, socket).unwrap();
    let mut accepting = SslStream::new(Ssl::new(server).unwrap(), listener.accept().await.unwrap().0).unwrap();
    let (client, server) = tokio::join!(
        async {
            // A refused client certificate shows at the client's first read in TLS 1.3.
            let done = Pin::new(&mut connecting).connect().await;
            (done, connecting)
        },
        async {
            let done = Pin::new(&mut accepting).accept().await;
            (done, accepting)
        }
    );
    Met { client: client.0.map(|()| client.1), server: server.0.map(|()| server.1) }
}

#[tokio::test]
async fn both_sides_prove_themselves_and_agree_on_http_2() {
    let authority = Authority::new();
    for host in ["aanf.lab.example", "127.0.0.1"] {
        let session = client_session(&authority.client(), host).unwrap();
        let Met { client, server } = meet(&authority.server(), session).await;
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(server.ssl().version2(), Some(SslVersion::TLS1_3));
        assert_eq!(server.ssl().selected_alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(server.ssl().num_tickets(), 0, "there is nothing to resume");
        let expected = PeerIdentity {
            nf_instance_id: Some(INSTANCE.to_owned()),
            dns_names: vec!["server.lab.example".to_owned()],
            ip_addresses: Vec::new(),
            uris: vec!["https://example.com/nf".to_owned(), format!("urn:UUID:{}", INSTANCE.to_uppercase())],
            nf_types: vec!["AMF".to_owned()],
            subject_common_name: Some("server".to_owned()),
            certificate_sha256: None,
            authority_keys_sha256: Arc::default(),
        };
        let peer = peer_identity(server.ssl()).unwrap();
        assert_eq!(peer.authority_keys_sha256.len(), 1, "the chain has one authority");
        assert!(peer.certificate_sha256.is_some_and(|digest| digest != [0; 32]));
        assert_eq!(PeerIdentity { certificate_sha256: None, authority_keys_sha256: Arc::default(), ..peer }, expected);
        let aanf = peer_identity(client.ssl()).unwrap();
        assert_eq!(aanf.dns_names, ["aanf.lab.example"]);
        assert_eq!(aanf.ip_addresses, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_too_and_nothing_older() {
    let authority = Authority::new();
    let mut session = client_session(&authority.client(), "aanf.lab.example").unwrap();
    session.set_max_proto_version(Some(SslVersion::TLS1_2)).unwrap();
    let Met { client, .. } = meet(&authority.server(), session).await;
    let client = client.unwrap();
    assert_eq!(client.ssl().version2(), Some(SslVersion::TLS1_2));
    assert_eq!(client.ssl().session().unwrap().id(), b"", "there is nothing to resume");
    let mut old = client_session(&authority.client(), "aanf.lab.example").unwrap();
    old.set_min_proto_version(Some(SslVersion::TLS1_1)).unwrap();
    old.set_max_proto_version(Some(SslVersion::TLS1_1)).unwrap();
    old.set_security_level(0);
    let Met { client, server } = meet(&authority.server(), old).await;
    assert!(client.is_err() && server.is_err());
}

#[tokio::test]
async fn a_client_without_certificate_or_with_one_from_elsewhere_is_refused() {
    let (authority, elsewhere) = (Authority::new(), Authority::new());
    let mut anonymous = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    anonymous.set_alpn_protos(b"\x02h2").unwrap();
    let Met { server, .. } = meet(&authority.server(), Ssl::new(&anonymous.build()).unwrap()).await;
    assert!(server.is_err());
    let mut impostor = client_session(&elsewhere.client(), "aanf.lab.example").unwrap();
    impostor.set_verify(openssl::ssl::SslVerifyMode::NONE);
    let Met { server, .. } = meet(&authority.server(), impostor).await;
    assert!(server.is_err());
}

#[tokio::test]
async fn a_server_of_another_name_or_authority_is_refused() {
    let (authority, elsewhere) = (Authority::new(), Authority::new());
    for host in ["ausf.lab.example", "127.0.0.2"] {
        let session = client_session(&authority.client(), host).unwrap();
        assert!(meet(&authority.server(), session).await.client.is_err());
    }
    let session = client_session(&authority.client(), "aanf.lab.example").unwrap();
    assert!(meet(&elsewhere.server(), session).await.client.is_err());
}

#[tokio::test]
async fn a_name_in_the_subject_alone_proves_nothing() {
    let authority = Authority::new();
    let uri = SanType::URI(format!("urn:uuid:{INSTANCE}").try_into().unwrap());
    let server = mutual_tls_server(&authority.issue("aanf.lab.example", vec![uri])).unwrap();
    let session = client_session(&authority.client(), "aanf.lab.example").unwrap();
    assert!(meet(&server, session).await.client.is_err());
}

#[tokio::test]
async fn a_client_that_wants_another_protocol_than_http_2_is_refused() {
    let authority = Authority::new();
    let mut session = client_session(&authority.client(), "aanf.lab.example").unwrap();
    session.set_alpn_protos(b"\x08http/1.1").unwrap();
    let Met { client, server } = meet(&authority.server(), session).await;
    assert!(client.is_err() && server.is_err());
}

#[test]
fn the_file_at_fault_is_named() {
    let authority = Authority::new();
    let good = authority.issue("good", vec![]);
    let other = authority.issue("other", vec![]);
    let missing = authority.path("missing.pem");
    let fault = |files: CertificateFiles| mutual_tls_server(&files).err().unwrap();
    let named =
        |error: ProfileError, path: &Path| assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    for files in [
        CertificateFiles { certificate: missing.clone(), ..good.clone() },
        CertificateFiles { key: missing.clone(), ..good.clone() },
        CertificateFiles { ca: missing.clone(), ..good.clone() },
        CertificateFiles { crl: Some(missing.clone()), ..good.clone() },
    ] {
        named(fault(files), &missing);
    }
    named(fault(CertificateFiles { certificate: good.key.clone(), ..good.clone() }), &good.key);
    named(fault(CertificateFiles { key: good.certificate.clone(), ..good.clone() }), &good.certificate);
    named(fault(CertificateFiles { ca: good.key.clone(), ..good.clone() }), &good.key);
    named(fault(CertificateFiles { crl: Some(good.ca.clone()), ..good.clone() }), &good.ca);
    let mismatch = fault(CertificateFiles { key: other.key.clone(), ..good.clone() });
    assert!(matches!(mismatch, ProfileError::KeyMismatch { .. }), "{mismatch}");
}

#[tokio::test]
async fn where_two_authorities_are_trusted_each_vouches_for_its_own_only() {
    let (ours, theirs) = (Authority::new(), Authority::named("Another authority"));
    let both = ours.path("both.pem");
    let read = |authority: &Authority| std::fs::read(authority.path("ca.pem")).unwrap();
    std::fs::write(&both, [read(&ours), read(&theirs)].concat()).unwrap();
    let server =
        CertificateFiles { ca: both, ..ours.issue("aanf", vec![SanType::DnsName("a.lab".try_into().unwrap())]) };
    let server = mutual_tls_server(&server).unwrap();
    let (of_ours, of_theirs) =
        (Authorities::of_file(ours.path("ca.pem")).unwrap(), Authorities::of_file(theirs.path("ca.pem")).unwrap());
    for (authority, vouches, does_not) in [(&ours, &of_ours, &of_theirs), (&theirs, &of_theirs, &of_ours)] {
        // One name, whoever issued it; the server is verified by its own authority.
        let files = CertificateFiles { ca: ours.path("ca.pem"), ..authority.issue("client", Vec::new()) };
        let session = client_session(&mutual_tls_client(&files).unwrap(), "a.lab").unwrap();
        let peer = peer_identity(meet(&server, session).await.server.unwrap().ssl()).unwrap();
        assert!(vouches.vouch_for(&peer) && !does_not.vouch_for(&peer));
    }
    assert!(!of_ours.vouch_for(&PeerIdentity::default()), "who was not verified is nobody's");
}

#[test]
fn a_changed_file_of_authorities_is_taken_anew_and_a_broken_one_is_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let peer = |authority: &Authority| {
        let certificate = openssl::x509::X509::from_pem(&std::fs::read(authority.path("ca.pem")).unwrap()).unwrap();
        let key = certificate.public_key().unwrap().public_key_to_der().unwrap();
        PeerIdentity { authority_keys_sha256: Arc::new([openssl::sha::sha256(&key)]), ..PeerIdentity::default() }
    };
    let file = ours.path("authorities.pem");
    let put = |content: &[u8]| {
        std::fs::write(ours.path("fresh"), content).unwrap();
        std::fs::rename(ours.path("fresh"), &file).unwrap();
    };
    put(&std::fs::read(ours.path("ca.pem")).unwrap());
    let authorities = Authorities::of_file(file.clone()).unwrap();
    assert!(matches!(authorities.refresh(), ReloadOutcome::Unchanged));
    put(b"nothing of the kind");
    assert!(matches!(authorities.refresh(), ReloadOutcome::Failed(ProfileError::NotPem { .. })));
    assert!(authorities.vouch_for(&peer(&ours)));
    put(&std::fs::read(theirs.path("ca.pem")).unwrap());
    assert!(matches!(authorities.refresh(), ReloadOutcome::Reloaded));
    assert!(!authorities.vouch_for(&peer(&ours)) && authorities.vouch_for(&peer(&theirs)));
}
