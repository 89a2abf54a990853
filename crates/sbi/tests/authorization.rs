//! Who gets past a producer's authorisation, over real sockets and certificates, and what the others are told.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::sha::sha256;
use openssl::sign::Signer;
use proptest::prelude::*;
use sbi::assertion::CLIENT_CREDENTIALS;
use sbi::audit::Audit;
use sbi::authorization::{AuthorizationConfig, Authorizer, Granted, Mode, NdsIpConfig, PeerConfig, Producer};
use sbi::services::{NAANF_AKMA, SUPI_ACCESS};
use sbi::testing::TestAuthority;
use sbi::testing::tokens::{Answer, Connection, TestIssuer, TestTokens, challenge, now, problem, send};
use sbi::token::{AccessTokenClaims, Audience, PlmnId, TOKEN_BYTES_MAX, TokenSigner};
use sbi::{
    CertificateFiles, ClientLimits, Json, SbiClient, SbiClientConfig, SbiServer, SbiServerConfig, ServerLimits,
    ServerMetrics,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const AANF: &str = "11111111-1111-4111-8111-111111111111";
const AF: &str = "22222222-2222-4222-8222-222222222222";
const OTHER_AF: &str = "33333333-3333-4333-8333-333333333333";
const NRF: &str = "44444444-4444-4444-8444-444444444444";
const OTHER_NRF: &str = "55555555-5555-4555-8555-555555555555";

const RETRIEVE: &str = "/naanf-akma/v1/retrieve-applicationkey";
const REGISTER: &str = "/naanf-akma/v1/register-anchorkey";

/// An AAnF that tells what was granted, its NRF, and an AF with a certificate.
struct Fixture {
    authority: TestAuthority,
    issuer: TestIssuer,
    server: SbiServer,
    af: CertificateFiles,
    connection: Connection,
    metrics: prometheus_client::registry::Registry,
}

impl Fixture {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut AuthorizationConfig)) -> Self {
        let authority = TestAuthority::new();
        let issuer = TestIssuer::new(&authority, NRF);
        let tls = authority.issue(AANF, &["aanf.example"]);
        let mut config = issuer.section();
        change(&mut config);
        let audit = Audit::default();
        let mut metrics = prometheus_client::registry::Registry::default();
        audit.register(&mut metrics);
        let producer = Producer::of_certificate("AANF", &tls).unwrap();
        let authorizer = Authorizer::new(config, producer, &tls, audit).unwrap();
        let told = async |Extension(granted): Extension<Granted>| {
            Json(json!({"subject": granted.subject, "means": granted.means.reason(),
                "supi": granted.permits(SUPI_ACCESS)}))
        };
        let router = Router::new()
            .route(RETRIEVE, post(told))
            .route(REGISTER, post(async |_: Extension<Granted>, Json(body): Json<Value>| Json(body)))
            .route("/naanf-akma/v1/own", get(told));
        let router = authorizer.protect(router, &NAANF_AKMA);
        let config = SbiServerConfig { listen: ([127, 0, 0, 1], 0).into(), tls, limits: ServerLimits::default() };
        let (shutdown, of_server) = (CancellationToken::new(), ServerMetrics::default());
        let server = SbiServer::start_authorized(config, router, &authorizer, shutdown, of_server).await.unwrap();
        let af = authority.issue(AF, &["af.example"]);
        let connection = Connection::open(&af, server.local_addr().port()).await;
        Self { authority, issuer, server, af, connection, metrics }
    }

    fn request(&self, path: &str) -> http::request::Builder {
        let uri = format!("https://localhost:{}{path}", self.server.local_addr().port());
        Request::builder().method(Method::POST).uri(uri).header(CONTENT_TYPE, "application/json")
    }

    /// Asks for K_AF as the AF, with these headers.
    async fn ask(&self, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request(RETRIEVE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.connection.send(request.body(Bytes::from_static(b"{}")).unwrap()).await
    }

    async fn ask_with(&self, token: &str) -> Answer {
        self.ask(&[("authorization", &format!("Bearer {token}"))]).await
    }

    async fn ask_claiming(&self, change: impl FnOnce(&mut AccessTokenClaims)) -> Answer {
        let mut claims = self.issuer.claims(AF, "AANF", "naanf-akma");
        change(&mut claims);
        self.ask_with(&self.issuer.signer.sign(&claims).unwrap()).await
    }

    fn good_token(&self) -> String {
        self.issuer.token(AF, "AANF", "naanf-akma")
    }

    fn counted(&self, outcome: &str, reason: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text.contains(&format!(r#"sbi_authorizations_total{{outcome="{outcome}",reason="{reason}"}}"#))
    }
}

fn assert_refused(answer: &Answer, status: StatusCode, error: &str, cause: &str) {
    assert_eq!(answer.status(), status, "{answer:?}");
    let told = challenge(answer.headers());
    assert!(told.starts_with(r#"Bearer realm="naanf-akma""#), "{told}");
    match error {
        "" => assert!(!told.contains("error"), "{told}"),
        error => assert!(told.contains(&format!(r#"error="{error}""#)), "{told}"),
    }
    assert_eq!(problem(answer).cause.as_deref(), Some(cause));
    assert_eq!(problem(answer).status, Some(status.as_u16()));
}

fn assert_invalid(answer: &Answer, cause: &str) {
    assert_refused(answer, StatusCode::UNAUTHORIZED, "invalid_token", cause);
}

/// A token of any header and claims, signed by `sign`.
fn forged(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn good_claims() -> Value {
    json!({"iss": NRF, "sub": AF, "aud": "AANF", "scope": "naanf-akma", "exp": now() + 600})
}

fn granted(answer: &Answer) -> Value {
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    serde_json::from_slice(answer.body()).unwrap()
}

#[tokio::test]
async fn a_good_token_is_taken_for_the_type_and_for_the_instance() {
    let fixture = Fixture::start().await;
    let answer = granted(&fixture.ask_with(&fixture.good_token()).await);
    assert_eq!(answer, json!({"subject": AF, "means": "token", "supi": false}));
    let instances = Audience::Instances(vec![OTHER_AF.to_owned(), AANF.to_ascii_uppercase()]);
    granted(&fixture.ask_claiming(|claims| claims.aud = instances).await);
    let scope = format!("naanf-akma naanf-akma:applicationkeyget {SUPI_ACCESS}");
    let answer = granted(&fixture.ask_claiming(|claims| claims.scope = scope).await);
    assert_eq!(answer["supi"], true);
    granted(&fixture.ask(&[("authorization", &format!("bearer {}", fixture.good_token()))]).await);
    assert!(fixture.counted("allowed", "token"));
}

#[tokio::test]
async fn without_a_token_nobody_gets_in_and_no_error_code_is_told() {
    let fixture = Fixture::start().await;
    assert_refused(&fixture.ask(&[]).await, StatusCode::UNAUTHORIZED, "", "TOKEN_MISSING");
    let basic = fixture.ask(&[("authorization", "Basic YTpi")]).await;
    assert_refused(&basic, StatusCode::UNAUTHORIZED, "", "SCHEME_UNKNOWN");
    assert_invalid(&fixture.ask(&[("authorization", "Bearer ")]).await, "TOKEN_MALFORMED");
    assert!(fixture.counted("refused", "token_missing"));
}

#[tokio::test]
async fn a_stranger_learns_nothing_from_its_body() {
    let fixture = Fixture::start().await;
    for body in ["", "{", "{}", "[]"] {
        let request = fixture.request(REGISTER).body(Bytes::from(body)).unwrap();
        let answer = fixture.connection.send(request).await;
        assert_refused(&answer, StatusCode::UNAUTHORIZED, "", "TOKEN_MISSING");
    }
}

#[tokio::test]
async fn another_s_token_is_refused_whatever_its_certificate() {
    let fixture = Fixture::start().await;
    assert_invalid(&fixture.ask_claiming(|claims| claims.sub = OTHER_AF.to_owned()).await, "TOKEN_SUBJECT");
    let stolen = fixture.good_token();
    let thief = fixture.authority.issue(OTHER_AF, &["af.example"]);
    let request = fixture.request(RETRIEVE).header(AUTHORIZATION, format!("Bearer {stolen}"));
    assert_invalid(&send(&thief, request.body(Bytes::new()).unwrap()).await, "TOKEN_SUBJECT");
}

#[tokio::test]
async fn a_token_for_another_audience_or_part_of_the_network_is_refused() {
    let fixture = Fixture::start().await;
    let audiences = [
        Audience::NfType("AUSF".to_owned()),
        Audience::NfType("aanf".to_owned()),
        Audience::NfType(AANF.to_owned()),
        Audience::Instances(vec![OTHER_AF.to_owned()]),
        Audience::Instances(vec!["AANF".to_owned()]),
        Audience::Instances(vec![]),
    ];
    for audience in audiences {
        assert_invalid(&fixture.ask_claiming(|claims| claims.aud = audience).await, "TOKEN_AUDIENCE");
    }
    let plmn = PlmnId { mcc: "001".to_owned(), mnc: "01".to_owned() };
    assert_invalid(&fixture.ask_claiming(|claims| claims.producer_plmn_id = Some(plmn)).await, "TOKEN_RESTRICTION");
}

#[tokio::test]
async fn a_token_of_another_scope_is_refused_and_told_which_would_do() {
    let fixture = Fixture::start().await;
    let scopes = ["nausf-auth", "", "naanf-akma:applicationkeyget", "naanf-akma naanf-akma:anchorkey", "NAANF-AKMA"];
    for scope in scopes {
        let answer = fixture.ask_claiming(|claims| claims.scope = scope.to_owned()).await;
        assert_refused(&answer, StatusCode::FORBIDDEN, "insufficient_scope", "TOKEN_SCOPE");
        assert!(challenge(answer.headers()).contains(r#"scope="naanf-akma naanf-akma:applicationkeyget""#));
    }
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    let fixture = Fixture::start().await;
    let stranger = TestIssuer::new(&fixture.authority, OTHER_NRF);
    assert_invalid(&fixture.ask_with(&stranger.token(AF, "AANF", "naanf-akma")).await, "TOKEN_ISSUER");
    let claims = fixture.issuer.claims(AF, "AANF", "naanf-akma");
    assert_invalid(&fixture.ask_with(&stranger.signer.sign(&claims).unwrap()).await, "TOKEN_KEY_UNKNOWN");
    assert_invalid(&fixture.ask_claiming(|claims| claims.iss = OTHER_NRF.to_owned()).await, "TOKEN_ISSUER");
}

#[tokio::test]
async fn of_two_issuers_each_signs_for_itself_only() {
    let mut other = None;
    let fixture = {
        let elsewhere = TestAuthority::new();
        let issuer = TestIssuer::new(&elsewhere, OTHER_NRF);
        let entry = issuer.entry();
        other = Some((elsewhere, issuer)).or(other);
        Fixture::start_with(|config| config.issuers.push(entry)).await
    };
    let (_files, other) = other.unwrap();
    granted(&fixture.ask_with(&other.token(AF, "AANF", "naanf-akma")).await);
    let claims = fixture.issuer.claims(AF, "AANF", "naanf-akma");
    assert_invalid(&fixture.ask_with(&other.signer.sign(&claims).unwrap()).await, "TOKEN_KEY_UNKNOWN");
}

#[tokio::test]
async fn a_token_is_refused_after_its_expiry_and_before_its_time() {
    let fixture = Fixture::start().await;
    assert_invalid(&fixture.ask_claiming(|claims| claims.exp = now() - 31).await, "TOKEN_EXPIRED");
    assert_invalid(&fixture.ask_claiming(|claims| claims.exp = 0).await, "TOKEN_EXPIRED");
    granted(&fixture.ask_claiming(|claims| claims.exp = now() - 5).await);
    assert_invalid(&fixture.ask_claiming(|claims| claims.nbf = Some(now() + 60)).await, "TOKEN_NOT_YET_VALID");
    assert_invalid(&fixture.ask_claiming(|claims| claims.iat = Some(now() + 60)).await, "TOKEN_NOT_YET_VALID");
    granted(&fixture.ask_claiming(|claims| claims.iat = Some(now() + 5)).await);
    let strict = Fixture::start_with(|config| config.leeway_seconds = 0).await;
    assert_invalid(&strict.ask_claiming(|claims| claims.exp = now() - 5).await, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_token_seen_before_is_checked_again_each_time() {
    let fixture = Fixture::start().await;
    let token = fixture.good_token();
    granted(&fixture.ask_with(&token).await);
    let register = fixture.request(REGISTER).header(AUTHORIZATION, format!("Bearer {token}"));
    let thief = fixture.authority.issue(OTHER_AF, &[]);
    assert_invalid(&send(&thief, register.body(Bytes::new()).unwrap()).await, "TOKEN_SUBJECT");
    granted(&fixture.ask_with(&token).await);
}

/// Asks with the same token until it is refused.
async fn until_refused(fixture: &Fixture, token: &str) -> Answer {
    let asked = async {
        loop {
            let answer = fixture.ask_with(token).await;
            if answer.status() != StatusCode::OK {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), asked).await.unwrap()
}

#[tokio::test]
async fn a_token_seen_before_ends_with_its_time_and_with_its_key_though_nothing_else_is_asked() {
    let mut fixture = Fixture::start_with(|config| config.leeway_seconds = 0).await;
    let mut claims = fixture.issuer.claims(AF, "AANF", "naanf-akma");
    claims.exp = now() + 5;
    let short = fixture.issuer.signer.sign(&claims).unwrap();
    granted(&fixture.ask_with(&short).await);
    assert_invalid(&until_refused(&fixture, &short).await, "TOKEN_EXPIRED");

    let token = fixture.good_token();
    granted(&fixture.ask_with(&token).await);
    fixture.issuer.rotate();
    assert_invalid(&until_refused(&fixture, &token).await, "TOKEN_KEY_UNKNOWN");
    granted(&fixture.ask_with(&fixture.good_token()).await);
}

#[tokio::test]
async fn unsigned_tokens_and_other_algorithms_are_refused() {
    let fixture = Fixture::start().await;
    let kid = fixture.issuer.signer.key_id().to_owned();
    for alg in ["none", "None", "", "ES384", "RS256", "PS256", "EdDSA", "es256"] {
        let header = json!({"alg": alg, "typ": "JWT", "kid": kid});
        assert_invalid(&fixture.ask_with(&forged(&header, &good_claims(), |_| Vec::new())).await, "TOKEN_ALGORITHM");
    }
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": kid});
    for signature in [vec![], vec![0; 64], vec![0; 63], vec![0xff; 64]] {
        let token = forged(&header, &good_claims(), |_| signature);
        assert_invalid(&fixture.ask_with(&token).await, "TOKEN_SIGNATURE");
    }
}

#[tokio::test]
async fn the_public_key_is_no_secret_for_hmac() {
    let fixture = Fixture::start().await;
    let jwks = fixture.issuer.signer.jwks();
    let coordinates: Vec<Vec<u8>> =
        ["x", "y"].map(|member| URL_SAFE_NO_PAD.decode(jwks["keys"][0][member].as_str().unwrap()).unwrap()).into();
    let secrets = [
        jwks.to_string().into_bytes(),
        jwks["keys"][0].to_string().into_bytes(),
        [&[4][..], &coordinates.concat()].concat(),
    ];
    for secret in secrets {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": fixture.issuer.signer.key_id()});
        let token = forged(&header, &good_claims(), |message| {
            let key = PKey::hmac(&secret).unwrap();
            let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
            signer.sign_oneshot_to_vec(message).unwrap()
        });
        assert_invalid(&fixture.ask_with(&token).await, "TOKEN_ALGORITHM");
    }
}

#[tokio::test]
async fn a_token_that_brings_its_own_key_or_extensions_is_refused() {
    let fixture = Fixture::start().await;
    let own = TokenSigner::from_pem(TokenSigner::generate_pem().unwrap().as_bytes()).unwrap();
    let refused = [
        (json!({"jwk": own.jwks()["keys"][0]}), "TOKEN_BRINGS_KEY"),
        (json!({"jku": "https://attacker.example/keys"}), "TOKEN_BRINGS_KEY"),
        (json!({"x5u": "https://attacker.example/chain"}), "TOKEN_BRINGS_KEY"),
        (json!({"x5c": ["AAAA"]}), "TOKEN_BRINGS_KEY"),
        (json!({"crit": ["exp"]}), "TOKEN_EXTENSION"),
        (json!({"crit": []}), "TOKEN_EXTENSION"),
        (json!({"b64": false}), "TOKEN_EXTENSION"),
        (json!({"zip": "DEF"}), "TOKEN_EXTENSION"),
        (json!({"typ": "JWE"}), "TOKEN_EXTENSION"),
        (json!({"kid": "another"}), "TOKEN_KEY_UNKNOWN"),
    ];
    let good = fixture.good_token();
    for (members, cause) in refused {
        let mut header = json!({"alg": "ES256", "kid": fixture.issuer.signer.key_id()});
        header.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let signature = URL_SAFE_NO_PAD.decode(good.rsplit('.').next().unwrap()).unwrap();
        assert_invalid(&fixture.ask_with(&forged(&header, &good_claims(), |_| signature)).await, cause);
    }
}

#[tokio::test]
async fn a_changed_claim_breaks_the_signature() {
    let fixture = Fixture::start().await;
    let token = fixture.issuer.token(AF, "AUSF", "naanf-akma");
    let mut parts: Vec<&str> = token.split('.').collect();
    let claims = URL_SAFE_NO_PAD.encode(good_claims().to_string());
    parts[1] = &claims;
    assert_invalid(&fixture.ask_with(&parts.join(".")).await, "TOKEN_SIGNATURE");
}

#[tokio::test]
async fn what_is_not_a_token_is_refused_and_bounded() {
    let fixture = Fixture::start().await;
    let good = fixture.good_token();
    for text in ["x", "a.b", "a.b.c.d", "....", &format!("{good}."), &format!("{good}=")] {
        let answer = fixture.ask_with(text).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert!(challenge(answer.headers()).contains("invalid_token"));
    }
    let long = fixture.ask_claiming(|claims| claims.jti = Some("x".repeat(TOKEN_BYTES_MAX))).await;
    assert_invalid(&long, "TOKEN_TOO_LONG");
    let missing = json!({"iss": NRF, "sub": AF, "aud": "AANF", "scope": "naanf-akma"});
    assert_invalid(&fixture.ask_with(&fixture.issuer.signer.sign(&missing).unwrap()).await, "TOKEN_CLAIMS");
}

#[tokio::test]
async fn two_authorization_headers_are_refused_even_if_both_are_good() {
    let fixture = Fixture::start().await;
    let good = format!("Bearer {}", fixture.good_token());
    let answer = fixture.ask(&[("authorization", &good), ("authorization", &good)]).await;
    assert_refused(&answer, StatusCode::BAD_REQUEST, "invalid_request", "HEADER_REPEATED");
}

#[tokio::test]
async fn a_peer_by_tls_needs_no_token_but_a_token_it_shows_is_checked() {
    let fixture = Fixture::start_with(|config| config.peers.push(PeerConfig::instance(AF, Mode::Tls))).await;
    let answer = granted(&fixture.ask(&[]).await);
    assert_eq!(answer, json!({"subject": AF, "means": "tls", "supi": true}));
    assert_invalid(&fixture.ask_claiming(|claims| claims.exp = now() - 60).await, "TOKEN_EXPIRED");
    assert_invalid(&fixture.ask_with("garbage").await, "TOKEN_MALFORMED");
    let other = fixture.authority.issue(OTHER_AF, &[]);
    let answer = send(&other, fixture.request(RETRIEVE).body(Bytes::new()).unwrap()).await;
    assert_refused(&answer, StatusCode::UNAUTHORIZED, "", "TOKEN_MISSING");
}

#[tokio::test]
async fn a_rotated_key_is_taken_at_once_and_the_old_one_no_more() {
    let mut fixture = Fixture::start().await;
    let old = fixture.good_token();
    granted(&fixture.ask_with(&old).await);
    fixture.issuer.rotate();
    granted(&fixture.ask_with(&fixture.good_token()).await);
    assert_invalid(&fixture.ask_with(&old).await, "TOKEN_KEY_UNKNOWN");
    // A file that cannot be used leaves the keys as they are.
    std::fs::write(&fixture.issuer.entry().keys, "{").unwrap();
    assert_invalid(&fixture.ask_with(&old).await, "TOKEN_KEY_UNKNOWN");
    granted(&fixture.ask_with(&fixture.good_token()).await);
}

fn p256() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// A token of the issuer, signed by `key`, which the header calls `kid`.
fn signed(key: &PKey<Private>, kid: Option<&str>) -> String {
    let mut header = json!({"alg": "ES256", "typ": "JWT"});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    forged(&header, &good_claims(), |message| {
        let signature = EcdsaSig::sign(&sha256(message), &key.ec_key().unwrap()).unwrap();
        [signature.r(), signature.s()].map(|number| number.to_vec_padded(32).unwrap()).concat()
    })
}

/// What such a key is called where nobody has named it (RFC 7638).
fn thumbprint(key: &PKey<Private>) -> String {
    TokenSigner::from_pem(&key.private_key_to_pem_pkcs8().unwrap()).unwrap().key_id().to_owned()
}

/// The issuer's keys in `config` as a file with these octets.
fn give_keys(config: &mut AuthorizationConfig, octets: &[u8]) -> PathBuf {
    let keys = config.issuers[0].keys.with_extension("pem");
    std::fs::write(&keys, octets).unwrap();
    config.issuers[0].keys.clone_from(&keys);
    keys
}

#[tokio::test]
async fn a_producer_with_its_issuers_key_as_pem_takes_tokens_by_that_key_and_no_others() {
    let (right, other) = (p256(), p256());
    let pem = |key: &PKey<Private>| key.public_key_to_pem().unwrap();
    let both = [b"The NRF's keys, this and the next:\n", pem(&right).as_slice(), &pem(&other)].concat();
    for (octets, takes_other) in [(pem(&right), false), (both, true)] {
        let fixture = Fixture::start_with(|config| drop(give_keys(config, &octets))).await;
        for kid in [None, Some(&*thumbprint(&right))] {
            granted(&fixture.ask_with(&signed(&right, kid)).await);
        }
        // An issuer that calls its keys otherwise needs a key set.
        assert_invalid(&fixture.ask_with(&signed(&right, Some("nrf-1"))).await, "TOKEN_KEY_UNKNOWN");
        assert_invalid(&fixture.ask_with(&fixture.good_token()).await, "TOKEN_KEY_UNKNOWN");
        assert_invalid(&fixture.ask_with(&signed(&other, Some(&thumbprint(&right)))).await, "TOKEN_SIGNATURE");
        for (kid, refusal) in [(None, "TOKEN_SIGNATURE"), (Some(&*thumbprint(&other)), "TOKEN_KEY_UNKNOWN")] {
            let answer = fixture.ask_with(&signed(&other, kid)).await;
            if takes_other { drop(granted(&answer)) } else { assert_invalid(&answer, refusal) }
        }
        // The file is public, and no secret of an HMAC.
        let confused = forged(&json!({"alg": "HS256", "typ": "JWT"}), &good_claims(), |message| {
            let key = PKey::hmac(&octets).unwrap();
            Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(message).unwrap()
        });
        assert_invalid(&fixture.ask_with(&confused).await, "TOKEN_ALGORITHM");
    }
}

#[tokio::test]
async fn of_a_certificate_in_place_of_a_key_only_the_key_counts() {
    let authority = TestAuthority::new();
    let files = authority.issue(NRF, &[]);
    let key = PKey::private_key_from_pem(&std::fs::read(&files.key).unwrap()).unwrap();
    let certificate = std::fs::read(&files.certificate).unwrap();
    let fixture = Fixture::start_with(|config| drop(give_keys(config, &certificate))).await;
    granted(&fixture.ask_with(&signed(&key, None)).await);
    assert_invalid(&fixture.ask_with(&signed(&p256(), None)).await, "TOKEN_SIGNATURE");
}

#[test]
fn a_file_that_holds_no_key_of_an_issuer_is_told_with_its_name_and_what_belongs_there() {
    let authority = TestAuthority::new();
    let tls = authority.issue(AANF, &[]);
    let curve = |nid| PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(nid).unwrap()).unwrap()).unwrap();
    let pem = |key: PKey<Private>| key.public_key_to_pem().unwrap();
    let garbage = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec();
    let rsa = || PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let rsa_jwk = br#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#.to_vec();
    for (what, octets, reason) in [
        ("RSA", pem(rsa()), "not on P-256"),
        ("another curve", pem(curve(Nid::SECP384R1)), "not on P-256"),
        ("a curve of as many bits", pem(curve(Nid::SECP256K1)), "not on P-256"),
        ("Ed25519", pem(PKey::generate_ed25519().unwrap()), "not on P-256"),
        ("the right one and RSA", [pem(p256()), pem(rsa())].concat(), "not on P-256"),
        ("a private key", p256().private_key_to_pem_pkcs8().unwrap(), "a private key where a public one belongs"),
        ("garbage in PEM", garbage, "not a PEM public key or certificate"),
        ("garbage", vec![0xff; 64], "not PEM"),
        ("other text", b"the key comes by post".to_vec(), "there is none"),
        ("nothing", Vec::new(), "there is none"),
        ("one key twice", p256().public_key_to_pem().unwrap().repeat(2), "two have the same name"),
        ("a key set of RSA", rsa_jwk, "there is none"),
        ("half a key set", b"{\"keys\": [".to_vec(), "not a JSON Web Key Set"),
    ] {
        let mut config = TestIssuer::new(&authority, NRF).section();
        let path = give_keys(&mut config, &octets);
        let producer = Producer::of_certificate("AANF", &tls).unwrap();
        let told = Authorizer::new(config, producer, &tls, Audit::default()).unwrap_err().to_string();
        let named =
            format!("authorization.issuer {NRF}: keys {}: no usable P-256 key: {reason}; it must be", path.display());
        assert!(told.contains(&named), "{what}: {told}");
        assert!(
            told.ends_with("a JSON Web Key Set, or PEM public keys or certificates, of keys on P-256 (ES256)"),
            "{told}"
        );
    }
    let mut config = TestIssuer::new(&authority, NRF).section();
    config.issuers[0].keys = authority.directory().join("not-there.pem");
    let producer = Producer::of_certificate("AANF", &tls).unwrap();
    let told = Authorizer::new(config, producer, &tls, Audit::default()).unwrap_err().to_string();
    assert!(told.contains("not-there.pem: No such file"), "{told}");
}

#[tokio::test]
async fn a_client_drops_a_token_that_is_refused_and_tries_once_more() {
    let fixture = Fixture::start().await;
    let root = format!("https://localhost:{}", fixture.server.local_addr().port());
    let client = SbiClient::new(SbiClientConfig { tls: fixture.af.clone(), limits: ClientLimits::default() }).unwrap();
    let client = client.for_service("AANF", "naanf-akma");
    let uri = format!("{root}{RETRIEVE}");

    let expired_first = TestTokens::changed(&fixture.issuer, AF, |count, claims| {
        if count == 0 {
            claims.exp = 0;
        }
    });
    let answer = client.clone().with_tokens(expired_first.clone()).post::<_, Value>(&uri, &json!({})).await;
    assert_eq!(answer.unwrap().into_body().unwrap()["means"], "token");
    assert_eq!((expired_first.given.load(SeqCst), expired_first.rejected.load(SeqCst)), (2, 1));

    let always = TestTokens::changed(&fixture.issuer, AF, |_, claims| claims.exp = 0);
    let answer = client.clone().with_tokens(always.clone()).post::<_, Value>(&uri, &json!({})).await;
    assert!(answer.unwrap_err().problem().unwrap().has_cause("TOKEN_EXPIRED"));
    assert_eq!((always.given.load(SeqCst), always.rejected.load(SeqCst)), (2, 1));

    let narrow = TestTokens::changed(&fixture.issuer, AF, |_, claims| claims.scope = "nausf-auth".to_owned());
    let answer = client.with_tokens(narrow.clone()).post::<_, Value>(&uri, &json!({})).await;
    assert_eq!(answer.unwrap_err().problem().unwrap().status, Some(403));
    assert_eq!((narrow.given.load(SeqCst), narrow.rejected.load(SeqCst)), (1, 0), "a fresh token would not help");
}

fn statement(networks: &[&str]) -> NdsIpConfig {
    NdsIpConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        protected_by: "a test".to_owned(),
        nf_instance_id: Some(OTHER_AF.to_owned()),
        dns_name: None,
    }
}

#[tokio::test]
async fn a_protected_network_is_served_without_tls_and_is_its_peers_identity() {
    let fixture = Fixture::start_with(|config| config.nds_ip.push(statement(&["127.0.0.0/8"]))).await;
    let address = fixture.server.protected_network_addrs().next().unwrap();
    let connection = Connection::open_plain(address).await.unwrap();
    let request = || Request::builder().method(Method::POST).uri(format!("http://{address}{RETRIEVE}"));
    let answer = granted(&connection.send(request().body(Bytes::new()).unwrap()).await);
    assert_eq!(answer, json!({"subject": OTHER_AF, "means": "nds_ip", "supi": true}));
    // A token is checked here, too: this one is of another than the network is taken for.
    let token = format!("Bearer {}", fixture.good_token());
    let answer = connection.send(request().header(AUTHORIZATION, token).body(Bytes::new()).unwrap()).await;
    assert_invalid(&answer, "TOKEN_SUBJECT");
    // The TLS listener is as before.
    assert_refused(&fixture.ask(&[]).await, StatusCode::UNAUTHORIZED, "", "TOKEN_MISSING");
}

#[tokio::test]
async fn a_source_outside_the_protected_networks_is_not_served() {
    let fixture = Fixture::start_with(|config| config.nds_ip.push(statement(&["192.0.2.0/24", "::1/128"]))).await;
    let address = fixture.server.protected_network_addrs().next().unwrap();
    let request = Request::builder().method(Method::POST).uri(format!("http://{address}{RETRIEVE}"));
    let answer = match Connection::open_plain(address).await {
        Ok(connection) => connection.try_send(request.body(Bytes::new()).unwrap()).await,
        Err(error) => Err(error),
    };
    assert!(answer.is_err());
}

/// A client credentials assertion of the holder of `files`.
fn assertion(files: &CertificateFiles, claims: &Value) -> String {
    let signer = TokenSigner::from_pem(&std::fs::read(&files.key).unwrap()).unwrap();
    let chain = openssl::x509::X509::stack_from_pem(&std::fs::read(&files.certificate).unwrap()).unwrap();
    let chain: Vec<Vec<u8>> = chain.iter().map(|certificate| certificate.to_der().unwrap()).collect();
    signer.sign_with_certificates(claims, &chain).unwrap()
}

fn assertion_claims(sub: &str) -> Value {
    json!({"sub": sub, "aud": ["NRF", "AANF"], "iat": now(), "exp": now() + 60})
}

#[tokio::test]
async fn an_assertion_is_checked_when_it_is_there() {
    let fixture = Fixture::start_with(|config| config.peers.push(PeerConfig::instance(AF, Mode::Tls))).await;
    let header = CLIENT_CREDENTIALS.as_str();
    let with = async |text: String| fixture.ask(&[(header, &text)]).await;
    granted(&with(assertion(&fixture.af, &assertion_claims(AF))).await);
    let one = json!({"sub": AF, "aud": "AANF", "iat": now(), "exp": now() + 60});
    granted(&with(assertion(&fixture.af, &one)).await);

    let elsewhere = TestAuthority::new();
    let stranger = elsewhere.issue(AF, &[]);
    let other = fixture.authority.issue(OTHER_AF, &[]);
    let changed = |member: &str, value: Value| {
        let mut claims = assertion_claims(AF);
        claims[member] = value;
        assertion(&fixture.af, &claims)
    };
    let refused = [
        "garbage".to_owned(),
        assertion(&stranger, &assertion_claims(AF)),
        assertion(&other, &assertion_claims(AF)),
        changed("sub", json!(OTHER_AF)),
        changed("aud", json!(["NRF"])),
        changed("exp", json!(now() - 60)),
        changed("iat", json!(now() + 60)),
        changed("exp", json!(now() + 3_600)),
        changed("exp", json!("soon")),
        fixture.good_token(),
        "x".repeat(15_000),
    ];
    for text in refused {
        let answer = with(text).await;
        assert_refused(&answer, StatusCode::FORBIDDEN, "", "CCA_VERIFICATION_FAILURE");
    }
    let good = assertion(&fixture.af, &assertion_claims(AF));
    let twice = fixture.ask(&[(header, &good), (header, &good)]).await;
    assert_refused(&twice, StatusCode::BAD_REQUEST, "invalid_request", "HEADER_REPEATED");
}

#[tokio::test]
async fn an_assertion_of_another_than_the_tls_peer_is_refused() {
    let fixture = Fixture::start().await;
    let other = fixture.authority.issue(OTHER_AF, &[]);
    let text = assertion(&other, &assertion_claims(OTHER_AF));
    let token = format!("Bearer {}", fixture.good_token());
    let answer = fixture.ask(&[(CLIENT_CREDENTIALS.as_str(), &text), ("authorization", &token)]).await;
    assert_refused(&answer, StatusCode::FORBIDDEN, "", "TOKEN_CCA_MISMATCH");
}

#[tokio::test]
async fn an_assertion_without_its_certificate_or_with_a_certificate_that_is_not_its_key_s_is_refused() {
    let fixture = Fixture::start_with(|config| config.peers.push(PeerConfig::instance(AF, Mode::Tls))).await;
    let own = TokenSigner::from_pem(TokenSigner::generate_pem().unwrap().as_bytes()).unwrap();
    let certificate = openssl::x509::X509::from_pem(&std::fs::read(&fixture.af.certificate).unwrap()).unwrap();
    let der = certificate.to_der().unwrap();
    let texts = [
        own.sign(&assertion_claims(AF)).unwrap(),
        own.sign_with_certificates(&assertion_claims(AF), std::slice::from_ref(&der)).unwrap(),
        own.sign_with_certificates(&assertion_claims(AF), &vec![der; 9]).unwrap(),
        forged(
            &json!({"alg": "none", "x5c": [STANDARD.encode(certificate.to_der().unwrap())]}),
            &assertion_claims(AF),
            |_| vec![],
        ),
    ];
    for text in texts {
        let answer = fixture.ask(&[(CLIENT_CREDENTIALS.as_str(), &text)]).await;
        assert_refused(&answer, StatusCode::FORBIDDEN, "", "CCA_VERIFICATION_FAILURE");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn any_changed_octet_of_a_token_is_refused(at in any::<prop::sample::Index>(), to in 0x21_u8..0x7f) {
        let authorizer = Offline::shared();
        let mut token = authorizer.token.clone().into_bytes();
        let at = at.index(token.len());
        prop_assume!(token[at] != to);
        token[at] = to;
        let token = String::from_utf8(token).unwrap();
        prop_assert!(authorizer.decide(&token).is_err());
        prop_assert!(authorizer.decide(&authorizer.token).is_ok());
    }

    #[test]
    fn whatever_is_no_token_is_refused(text in "\\PC{0,200}|[A-Za-z0-9_.-]{0,300}") {
        prop_assert!(Offline::shared().decide(&text).is_err());
    }
}

/// An authorizer and a token that it takes, without a socket.
struct Offline {
    authorizer: Arc<Authorizer>,
    token: String,
    _authority: TestAuthority,
}

impl Offline {
    fn shared() -> &'static Self {
        static SHARED: std::sync::OnceLock<Offline> = std::sync::OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = TestAuthority::new();
            let issuer = TestIssuer::new(&authority, NRF);
            let tls = authority.issue(AANF, &[]);
            let producer = Producer::of_certificate("AANF", &tls).unwrap();
            let authorizer = Authorizer::new(issuer.section(), producer, &tls, Audit::default()).unwrap();
            Self { authorizer, token: issuer.token(AF, "AANF", "naanf-akma"), _authority: authority }
        })
    }

    fn decide(&self, token: &str) -> Result<Granted, String> {
        let peer = sbi::PeerIdentity { nf_instance_id: Some(AF.to_owned()), ..sbi::PeerIdentity::default() };
        let mut headers = http::HeaderMap::new();
        let value = http::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| error.to_string())?;
        headers.insert(AUTHORIZATION, value);
        let decided = self.authorizer.authorize(&peer, false, &headers, &NAANF_AKMA, None);
        decided.map_err(|refusal| refusal.reason().to_owned())
    }
}
