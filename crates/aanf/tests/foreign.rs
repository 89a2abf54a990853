//! An AUSF and an AF of another make: curl, which knows nothing but HTTP/2, certificates and the OpenAPI file's JSON.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::*;
use sbi::CertificateFiles;
use serde_json::{Value, json};
use tokio::process::Command;

/// What came back.
struct Answer {
    status: u16,
    version: String,
    media_type: String,
    body: Option<Value>,
}

/// `POST` of `body` by curl with the certificate of `tls`.
async fn post(fixture: &Fixture, tls: &CertificateFiles, operation: &str, media_type: &str, body: &str) -> Answer {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--http2", "--max-time", "20"]);
    command.arg("--cacert").arg(&tls.ca).arg("--cert").arg(&tls.certificate).arg("--key").arg(&tls.key);
    command.args(["--header", &format!("Content-Type: {media_type}"), "--data-binary", body]);
    command.args(["--write-out", "\n%{http_code} %{http_version} %{content_type}"]);
    command.arg(format!("{}/naanf-akma/v1/{operation}", fixture.root()));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, told) = text.rsplit_once('\n').unwrap();
    let mut told = told.split(' ');
    Answer {
        status: told.next().unwrap().parse().unwrap(),
        version: told.next().unwrap().to_owned(),
        media_type: told.next().unwrap_or_default().to_owned(),
        body: (!body.is_empty()).then(|| serde_json::from_str(body).unwrap()),
    }
}

async fn post_json(fixture: &Fixture, tls: &CertificateFiles, operation: &str, body: &Value) -> Answer {
    post(fixture, tls, operation, "application/json", &body.to_string()).await
}

#[tokio::test]
async fn an_ausf_of_another_make_registers_a_supi_or_a_gpsi_and_removes_what_it_registered() {
    let fixture = Fixture::start().await;
    let ausf = fixture.authority.issue(AUSF, &[]);
    let af = fixture.authority.issue(INSIDE_AF, &[]);
    let ask = json!({"afId": format!("{INSIDE}:0100000007"), "aKId": A_KID});
    for (identity, member) in [(json!(SUPI), "supi"), (json!("msisdn-491700000001"), "gpsi")] {
        let mut info = json!({"suppFeat": "3", "aKId": A_KID, "kAkma": K_AKMA});
        info[member] = identity.clone();
        // Members that this release does not know are of a later one, and harmless.
        info["laterMember"] = json!({"any": [1, 2, 3]});
        let registered = post_json(&fixture, &ausf, "register-anchorkey", &info).await;
        assert_eq!((registered.status, registered.version.as_str()), (200, "2"));
        assert_eq!(registered.media_type, "application/json");
        let body = registered.body.unwrap();
        assert_eq!((&body["aKId"], &body["kAkma"], &body[member]), (&json!(A_KID), &json!(K_AKMA), &identity));
        assert_eq!(body["suppFeat"], "1", "the features of both sides");

        let data = post_json(&fixture, &af, "retrieve-applicationkey", &ask).await;
        assert_eq!(data.status, 200);
        let data = data.body.unwrap();
        assert_eq!(data[member], identity);
        assert!(data["kaf"].is_string() && data["expiry"].is_string());
        if member == "supi" {
            let removed = post_json(&fixture, &ausf, "remove-context", &json!({"supi": identity})).await;
            assert_eq!((removed.status, removed.body), (204, None));
            let gone = post_json(&fixture, &af, "retrieve-applicationkey", &ask).await;
            assert_eq!((gone.status, gone.body), (204, None));
        }
    }
}

#[tokio::test]
async fn what_the_contract_does_not_allow_is_refused_in_problem_details() {
    let fixture = Fixture::start().await;
    let ausf = fixture.authority.issue(AUSF, &[]);
    let both = json!({"supi": SUPI, "gpsi": "msisdn-491700000001", "aKId": A_KID, "kAkma": K_AKMA}).to_string();
    let neither = json!({"aKId": A_KID, "kAkma": K_AKMA}).to_string();
    let features = json!({"supi": SUPI, "aKId": A_KID, "kAkma": K_AKMA, "suppFeat": "0x1"}).to_string();
    let large = json!({"supi": SUPI, "aKId": A_KID, "kAkma": K_AKMA, "filler": "x".repeat(100_000)}).to_string();
    let json = "application/json";
    for (operation, media_type, body, status, cause) in [
        ("register-anchorkey", json, both.as_str(), 400, Some("MANDATORY_IE_INCORRECT")),
        ("register-anchorkey", json, &neither, 400, Some("MANDATORY_IE_MISSING")),
        ("register-anchorkey", json, &features, 400, Some("MANDATORY_IE_INCORRECT")),
        ("register-anchorkey", json, "{\"supi\":", 400, Some("INVALID_MSG_FORMAT")),
        ("register-anchorkey", json, &large, 413, None),
        ("register-anchorkey", "text/plain", &neither, 415, None),
        ("remove-context", json, "{}", 400, Some("MANDATORY_IE_MISSING")),
        ("retrieve-applicationkey", json, "[]", 400, Some("MANDATORY_IE_INCORRECT")),
        ("no-such-operation", json, "{}", 404, Some("RESOURCE_URI_STRUCTURE_NOT_FOUND")),
    ] {
        let answer = post(&fixture, &ausf, operation, media_type, body).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(answer.status, status, "{operation} {shown}");
        assert_eq!(answer.media_type, "application/problem+json", "{operation} {shown}");
        let problem = answer.body.unwrap();
        assert_eq!(problem["status"], status, "{operation} {shown}");
        assert_eq!(problem["cause"].as_str(), cause, "{operation} {shown}");
    }
}
